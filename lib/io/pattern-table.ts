/** Counting the distinct bit patterns of a tensor's elements. */
import { MAX_SYMBOLS } from './huffman'

export type Words = Uint8Array | Uint16Array | Uint32Array

/** 2^32 / golden ratio: multiplying by it spreads neighbouring patterns over the table (Knuth, TAOCP 6.4). */
const SPREAD = 0x9e3779b1

/** An open hash table from patterns to small numbers, made for at most MAX_SYMBOLS patterns. */
export class PatternTable {
  /** By slot; only where counts are not 0. */
  readonly #patterns: Uint32Array
  readonly #counts: Float64Array
  readonly #shift: number
  #size = 0

  /** @param elements that will be counted at most */
  constructor(elements: number) {
    // At most a quarter full, so that most patterns are found at the first look.
    const log2 = Math.max(3, Math.ceil(Math.log2(4 * Math.min(elements, MAX_SYMBOLS + 1))))
    this.#patterns = new Uint32Array(1 << log2)
    this.#counts = new Float64Array(1 << log2)
    this.#shift = 32 - log2
  }

  /** How many slots there are. */
  get slots(): number {
    return this.#patterns.length
  }

  /** Counts words[from, to), leaving out `except`; false when there are more than MAX_SYMBOLS distinct ones. */
  add(words: Words, from: number, to: number, except: number): boolean {
    for (let i = from; i < to; i++) {
      const pattern = words[i] as number
      if (pattern === except) continue
      const slot = this.slot(pattern)
      if (this.#counts[slot] === 0) {
        if (++this.#size > MAX_SYMBOLS) return false
        this.#patterns[slot] = pattern
      }
      this.#counts[slot] = (this.#counts[slot] as number) + 1
    }
    return true
  }

  /** Where a pattern is, or would be. */
  slot(pattern: number): number {
    const mask = this.#patterns.length - 1
    let slot = Math.imul(pattern, SPREAD) >>> this.#shift
    while (this.#counts[slot] !== 0 && this.#patterns[slot] !== pattern) slot = (slot + 1) & mask
    return slot
  }

  /** The patterns, ascending, and how often each was counted. */
  entries(): { patterns: Uint32Array; counts: Float64Array } {
    const patterns = this.#patterns.filter((_, slot) => this.#counts[slot] !== 0).sort()
    return { patterns, counts: Float64Array.from(patterns, (pattern) => this.#counts[this.slot(pattern)] as number) }
  }
}
