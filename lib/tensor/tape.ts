/** The tape: what backward() needs of every op that was recorded. It knows no op. */
import type { Tensor } from './tensor'

export interface TapeNode {
  readonly op: string
  readonly inputs: readonly Tensor[]
  /** Gradients of the inputs from the gradient of the output; null for inputs that need none. */
  readonly vjp: (grad: Tensor) => readonly (Tensor | null)[]
  /** Order of recording: a node's inputs have smaller numbers. */
  readonly sequence: number
  /** backward() has used it and let its tensors go. */
  released: boolean
}

let sequence = 0

/** Records that `out` came from `inputs`. */
export function record(out: Tensor, op: string, inputs: readonly Tensor[], vjp: TapeNode['vjp']): void {
  out.requiresGrad = true
  out.node = { op, inputs, vjp, sequence: sequence++, released: false }
}
