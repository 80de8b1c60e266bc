/** Where tensors may be and go: `to('float16')`, `to('cpu')`, `to('cuda:1')`. */
import { type DType, isDType } from '../core/dtype'
import { ArgumentError, show } from '../core/errors'
import { checkCuda, finishCuda, finishCudaBlocking } from '../native/cuda'
import { sync, syncBlocking } from '../native/stream'

/** A device as users write it; 'cuda' is 'cuda:0'. */
export type Device = 'cpu' | 'cuda' | `cuda:${number}`
/** A device as tensors have it. */
export type DeviceName = 'cpu' | `cuda:${number}`

/** The number of the GPU; -1 for the CPU. */
export function cudaIndex(device: DeviceName): number {
  return device === 'cpu' ? -1 : Number(device.slice(5))
}

/** The full name of a device that is there, null for what is no device's name. */
export function deviceName(op: string, device: unknown): DeviceName | null {
  if (device === 'cpu') return device
  const match = typeof device === 'string' ? /^cuda(?::(\d{1,4}))?$/.exec(device) : null
  if (match === null) return null
  const index = Number(match[1] ?? 0)
  checkCuda(op, index)
  return `cuda:${index}`
}

/** The full name of a device that is there, or an error that names the op. */
export function checkDevice(op: string, device: unknown): DeviceName {
  const name = deviceName(op, device)
  if (name === null) throw new ArgumentError(`${op}: device must be 'cpu' or 'cuda', got ${show(device)}`)
  return name
}

/** Waits, without blocking the event loop, for everything enqueued on a device. */
export const finish = (device: DeviceName): Promise<void> => (device === 'cpu' ? sync() : finishCuda(cudaIndex(device)))

/** finish(), waiting in place. */
export function finishBlocking(device: DeviceName): void {
  if (device === 'cpu') syncBlocking()
  else finishCudaBlocking(cudaIndex(device))
}

/** What goes to a device as one value though it is no Tensor: weights in a format of their own. */
export interface Movable {
  readonly device: DeviceName
  /** A copy on the device; itself where it is there. */
  to(device: Device): Movable
  dispose(): void
}

export type Destination = { dtype: DType } | { device: DeviceName }

/** What `to(destination)` asks for. */
export function destinationOf(op: string, destination: unknown): Destination {
  if (isDType(destination)) return { dtype: destination }
  const device = deviceName(op, destination)
  if (device === null) throw new ArgumentError(`${op}: expected a dtype, 'cpu' or 'cuda', got ${show(destination)}`)
  return { device }
}
