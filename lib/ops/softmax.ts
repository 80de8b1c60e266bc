/** softmax and logSoftmax along one axis. Statistics are float32 whatever the dtype. */
import { type DType, type FloatOf, floatOf } from '../core/dtype'
import { checkAxis } from '../core/shape'
import { native, type View } from '../native/call'
import { arg, converted, emptyLike, type Tensor, taped } from './op'

/** The tensor with `axis` exchanged with the last axis, for native calls that work along the last one. */
function lastAxis(a: Tensor, axis: number): View {
  const last = a.rank - 1
  if (axis === last) return a
  const swap = (list: readonly number[]) =>
    list.map((value, i) => (i === axis ? list[last] : i === last ? list[axis] : value) as number)
  return { buffer: a.buffer, code: a.code, shape: swap(a.shape), strides: swap(a.strides), offset: a.offset }
}

type Rows = (out: View, a: View) => void
type RowsGrad = (out: View, grad: View, y: View) => void

function rows<D extends DType>(
  op: string,
  call: Rows,
  gradCall: RowsGrad,
  a: Tensor<D>,
  axis: number,
): Tensor<FloatOf<D>> {
  const x = arg(op, 'a', a)
  const along = checkAxis(op, axis, x.rank)
  const dtype = floatOf(x.dtype)
  const out = emptyLike(x, dtype)
  call(lastAxis(out, along), lastAxis(converted(x, dtype), along))
  return taped(op, out, [x], (grad) => {
    const da = emptyLike(out, dtype)
    gradCall(lastAxis(da, along), lastAxis(grad, along), lastAxis(out, along))
    return [da]
  })
}

/**
 * e^a / sum(e^a) along `axis` (default: the last), computed on a - max(a) so that nothing overflows. Integers and bool
 * are computed as float32. A line that is all -Infinity gives NaN, as does one that holds NaN.
 *
 * @throws ShapeError when the axis does not exist
 */
export function softmax<D extends DType>(a: Tensor<D>, axis = -1): Tensor<FloatOf<D>> {
  return rows('softmax', native.softmax, native.softmaxGrad, a, axis)
}

/** log(softmax(a)) along `axis` (default: the last), accurate where softmax underflows. Otherwise as softmax. */
export function logSoftmax<D extends DType>(a: Tensor<D>, axis = -1): Tensor<FloatOf<D>> {
  return rows('logSoftmax', native.logSoftmax, native.logSoftmaxGrad, a, axis)
}
