/** Reductions beyond sum and mean: variance, std, argmax, argmin, any, all; and the running sum. */
import { type DType, type FloatOf, floatOf, type SumOf, sumOf } from '../core/dtype'
import { ShapeError } from '../core/errors'
import { checkAxis, checkNumber, showShape } from '../core/shape'
import { native, type View } from '../native/call'
import { div, eq, gt, mul, ne, sub, where } from './arithmetic'
import { arg, castTo, converted, empty, emptyLike, type Tensor, taped } from './op'
import { type Axes, mean, type ReduceOptions, reduce, reducedShapes, sum } from './reduce'
import { flip, reshape } from './shape'

export interface VarianceOptions extends ReduceOptions {
  /** Taken off the number of elements that the squares are divided by: 1 (default) is unbiased, 0 the population's. */
  correction?: number
}

/** How many elements of `a` are folded into each of `out`, less the correction. */
function degrees(a: Tensor, out: Tensor, correction: number): number {
  return Math.max(a.size / out.size - correction, 0)
}

function centred(a: Tensor, axes: readonly number[]): Tensor {
  return sub(a, mean(a, axes, { keepdim: true }))
}

/**
 * The variance over one axis, several, or all: sum((a - mean)^2) / (n - correction). NaN when n - correction is 0 and
 * nothing can be said. Integers are computed as float32.
 */
export function variance<D extends DType>(
  a: Tensor<D>,
  axis?: Axes,
  options: VarianceOptions = {},
): Tensor<FloatOf<D>> {
  const x = arg('variance', 'a', a)
  const correction = checkNumber('variance', 'correction', options.correction ?? 1)
  const dtype = floatOf(x.dtype)
  const call = (out: View, from: View) => native.variance(out, from, correction)
  return reduce('variance', call, converted(x, dtype), axis, options, dtype, (grad, input, out, axes) =>
    mul(centred(input, axes), mul(grad, 2 / degrees(input, out, correction))),
  ) as Tensor<FloatOf<D>>
}

/** The square root of variance, with the same options. Its gradient is 0 where it is 0. */
export function std<D extends DType>(a: Tensor<D>, axis?: Axes, options: VarianceOptions = {}): Tensor<FloatOf<D>> {
  const x = arg('std', 'a', a)
  const correction = checkNumber('std', 'correction', options.correction ?? 1)
  const dtype = floatOf(x.dtype)
  // Through float32, because the square of a float16 deviation above 255 is beyond float16. Both casts are on the tape.
  const wide = x.dtype === 'float32' ? x : castTo(x, 'float32')
  const call = (out: View, from: View) => {
    native.variance(out, from, correction)
    native.sqrt(out, out)
  }
  const root = reduce('std', call, wide, axis, options, 'float32', (grad, input, out, axes) => {
    const scale = where(eq(out, 0), 0, div(grad, mul(out, degrees(input, out, correction))))
    return mul(centred(input, axes), scale)
  })
  return (dtype === 'float32' ? root : castTo(root, dtype)) as Tensor<FloatOf<D>>
}

type Arg = (out: View, a: View, axis: number) => void

function position(
  op: string,
  call: Arg,
  a: Tensor,
  axis: number | null | undefined,
  options: ReduceOptions,
): Tensor<'int64'> {
  const x = arg(op, 'a', a)
  if (axis === undefined || axis === null) {
    const flat = position(op, call, reshape(x, [-1]), 0, {})
    return options.keepdim ? reshape(flat, new Array<number>(x.rank).fill(1)) : flat
  }
  const along = checkAxis(op, axis, x.rank)
  if (x.shape[along] === 0)
    throw new ShapeError(`${op}: nothing to choose from over axis ${along} of ${showShape(x.shape)}`)
  const { kept, dropped } = reducedShapes(x.shape, [along])
  const out = empty('int64', kept, x.device)
  call(out, x, along)
  return options.keepdim ? out : reshape(out, dropped)
}

/**
 * The position of the largest element along `axis`, as int64; without an axis, its position in row-major order. The
 * first of equal ones; NaN counts as largest.
 *
 * @throws ShapeError when there is nothing to choose from
 */
export function argmax(a: Tensor, axis?: number | null, options: ReduceOptions = {}): Tensor<'int64'> {
  return position('argmax', native.argmax, a, axis, options)
}

/** The position of the smallest element, as argmax; NaN counts as smallest. */
export function argmin(a: Tensor, axis?: number | null, options: ReduceOptions = {}): Tensor<'int64'> {
  return position('argmin', native.argmin, a, axis, options)
}

/** The sums of the first 1, 2, 3, ... elements along `axis`. Integers and bool give int64. */
export function cumsum<D extends DType>(a: Tensor<D>, axis: number): Tensor<SumOf<D>> {
  const x = arg('cumsum', 'a', a)
  const along = checkAxis('cumsum', axis, x.rank)
  const out = emptyLike(x, sumOf(x.dtype))
  native.cumsum(out, x, along)
  return taped('cumsum', out, [x], (grad) => [flip(cumsum(flip(grad, along), along), along)])
}

/** Whether any element is not zero (NaN is not zero); false over no elements. */
export function any(a: Tensor, axis?: Axes, options: ReduceOptions = {}): Tensor<'bool'> {
  return gt(sum(ne(arg('any', 'a', a), 0), axis, options), 0)
}

/** Whether no element is zero; true over no elements. */
export function all(a: Tensor, axis?: Axes, options: ReduceOptions = {}): Tensor<'bool'> {
  return eq(sum(eq(arg('all', 'a', a), 0), axis, options), 0)
}
