/** Reductions over one axis, several, or all (no axis given). */
import { type DType, dtypeCode, type FloatOf, floatOf, type SumOf, sumOf } from '../core/dtype'
import { ShapeError } from '../core/errors'
import { checkAxes, type Shape, sameShape, showShape } from '../core/shape'
import { native, type View } from '../native/call'
import { div, eq, mul } from './arithmetic'
import { arg, converted, empty, type Tensor, taped } from './op'
import { expand, reshape } from './shape'

export type Axes = number | readonly number[] | null
export interface ReduceOptions {
  /** Keep reduced axes with size 1. Default false. */
  keepdim?: boolean
}

/** The shape with the given axes set to 1, and with them taken out. */
export function reducedShapes(shape: Shape, axes: readonly number[]): { kept: number[]; dropped: number[] } {
  const kept = shape.map((size, i) => (axes.includes(i) ? 1 : size))
  return { kept, dropped: shape.filter((_, i) => !axes.includes(i)) }
}

type Rule = (grad: Tensor, x: Tensor, out: Tensor, axes: readonly number[]) => Tensor

/** `rule` gets the gradient and the result with reduced axes kept as 1. */
export function reduce(
  op: string,
  call: (out: View, a: View) => void,
  a: Tensor,
  axis: Axes | undefined,
  options: ReduceOptions,
  dtype: DType,
  rule: Rule,
): Tensor {
  const axes = checkAxes(op, axis, a.rank)
  const { kept, dropped } = reducedShapes(a.shape, axes)
  const out = empty(dtype, options.keepdim ? kept : dropped, a.device)
  const whole = options.keepdim ? out : keptView(out, kept)
  call(whole, a)
  return taped(op, out, [a], (grad) => [rule(reshape(grad, kept), a, reshape(out, kept), axes)])
}

// The same bytes with the reduced axes as 1, for the native call.
function keptView(out: Tensor, kept: number[]): View {
  let step = 1
  const strides = new Array<number>(kept.length)
  for (let i = kept.length - 1; i >= 0; i--) {
    strides[i] = step
    step *= kept[i] as number
  }
  return { buffer: out.buffer, code: dtypeCode[out.dtype], shape: kept, strides, offset: out.offset }
}

/** The sum. Integers and bool sum to int64; float16 and bfloat16 accumulate in float32. */
export function sum<D extends DType>(a: Tensor<D>, axis?: Axes, options: ReduceOptions = {}): Tensor<SumOf<D>> {
  const x = arg('sum', 'a', a)
  return reduce('sum', native.sum, x, axis, options, sumOf(x.dtype), (g, input) => expand(g, input.shape)) as Tensor<
    SumOf<D>
  >
}

/** The mean, as a float (integers are averaged as float32); NaN over no elements. */
export function mean<D extends DType>(a: Tensor<D>, axis?: Axes, options: ReduceOptions = {}): Tensor<FloatOf<D>> {
  const x = arg('mean', 'a', a)
  const dtype = floatOf(x.dtype)
  const source = x.dtype === dtype ? x : converted(x, dtype)
  const rule: Rule = (g, input, out) => expand(mul(g, out.size / input.size), input.shape)
  return reduce('mean', native.mean, source, axis, options, dtype, rule) as Tensor<FloatOf<D>>
}

function extreme(op: 'max' | 'min', a: Tensor, axis: Axes | undefined, options: ReduceOptions): Tensor {
  const x = arg(op, 'a', a)
  const axes = checkAxes(op, axis, x.rank)
  if (axes.some((i) => x.shape[i] === 0))
    throw new ShapeError(`${op}: nothing to choose from over axis ${axes.join(', ')} of ${showShape(x.shape)}`)
  // Equal extremes share the gradient evenly, as PyTorch's amax does.
  const rule: Rule = (g, input, out, over) => {
    const hit = converted(eq(input, out), g.dtype)
    return mul(hit, div(g, sum(hit, over as number[], { keepdim: true }))) as Tensor
  }
  return reduce(op, native[op], x, axis, options, x.dtype, rule)
}

/** The largest element; NaN if there is one. */
export function max<D extends DType>(a: Tensor<D>, axis?: Axes, options: ReduceOptions = {}): Tensor<D> {
  return extreme('max', a, axis, options) as Tensor<D>
}

/** The smallest element; NaN if there is one. */
export function min<D extends DType>(a: Tensor<D>, axis?: Axes, options: ReduceOptions = {}): Tensor<D> {
  return extreme('min', a, axis, options) as Tensor<D>
}

/** @internal Sums a gradient back to the shape that was broadcast. */
export function sumTo(grad: Tensor, shape: Shape): Tensor {
  if (sameShape(grad.shape, shape)) return grad
  const lead = grad.rank - shape.length
  const axes: number[] = []
  for (let i = 0; i < grad.rank; i++) {
    if (i < lead || (shape[i - lead] === 1 && grad.shape[i] !== 1)) axes.push(i)
  }
  return reshape(sum(grad, axes, { keepdim: true }), shape as number[]) as Tensor
}
