/**
 * A histogram that grows. Bins are as wide as a power of two and lie at whole multiples of their width, so that a
 * grown histogram is what the wider bins would have counted from the start: merging pairs moves no value into a bin
 * that it is not in. The width follows from the largest magnitude alone. So the counts depend on which values were
 * added, and neither on their order nor on the batches they came in.
 */

/** Narrower than any float32 needs (2^-149 over 2^20 bins); a histogram of zeros only keeps it. */
const FINEST = 2 ** -200

/** What bounds the memory: 16 bytes a bin and sign, 32 MiB in all. */
export const MAX_BINS = 2 ** 20

/**
 * Counts of neighbouring bins; bin k holds [first + k, first + k + 1) in units of the bins' width, and on the negative
 * side, which is a mirror image, (first + k, first + k + 1].
 */
export interface Counts {
  readonly counts: Float64Array
  readonly first: number
}

export class Histogram {
  /** The least and largest value added. */
  min = Number.POSITIVE_INFINITY
  max = Number.NEGATIVE_INFINITY
  /** How many values were added, and how many of them were 0. */
  total = 0
  zeros = 0
  /** The width of a bin, a power of two: the largest magnitude, unless 0, is in [bins, 2 bins) of them. */
  width = FINEST
  // By magnitude and sign, so that a histogram of -x is the mirror image. Float64 counts exactly up to 2^53.
  readonly #positive: Float64Array
  readonly #negative: Float64Array

  /** @param bins at least so many bins, and less than twice as many, cover [0, largest magnitude] */
  constructor(readonly bins: number) {
    this.#positive = new Float64Array(2 * bins)
    this.#negative = new Float64Array(2 * bins)
  }

  /** The largest magnitude added. */
  get amax(): number {
    return Math.max(-this.min, this.max)
  }

  /** Adds finite values whose least and largest are known. Costs a step a value, and one a bin when it grows. */
  add(values: Float32Array, min: number, max: number): void {
    this.min = Math.min(this.min, min)
    this.max = Math.max(this.max, max)
    this.total += values.length
    this.#grow()
    const [positive, negative] = [this.#positive, this.#negative]
    const perUnit = 1 / this.width // exact, and so is the product below
    for (let i = 0; i < values.length; i++) {
      const u = (values[i] as number) * perUnit
      if (u === 0) this.zeros++
      if (u >= 0) (positive[Math.floor(u)] as number)++
      else (negative[Math.floor(-u)] as number)++
    }
  }

  /** Counts of |x|, up to the bin of the largest. */
  magnitudes(): Float64Array {
    const used = Math.floor(this.amax / this.width) + 1
    return this.#positive.slice(0, used).map((count, k) => count + (this.#negative[k] as number))
  }

  /** Counts of x over the bins between the outermost values and 0. */
  signed(): Counts {
    const left = this.min < 0 ? Math.floor(-this.min / this.width) + 1 : 0
    const right = this.max >= 0 ? Math.floor(this.max / this.width) + 1 : 0
    const counts = new Float64Array(left + right)
    counts.set(this.#negative.slice(0, left).reverse())
    counts.set(this.#positive.slice(0, right), left)
    return { counts, first: -left }
  }

  reset(): void {
    this.min = Number.POSITIVE_INFINITY
    this.max = Number.NEGATIVE_INFINITY
    this.total = 0
    this.zeros = 0
    this.width = FINEST
    this.#positive.fill(0)
    this.#negative.fill(0)
  }

  /** Doubles the width until the largest magnitude has a bin. */
  #grow(): void {
    let factor = 1
    while (this.amax >= 2 * this.bins * this.width * factor) factor *= 2
    if (factor === 1) return
    this.width *= factor
    for (const counts of [this.#positive, this.#negative]) {
      // In place: from k = 1 on, a bin's new place is always before it.
      for (let k = 1; k < counts.length; k++) {
        const count = counts[k] as number
        counts[k] = 0
        ;(counts[Math.floor(k / factor)] as number) += count
      }
    }
  }
}
