/** Compressed files: every bit comes back, the encoding is as small as it should be, and the layout is the documented one. */
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { type DType, noGrad, scope, Tensor, tensor, transpose, zeros } from 'kerf'
import { compressedReport, loadCompressed, parseCompressed, saveCompressed, serializeCompressed } from 'kerf/io'
import t from 'tap'
import { dtypeBytes } from '#lib/core/dtype'
import { contiguousStrides } from '#lib/core/shape'
import { allocate } from '#lib/tensor/storage'
import { dtypes, generator } from '../matrix'

/** A tensor with exactly these bytes. */
function ofBytes(dtype: DType, shape: number[], bytes: Uint8Array): Tensor {
  const storage = allocate(bytes.length)
  new Uint8Array(storage.buffer, storage.byteOffset).set(bytes)
  return new Tensor(dtype, shape, contiguousStrides(shape), storage.byteOffset / dtypeBytes[dtype], storage)
}

const bytesOf = async (x: Tensor) => {
  const data = await x.data()
  return Buffer.from(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength)
}

/** Elements drawn from `distinct` random patterns (NaNs, -0 and subnormals among them), a part of them 0. */
function content(dtype: DType, elements: number, distinct: number, density: number, seed: number): Uint8Array {
  const next = generator(seed)
  const width = dtypeBytes[dtype]
  const special = { float32: [0x80, 0xff7f, 0x7fc0], float16: [0x80], bfloat16: [0x80] }[dtype as 'float32'] ?? []
  const patterns = Array.from({ length: distinct }, (_, p) =>
    Uint8Array.from({ length: width }, (_, i) => {
      if (dtype === 'bool') return next() < 0.5 ? 1 : 0
      const known = special[p]
      return known === undefined ? Math.floor(next() * 256) : Math.floor(known / 256 ** (width - 1 - i)) % 256
    }),
  )
  const bytes = new Uint8Array(elements * width)
  for (let i = 0; i < elements; i++)
    if (next() < density) bytes.set(patterns[Math.floor(next() ** 2 * distinct)] as Uint8Array, i * width)
  return bytes
}

t.test('every dtype, shape and sparsity comes back with its bits', async (t) => {
  const seen = new Set<string>()
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...dtypes),
      fc.array(fc.integer({ min: 0, max: 30 }), { maxLength: 3 }),
      fc.constantFrom(1, 2, 5, 32, 300, 5000),
      fc.constantFrom(0, 0.005, 0.05, 0.4, 1),
      fc.integer({ min: 1, max: 1e6 }),
      async (dtype, shape, distinct, density, seed) => {
        const bytes = content(
          dtype,
          shape.reduce((n, size) => n * size, 1),
          distinct,
          density,
          seed,
        )
        const file = await serializeCompressed({ x: ofBytes(dtype, shape, bytes) })
        const { tensors } = await parseCompressed(file)
        const x = tensors.x as Tensor
        t.equal(x.dtype, dtype)
        t.same(x.shape, shape)
        t.ok((await bytesOf(x)).equals(bytes))
        t.ok(file.length < 200 + bytes.length, 'never larger than raw and a header')
        seen.add(/"encoding":"([a-z-]+)"/.exec(Buffer.from(file).toString('latin1'))?.[1] as string)
      },
    ),
    { numRuns: 300 },
  )
  t.same([...seen].sort(), ['codebook', 'deflate', 'raw', 'sparse', 'sparse-codebook'], 'all encodings were used')
})

/** Bits of Shannon's entropy: of n symbols, one that occurs c times has c log2(n / c). */
function entropy(symbols: Iterable<number>): { bits: number; count: number; distinct: number } {
  const counts = new Map<number, number>()
  let n = 0
  for (const symbol of symbols) {
    counts.set(symbol, (counts.get(symbol) ?? 0) + 1)
    n++
  }
  let bits = 0
  for (const count of counts.values()) bits += count * Math.log2(n / count)
  return { bits, count: n, distinct: counts.size }
}

/** Bytes that stand before the bits: 15 counts of at most 3 bytes, two numbers of at most 5, the longest code. */
const HEAD = 15 * 3 + 2 * 5 + 1

async function stored(x: Tensor): Promise<{ encoding: string; bytes: number }> {
  const file = path.join(folder, 'one.kerf')
  const { tensors } = await saveCompressed(file, { x })
  const { encoding, stored } = tensors.x as { encoding: string; stored: number }
  return { encoding, bytes: stored }
}
let folder = ''
t.before(() => {
  folder = t.testdir()
})

