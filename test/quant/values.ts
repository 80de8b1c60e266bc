// Values to calibrate on, and what quantization makes of them.
import fc from 'fast-check'
import t from 'tap'
import { affineOf, type Convention, type QuantDType, roundHalfEven } from '#lib/core/quantization'
import type { Observer, Range } from '#lib/quant/calibration'
import { generator } from '../matrix'

export const seed = fc.integer({ min: 1, max: 1e6 })

export const f32 = (...values: number[]) => Float32Array.from(values)
export const sample = (n: number, draw: (i: number) => number) => Float32Array.from({ length: n }, (_, i) => draw(i))

export function normals(seed: number): () => number {
  const next = generator(seed)
  return () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next())
}

export function laplace(seed: number): () => number {
  const next = generator(seed)
  return () => Math.log(1 - next()) * (next() < 0.5 ? 1 : -1)
}

/** Student's t with 3 degrees of freedom. */
export function student(seed: number): () => number {
  const z = normals(seed)
  return () => z() / Math.sqrt((z() ** 2 + z() ** 2 + z() ** 2) / 3)
}

export function rangeOf(observer: Observer, ...batches: Float32Array[]): Range {
  for (const batch of batches) observer.observe(batch)
  return observer.range()
}

/** The mean squared error of values quantized with the scale of a range. */
export function errorOf(
  values: Float32Array,
  range: Range,
  convention: Convention,
  dtype: QuantDType = 'int8',
): number {
  const { scale, zeroPoint, qmin, qmax } = affineOf(range.min, range.max, dtype, convention)
  let sum = 0
  for (const x of values) {
    const q = Math.min(qmax, Math.max(qmin, roundHalfEven(x / scale) + zeroPoint))
    sum += ((q - zeroPoint) * scale - x) ** 2
  }
  return sum / values.length
}

/** The width of bins that the documentation promises. */
export function binWidth(values: Float32Array, bins: number): number {
  const amax = values.reduce((most, x) => Math.max(most, Math.abs(x)), 0)
  let width = 1
  while (amax / width < bins) width /= 2
  while (amax / width >= 2 * bins) width *= 2
  return width
}

export function holds<T>(name: string, property: fc.IProperty<T>, numRuns: number): void {
  t.test(name, (t) => {
    const result = fc.check(property, { seed: 20240229, numRuns })
    t.notOk(result.failed, fc.defaultReportMessage(result) ?? name)
    t.end()
  })
}
