/**
 * What every op does the same way: check its tensors, allocate the output, call the addon, leave its gradient rule on
 * the tape. An op's own file says only what it means: the shape and dtype of the result (infer) and the rule (vjp).
 */
import { type DType, dtypeBytes, isFloat } from '../core/dtype'
import { ArgumentError, DTypeError, show } from '../core/errors'
import { broadcastStrides, type Shape, sameShape } from '../core/shape'
import type { View } from '../native/call'
import { type Autocast, autocastRegion, gradEnabled } from '../tensor/context'
import { record, type TapeNode } from '../tensor/tape'
import { copyTo, empty, keep, Tensor } from '../tensor/tensor'

/** Something that an op takes where a tensor is expected. */
export type TensorLike<D extends DType = DType> = Tensor<D> | number | boolean

/** A live tensor in the precision that autocast wants for the op, or an error that names op and argument. */
export function arg<D extends DType = DType>(op: string, name: string, value: Tensor<D>): Tensor<D> {
  const x = live(op, name, value)
  const region = autocastRegion()
  if (region === null || !isFloat(x.dtype)) return x
  const precision = region.precision.get(op)
  if (precision === undefined) return x
  const wanted = precision === 'lower' ? region.dtype : 'float32'
  // The static dtype is that of the program without autocast.
  return x.dtype === wanted ? x : (castIn(region, x, wanted) as Tensor<DType> as Tensor<D>)
}

/** A cast that is recorded; a weight's is kept for its next use in the region. */
function castIn(region: Autocast, x: Tensor, wanted: DType): Tensor {
  const weight = x.requiresGrad && x.node === null && wanted === region.dtype
  if (!weight) return castTo(x, wanted)
  const { version } = x.storage('autocast')
  const known = region.casts.get(x)
  // One whose graph backward() has let go, or that was made under noGrad, leads no gradient to the weight.
  const usable =
    known !== undefined &&
    known.version === version &&
    known.cast.dtype === wanted &&
    !known.cast.disposed &&
    (known.cast.node === null ? !gradEnabled() : !known.cast.node.released)
  if (usable) return known.cast
  const cast = castTo(x, wanted)
  // Off the tape nobody else holds it: it lives as long as the region, not as long as a scope in it.
  if (cast.node === null) keep(cast)
  region.casts.set(x, { cast, version })
  return cast
}

/** The tensor in another dtype, a new one; recorded between floats. */
export function castTo<D extends DType>(x: Tensor, dtype: D): Tensor<D> {
  const out = copyTo(x, dtype)
  return isFloat(dtype) && isFloat(x.dtype) ? taped('cast', out, [x], (grad) => [copyTo(grad, x.dtype)]) : out
}

/** A live tensor as it is, or an error that names op and argument. */
export function live<D extends DType = DType>(op: string, name: string, value: Tensor<D>): Tensor<D> {
  if (!(value instanceof Tensor)) throw new ArgumentError(`${op}: ${name} must be a tensor, got ${show(value)}`)
  value.storage(op)
  return value
}

/** True when an op on these tensors has to be recorded. */
export function needsGrad(inputs: readonly Tensor[]): boolean {
  if (!gradEnabled()) return false
  for (let i = 0; i < inputs.length; i++) if ((inputs[i] as Tensor).requiresGrad) return true
  return false
}

/** Records `out` on the tape when one of the inputs asks for a gradient; returns `out`. */
export function taped<T extends Tensor>(op: string, out: T, inputs: readonly Tensor[], vjp: TapeNode['vjp']): T {
  if (needsGrad(inputs)) record(out, op, inputs, vjp)
  return observed(op, out)
}

/** Tells the autocast region what ran; returns `out`. */
export function observed<T extends Tensor>(op: string, out: T): T {
  autocastRegion()?.observe?.(op, out.dtype)
  return out
}

/** The tensor read as the larger shape `to`: a view that is never recorded, for native calls. */
export function expandView(a: Tensor, to: Shape): View {
  if (sameShape(a.shape, to)) return a
  return {
    buffer: a.buffer,
    code: a.code,
    shape: to,
    strides: broadcastStrides(a.shape, a.strides, to),
    offset: a.offset,
  }
}

/** The transpose of a matrix, for native calls: no tensor that would share its bytes. */
export function transposedView(a: Tensor): View {
  const [rows, columns] = a.shape as [number, number]
  const [down, right] = a.strides as [number, number]
  return { buffer: a.buffer, code: a.code, shape: [columns, rows], strides: [right, down], offset: a.offset }
}

/** The tensor itself when it has the dtype, else a converted copy (not recorded). */
export function converted<D extends DType>(a: Tensor, dtype: D): Tensor<D> {
  return a.dtype === dtype ? (a as Tensor<D>) : copyTo(a, dtype)
}

/** The tensor itself when it has the dtype and its elements lie one after the other, else a copy (not recorded). */
export function gapless<D extends DType>(a: Tensor, dtype: D): Tensor<D> {
  return a.dtype === dtype && a.contiguous ? (a as Tensor<D>) : copyTo(a, dtype)
}

/** A tensor of the same shape (and dtype, unless given) with uninitialised bytes. */
export function emptyLike<D extends DType>(a: Tensor, dtype: D): Tensor<D> {
  return empty(dtype, a.shape, a.device)
}

/** Where a rule puts what it makes of `grad` element by element: over it if nobody else sees its bytes. `like` has its shape. */
export function overwritten(grad: Tensor, like: Tensor): Tensor {
  return grad.ownsStorage && grad.contiguous && grad.dtype === like.dtype ? grad : emptyLike(like, like.dtype)
}

/** Throws unless the tensor's dtype is one of `allowed`. */
export function checkDTypeOf(op: string, name: string, a: Tensor, allowed: readonly DType[]): void {
  if (!allowed.includes(a.dtype)) throw new DTypeError(`${op}: ${name} must be ${allowed.join(' or ')}, got ${a.dtype}`)
}

export { type DType, dtypeBytes, empty, Tensor }
