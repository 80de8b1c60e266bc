/** Compressed files that are damaged or made to harm: one clear error each, and nothing allocated on a file's word. */
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { crc32, deflateRawSync } from 'node:zlib'
import { type Tensor, tensor } from 'kerf'
import { compressedReport, loadCompressed, parseCompressed, serializeCompressed } from 'kerf/io'
import t from 'tap'
import { generator } from '../matrix'

const MAGIC = Buffer.from('\x8ekerf\r\n\n', 'latin1')

/** A file whose checksums are right; `prefix` replaces its version, or what it says of the header. */
function build(
  header: unknown,
  data: Uint8Array,
  prefix: { version?: number; length?: number; crc?: number } = {},
): Buffer {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const numbers = Buffer.alloc(12)
  numbers.writeUInt32LE(prefix.version ?? 1, 0)
  numbers.writeUInt32LE(prefix.length ?? json.length, 4)
  numbers.writeUInt32LE(prefix.crc ?? crc32(json), 8)
  return Buffer.concat([MAGIC, numbers, json, data])
}

/** A file of one tensor, float32 [4] unless `fields` say otherwise. */
function one(fields: object, section: Uint8Array | number[]): Buffer {
  const data = Uint8Array.from(section)
  const entry = { dtype: 'float32', shape: [4], encoding: 'raw', data_offsets: [0, data.length], crc32: crc32(data) }
  return build({ tensors: { a: { ...entry, ...fields } } }, data)
}

/** uint8 tensors, whose symbols are bytes: sections can be read. */
const bytes = (encoding: string, elements: number, section: number[]) =>
  one({ dtype: 'uint8', shape: [elements], encoding }, section)
const codebook = (elements: number, ...section: number[]) => bytes('codebook', elements, section)

