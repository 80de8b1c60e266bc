/** A tensor's bytes -> the smallest section of a compressed file that gives them back. */
import { type DType, dtypeBytes } from '../core/dtype'
import { inSlices, type Pauses } from '../core/pauses'
import { asWords, newWords, streamHead, type Width, wholeNumber, wordsBy } from './coded-stream'
import { deflate } from './deflate'
import { BitWriter, type Code, makeCode } from './huffman'
import { PatternTable, type Words } from './pattern-table'
import { MAX_EXPANSION, type TensorEncoding } from './sections'

/**
 * A gap that long or longer is written as a symbol of its own, zeros without a non-zero after them, and the rest. Short
 * escapes make small codes, long ones save symbols: the best of these is taken.
 */
const ESCAPES = [15, 31, 63, 127, 255]
/** Gaps below are counted in an array, the rare ones above in a Map. */
const SHORT_GAPS = 1 << 12
/** No pattern: keeps PatternTable.add from leaving one out. */
const NONE = -1

/** A section that could be made, and what it would take. */
interface Candidate {
  encoding: TensorEncoding
  size: number
  make(): Promise<Uint8Array[]>
}

/** Values in a code, and the table that knows which pattern has which word. */
interface CodedValues {
  table: PatternTable
  code: Code
  bits: number
  head: Uint8Array
  size: number
}

export interface Section {
  encoding: TensorEncoding
  parts: Uint8Array[]
}

/** Picks the encoding that takes the fewest bytes; `bytes` are a tensor's, row-major and aligned. */
export async function encodeTensor(dtype: DType, bytes: Uint8Array, pauses: Pauses): Promise<Section> {
  let best: Candidate = { encoding: 'raw', size: bytes.length, make: async () => [bytes] }
  const width = dtypeBytes[dtype]
  if (width <= 4) {
    const words = asWords(bytes, width as Width)
    for (const candidate of [
      await codebookCandidate(words, width as Width, pauses),
      await sparseCandidate(words, width as Width, pauses),
    ]) {
      // What expands more than deflate can is refused by the reader, lest a small file ask for all memory.
      if (candidate && candidate.size < best.size && bytes.length <= MAX_EXPANSION * candidate.size) best = candidate
    }
  }
  const deflated = await deflate(bytes, best.size)
  if (deflated) return { encoding: 'deflate', parts: [deflated] }
  return { encoding: best.encoding, parts: await best.make() }
}

async function codeValues(words: Words, except: number, width: Width, pauses: Pauses): Promise<CodedValues | null> {
  const table = new PatternTable(words.length)
  let few = true
  await inSlices(words.length, pauses, (from, to) => {
    few &&= table.add(words, from, to, except)
  })
  if (!few) return null
  const { patterns, counts } = table.entries()
  const { code, bits } = makeCode(patterns, counts)
  const total = counts.reduce((sum, n) => sum + n, 0)
  const head = streamHead(code, total, bits, width)
  return { table, code, bits, head, size: head.length + Math.ceil(bits / 8) }
}

async function writeValues(coded: CodedValues, words: Words, except: number, pauses: Pauses): Promise<Uint8Array[]> {
  const { table, code, bits, head } = coded
  const bySlot = wordsBy(code, table.slots, (pattern) => table.slot(pattern))
  const writer = new BitWriter(bits)
  await inSlices(words.length, pauses, (from, to) => {
    for (let i = from; i < to; i++) {
      const pattern = words[i] as number
      if (pattern !== except) writer.write(bySlot[table.slot(pattern)] as number)
    }
  })
  writer.finish()
  return [head, writer.bytes]
}

async function codebookCandidate(words: Words, width: Width, pauses: Pauses): Promise<Candidate | null> {
  const coded = await codeValues(words, NONE, width, pauses)
  return coded && { encoding: 'codebook', size: coded.size, make: () => writeValues(coded, words, NONE, pauses) }
}

