/** Where tensors may go: `to('float16')`, `to('cpu')`, and honest words about everything else. */
import { type DType, isDType } from '../core/dtype'
import { ArgumentError, DeviceError, show } from '../core/errors'

export type Device = 'cpu'

/** What `to(destination)` asks for: a dtype, or null for the device where everything already is. */
export function destinationDType(op: string, destination: unknown): DType | null {
  if (isDType(destination)) return destination
  if (destination === 'cpu') return null
  if (typeof destination === 'string' && /^cuda(:\d+)?$/.test(destination)) {
    throw new DeviceError(`${op}: no CUDA device: this build has no CUDA backend yet`)
  }
  throw new ArgumentError(`${op}: expected a dtype or 'cpu', got ${show(destination)}`)
}
