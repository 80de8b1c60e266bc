/** k-means of numbers: on a line a cluster is an interval, which makes exact and fast what is neither in space. */
import { inSlices, type Pauses } from '../core/pauses'

/** Lloyd's iteration comes to rest by itself, unless rounding makes it go round in a circle. */
const MAX_ITERATIONS = 1000

/** Digits of the radix sort: 3 of 11 bits make 32, and their 2048 counts stay in the level-1 cache. */
const DIGIT_BITS = 11
const DIGITS = 3
const SIGN = 0x80000000

/** Bits of float32 numbers -> integers in the numbers' order. */
const orderOf = (bits: number) => (bits & SIGN ? ~bits : bits | SIGN) >>> 0
const bitsOf = (order: number) => (order & SIGN ? order & ~SIGN : ~order) >>> 0

/**
 * The non-zero values, ascending: a radix sort, since the built-in one cannot pause.
 *
 * @param notFinite is called for NaN and infinities
 */
export async function sortedNonZeros(
  values: Float32Array,
  pauses: Pauses,
  notFinite: (value: number) => never,
): Promise<Float32Array> {
  let n = 0
  await inSlices(values.length, pauses, (from, to) => {
    for (let i = from; i < to; i++) {
      const value = values[i] as number
      if (!Number.isFinite(value)) notFinite(value)
      if (value !== 0) n++
    }
  })
  let source = new Uint32Array(n)
  let target = new Uint32Array(n)
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
  let next = 0
  await inSlices(values.length, pauses, (from, to) => {
    for (let i = from; i < to; i++) if (values[i] !== 0) source[next++] = orderOf(bits[i] as number)
  })
  for (let digit = 0; digit < DIGITS; digit++) {
    const shift = digit * DIGIT_BITS
    const mask = (1 << DIGIT_BITS) - 1
    const ends = new Uint32Array(mask + 2)
    await inSlices(n, pauses, (from, to) => {
      for (let i = from; i < to; i++) {
        const value = ((source[i] as number) >>> shift) & mask
        ends[value + 1] = (ends[value + 1] as number) + 1
      }
    })
    for (let i = 0; i <= mask; i++) ends[i + 1] = (ends[i + 1] as number) + (ends[i] as number)
    await inSlices(n, pauses, (from, to) => {
      for (let i = from; i < to; i++) {
        const value = ((source[i] as number) >>> shift) & mask
        const at = ends[value] as number
        target[at] = source[i] as number
        ends[value] = at + 1
      }
    })
    ;[source, target] = [target, source]
  }
  await inSlices(n, pauses, (from, to) => {
    for (let i = from; i < to; i++) source[i] = bitsOf(source[i] as number)
  })
  return new Float32Array(source.buffer)
}

/** Between any two neighbours; a value on a midpoint belongs to the lower one. */
export function midpoints(centroids: Float32Array | Float64Array): Float64Array {
  return Float64Array.from({ length: Math.max(centroids.length - 1, 0) }, (_, j) => {
    return ((centroids[j] as number) + (centroids[j + 1] as number)) / 2
  })
}

/** How many of the ascending numbers are less than `value`. */
export function lowerBound(sorted: Float64Array, value: number): number {
  let from = 0
  for (let to = sorted.length; from < to; ) {
    const middle = (from + to) >>> 1
    if ((sorted[middle] as number) < value) from = middle + 1
    else to = middle
  }
  return from
}

/** How many of the ascending numbers are `value` or less; `from` of them are known to be. */
function upperBound(sorted: Float32Array, value: number, from: number): number {
  for (let to = sorted.length; from < to; ) {
    const middle = (from + to) >>> 1
    if ((sorted[middle] as number) <= value) from = middle + 1
    else to = middle
  }
  return from
}

/** Where each centroid's cluster ends in `sorted`. */
function clusterEnds(sorted: Float32Array, centroids: Float64Array): number[] {
  const ends: number[] = []
  for (const limit of midpoints(centroids)) ends.push(upperBound(sorted, limit, ends.at(-1) ?? 0))
  return [...ends, sorted.length]
}

/** The distinct values, or null when they are more than k. */
function distinct(sorted: Float32Array, k: number): Float32Array | null {
  const found: number[] = []
  for (let i = 0; i < sorted.length; i++) {
    if (i > 0 && sorted[i] === sorted[i - 1]) continue
    if (found.length === k) return null
    found.push(sorted[i] as number)
  }
  return Float32Array.from(found)
}

/**
 * Lloyd's iteration from k centroids that lie evenly between the smallest and the largest value, until no value changes
 * its cluster: prefix sums give every mean, so an iteration costs k binary searches. A centroid that has lost all its
 * values stays where it is, and is left out in the end.
 *
 * @param sorted ascending, finite
 * @param k at least 2
 * @returns the centroids, ascending and rounded to float32; the values themselves when they are k distinct ones or less
 */
export async function kMeans(sorted: Float32Array, k: number, pauses: Pauses): Promise<Float32Array> {
  const few = distinct(sorted, k)
  if (few) return few
  const n = sorted.length
  const sums = new Float64Array(n + 1)
  await inSlices(n, pauses, (from, to) => {
    for (let i = from; i < to; i++) sums[i + 1] = (sums[i] as number) + (sorted[i] as number)
  })
  const low = sorted[0] as number
  const step = ((sorted[n - 1] as number) - low) / (k - 1)
  const centroids = Float64Array.from({ length: k }, (_, j) => low + step * j)
  let ends: number[] = []
  for (let iteration = 0; iteration < MAX_ITERATIONS; iteration++) {
    const next = clusterEnds(sorted, centroids)
    if (next.every((end, j) => end === ends[j])) break
    ends = next
    for (let j = 0, from = 0; j < k; j++) {
      const to = ends[j] as number
      if (to > from) centroids[j] = ((sums[to] as number) - (sums[from] as number)) / (to - from)
      from = to
    }
    if (pauses.due()) await pauses.take()
  }
  const used = centroids.filter((_, j) => ends[j] !== (j === 0 ? 0 : ends[j - 1]))
  return Float32Array.from(new Set(Float32Array.from(used)))
}
