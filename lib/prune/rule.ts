/** What a rule of an op is: how it carries axes of its inputs to those of its result. */
import type { Shape } from '../core/shape'
import type { Tensor } from '../tensor/tensor'
import type { Axis, Neurons } from './neurons'

/** A tensor of the tape with its axes. */
export interface Traced {
  tensor: Tensor
  shape: Shape
  axes: readonly Axis[]
}

/**
 * What an op was found to do: the axes of its result from those of its inputs. It serves again when weights have become
 * smaller, where sizes alone could be read in another way; null when it does not fit then.
 */
export type Carry = (out: Tensor, inputs: readonly Traced[]) => Axis[] | null

/** Finds out what an op does, from what is on the tape, and ties and fixes what it ties and fixes. */
export type Rule = (op: string, out: Tensor, inputs: readonly Traced[], neurons: Neurons) => Carry

/** For an op whose effect is not known: nothing may be taken from what goes into it. */
export const notFollowed: Rule = (op, _out, inputs, neurons) => giveUp(`op '${op}' is not followed`, inputs, neurons)

/** Nothing may be taken from what goes in, nor from what comes out. */
export function giveUp(reason: string, inputs: readonly Traced[], neurons: Neurons): Carry {
  for (const { axes } of inputs) for (const axis of axes) neurons.fix(axis, reason)
  return (out) => out.shape.map(() => reason)
}
