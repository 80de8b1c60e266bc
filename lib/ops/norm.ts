/** Normalisations over the last axes. Statistics are float32 whatever the dtype. */
import { type DType, type FloatOf, floatOf } from '../core/dtype'
import { ShapeError } from '../core/errors'
import { checkNumber, checkShape, type Shape, sameShape, showShape, sizeOf } from '../core/shape'
import { native } from '../native/call'
import { arg, converted, empty, emptyLike, type Tensor, taped } from './op'
import { reshape } from './shape'

interface Rows {
  x: Tensor
  weight: Tensor | null
  bias: Tensor | null
}

/** The tensor as [..., n], where n counts the normalised elements, with weight and bias as [n]. */
function rowsOf(
  op: string,
  a: Tensor,
  normalizedShape: unknown,
  weight: Tensor | null | undefined,
  bias: Tensor | null | undefined,
): Rows {
  const x = arg(op, 'a', a)
  const axes = checkShape(op, normalizedShape)
  const lead = x.rank - axes.length
  if (axes.length === 0 || lead < 0 || !sameShape(x.shape.slice(lead), axes)) {
    throw new ShapeError(`${op}: normalizedShape ${showShape(axes)} does not end the shape ${showShape(x.shape)}`)
  }
  const merged = [sizeOf(axes)]
  const flat = (name: string, t: Tensor | null | undefined): Tensor | null => {
    if (t === null || t === undefined) return null
    const given = arg(op, name, t)
    if (!sameShape(given.shape, axes))
      throw new ShapeError(`${op}: ${name} must have shape ${showShape(axes)}, got ${showShape(given.shape)}`)
    return axes.length === 1 ? given : reshape(given, merged)
  }
  const rows = axes.length === 1 ? x : reshape(x, [...x.shape.slice(0, lead), ...merged])
  return { x: rows, weight: flat('weight', weight), bias: flat('bias', bias) }
}

function back(out: Tensor, shape: Shape): Tensor {
  return sameShape(out.shape, shape) ? out : reshape(out, shape)
}

/** Weight or bias as the kernels read it. */
function asFloat32(t: Tensor | null): Tensor | null {
  return t && converted(t, 'float32')
}

function gradOf(t: Tensor | null): Tensor<'float32'> | null {
  return t?.requiresGrad ? empty('float32', t.shape, t.device) : null
}

/**
 * (a - mean) / sqrt(variance + eps) * weight + bias, over the last axes, which `normalizedShape` repeats; the variance is
 * the biased one (divided by n). As PyTorch's layer_norm.
 *
 * @param normalizedShape sizes of the last axes, or the last size alone
 * @param weight of shape normalizedShape; none multiplies by 1
 * @param bias of shape normalizedShape; none adds 0
 * @throws ShapeError when normalizedShape does not end a's shape, or weight or bias have another shape
 */
export function layerNorm<D extends DType>(
  a: Tensor<D>,
  normalizedShape: number | readonly number[],
  weight?: Tensor | null,
  bias?: Tensor | null,
  eps = 1e-5,
): Tensor<FloatOf<D>> {
  checkNumber('layerNorm', 'eps', eps)
  const { x, weight: w, bias: b } = rowsOf('layerNorm', a, normalizedShape, weight, bias)
  const dtype = floatOf(x.dtype)
  const source = converted(x, dtype)
  const out = emptyLike(x, dtype)
  const mean = empty('float32', x.shape.slice(0, -1), x.device)
  const rstd = empty('float32', mean.shape, x.device)
  native.layerNorm(out, mean, rstd, source, asFloat32(w), asFloat32(b), eps)
  const inputs = [x, ...(w ? [w] : []), ...(b ? [b] : [])]
  taped('layerNorm', out, inputs, (grad) => {
    const da = emptyLike(x, dtype)
    const dw = gradOf(w)
    const db = gradOf(b)
    native.layerNormGrad(da, dw, db, grad, source, mean, rstd, asFloat32(w))
    const grads: (Tensor | null)[] = [x.requiresGrad ? da : null]
    if (w) grads.push(dw && converted(dw, w.dtype))
    if (b) grads.push(db && converted(db, b.dtype))
    return grads
  })
  return back(out, a.shape) as Tensor<FloatOf<D>>
}

/** Machine epsilon, the default eps of rmsNorm: 2^-23, 2^-10, 2^-7. */
const epsilon = { float32: 2 ** -23, float16: 2 ** -10, bfloat16: 2 ** -7 }

/**
 * a / sqrt(mean(a^2) + eps) * weight, over the last axes, which `normalizedShape` repeats. As PyTorch's rms_norm
 * (Zhang and Sennrich 2019): no mean is taken off and there is no bias.
 *
 * @param normalizedShape sizes of the last axes, or the last size alone
 * @param weight of shape normalizedShape; none multiplies by 1
 * @param eps default: the machine epsilon of a's dtype
 * @throws ShapeError when normalizedShape does not end a's shape, or weight has another shape
 */
export function rmsNorm<D extends DType>(
  a: Tensor<D>,
  normalizedShape: number | readonly number[],
  weight?: Tensor | null,
  eps?: number | null,
): Tensor<FloatOf<D>> {
  const { x, weight: w } = rowsOf('rmsNorm', a, normalizedShape, weight, null)
  const dtype = floatOf(x.dtype)
  const added = eps === undefined || eps === null ? epsilon[dtype] : checkNumber('rmsNorm', 'eps', eps)
  const source = converted(x, dtype)
  const out = emptyLike(x, dtype)
  const rstd = empty('float32', x.shape.slice(0, -1), x.device)
  native.rmsNorm(out, rstd, source, asFloat32(w), added)
  taped('rmsNorm', out, w ? [x, w] : [x], (grad) => {
    const da = emptyLike(x, dtype)
    const dw = gradOf(w)
    native.rmsNormGrad(da, dw, grad, source, rstd, asFloat32(w))
    const dx = x.requiresGrad ? da : null
    return w ? [dx, dw && converted(dw, w.dtype)] : [dx]
  })
  return back(out, a.shape) as Tensor<FloatOf<D>>
}
