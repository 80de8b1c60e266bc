/** A section of a compressed file, which may hold anything, -> a tensor's bytes. */
import { type DType, dtypeBytes } from '../core/dtype'
import { inSlices, type Pauses } from '../core/pauses'
import { asWords, newWords, SectionReader, type Width } from './coded-stream'
import { inflateInto } from './deflate'
import { checkBools } from './file-tensor'
import type { Words } from './pattern-table'
import type { TensorEncoding } from './sections'

type Fail = (why: string) => never

/** Gaps decoded at once, each of a few ns. */
const GAPS = 1 << 14

/**
 * Fills `target`, which has the bytes that dtype and shape say, aligned. `fail` learns what is wrong with the section;
 * what target holds then is undefined.
 */
export async function decodeTensor(
  encoding: TensorEncoding,
  dtype: DType,
  section: Uint8Array,
  target: Uint8Array,
  pauses: Pauses,
  fail: Fail,
): Promise<void> {
  if (encoding === 'raw') {
    if (section.length !== target.length) fail(`takes ${target.length} bytes, the file has ${section.length}`)
    await inSlices(target.length, pauses, (from, to) => target.set(section.subarray(from, to), from))
  } else if (encoding === 'deflate') {
    await inflateInto(target, section, fail)
  } else {
    const width = dtypeBytes[dtype]
    if (width > 4) fail(`encoding ${encoding} is not for ${dtype}`)
    const reader = new SectionReader(section, fail)
    const words = asWords(target, width as Width)
    if (encoding === 'codebook') await decodeCodebook(reader, words, width as Width, pauses, fail)
    else await decodeSparse(reader, words, width as Width, encoding === 'sparse-codebook', pauses, fail)
  }
  if (dtype === 'bool')
    await inSlices(target.length, pauses, (from, to) => checkBools(target.subarray(from, to), from, fail))
}

async function decodeCodebook(
  reader: SectionReader,
  words: Words,
  width: Width,
  pauses: Pauses,
  fail: Fail,
): Promise<void> {
  const stream = reader.stream('values', width)
  if (stream.count !== words.length) fail(`has ${words.length} elements, the section ${stream.count} values`)
  reader.end()
  await stream.decodeAll(words, pauses)
}

async function decodeSparse(
  reader: SectionReader,
  words: Words,
  width: Width,
  coded: boolean,
  pauses: Pauses,
  fail: Fail,
): Promise<void> {
  const nonZeros = reader.wholeNumber('the number of non-zeros', words.length)
  const escapeGap = reader.wholeNumber('the escape', 255)
  if (escapeGap === 0) fail('the escape is 0')
  const gaps = reader.stream('gaps', 1)
  const values = coded
    ? await decodeValues(reader, nonZeros, width, pauses, fail)
    : reader.words('the non-zeros', nonZeros, width)
  reader.end()

  const largest = gaps.code.symbols.reduce((a, b) => Math.max(a, b), 0)
  if (largest > escapeGap) fail(`gaps: symbol ${largest} is more than the escape ${escapeGap}`)
  await inSlices(words.length, pauses, (from, to) => words.fill(0, from, to))
  const piece = new Uint8Array(Math.min(GAPS, gaps.count))
  let at = 0
  let next = 0
  for (let done = 0; done < gaps.count; done += piece.length) {
    if (pauses.due()) await pauses.take()
    const n = Math.min(piece.length, gaps.count - done)
    gaps.decode(piece, 0, n)
    for (let i = 0; i < n; i++) {
      const gap = piece[i] as number
      at += gap
      if (gap === escapeGap) continue
      if (at >= words.length) fail(`gaps: non-zero ${next} lies behind the last of ${words.length} elements`)
      if (next === nonZeros) fail(`gaps: they are those of more than ${nonZeros} non-zeros`)
      words[at++] = values[next++] as number
    }
  }
  gaps.end()
  if (next !== nonZeros) fail(`gaps: they are those of ${next} non-zeros, not of ${nonZeros}`)
}

async function decodeValues(
  reader: SectionReader,
  nonZeros: number,
  width: Width,
  pauses: Pauses,
  fail: Fail,
): Promise<Words> {
  const stream = reader.stream('values', width)
  if (stream.count !== nonZeros) fail(`has ${nonZeros} non-zeros, the section ${stream.count} values`)
  const values = newWords(nonZeros, width)
  await stream.decodeAll(values, pauses)
  return values
}
