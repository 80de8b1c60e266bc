// Huffman codes against another construction of the same optimum, and the bit streams made with them.
import fc from 'fast-check'
import t from 'tap'
import { Pauses } from '#lib/core/pauses'
import { newWords, SectionReader, streamHead, type Width, wholeNumber, wordsBy } from '#lib/io/coded-stream'
import { BitWriter, codeLengths, codeWords, faultOfCode, MAX_LENGTH, makeCode } from '#lib/io/huffman'

/** The least sum of weight times length over all complete sets of lengths: every split of 2^-depth is tried. */
function bruteForce(weights: number[], limit: number): number {
  // Weights descend, so lengths ascend; `open` is how many nodes of this depth have no symbol yet.
  const best = (next: number, open: number, depth: number): number => {
    const left = weights.length - next
    if (left === 0) return 0
    if (depth > limit || open === 0 || open * 2 ** (limit - depth) < left) return Number.POSITIVE_INFINITY
    let least = Number.POSITIVE_INFINITY
    let here = 0
    for (let symbols = 0; symbols <= Math.min(open, left); symbols++) {
      least = Math.min(least, here + best(next + symbols, 2 * (open - symbols), depth + 1))
      here += depth * (weights[next + symbols] ?? 0)
    }
    return least
  }
  return best(0, 2, 1)
}

/** Huffman's own construction, without a limit: the total of all merged weights. */
function huffmanCost(weights: number[]): number {
  const heap = [...weights]
  let cost = 0
  while (heap.length > 1) {
    heap.sort((a, b) => b - a)
    const merged = (heap.pop() as number) + (heap.pop() as number)
    cost += merged
    heap.push(merged)
  }
  return cost
}

const cost = (weights: number[], lengths: Uint8Array) =>
  weights.reduce((sum, w, i) => sum + w * (lengths[i] as number), 0)
const kraft = (lengths: Uint8Array) => lengths.reduce((sum, length) => sum + 2 ** -length, 0)
const ascending = (weights: number[]) => Float64Array.from(weights).sort()

t.test('code lengths are optimal below the limit', async (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 1000 }), { minLength: 2, maxLength: 9 }),
      fc.integer({ min: 0, max: 3 }),
      (weights, more) => {
        const sorted = ascending(weights)
        const limit = Math.ceil(Math.log2(weights.length)) + more
        const lengths = codeLengths(sorted, limit)
        t.equal(kraft(lengths), 1, 'complete')
        t.ok(lengths.every((length) => length <= limit))
        t.equal(cost([...sorted], lengths), bruteForce([...sorted].reverse(), limit), `${sorted} in ${limit} bits`)
      },
    ),
  )
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 99 }), { minLength: 2, maxLength: 200 }), (weights) => {
      const sorted = ascending(weights)
      const lengths = codeLengths(sorted, 30)
      t.equal(cost([...sorted], lengths), huffmanCost(weights), 'without a limit in the way: Huffman')
    }),
  )
  t.same(codeLengths(new Float64Array(0)), [])
  t.same(codeLengths(Float64Array.of(7)), [1])
  const fibonacci = [1, 1]
  while (fibonacci.length < 40) fibonacci.push((fibonacci.at(-1) as number) + (fibonacci.at(-2) as number))
  const deep = codeLengths(Float64Array.from(fibonacci))
  t.equal(Math.max(...deep), MAX_LENGTH, 'the deepest of trees is cut')
  t.equal(kraft(deep), 1)
  t.same(new Set(codeLengths(new Float64Array(1 << MAX_LENGTH).fill(1))), new Set([MAX_LENGTH]), 'as many as there are')
})

t.test('codes are canonical: no word begins another, and they count up', async (t) => {
  const { code } = makeCode(Uint32Array.of(10, 20, 30, 40, 50), Float64Array.of(1, 8, 2, 4, 1))
  const words = [...codeWords(code)].map((word) => (word >>> 4).toString(2).padStart(word & 15, '0'))
  t.same(words, ['0', '10', '110', '1110', '1111'])
  t.same([...code.symbols].slice(0, 3), [20, 40, 30])
})

t.test('counts that are no code are told from those that are', async (t) => {
  const counts = (...of: number[]) => Uint32Array.from({ length: MAX_LENGTH + 1 }, (_, i) => of[i - 1] ?? 0)
  for (const good of [counts(), counts(1), counts(2), counts(1, 2), counts(0, 4), counts(1, 1, 2)])
    t.equal(faultOfCode(good), null, `${good}`)
  for (const bad of [counts(3), counts(2, 1), counts(1, 1, 3), counts(0, 0, 9)])
    t.match(faultOfCode(bad), /more symbols of up to \d bits than there are codes/, `${bad}`)
  for (const bad of [counts(0, 1), counts(1, 1), counts(0, 3), counts(0, 0, 7)])
    t.match(faultOfCode(bad), /without a meaning/, `${bad}`)
})

/** A stream of symbols as files have it. */
function write(values: number[], width: Width): Uint8Array {
  const symbols = Uint32Array.from(new Set(values))
  const counts = Float64Array.from(symbols, (symbol) => values.filter((value) => value === symbol).length)
  const { code, bits } = makeCode(symbols, counts)
  const words = wordsBy(code, symbols.length, (symbol) => symbols.indexOf(symbol))
  const writer = new BitWriter(bits)
  for (const value of values) writer.write(words[symbols.indexOf(value)] as number)
  writer.finish()
  return Buffer.concat([streamHead(code, values.length, bits, width), writer.bytes])
}

const fail = (why: string): never => {
  throw new Error(why)
}

async function read(bytes: Uint8Array, width: Width): Promise<number[]> {
  const reader = new SectionReader(bytes, fail)
  const stream = reader.stream('values', width)
  reader.end()
  const out = newWords(stream.count, width)
  await stream.decodeAll(out, new Pauses())
  return [...out]
}

t.test('a stream gives its symbols back, and no beginning of it anything', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom<Width>(1, 2, 4),
      fc.array(fc.tuple(fc.integer({ min: 0, max: 2 ** 32 - 1 }), fc.integer({ min: 1, max: 40 })), { maxLength: 40 }),
      async (width, runs) => {
        const values = runs.flatMap(([value, times]) => new Array<number>(times).fill(value % 256 ** width))
        const bytes = write(values, width)
        t.same(await read(bytes, width), values)
        for (let length = 0; length < bytes.length; length++) await t.rejects(read(bytes.subarray(0, length), width))
      },
    ),
    { numRuns: 40 },
  )
})

t.test('whole numbers', async (t) => {
  for (const value of [0, 1, 127, 128, 300, 2 ** 31, 2 ** 40 + 5, Number.MAX_SAFE_INTEGER]) {
    const bytes = Uint8Array.from(wholeNumber(value))
    t.equal(new SectionReader(bytes, fail).wholeNumber('n'), value)
    t.throws(
      () => new SectionReader(bytes.subarray(1), fail).wholeNumber('n', 0),
      /n is more than 0|its bytes end in n/,
    )
  }
  t.throws(() => new SectionReader(new Uint8Array(20).fill(0x80), fail).wholeNumber('n'), /n is more than/)
  t.throws(() => new SectionReader(Uint8Array.of(255, 255), fail).wholeNumber('n'), /its bytes end in n/)
})
