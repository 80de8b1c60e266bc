/** Where to clip a histogram before it is quantized. Nothing here clips wider than the values that were seen. */
import { type Affine, affineOf, type Convention, type QuantDType } from '../core/quantization'
import type { Counts, Histogram } from './histogram'

/** Values outside are clipped. */
export interface Range {
  min: number
  max: number
}

/** [low, high] cut down to the values seen; never out of order. */
function within(histogram: Histogram, low: number, high: number): Range {
  const min = Math.min(Math.max(low, histogram.min), histogram.max)
  return { min, max: Math.max(min, Math.min(high, histogram.max)) }
}

/** Leaves (100 - percentile) % of the values outside: of |x| if symmetric, else half of them at either end. */
export function percentileRange(histogram: Histogram, percentile: number, symmetric: boolean): Range {
  const { width, total } = histogram
  if (symmetric) {
    const threshold = cut(histogram.magnitudes(), (total * (100 - percentile)) / 100) * width
    return within(histogram, -threshold, threshold)
  }
  const { counts, first } = histogram.signed()
  const mass = (total * (100 - percentile)) / 200
  const high = first + cut(counts, mass)
  const low = first + counts.length - cut(counts.slice().reverse(), mass)
  return within(histogram, low * width, high * width)
}

/** The place, in bins, that `mass` counts lie to the right of; inside a bin counts are spread evenly. */
function cut(counts: Float64Array, mass: number): number {
  let outside = 0
  for (let k = counts.length - 1; k >= 0; k--) {
    const count = counts[k] as number
    if (outside + count > mass) return k + 1 - (mass - outside) / count
    outside += count
  }
  return 0
}

/** Divergences (nats) nearer than this differ by rounding only: sums of 2^12 terms of about 1e-15 each. */
const SAME_DIVERGENCE = 1e-11

/** The symmetric threshold of least Kullback-Leibler divergence; {@link entropy} says of what. */
export function entropyRange(histogram: Histogram, levels: number): Range {
  const counts = histogram.magnitudes()
  counts[0] = counts[1] as number
  const n = counts.length
  // Sums over the bins before k, so that a candidate costs a step a level and not one a bin.
  const mass = new Float64Array(n + 1)
  const filled = new Float64Array(n + 1)
  const entropies = new Float64Array(n + 1)
  for (let k = 0; k < n; k++) {
    const count = counts[k] as number
    mass[k + 1] = (mass[k] as number) + count
    filled[k + 1] = (filled[k] as number) + (count > 0 ? 1 : 0)
    entropies[k + 1] = (entropies[k] as number) + xLogX(count)
  }
  const total = mass[n] as number

  let best = Number.POSITIVE_INFINITY
  let bestLength = n
  for (let length = levels; length <= n; length++) {
    const kept = mass[length] as number
    const clipped = total - kept
    const edge = counts[length - 1] as number
    // The clipped values are put into the last bin; if it was empty, the quantized distribution says "impossible".
    if (edge === 0 && clipped > 0) continue
    // sum p log p, then minus sum p log q, for p = the clipped counts, q = the quantized ones, neither normalized
    let sum = (entropies[length - 1] as number) + xLogX(edge + clipped)
    let start = 0
    for (let level = 1; level <= levels; level++) {
      const end = Math.ceil((level * length) / levels)
      const inLevel = (mass[end] as number) - (mass[start] as number)
      if (inLevel > 0) {
        const spread = inLevel / ((filled[end] as number) - (filled[start] as number))
        sum -= (inLevel + (level === levels ? clipped : 0)) * Math.log(spread)
      }
      start = end
    }
    const divergence = sum / total + Math.log(kept / total)
    if (divergence <= best + SAME_DIVERGENCE) {
      best = divergence
      bestLength = length
    }
  }
  const threshold = bestLength * histogram.width
  return within(histogram, -threshold, threshold)
}

function xLogX(x: number): number {
  return x === 0 ? 0 : x * Math.log(x)
}

/** The range of least mean squared error after quantizing; {@link mse} says of what. */
export function mseRange(histogram: Histogram, dtype: QuantDType, convention: Convention): Range {
  const { min, max, amax, width } = histogram
  const density = new Density(histogram)
  let best: Range = { min, max }
  let bestError = Number.POSITIVE_INFINITY
  const consider = (range: Range) => {
    if (!(range.min < range.max)) return // [0, 0] would be quantized with scale 1, which may even fit
    if (!Number.isFinite(Math.fround(range.max - range.min))) return // no float32 scale
    const error = density.error(affineOf(range.min, range.max, dtype, convention))
    if (error < bestError) [best, bestError] = [range, error]
  }
  consider(best)
  if (convention !== 'affine') {
    for (const threshold of edges(amax, width)) consider(within(histogram, -threshold, threshold))
    return best
  }
  // One end at a time, over all edges, until neither can be better.
  const lows = edges(-min, width).map((x) => 0 - x) // 0 - x: never -0
  const highs = edges(max, width)
  let before: number
  do {
    before = bestError
    for (const high of highs) consider({ min: best.min, max: high })
    for (const low of lows) consider({ min: low, max: best.max })
  } while (bestError < before)
  return best
}

/** The bins' edges in [0, to). */
function edges(to: number, width: number): number[] {
  return Array.from({ length: Math.max(0, Math.ceil(to / width)) }, (_, k) => k * width)
}

/** The histogram as a density that is uniform inside a bin. */
class Density {
  readonly #bins: Counts
  readonly #width: number
  // The integrals of 1 and x up to each edge, x in bins.
  readonly #m0: Float64Array
  readonly #m1: Float64Array

  constructor(histogram: Histogram) {
    this.#bins = histogram.signed()
    this.#width = histogram.width
    const { counts, first } = this.#bins
    // Zeros are exact whatever the scale; spread over a bin, the many of a ReLU would ask for a finer one.
    if (histogram.zeros > 0) (counts[-first] as number) -= histogram.zeros
    this.#m0 = new Float64Array(counts.length + 1)
    this.#m1 = new Float64Array(counts.length + 1)
    for (let k = 0; k < counts.length; k++) {
      const count = counts[k] as number
      this.#m0[k + 1] = (this.#m0[k] as number) + count
      this.#m1[k + 1] = (this.#m1[k] as number) + count * (first + k + 1 / 2)
    }
  }

  /**
   * The sum of (x - dequantize(quantize(x)))^2 less that of x^2, which is the same for every scale: of each level, the
   * integral of level^2 - 2 level x over what is rounded to it. In bins^2.
   */
  error({ scale, zeroPoint, qmin, qmax }: Affine): number {
    const { counts, first } = this.#bins
    const n = counts.length
    const step = scale / this.#width
    let sum = 0
    let m0 = 0
    let m1 = 0
    for (let q = qmin; q <= qmax; q++) {
      // A level reaches halfway to the next; the outermost two take all that is clipped.
      const level = (q - zeroPoint) * step
      const end = q === qmax ? n : Math.min(n, Math.max(0, level + step / 2 - first))
      const k = Math.min(Math.floor(end), n - 1)
      const part = end - k
      const count = (counts[k] as number) * part
      const next0 = (this.#m0[k] as number) + count
      const next1 = (this.#m1[k] as number) + count * (first + k + part / 2)
      sum += level * (level * (next0 - m0) - 2 * (next1 - m1))
      m0 = next0
      m1 = next1
    }
    return sum
  }
}
