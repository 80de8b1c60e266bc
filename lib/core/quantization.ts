/** The arithmetic of affine quantization that needs no tensors: granularities, and scale and zero point from a range. */
import { ArgumentError, show } from './errors'
import { checkAxis, type Shape } from './shape'

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
 * How a scale follows from a range. References disagree on symmetric formats:
 *
 * - `'narrow'`, our default for weights: scale = amax / 127, values in [-127, 127] (TensorRT, onnxruntime's weights)
 * - `'pytorch'`: scale = amax / 127.5, values in [-128, 127]
 * - `'noClip'`: scale = max(min / qmin, max / qmax), values in [-128, 127]: neither end is clipped
 * - `'extreme'`, our default for int4: scale = extreme / qmin, extreme being the end of larger magnitude with its sign
 *   (llama.cpp's Q4_0): all codes are used, the scale may be negative, and a value opposite the extreme, beyond 7.5 steps,
 *   is off by up to one step instead of half of one. Mean squared error on normal weights: 0.77 of `'narrow'`'s
 * - `'affine'`: scale = (max - min) / (qmax - qmin) with a zero point; the range is widened to hold 0
 *
 * The symmetric ones have zero point 0 and signed formats; for int4 the same with 7, 7.5 and [-8, 7].
 */
export const conventions = ['narrow', 'pytorch', 'noClip', 'extreme', 'affine'] as const
export type Convention = (typeof conventions)[number]

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
    const scale = low === high ? 1 : checkScale(f(f(high - low) / (qmax - qmin)), min, max)
    const zeroPoint = roundHalfEven(Math.min(qmax, Math.max(qmin, f(qmin - f(low / scale)))))
    return { scale, zeroPoint, qmin, qmax }
  }
  if (qmin === 0)
    throw new ArgumentError(`quantization: the convention '${convention}' needs a signed format, got ${dtype}`)
  const amax = Math.max(Math.abs(f(min)), Math.abs(f(max)))
  if (convention === 'narrow') qmin = -qmax
  const extreme = f(max) > -f(min) ? f(max) : f(min)
  const scale =
    convention === 'extreme'
      ? f(extreme / qmin)
      : convention === 'narrow'
        ? f(amax / qmax)
        : convention === 'pytorch'
          ? f(amax / (qmax + 0.5))
          : f(Math.max(f(min) / qmin, f(max) / qmax))
  return { scale: amax === 0 ? 1 : checkScale(scale, min, max), zeroPoint: 0, qmin, qmax }
}

export const SMALLEST_FLOAT32 = 2 ** -149
export const LARGEST_FLOAT32 = 2 ** 128 - 2 ** 104

/** A range of a few subnormals has the smallest scale there is; one wider than float32 has none. */
function checkScale(scale: number, min: number, max: number): number {
  if (!Number.isFinite(scale))
    throw new ArgumentError(`quantization: the range [${min}, ${max}] is too wide for a float32 scale`)
  return scale === 0 ? SMALLEST_FLOAT32 : scale
}

/** To the nearest integer, ties to the even one: what the kernels do. */
export function roundHalfEven(x: number): number {
  const low = Math.floor(x)
  const rest = x - low
  return rest < 0.5 ? low : rest > 0.5 ? low + 1 : low % 2 === 0 ? low : low + 1
}

/** 'per tensor', 'per channel(0)', 'per group(32)', 'per token'. */
export function showGranularity(granularity: Granularity): string {
  switch (granularity.kind) {
    case 'channel':
      return `per channel(${granularity.axis})`
    case 'group':
      return `per group(${granularity.size})`
    default:
      return `per ${granularity.kind}`
  }
}

/** Throws unless it is a granularity; for `rank` axes, also unless it fits them. */
export function checkGranularity(op: string, granularity: unknown, rank: number): Granularity {
  const g = granularity as Granularity
  const kind = typeof granularity === 'object' && granularity !== null ? g.kind : undefined
  if (kind === undefined || !['tensor', 'token', 'channel', 'group'].includes(kind)) {
    throw new ArgumentError(
      `${op}: granularity must be perTensor, perToken, perChannel(axis) or perGroup(size), got ${show(granularity)}`,
    )
  }
  if (g.kind === 'channel') perChannel(checkAxis(op, g.axis, rank))
  if (g.kind === 'group') perGroup(g.size)
  if (g.kind !== 'tensor' && g.kind !== 'channel' && rank === 0)
    throw new ArgumentError(`${op}: ${showGranularity(g)} needs at least one axis`)
  return g
}

/** The shape of the scales of a tensor; see {@link Granularity}. */
export function scaleShape(op: string, granularity: Granularity, shape: Shape): number[] {
  const g = checkGranularity(op, granularity, shape.length)
  const lead = shape.slice(0, -1)
  switch (g.kind) {
    case 'tensor':
      return []
    case 'channel':
      return [shape[checkAxis(op, g.axis, shape.length)] as number]
    case 'token':
      return lead
    case 'group':
      return [...lead, Math.ceil((shape[shape.length - 1] as number) / g.size)]
  }
}
