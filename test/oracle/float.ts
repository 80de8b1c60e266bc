// The float formats in plain arithmetic on float64: what kerf's conversions are tested against shares nothing with them.
import type { DType } from '#lib/core/dtype'

interface Format {
  /** Stored bits of the significand. */
  bits: number
  /** Of the smallest normal number. */
  minExponent: number
  /** The first value that rounds to infinity. */
  overflow: number
}

const formats: Record<string, Format> = {
  float32: { bits: 23, minExponent: -126, overflow: 2 ** 128 - 2 ** 103 },
  float16: { bits: 10, minExponent: -14, overflow: 65520 },
  bfloat16: { bits: 7, minExponent: -126, overflow: 2 ** 128 - 2 ** 119 },
}

function exponentOf(x: number): number {
  let e = Math.floor(Math.log2(Math.abs(x)))
  if (2 ** e > Math.abs(x)) e--
  if (2 ** (e + 1) <= Math.abs(x)) e++
  return e
}

/** To the nearest integer, ties to the even one. */
export function halfToEven(x: number): number {
  const low = Math.floor(x)
  const rest = x - low
  return rest < 0.5 ? low : rest > 0.5 ? low + 1 : low % 2 === 0 ? low : low + 1
}

/** The spacing of the format's numbers around x. */
export function ulp(dtype: DType, x: number): number {
  const f = formats[dtype] as Format
  if (x === 0 || !Number.isFinite(x)) return 2 ** (f.minExponent - f.bits)
  return 2 ** (Math.max(exponentOf(x), f.minExponent) - f.bits)
}

/** Half the relative spacing: the largest relative error of one rounding. */
export function unit(dtype: DType): number {
  return 2 ** -((formats[dtype] as Format).bits + 1)
}

/** A number rounded to the dtype, half to even. Integers are expected to be in range already. */
export function roundTo(dtype: DType, x: number): number {
  const f = formats[dtype]
  if (f === undefined) return dtype === 'bool' ? Number(x !== 0) : Math.trunc(x)
  if (!Number.isFinite(x) || x === 0) return x
  if (Math.abs(x) >= f.overflow) return x > 0 ? Infinity : -Infinity
  const step = ulp(dtype, x)
  const rounded = halfToEven(Math.abs(x) / step) * step
  return x < 0 ? -rounded : rounded
}

/** The value of a float16 or bfloat16 bit pattern. */
export function decode(dtype: 'float16' | 'bfloat16', pattern: number): number {
  const f = formats[dtype] as Format
  const sign = pattern & 0x8000 ? -1 : 1
  const biased = (pattern & 0x7fff) >> f.bits
  const fraction = pattern & (2 ** f.bits - 1)
  if (biased === 0x7fff >> f.bits) return fraction === 0 ? sign * Infinity : NaN
  if (biased === 0) return sign * fraction * 2 ** (f.minExponent - f.bits)
  return sign * (1 + fraction / 2 ** f.bits) * 2 ** (biased - 1 + f.minExponent)
}

/**
 * erf in float64: the Maclaurin series near 0, a continued fraction for erfc beyond (Abramowitz and Stegun 7.1.6,
 * 7.1.14).
 */
export function erf(x: number): number {
  if (Number.isNaN(x)) return x
  return Math.abs(x) < 2.5 ? erfSeries(x) : x > 0 ? 1 - erfc(x) : erfc(-x) - 1
}

function erfSeries(x: number): number {
  let term = x
  let sum = x
  for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
    term *= (2 * x * x) / (2 * n + 1)
    sum += term
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum
}

/** 1 - erf(x) without cancellation, for any x. */
export function erfc(x: number): number {
  if (x < 2.5) return 1 - erf(x)
  let f = x
  for (let n = 80; n >= 1; n--) f = x + n / 2 / f
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / f
}
