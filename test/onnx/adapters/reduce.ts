// Reductions, argmax, running sums, and pools that are reductions.
import {
  abs,
  argmax,
  argmin,
  cumsum,
  exp,
  flip,
  log,
  max,
  mean,
  min,
  mul,
  pad,
  type ReduceOptions,
  sqrt,
  sub,
  sum,
  type Tensor,
} from 'kerf'
import * as oracle from '../../oracle/array'
import { type Nd, size } from '../../oracle/array'
import { type Adapter, type Adapters, axesFrom, exact, NUMPY_ULPS, positive, roundings, U, within } from '../adapter'
import type { Call } from '../call'

/** The axes to fold; all of them where none are given, unless the node says that none means none. */
function axesOf(call: Call): number[] {
  const rank = call.input(0).rank
  const given = call.list('axes', 1) ?? []
  if (given.length > 0) return given.map((axis) => positive(axis, rank))
  return call.flag('noop_with_empty_axes') ? [] : axesFrom(0, rank)
}

type Reduce = (a: Tensor, axes: number[], options: ReduceOptions) => Tensor

const folded =
  (f: Reduce) =>
  (call: Call): Tensor =>
    f(call.input(0), axesOf(call), { keepdim: call.flag('keepdims', true) })

/** How many elements become one. */
function count(call: Call): number {
  const { shape } = call.values(0)
  return size(axesOf(call).map((i) => shape[i] as number))
}

/** A fold over the input's elements in float64. */
const foldOf =
  (f: (line: number[]) => number) =>
  (call: Call): Nd =>
    oracle.fold(call.values(0), axesOf(call), f)

const magnitudes = (line: number[]) => oracle.sum(line.map(Math.abs))

/**
 * A sum of float32 numbers in any order loses at most a rounding of the whole an element (Higham, section 4.2); kerf
 * totals in float64 and rounds once. One more each for an input that had to be rounded from float64, and for what
 * numpy does to the elements or the total.
 */
const summed = (line: (values: number[]) => number, f: Reduce): Adapter =>
  roundings((call) => count(call) + 4, foldOf(line), folded(f))

/** The logarithm of a sum: the sum's relative error becomes absolute, then log's own ulps. */
const logarithm = (relative: (call: Call) => Nd, f: Reduce): Adapter =>
  within((call, want) => {
    const { data } = relative(call)
    return (flat) => U * ((data[flat] as number) + 2 * (2 + NUMPY_ULPS) * Math.abs(want.data[flat] as number))
  }, folded(f))

function argument(f: typeof argmax): Adapter {
  return exact((call) => {
    const x = call.input(0)
    const axis = positive(call.number('axis', 0), x.rank)
    const keepdim = call.flag('keepdims', true)
    if (!call.flag('select_last_index')) return f(x, axis, { keepdim })
    return sub((x.shape[axis] as number) - 1, f(flip(x, axis), axis, { keepdim }))
  })
}

/** Sums over the elements before each one only: zero moves in at the front, the whole sum out at the end. */
function shifted(sums: Tensor, axis: number): Tensor {
  const pads = [...axesFrom(axis + 1, sums.rank).flatMap(() => [0, 0]), 1, -1]
  return pad(sums, pads)
}

function runningSum(call: Call): Tensor {
  const x = call.input(0)
  const axis = positive(call.scalar(1), x.rank)
  const turned = (a: Tensor) => (call.flag('reverse') ? flip(a, axis) : a)
  const sums = cumsum(turned(x), axis)
  return turned(call.flag('exclusive') ? shifted(sums, axis) : sums)
}

const spatial = (x: Tensor) => axesFrom(2, x.rank)

export const reductions: Adapters = {
  ReduceSum: summed(magnitudes, sum),
  ReduceMean: summed((line) => magnitudes(line) / line.length, mean),
  ReduceMax: exact(folded(max)),
  ReduceMin: exact(folded(min)),
  ReduceL1: summed(magnitudes, (x, axes, options) => sum(abs(x), axes, options)),
  ReduceL2: summed(
    (line) => Math.hypot(...line),
    (x, axes, options) => sqrt(sum(mul(x, x), axes, options)),
  ),
  ReduceSumSquare: summed(
    (line) => magnitudes(line.map((x) => x * x)),
    (x, axes, options) => sum(mul(x, x), axes, options),
  ),
  ReduceLogSum: logarithm(
    foldOf((line) => ((line.length + 4) * magnitudes(line)) / Math.abs(oracle.sum(line))),
    (x, axes, options) => log(sum(x, axes, options)),
  ),
  // e^x turns the rounding of x from float64 into a relative error of |x| units
  ReduceLogSumExp: logarithm(
    foldOf((line) => line.length + 4 + 2 * (2 + NUMPY_ULPS) + Math.max(...line.map(Math.abs))),
    (x, axes, options) => log(sum(exp(x), axes, options)),
  ),

  ArgMax: argument(argmax),
  ArgMin: argument(argmin),

  // a rounding an element, of all their magnitudes at most
  CumSum: roundings(
    (call) => call.input(0).shape[positive(call.scalar(1), call.input(0).rank)] as number,
    (call, want) => {
      const total = magnitudes(Array.from(call.values(0).data))
      return oracle.map(want, () => total)
    },
    runningSum,
  ),

  GlobalMaxPool: exact((call) => max(call.input(0), spatial(call.input(0)), { keepdim: true })),
}