t.test('coded values take less than a bit more than their entropy', async (t) => {
  for (const [distinct, skew] of [
    [2, 1],
    [3, 1],
    [32, 1],
    [32, 3],
    [256, 2],
    [2000, 4],
  ] as const) {
    const next = generator(distinct)
    const values = Float32Array.from({ length: 40_000 }, () => Math.fround(1.1 + Math.floor(next() ** skew * distinct)))
    const { bits, count, distinct: used } = entropy(values)
    const { encoding, bytes } = await stored(tensor(values).reshape([200, 200]))
    t.ok(encoding === 'codebook' || encoding === 'deflate', encoding)
    const table = HEAD + 4 * used
    t.ok(bytes <= table + (bits + count) / 8, `${distinct}^${skew}: ${bytes} bytes, entropy ${bits / 8}`)
    if (encoding === 'codebook') t.ok(bytes >= bits / 8, 'and not less than the entropy')
  }
})

t.test('sparse tensors take less than a bit more than the entropies of their gaps and values', async (t) => {
  for (const density of [0.5, 0.2, 0.08, 0.02]) {
    const next = generator(density * 1000)
    const values = Float32Array.from({ length: 90_000 }, () => (next() < density ? 0.5 + Math.floor(next() * 32) : 0))
    const gaps: number[] = []
    let gap = 0
    for (const value of values) {
      if (value === 0) gap++
      else {
        gaps.push(gap)
        gap = 0
      }
    }
    const ofGaps = entropy(gaps)
    const ofValues = entropy(values.filter((value) => value !== 0))
    const { encoding, bytes } = await stored(tensor(values).reshape([300, 300]))
    t.equal(encoding, density === 0.5 ? encoding : 'sparse-codebook')
    const tables = 2 * HEAD + 10 + ofGaps.distinct + 4 * 32
    const bound = tables + (ofGaps.bits + ofGaps.count + ofValues.bits + ofValues.count) / 8
    t.ok(bytes <= bound, `${density}: ${bytes} bytes, at most ${bound}`)
    t.ok(density < 0.1 ? bytes < values.length * 4 * density : true, 'far less than the non-zeros alone')
  }
})

/** A section of numbers and streams of symbols, read as docs/adr/0008 says, bit by bit. */
function section(bytes: Buffer) {
  let at = 0
  const number = () => {
    let value = 0
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++] as number
      value += (byte & 127) * scale
      if (byte < 128) return value
    }
  }
  const stream = (width: 1 | 2 | 4): number[] => {
    const count = number()
    const lengths = Array.from({ length: number() }, number)
    const words = new Map<string, number>()
    let next = 0
    lengths.forEach((codes, i) => {
      next *= 2
      for (let c = 0; c < codes; c++, at += width)
        words.set((next++).toString(2).padStart(i + 1, '0'), bytes.readUIntLE(at, width))
    })
    const bitBytes = number()
    const bits = [...bytes.subarray(at, at + bitBytes)].map((byte) => byte.toString(2).padStart(8, '0')).join('')
    at += bitBytes
    let from = 0
    const found: number[] = []
    while (found.length < count)
      for (let to = from + 1; ; to++) {
        const symbol = words.get(bits.slice(from, to))
        if (symbol === undefined) continue
        found.push(symbol)
        from = to
        break
      }
    return found
  }
  return { number, stream, done: () => at === bytes.length }
}