t.test('hostile files are refused with the file, the tensor and the value', async (t) => {
  const four = new Uint8Array(16)
  const big = 2 ** 50
  const cases: [string, Buffer, RegExp][] = [
    ['empty', Buffer.alloc(0), /0 bytes are too few/],
    ['another format', Buffer.alloc(64, 'x'), /does not start as a compressed file does/],
    ['version 2', build({}, four, { version: 2 }), /version 2 is not 1/],
    ['header beyond the file', build({}, four, { length: 50 }), /header length 50 reaches beyond the file's 38 bytes/],
    ['header of 4 GB', build({}, four, { length: 2 ** 32 - 1 }), /header length 4294967295 is more than 100000000/],
    ['header CRC', build({}, four, { crc: 1 }), /the header is damaged/],
    ['not JSON', build('{"tensors": ', four), /the header is not JSON/],
    ['an array', build('[]', four), /must start with '\{'/],
    ['no tensors', build({}, four), /tensors must be an object, got undefined/],
    ['tensors null', build({ tensors: null }, four), /tensors must be an object, got null/],
    ['unknown field', build({ tensors: {}, more: 1 }, new Uint8Array(0)), /unknown field "more"/],
    [
      'metadata of numbers',
      build({ metadata: { k: 1 }, tensors: {} }, new Uint8Array(0)),
      /"k" must be a string, got 1/,
    ],
    ['duplicate tensor', build('{"tensors":{"a":{},"a":{}}}', four), /key "a" is given twice/],
    ['entry null', build({ tensors: { a: null } }, four), /tensor "a": must be an object, got null/],
    ['entry field', one({ extra: 1 }, four), /tensor "a": unknown field "extra"/],
    ['dtype', one({ dtype: 'F32' }, four), /dtype must be one of float32 .*, got "F32"/],
    ['dtype toString', one({ dtype: 'toString' }, four), /dtype must be one of/],
    ['encoding', one({ encoding: 'zip' }, four), /encoding must be one of raw .*, got "zip"/],
    ['no shape', one({ shape: undefined }, four), /shape must be an array, got undefined/],
    ['rank 9', one({ shape: new Array(9).fill(1) }, four), /shape has 9 axes/],
    ['sizes as text', one({ shape: ['4'] }, four), /size that is not a whole number/],
    ['2^64 elements', one({ shape: [2 ** 32, 2 ** 32] }, four), /more than 2\^40 elements/],
    ['2^53 wraps', one({ shape: [big, 8] }, four), /more than 2\^40 elements/],
    ['zero times too much', one({ shape: [0, big] }, four), /more than 2\^40 elements/],
    ['offsets of three', one({ data_offsets: [0, 16, 32] }, four), /data_offsets must be two whole numbers/],
    ['offsets swapped', one({ data_offsets: [16, 0] }, four), /data_offsets \[16, 0\] end before they begin/],
    ['beyond the data', one({ data_offsets: [0, 17] }, four), /data_offsets \[0, 17\] reach beyond the 16 bytes/],
    ['bytes left over', one({ data_offsets: [0, 15] }, four), /1 bytes after the last tensor belong to none/],
    ['gap', one({ data_offsets: [1, 16] }, four), /leave a gap from 0/],
    [
      'overlap',
      build(
        {
          tensors: Object.fromEntries(
            ['a', 'b'].map((name, i) => [
              name,
              { dtype: 'uint8', shape: [9], encoding: 'raw', data_offsets: [7 * i, 7 * i + 9], crc32: 0 },
            ]),
          ),
        },
        four,
      ),
      /tensor "b": data_offsets \[7, 16\] overlap/,
    ],
    ['crc missing', one({ crc32: undefined }, four), /crc32 must be a whole number of 32 bits, got undefined/],
    ['crc of 33 bits', one({ crc32: 2 ** 32 }, four), /crc32 must be a whole number of 32 bits/],
    ['crc', one({ crc32: 5 }, four), /tensor "a": its bytes are damaged/],
    ['raw of another size', one({ shape: [3] }, four), /takes 12 bytes, the file has 16/],
    ['more than any encoding', one({ shape: [1 << 30] }, four), /takes 4294967296 bytes, more than 1032 times the 16/],
    [
      'elements from nothing',
      one({ encoding: 'sparse' }, []),
      /takes 16 bytes, more than 1032 times the 0 in the file/,
    ],
    ['bool of 2', one({ dtype: 'bool', shape: [3] }, [1, 0, 2]), /element 2 of a bool is 2, must be 0 or 1/],

    ['deflate of noise', one({ encoding: 'deflate' }, [7, 1, 2]), /inflating failed/],
    [
      'deflate cut',
      one({ encoding: 'deflate' }, deflateRawSync(four).subarray(0, -1)),
      /inflating failed: unexpected end/,
    ],
    ['deflate of less', one({ encoding: 'deflate' }, deflateRawSync(new Uint8Array(15))), /gives 15 bytes, not 16/],
    ['deflate bomb', one({ encoding: 'deflate' }, deflateRawSync(new Uint8Array(1e8))), /gives more than 16 bytes/],
    ['deflate and more', one({ encoding: 'deflate' }, [...deflateRawSync(four), 0]), /bytes follow the end/],
    ['codes for int64', one({ dtype: 'int64', encoding: 'codebook' }, four), /encoding codebook is not for int64/],

    ['no count', codebook(1, 0x80), /its bytes end in values: the number of symbols/],
    ['count of 2^70', codebook(1, ...new Array(10).fill(0xff), 1), /the number of symbols is more than/],
    ['count and shape', codebook(4, 3, 1, 2, 8, 9, 1, 0b01000000), /has 4 elements, the section 3 values/],
    ['count 0 and shape', codebook(4, 0), /has 4 elements, the section 0 values/],
    ['codes of 16 bits', codebook(4, 4, 16, 2), /values: the longest code is more than 15/],
    ['over-subscribed', codebook(4, 4, 1, 3, 7, 8, 9, 1, 0), /more symbols of up to 1 bits than there are codes/],
    ['over-subscribed below', codebook(4, 4, 2, 2, 1, 7, 8, 9, 1, 0), /more symbols of up to 2 bits/],
    ['under-subscribed', codebook(4, 4, 2, 1, 1, 7, 8, 1, 0), /leaves sequences of bits without a meaning/],
    ['no codes', codebook(4, 4, 0, 1, 0), /the bits are not those of 4 symbols/],
    ['2^40 codes', codebook(4, 4, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1), /the codes of 1 bits is more than 32768/],
    ['symbols missing', codebook(4, 4, 1, 2, 7), /a code of 2 symbols takes 2 bytes, 1 are left/],
    ['bits missing', codebook(4, 4, 1, 2, 7, 8, 9, 0), /values: the bits takes 9 bytes, 1 are left/],
    ['too few bits', codebook(9, 9, 1, 2, 7, 8, 1, 0), /9 symbols cannot be in 1 bytes/],
    ['bits that end', codebook(7, 7, 2, 1, 2, 7, 8, 9, 1, 255), /the bits are not those of 7 symbols/],
    ['other bit of a lone code', codebook(4, 4, 1, 1, 7, 1, 0b00010000), /the bits are not those of 4 symbols/],
    ['a byte too many', codebook(4, 4, 1, 2, 7, 8, 2, 0, 0), /bits are left over after 4 symbols/],
    ['padding of ones', codebook(4, 4, 1, 2, 7, 8, 1, 1), /bits are left over after 4 symbols/],
    ['bytes behind', codebook(4, 4, 1, 2, 7, 8, 1, 0, 0), /1 bytes follow the last field/],

    ['more non-zeros than elements', bytes('sparse', 4, [5, 15, 0]), /the number of non-zeros is more than 4/],
    ['escape 0', bytes('sparse', 4, [1, 0, 1, 1, 1, 0, 1, 0, 9]), /the escape is 0/],
    [
      'gap above the escape',
      bytes('sparse', 40, [1, 15, 1, 1, 1, 16, 1, 0, 9]),
      /symbol 16 is more than the escape 15/,
    ],
    ['non-zero outside', bytes('sparse', 4, [1, 15, 1, 1, 1, 4, 1, 0, 9]), /non-zero 0 lies behind the last of 4/],
    ['escapes outside', bytes('sparse', 20, [1, 15, 2, 1, 2, 15, 5, 1, 0b01000000, 9]), /lies behind the last of 20/],
    ['more gaps than values', bytes('sparse', 9, [1, 15, 2, 1, 1, 0, 1, 0, 9]), /more than 1 non-zeros/],
    ['fewer gaps than values', bytes('sparse', 9, [2, 15, 1, 1, 1, 0, 1, 0, 9, 9]), /those of 1 non-zeros, not of 2/],
    [
      'gaps and a byte',
      bytes('sparse', 9, [1, 15, 1, 1, 1, 0, 2, 0, 0, 9]),
      /gaps: bits are left over after 1 symbols/,
    ],
    ['values missing', bytes('sparse', 9, [2, 15, 2, 1, 1, 0, 1, 0, 9]), /the non-zeros takes 2 bytes, 1 are left/],
    [
      'values and non-zeros',
      bytes('sparse-codebook', 9, [2, 15, 2, 1, 1, 0, 1, 0, 1, 1, 1, 9, 1, 0]),
      /has 2 non-zeros, the section 1 values/,
    ],
  ]
  const folder = t.testdir()
  for (const [name, bytes, message] of cases) {
    const file = path.join(folder, `${name.replaceAll(/\W/g, '-')}.kerf`)
    writeFileSync(file, bytes)
    await t.rejects(loadCompressed(file), { name: 'FormatError', code: 'ERR_FORMAT', message }, name)
    await t.rejects(loadCompressed(file), { message: new RegExp(path.basename(file)) }, `${name}: names the file`)
    await t.rejects(parseCompressed(bytes), { code: 'ERR_FORMAT', message }, `${name}: in memory`)
  }
})

t.test('hand-made sections that are right are read', async (t) => {
  const read = async (file: Buffer) => [...(await ((await parseCompressed(file)).tensors.a as Tensor<'uint8'>).data())]
  t.same(await read(codebook(4, 4, 1, 2, 7, 8, 1, 0b01100000)), [7, 8, 8, 7])
  t.same(await read(codebook(3, 3, 1, 1, 7, 1, 0)), [7, 7, 7], 'a lone symbol')
  const gaps = [3, 2, 1, 2, 1, 0, 2, 1, 0b01110000] // 1, the escape, 0
  t.same(await read(bytes('sparse', 7, [2, 2, ...gaps, 8, 9])), [0, 8, 0, 0, 9, 0, 0])
  t.same(await read(bytes('sparse', 3, [0, 15, 0])), [0, 0, 0], 'no non-zeros')
})

t.test('maxBytes bounds what a file may ask for', async (t) => {
  const file = await serializeCompressed({ a: tensor(new Float32Array(5000)), b: tensor([1, 2]) })
  t.equal(Object.keys((await parseCompressed(file, { maxBytes: 20_008 })).tensors).length, 2)
  await t.rejects(parseCompressed(file, { maxBytes: 20_007 }), {
    code: 'ERR_FORMAT',
    message: /the tensors take 20008 bytes, maxBytes is 20007/,
  })
})

/** A file with every encoding in it. */
async function sample(): Promise<Buffer> {
  const next = generator(11)
  const draw = (n: number, value: () => number) => Float32Array.from({ length: n }, value)
  const tensors: Record<string, Tensor> = {
    codebook: tensor(draw(400, () => Math.floor(next() * 6) + 0.3)),
    raw: tensor(draw(6, next)),
    sparse: tensor(draw(500, () => (next() < 0.06 ? next() : 0))),
    shared: tensor(draw(900, () => (next() < 0.2 ? Math.floor(next() * 5) - 9.7 : 0))),
    deflate: tensor(new Int32Array(300).map((_, i) => i % 50)),
    flags: tensor([true, false, true]),
  }
  return Buffer.from(await serializeCompressed(tensors, { metadata: { k: 'v' } }))
}

const refusal = (file: Buffer) =>
  parseCompressed(file).then(
    () => null,
    (error: { code?: string; message: string }) => error,
  )

t.test('every truncation and every flipped bit is seen', async (t) => {
  const good = await sample()
  const text = good.toString('latin1')
  for (const encoding of ['raw', 'deflate', 'codebook', 'sparse', 'sparse-codebook'])
    t.ok(text.includes(`"encoding":"${encoding}"`), encoding)
  t.equal(await refusal(good), null)
  for (let length = 0; length < good.length; length++) {
    const error = await refusal(good.subarray(0, length))
    if (error?.code !== 'ERR_FORMAT') t.fail(`cut to ${length} bytes: ${error}`)
  }
  for (let bit = 0; bit < 8 * good.length; bit++) {
    const bad = Buffer.from(good)
    bad[bit >> 3] = (bad[bit >> 3] as number) ^ (1 << (bit & 7))
    const error = await refusal(bad)
    if (error?.code !== 'ERR_FORMAT') t.fail(`bit ${bit}: ${error}`)
  }
})

t.test('damage with right checksums gives an error or other values, and nothing else', async (t) => {
  const good = await sample()
  const length = good.readUInt32LE(12)
  const header = JSON.parse(good.subarray(20, 20 + length).toString())
  const data = good.subarray(20 + length)
  const next = generator(12)
  const random = (n: number) => Math.floor(next() * n)
  let refused = 0
  for (let round = 0; round < 3000; round++) {
    const bad = Buffer.from(data)
    const entries = Object.values(header.tensors) as {
      data_offsets: [number, number]
      shape: number[]
      crc32: number
    }[]
    const chosen = entries[round % entries.length] as (typeof entries)[number]
    const [begin, end] = chosen.data_offsets
    // Most of what can go wrong stands at a section's beginning.
    for (let flips = random(3); flips >= 0; flips--)
      bad[begin + random(next() < 0.5 ? Math.min(30, end - begin) : end - begin)] = random(256)
    const shape = next() < 0.2 ? [random(1000)] : chosen.shape
    const damaged = entries.map((entry) => ({
      ...entry,
      shape: entry === chosen ? shape : entry.shape,
      crc32: crc32(bad.subarray(...entry.data_offsets)),
    }))
    const error = await refusal(build({ tensors: Object.fromEntries(damaged.entries()) }, bad))
    if (error) refused++
    if (error && error.code !== 'ERR_FORMAT') t.fail(`${error}: ${JSON.stringify(damaged)} ${bad.toString('hex')}`)
  }
  t.ok(refused > 1000, `${refused} of 3000 refused`)
})

t.test('the report reads headers only, and as strictly', async (t) => {
  const file = path.join(t.testdir(), 'bad.kerf')
  writeFileSync(file, one({ crc32: 5 }, new Uint8Array(16)))
  t.equal((await compressedReport(file)).tensors.a?.encoding, 'raw')
  writeFileSync(file, one({ shape: [1 << 30] }, new Uint8Array(16)))
  await t.rejects(compressedReport(file), { code: 'ERR_FORMAT', message: /compressedReport: .*bad\.kerf: tensor "a"/ })
})
