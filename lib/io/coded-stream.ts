/**
 * The bytes that sections of compressed files are made of: whole numbers as LEB128 (7 bits a byte, lowest first), and
 * symbols in a Huffman code:
 *
 *   number of symbols; if it is not 0: the longest code's bits m; how many codes have 1, ..., m bits; the symbols in the
 *   order of their codes, little-endian, `width` bytes each; the bytes of the bits; the bits
 */
import { inSlices, type Pauses } from '../core/pauses'
import { type Code, codeWords, Decoder, faultOfCode, MAX_LENGTH, MAX_SYMBOLS } from './huffman'
import type { Words } from './pattern-table'

export type Width = 1 | 2 | 4

/** Elements of 1, 2 or 4 bytes, whatever they mean. The bytes must be aligned to the width. */
export function asWords(bytes: Uint8Array, width: Width): Words {
  if (width === 1) return bytes
  const length = bytes.length / width
  return width === 2
    ? new Uint16Array(bytes.buffer, bytes.byteOffset, length)
    : new Uint32Array(bytes.buffer, bytes.byteOffset, length)
}

export function newWords(length: number, width: Width): Words {
  return asWords(new Uint8Array(length * width), width)
}

export function wholeNumber(value: number): number[] {
  const bytes: number[] = []
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) + 128)
  return [...bytes, value]
}

function wordBytes(words: Words): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength)
}

/** What stands in front of the bits. */
export function streamHead(code: Code, count: number, bits: number, width: Width): Uint8Array {
  if (count === 0) return Uint8Array.from(wholeNumber(0))
  const longest = code.lengthCounts.findLastIndex((n) => n > 0)
  const lengths = [...code.lengthCounts.subarray(1, longest + 1)].flatMap(wholeNumber)
  const symbols = newWords(code.symbols.length, width)
  symbols.set(code.symbols)
  return Buffer.concat([
    Uint8Array.from([...wholeNumber(count), longest, ...lengths]),
    wordBytes(symbols),
    Uint8Array.from(wholeNumber(Math.ceil(bits / 8))),
  ])
}

/** A section's bytes, read from the front; every length in them is checked before it is believed. */
export class SectionReader {
  readonly #bytes: Uint8Array
  readonly #fail: (why: string) => never
  #at = 0

  constructor(bytes: Uint8Array, fail: (why: string) => never) {
    this.#bytes = bytes
    this.#fail = fail
  }

  wholeNumber(what: string, max = Number.MAX_SAFE_INTEGER): number {
    let value = 0
    for (let scale = 1; ; scale *= 128) {
      const byte = this.#bytes[this.#at++]
      if (byte === undefined) this.#fail(`its bytes end in ${what}`)
      value += ((byte as number) % 128) * scale
      if (value > max || scale > max) this.#fail(`${what} is more than ${max}`)
      if ((byte as number) < 128) return value
    }
  }

  take(what: string, length: number): Uint8Array {
    if (length > this.#bytes.length - this.#at)
      this.#fail(`${what} takes ${length} bytes, ${this.#bytes.length - this.#at} are left`)
    this.#at += length
    return this.#bytes.subarray(this.#at - length, this.#at)
  }

  /** Elements of `width` bytes, copied to where they are aligned. */
  words(what: string, length: number, width: Width): Words {
    return asWords(new Uint8Array(this.take(what, length * width)), width)
  }

  end(): void {
    if (this.#at !== this.#bytes.length) this.#fail(`${this.#bytes.length - this.#at} bytes follow the last field`)
  }

  /** A stream of symbols, whose bits are checked as they are decoded. */
  stream(what: string, width: Width): SymbolStream {
    const count = this.wholeNumber(`${what}: the number of symbols`)
    const lengthCounts = new Uint32Array(MAX_LENGTH + 1)
    if (count === 0)
      return new SymbolStream(what, 0, { symbols: new Uint32Array(0), lengthCounts }, new Uint8Array(0), this.#fail)
    const longest = this.wholeNumber(`${what}: the longest code`, MAX_LENGTH)
    for (let length = 1; length <= longest; length++)
      lengthCounts[length] = this.wholeNumber(`${what}: the codes of ${length} bits`, MAX_SYMBOLS)
    const fault = faultOfCode(lengthCounts)
    if (fault !== null) this.#fail(`${what}: ${fault}`)
    const size = lengthCounts.reduce((sum, n) => sum + n, 0)
    const symbols = Uint32Array.from(this.words(`${what}: a code of ${size} symbols`, size, width))
    const bytes = this.take(`${what}: the bits`, this.wholeNumber(`${what}: the bytes of the bits`))
    if (count > 8 * bytes.length) this.#fail(`${what}: ${count} symbols cannot be in ${bytes.length} bytes`)
    return new SymbolStream(what, count, { symbols, lengthCounts }, bytes, this.#fail)
  }
}

export class SymbolStream {
  /** Of symbols. */
  readonly count: number
  readonly code: Code
  readonly #what: string
  readonly #decoder: Decoder
  readonly #fail: (why: string) => never

  constructor(what: string, count: number, code: Code, bytes: Uint8Array, fail: (why: string) => never) {
    this.#what = what
    this.count = count
    this.code = code
    this.#decoder = new Decoder(code, bytes)
    this.#fail = fail
  }

  /** The next symbols, into out[from, to). */
  decode(out: Words, from: number, to: number): void {
    if (!this.#decoder.decode(out, from, to))
      this.#fail(`${this.#what}: the bits are not those of ${this.count} symbols`)
  }

  /** To be asked once all symbols have been decoded. */
  end(): void {
    if (!this.#decoder.finished()) this.#fail(`${this.#what}: bits are left over after ${this.count} symbols`)
  }

  /** All symbols, into `out`. */
  async decodeAll(out: Words, pauses: Pauses): Promise<void> {
    await inSlices(this.count, pauses, (from, to) => this.decode(out, from, to))
    this.end()
  }
}

/** codeWords() by something else than the symbols' order: `place` says where a symbol's word goes. */
export function wordsBy(code: Code, length: number, place: (symbol: number) => number): Uint32Array {
  const words = new Uint32Array(length)
  const ordered = codeWords(code)
  for (let i = 0; i < ordered.length; i++) words[place(code.symbols[i] as number)] = ordered[i] as number
  return words
}