t.test('the file is what the format says', async (t) => {
  const next = generator(8)
  const sparse = Float32Array.from({ length: 3000 }, () => (next() < 0.07 ? 1.5 - Math.floor(next() * 5) : 0))
  sparse.fill(0, 1000, 1800)
  const dict = {
    b: tensor(sparse),
    a: tensor(Uint16Array.of(1, 3, 3, 3, 2, 3, 3, 3, 3, 1, 3, 3, 3, 3), { dtype: 'bfloat16' }).reshape([2, 7]),
  }
  const bytes = Buffer.from(await serializeCompressed(dict, { metadata: { by: 'test' } }))
  t.equal(bytes.subarray(0, 12).toString('hex'), `8e${Buffer.from('kerf\r\n\n').toString('hex')}01000000`)
  const length = bytes.readUInt32LE(12)
  const json = bytes.subarray(20, 20 + length)
  t.equal(bytes.readUInt32LE(16), crc32(json))
  const header = JSON.parse(json.toString())
  const data = bytes.subarray(20 + length)
  t.same(Object.keys(header.tensors), ['a', 'b'], 'in the order of the names')
  for (const entry of Object.values(header.tensors) as { data_offsets: [number, number]; crc32: number }[])
    t.equal(entry.crc32, crc32(data.subarray(...entry.data_offsets)))
  t.match(header, {
    metadata: { by: 'test' },
    tensors: {
      a: { dtype: 'bfloat16', shape: [2, 7], encoding: 'codebook', data_offsets: [0, 14] },
      b: { dtype: 'float32', shape: [3000], encoding: 'sparse-codebook' },
    },
  })
  // 14 values; codes of up to 2 bits: one of 1, two of 2; 3 is 0, 1 is 10, 2 is 11; 17 bits in 3 bytes.
  t.equal(data.subarray(0, 14).toString('hex'), '0e' + '020102' + '030001000200' + '03' + '861000')

  const { number, stream, done } = section(data.subarray(14))
  const count = number()
  const longGap = number()
  const gaps = stream(1)
  const values = new Float32Array(Uint32Array.from(stream(4)).buffer)
  t.ok(done())
  t.equal(values.length, count)
  t.ok(gaps.includes(longGap), 'a run of 800 zeros needs the escape')
  const back = new Float32Array(3000)
  let at = 0
  let value = 0
  for (const gap of gaps) {
    at += gap
    if (gap !== longGap) back[at++] = values[value++] as number
  }
  t.same(back, sparse)

  t.ok(
    bytes.equals(await serializeCompressed(new Map(Object.entries(dict).reverse()), { metadata: { by: 'test' } })),
    'equal dictionaries, equal files',
  )
  const { tensors, metadata } = await parseCompressed(new Uint8Array(bytes).buffer)
  t.same(metadata, { by: 'test' })
  t.same(await tensors.b?.data(), sparse)
})

t.test('the escape of the gaps is the shortest that is longer than they are', async (t) => {
  for (const [longest, expected] of [
    [12, 15],
    [60, 63],
    [120, 127],
    [250, 255],
  ] as const) {
    const next = generator(longest)
    const values = new Float32Array(400_000)
    // Evenly distributed lengths: what splits them into two symbols costs bits.
    for (let i = 0; i < values.length; i += 1 + Math.floor(next() * (longest + 1))) values[i] = next()
    const bytes = Buffer.from(await serializeCompressed({ x: tensor(values) }))
    const { number } = section(bytes.subarray(20 + bytes.readUInt32LE(12)))
    number()
    t.equal(number(), expected, `gaps of up to ${longest}`)
  }
})

t.test('names are data', async (t) => {
  const dict = Object.fromEntries(
    ['__proto__', 'constructor', '', '2', '10', '__metadata__', 'a"b\\\n\u0000', 'ü'].map((name, i) => [
      name,
      tensor([i]),
    ]),
  )
  const file = path.join(folder, 'names.kerf')
  await saveCompressed(file, dict)
  const back = await loadCompressed(file)
  t.same(new Set(Object.keys(back)), new Set(Object.keys(dict)))
  for (const [name, x] of Object.entries(back)) t.same(await x.array(), await dict[name]?.array(), JSON.stringify(name))
  t.same(Object.keys((await compressedReport(file)).tensors).length, 8)
})

t.test('the report says what each tensor takes', async (t) => {
  const file = path.join(folder, 'report.kerf')
  const next = generator(3)
  const dict = {
    dense: tensor(Float32Array.from({ length: 1000 }, () => next())),
    pruned: tensor(Float32Array.from({ length: 10_000 }, () => (next() < 0.1 ? next() : 0))),
    none: zeros([3, 0]),
    flags: zeros([5000], { dtype: 'bool' }),
  }
  const report = await saveCompressed(file, dict, { metadata: { k: 'v' } })
  t.same(report, await compressedReport(file))
  t.equal(report.stored, readFileSync(file).length)
  t.equal(report.bytes, 4000 + 40_000 + 5000)
  t.equal(report.ratio, report.bytes / report.stored)
  t.same(report.metadata, { k: 'v' })
  t.match(report.tensors, {
    pruned: { dtype: 'float32', shape: [10_000], bytes: 40_000, encoding: 'sparse' },
    none: { bytes: 0, stored: 0, ratio: 1, encoding: 'raw' },
  })
  t.equal(report.tensors.pruned?.ratio, 40_000 / (report.tensors.pruned?.stored as number))
  t.same((await parseCompressed(await serializeCompressed({}))).tensors, {}, 'a file of nothing')
  const zero = await saveCompressed(file, { zero: zeros([3000, 1000]) })
  t.equal(zero.tensors.zero?.encoding, 'deflate', 'the only one whose expansion has a limit')
  t.ok((zero.tensors.zero?.ratio as number) > 900)
  t.same(await (await loadCompressed(file)).zero?.data(), new Float32Array(3_000_000))
})

