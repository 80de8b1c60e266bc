/**
 * Canonical Huffman codes of at most 15 bits, for symbols of up to 32 bits. As in JPEG (ITU-T T.81, annex C) a code is
 * known by how many symbols have each length and by the symbols in the order of their codes; bits are written from the
 * highest down.
 */

/** Of a code: longer ones would hardly shorten a file, and a table of 2^15 entries decodes a symbol in one look. */
export const MAX_LENGTH = 15
/** More have no code of MAX_LENGTH bits. */
export const MAX_SYMBOLS = 1 << MAX_LENGTH

/**
 * The lengths of the code that is shortest for these weights among those of at most `limit` bits: package-merge,
 * L. Larmore and D. Hirschberg, "A fast algorithm for optimal length-limited Huffman codes", JACM 37(3), 1990.
 * O(n limit).
 *
 * @param weights how often each symbol occurs, ascending, at most 2^limit of them
 * @returns the symbols' lengths, descending; 1 for a lone symbol
 */
export function codeLengths(weights: Float64Array, limit = MAX_LENGTH): Uint8Array {
  const n = weights.length
  const lengths = new Uint8Array(n)
  if (n === 1) lengths[0] = 1
  if (n < 2) return lengths
  // Level by level the coins (the symbols) are merged with the packages, pairs of the level below.
  const isCoin: Uint8Array[] = []
  let packages = new Float64Array(0)
  for (let level = 0; level < limit; level++) {
    const merged = new Float64Array(n + packages.length)
    const coins = new Uint8Array(merged.length)
    let p = 0
    for (let i = 0, c = 0; i < merged.length; i++) {
      const coin = c < n && (p === packages.length || (weights[c] as number) <= (packages[p] as number))
      merged[i] = (coin ? weights[c++] : packages[p++]) as number
      coins[i] = coin ? 1 : 0
    }
    isCoin.push(coins)
    packages = new Float64Array(merged.length >> 1)
    for (let i = 0; i < packages.length; i++) packages[i] = (merged[2 * i] as number) + (merged[2 * i + 1] as number)
  }
  // Each coin among the cheapest 2n - 2 items, or in a package among them, adds a bit to its symbol.
  let taken = 2 * n - 2
  for (let level = limit - 1; level >= 0; level--) {
    const coins = isCoin[level] as Uint8Array
    let used = 0
    for (let i = 0; i < taken; i++) used += coins[i] as number
    for (let i = 0; i < used; i++) lengths[i] = (lengths[i] as number) + 1
    taken = 2 * (taken - used)
  }
  return lengths
}

/** A code: the symbols in the order of their codes, and how many of them have each length. */
export interface Code {
  readonly symbols: Uint32Array
  /** Of index 0 to MAX_LENGTH; none has length 0. */
  readonly lengthCounts: Uint32Array
}

/** The best code for `symbols`, symbol i occurring weights[i] > 0 times: with the bits that it takes for them. */
export function makeCode(symbols: Uint32Array, weights: Float64Array): { code: Code; bits: number } {
  const order = Uint32Array.from(symbols.keys()).sort(
    (a, b) => (weights[a] as number) - (weights[b] as number) || (symbols[a] as number) - (symbols[b] as number),
  )
  const sorted = Float64Array.from(order, (i) => weights[i] as number)
  const lengths = codeLengths(sorted)
  const lengthCounts = new Uint32Array(MAX_LENGTH + 1)
  let bits = 0
  for (let i = 0; i < order.length; i++) {
    const length = lengths[i] as number
    lengthCounts[length] = (lengthCounts[length] as number) + 1
    bits += length * (sorted[i] as number)
  }
  // Lengths descend with the weights' order, codes are handed out by ascending length.
  return { code: { symbols: Uint32Array.from(order, (i) => symbols[i] as number).reverse(), lengthCounts }, bits }
}

/** Calls `visit` with every symbol's code, in their order: shorter codes first, then by counting up. */
function forEachCode(code: Code, visit: (index: number, bits: number, length: number) => void): void {
  let next = 0
  let index = 0
  for (let length = 1; length <= MAX_LENGTH; length++) {
    next <<= 1
    for (let i = 0; i < (code.lengthCounts[length] as number); i++) visit(index++, next++, length)
  }
}