/** How often each number of zeros lies before a non-zero. */
async function countGaps(words: Words, pauses: Pauses): Promise<{ gaps: Map<number, number>; nonZeros: number }> {
  const short = new Float64Array(SHORT_GAPS)
  const gaps = new Map<number, number>()
  let nonZeros = 0
  let gap = 0
  await inSlices(words.length, pauses, (from, to) => {
    for (let i = from; i < to; i++) {
      if (words[i] === 0) {
        gap++
        continue
      }
      if (gap < SHORT_GAPS) short[gap] = (short[gap] as number) + 1
      else gaps.set(gap, (gaps.get(gap) ?? 0) + 1)
      nonZeros++
      gap = 0
    }
  })
  short.forEach((count, length) => {
    if (count > 0) gaps.set(length, count)
  })
  return { gaps, nonZeros }
}

/** The gaps in the code for one escape. */
function codeGaps(gaps: Map<number, number>, escapeGap: number) {
  const counts = new Float64Array(escapeGap + 1)
  for (const [gap, count] of gaps) {
    counts[escapeGap] = (counts[escapeGap] as number) + count * Math.floor(gap / escapeGap)
    counts[gap % escapeGap] = (counts[gap % escapeGap] as number) + count
  }
  const symbols = Uint32Array.from(counts.keys()).filter((symbol) => (counts[symbol] as number) > 0)
  const weights = counts.filter((count) => count > 0)
  const { code, bits } = makeCode(symbols, weights)
  const head = streamHead(
    code,
    weights.reduce((sum, n) => sum + n, 0),
    bits,
    1,
  )
  return { escapeGap, code, bits, head, size: head.length + Math.ceil(bits / 8) }
}

async function writeGaps(coded: ReturnType<typeof codeGaps>, words: Words, pauses: Pauses): Promise<Uint8Array[]> {
  const { escapeGap, code, bits, head } = coded
  const bySymbol = wordsBy(code, escapeGap + 1, (symbol) => symbol)
  const writer = new BitWriter(bits)
  let gap = 0
  await inSlices(words.length, pauses, (from, to) => {
    for (let i = from; i < to; i++) {
      if (words[i] === 0) {
        gap++
        continue
      }
      for (; gap >= escapeGap; gap -= escapeGap) writer.write(bySymbol[escapeGap] as number)
      writer.write(bySymbol[gap] as number)
      gap = 0
    }
  })
  writer.finish()
  return [head, writer.bytes]
}

async function nonZeroValues(words: Words, count: number, width: Width, pauses: Pauses): Promise<Uint8Array> {
  const values = newWords(count, width)
  let next = 0
  await inSlices(words.length, pauses, (from, to) => {
    for (let i = from; i < to; i++) if (words[i] !== 0) values[next++] = words[i] as number
  })
  return new Uint8Array(values.buffer)
}

async function sparseCandidate(words: Words, width: Width, pauses: Pauses): Promise<Candidate | null> {
  const { gaps, nonZeros } = await countGaps(words, pauses)
  // Without zeros, gaps only add to the dense encodings.
  if (nonZeros === words.length) return null
  const coded = ESCAPES.map((escapeGap) => codeGaps(gaps, escapeGap)).reduce((a, b) => (b.size < a.size ? b : a))
  const head = Uint8Array.from([...wholeNumber(nonZeros), ...wholeNumber(coded.escapeGap)])
  const size = head.length + coded.size
  const values = await codeValues(words, 0, width, pauses)
  if (values && values.size < nonZeros * width) {
    return {
      encoding: 'sparse-codebook',
      size: size + values.size,
      make: async () => [
        head,
        ...(await writeGaps(coded, words, pauses)),
        ...(await writeValues(values, words, 0, pauses)),
      ],
    }
  }
  return {
    encoding: 'sparse',
    size: size + nonZeros * width,
    make: async () => [
      head,
      ...(await writeGaps(coded, words, pauses)),
      await nonZeroValues(words, nonZeros, width, pauses),
    ],
  }
}