t.test('views are written row-major, and as they were at the call', async (t) => {
  const base = tensor([
    [1, 2, 3],
    [4, 5, 6],
  ])
  const live = zeros([2])
  const written = serializeCompressed({ transposed: transpose(base), live })
  live.dispose()
  const after = tensor([5, 5])
  const { tensors } = await parseCompressed(await written)
  t.same(await tensors.transposed?.array(), await transpose(base).array())
  t.same(await tensors.live?.array(), [0, 0])
  t.same(await after.array(), [5, 5])
  let inner: Tensor | undefined
  const file = path.join(folder, 'scope.kerf')
  await saveCompressed(file, { a: tensor([1]) })
  await scope(async () => {
    inner = (await loadCompressed(file)).a
  })
  t.equal(inner?.disposed, true, 'loading obeys scope()')
  t.equal(await noGrad(async () => Object.keys(await loadCompressed(file)).length), 1)
})

t.test('writing is atomic', async (t) => {
  const folder = t.testdir()
  const file = path.join(folder, 'model.kerf')
  await saveCompressed(file, { a: tensor([1]) })
  await t.rejects(saveCompressed(file, { a: 3 as never }), { code: 'ERR_ARGUMENT' })
  t.same(await (await loadCompressed(file)).a?.array(), [1])
  t.same(readdirSync(folder), ['model.kerf'])
})

t.test('large tensors do not block the event loop', async (t) => {
  const next = generator(5)
  const large = tensor(Float32Array.from({ length: 1 << 22 }, () => (next() < 0.2 ? Math.floor(next() * 30) : 0)))
  const file = path.join(folder, 'large.kerf')
  let turns = 0
  const ticking = setInterval(() => turns++, 1)
  await saveCompressed(file, { large })
  const whileSaving = turns
  const { large: back } = await loadCompressed(file)
  clearInterval(ticking)
  t.ok(whileSaving >= 5, `${whileSaving} turns while saving`)
  t.ok(turns - whileSaving >= 1, `${turns - whileSaving} turns while loading`)
  t.ok((await bytesOf(back as Tensor)).equals(await bytesOf(large)))
})

t.test('wrong arguments', async (t) => {
  const a = tensor([1])
  const gone = tensor([1])
  gone.dispose()
  for (const bad of ['', 'a\0b', 3, null, undefined, {}]) {
    await t.rejects(loadCompressed(bad as never), { code: 'ERR_ARGUMENT' })
    await t.rejects(compressedReport(bad as never), { code: 'ERR_ARGUMENT' })
    await t.rejects(saveCompressed(bad as never, { a }), { code: 'ERR_ARGUMENT' })
  }
  for (const bad of [null, 3, 'x', [a], { a: null }, { a: [1] }, new Map([[1, a]])])
    await t.rejects(serializeCompressed(bad as never), { code: 'ERR_ARGUMENT' })
  await t.rejects(serializeCompressed({ gone }), { code: 'ERR_DISPOSED' })
  await t.rejects(serializeCompressed({ a }, { metadata: { k: 1 } as never }), { code: 'ERR_ARGUMENT' })
  for (const bad of [null, 'x', [1], new Float32Array(4)])
    await t.rejects(parseCompressed(bad as never), { code: 'ERR_ARGUMENT' })
  const file = await serializeCompressed({ a })
  for (const maxBytes of [-1, 0.5, '4', Number.NaN])
    await t.rejects(parseCompressed(file, { maxBytes } as never), { code: 'ERR_ARGUMENT', message: /maxBytes/ })
  await t.rejects(loadCompressed(path.join(folder, 'none')), { code: 'ENOENT' })
  await t.rejects(loadCompressed(folder), { code: 'ERR_FORMAT', message: /not a regular file/ })
})