/** Symbol `code.symbols[i]` is written as word i: its bits << 4 | their number. */
export function codeWords(code: Code): Uint32Array {
  const words = new Uint32Array(code.symbols.length)
  forEachCode(code, (index, bits, length) => {
    words[index] = (bits << 4) | length
  })
  return words
}

/** Writes code words into bytes. */
export class BitWriter {
  readonly bytes: Uint8Array
  #at = 0
  #pending = 0
  #count = 0

  /** @param bits that will be written in all */
  constructor(bits: number) {
    this.bytes = new Uint8Array(Math.ceil(bits / 8))
  }

  /** `word` as codeWords() gives it. */
  write(word: number): void {
    const length = word & 15
    // What has been written already may leave at the top; at most 7 + 15 bits matter.
    const pending = (this.#pending << length) | (word >>> 4)
    let count = this.#count + length
    while (count >= 8) {
      count -= 8
      this.bytes[this.#at++] = pending >>> count
    }
    this.#pending = pending
    this.#count = count
  }

  /** Fills the last byte with zeros. */
  finish(): void {
    if (this.#count > 0) this.bytes[this.#at++] = this.#pending << (8 - this.#count)
    this.#count = 0
  }
}

/**
 * Why the counts are not those of a complete code, or null. In a complete one every sequence of bits means something;
 * a lone symbol is allowed a code of one bit, of which the other value means nothing.
 */
export function faultOfCode(lengthCounts: Uint32Array): string | null {
  let room = 1
  let symbols = 0
  for (let length = 1; length <= MAX_LENGTH; length++) {
    room = 2 * room - (lengthCounts[length] as number)
    symbols += lengthCounts[length] as number
    if (room < 0) return `the code has more symbols of up to ${length} bits than there are codes`
  }
  const lone = symbols === 1 && lengthCounts[1] === 1
  return room > 0 && symbols > 0 && !lone ? 'the code leaves sequences of bits without a meaning' : null
}

/** Reads symbols from bytes of any content. */
export class Decoder {
  readonly #bytes: Uint8Array
  readonly #symbols: Uint32Array
  /** By the next maxLength bits: index of the symbol << 4 | length of its code; 0 for bits that mean nothing. */
  readonly #table: Uint32Array
  readonly #maxLength: number
  #at = 0
  #pending = 0
  #count = 0

  /** @param code one that faultOfCode() has nothing to say against */
  constructor(code: Code, bytes: Uint8Array) {
    this.#bytes = bytes
    this.#symbols = code.symbols
    this.#maxLength = Math.max(
      code.lengthCounts.findLastIndex((count) => count > 0),
      0,
    )
    this.#table = new Uint32Array(1 << this.#maxLength)
    forEachCode(code, (index, bits, length) => {
      const shift = this.#maxLength - length
      this.#table.fill((index << 4) | length, bits << shift, (bits + 1) << shift)
    })
  }

  /** Decodes symbols into out[from, to); false when the bits end before or mean nothing. */
  decode(out: Uint8Array | Uint16Array | Uint32Array, from: number, to: number): boolean {
    const bytes = this.#bytes
    const symbols = this.#symbols
    const table = this.#table
    const maxLength = this.#maxLength
    let at = this.#at
    let pending = this.#pending
    let count = this.#count
    for (let i = from; i < to; i++) {
      while (count < maxLength) {
        // Zeros follow the last byte; finished() sees when a code reached into them.
        pending = (pending << 8) | (at < bytes.length ? (bytes[at] as number) : 0)
        at++
        count += 8
      }
      const entry = table[(pending >>> (count - maxLength)) & ((1 << maxLength) - 1)] as number
      if (entry === 0) return false
      count -= entry & 15
      out[i] = symbols[entry >>> 4] as number
    }
    this.#at = at
    this.#pending = pending
    this.#count = count
    return 8 * at - count <= 8 * bytes.length
  }

  /** True when the bytes are used up but for less than a byte of zeros. */
  finished(): boolean {
    const left = 8 * (this.#bytes.length - this.#at) + this.#count
    const last = this.#bytes.at(-1) ?? 0
    return left >= 0 && left < 8 && (last & ((1 << left) - 1)) === 0
  }
}
