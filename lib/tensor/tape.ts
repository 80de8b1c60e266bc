/** The tape: what backward() needs of every op that was recorded. It knows no op. */
import type { Tensor } from './tensor'

export interface TapeNode {
  readonly op: string
  inputs: readonly Tensor[]
  /** Gradients of the inputs from the gradient of the output; null for inputs that need none. */
  vjp: (grad: Tensor) => readonly (Tensor | null)[]
  /** Order of recording: a node's inputs have smaller numbers. */
  readonly sequence: number
  /**
   * For a node that stands for a whole graph (a checkpoint): runs that again and answers its result, recorded. It must come
   * from the node's inputs, from leaves, and from what was recorded before the node.
   */
  replay: (() => Tensor) | null
  /** backward() has used it and let its tensors go. */
  released: boolean
}

let sequence = 0

/** Records that `out` came from `inputs`. */
export function record(out: Tensor, op: string, inputs: readonly Tensor[], vjp: TapeNode['vjp']): void {
  out.requiresGrad = true
  out.node = { op, inputs, vjp, sequence: sequence++, replay: null, released: false }
}

/** The number that the next node will have. */
export function nextSequence(): number {
  return sequence
}

const released = () => {
  throw new Error('a released node has no rule')
}

/** Lets go of what the node kept alive: its inputs and whatever its rule captured. */
export function releaseNode(node: TapeNode): void {
  node.released = true
  node.inputs = []
  node.vjp = released
  node.replay = null
}
