// An op of ONNX in terms of kerf's, and how far the two results may be apart. Both sides round: the expected values come
// from float32 numpy, so a bound is the sum of what docs/numerics.md says of kerf and of what numpy's formula may lose.
import type { Tensor } from '#lib/tensor/tensor'
import type { Nd } from '../oracle/array'
import { ulp, unit } from '../oracle/float'
import type { Call } from './call'

export type Run = (call: Call) => Tensor | readonly Tensor[]
/** The largest difference for an element of an output. */
export type Bound = (call: Call, want: Nd, output: number) => (flat: number) => number

export interface Adapter {
  /** The node's outputs, in its order; those at the end may be left out when nothing reads them. */
  run: Run
  bound: Bound
}
export type Adapters = Readonly<Record<string, Adapter>>

/** Unit roundoff of float32: the relative error of one rounding. */
export const U = unit('float32')
/** numpy's vectorised float32 functions are within 4 ulp (its SVML loops). */
export const NUMPY_ULPS = 4

/** Nothing is rounded, or both sides round the same real number once. */
export function exact(run: Run): Adapter {
  return { run, bound: () => () => 0 }
}

/** Within n ulp of float32. */
export function ulps(n: number, run: Run): Adapter {
  return { run, bound: (_call, want) => (flat) => n * ulp('float32', want.data[flat] as number) }
}

/** Within n roundings of quantities as large as `size` says, an element at a time: where terms may cancel. */
export function roundings(n: number | ((call: Call) => number), size: (call: Call, want: Nd) => Nd, run: Run): Adapter {
  return {
    run,
    bound: (call, want) => {
      const { data } = size(call, want)
      if (data.length !== want.data.length) throw new Error(`${data.length} bounds for ${want.data.length} elements`)
      const count = typeof n === 'number' ? n : n(call)
      return (flat) => count * U * (data[flat] as number)
    },
  }
}

/** Within what `bound` says. */
export function within(bound: Bound, run: Run): Adapter {
  return { run, bound }
}

export const unary =
  (f: (a: Tensor) => Tensor): Run =>
  (call) =>
    f(call.input(0))

export const binary =
  (f: (a: Tensor, b: Tensor) => Tensor): Run =>
  (call) =>
    f(call.input(0), call.input(1))

export const variadic =
  (f: (a: Tensor, b: Tensor) => Tensor): Run =>
  (call) =>
    call.inputs().reduce((a, b) => f(a, b))

/** An axis as a number from 0. */
export function positive(axis: number, rank: number): number {
  return axis < 0 ? axis + rank : axis
}

/** The axes first, first + 1, ... of a tensor. */
export function axesFrom(first: number, rank: number): number[] {
  return Array.from({ length: rank - first }, (_, i) => first + i)
}
