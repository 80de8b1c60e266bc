/** The arithmetic of affine quantization that needs no tensors: granularities, and scale and zero point from a range. */
import { ArgumentError, show } from './errors'

/**
 * Which elements share a scale (and zero point). A plain value: compare `kind`.
 *
 * | | scale's shape for a tensor of shape [a, b, c] |
 * |---|---|
 * | `perTensor` | [] |
 * | `perChannel(1)` | [b] |
 * | `perGroup(g)` along the last axis | [a, b, ceil(c / g)] |
 * | `perToken` | [a, b] |
 */
export type Granularity =
  | { readonly kind: 'tensor' }
  | { readonly kind: 'channel'; readonly axis: number }
  | { readonly kind: 'group'; readonly size: number }
  | { readonly kind: 'token' }

/** One scale for the whole tensor. */
export const perTensor: Granularity = Object.freeze({ kind: 'tensor' })
/** One scale for every row: all axes but the last. For activations. */
export const perToken: Granularity = Object.freeze({ kind: 'token' })

/** One scale for every index along `axis`; negative axes count from the end. */
export function perChannel(axis: number): Granularity {
  if (!Number.isInteger(axis)) throw new ArgumentError(`perChannel: axis must be an integer, got ${show(axis)}`)
  return Object.freeze({ kind: 'channel', axis })
}

/** One scale for every `size` neighbours along the last axis; the last group may be shorter. */
export function perGroup(size: number): Granularity {
  if (!Number.isSafeInteger(size) || size < 1)
    throw new ArgumentError(`perGroup: size must be a positive integer, got ${show(size)}`)
  return Object.freeze({ kind: 'group', size })
}

/** Integer formats: int4 and uint4 are stored two a byte. */
export type QuantDType = 'int8' | 'uint8' | 'int4' | 'uint4'

/** The least and largest integer of a format. */
export function integerRange(dtype: QuantDType): { qmin: number; qmax: number } {
  const bits = dtype.endsWith('8') ? 8 : 4
  return dtype.startsWith('u')
    ? { qmin: 0, qmax: 2 ** bits - 1 }
    : { qmin: -(2 ** (bits - 1)), qmax: 2 ** (bits - 1) - 1 }
}

/**
 * How a scale follows from a range. References disagree on symmetric int8:
 *
 * - `'narrow'`, our default for weights: scale = amax / 127, values in [-127, 127] (TensorRT, onnxruntime's weights)
 * - `'pytorch'`: scale = amax / 127.5, values in [-128, 127]
 * - `'noClip'`: scale = max(min / qmin, max / qmax), values in [-128, 127]: neither end is clipped
 * - `'affine'`: scale = (max - min) / (qmax - qmin) with a zero point; the range is widened to hold 0
 *
 * The symmetric ones have zero point 0 and signed formats; for int4 the same with 7, 7.5 and [-8, 7].
 */
export type Convention = 'narrow' | 'pytorch' | 'noClip' | 'affine'

export interface Affine {
  scale: number
  zeroPoint: number
  /** Quantized values are clipped to these. */
  qmin: number
  qmax: number
}

/**
 * Scale and zero point for values in [min, max]. Arithmetic is float32, as in the kernels. A range of zero width at 0
 * gives scale 1.
 *
 * @throws ArgumentError when an end is not finite or they are in the wrong order, or a symmetric convention meets an
 * unsigned format
 */
export function affineOf(min: number, max: number, dtype: QuantDType, convention: Convention): Affine {
  if (!Number.isFinite(min) || !Number.isFinite(max) || min > max)
    throw new ArgumentError(`quantization: the range must be finite and in order, got [${min}, ${max}]`)
  let { qmin, qmax } = integerRange(dtype)
  const f = Math.fround
  if (convention === 'affine') {
    const low = Math.min(0, f(min))
    const high = Math.max(0, f(max))
    const scale = low === high ? 1 : f(f(high - low) / (qmax - qmin))
    const zeroPoint = roundHalfEven(Math.min(qmax, Math.max(qmin, f(qmin - f(low / scale)))))
    return { scale, zeroPoint, qmin, qmax }
  }
  if (qmin === 0)
    throw new ArgumentError(`quantization: the convention '${convention}' needs a signed format, got ${dtype}`)
  const amax = Math.max(Math.abs(f(min)), Math.abs(f(max)))
  if (convention === 'narrow') qmin = -qmax
  const scale =
    convention === 'narrow'
      ? f(amax / qmax)
      : convention === 'pytorch'
        ? f(amax / (qmax + 0.5))
        : f(Math.max(f(min) / qmin, f(max) / qmax))
  return { scale: scale === 0 ? 1 : scale, zeroPoint: 0, qmin, qmax }
}

/** To the nearest integer, ties to the even one: what the kernels do. */
export function roundHalfEven(x: number): number {
  const low = Math.floor(x)
  const rest = x - low
  return rest < 0.5 ? low : rest > 0.5 ? low + 1 : low % 2 === 0 ? low : low + 1
}
