/** safetensors: round trips, the layout on disk, atomic writes, and files that must be refused. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { type DType, expand, noGrad, scope, type Tensor, tensor, transpose, zeros } from 'kerf'
import { loadSafetensors, parseSafetensors, readSafetensorsInfo, saveSafetensors, serializeSafetensors } from 'kerf/io'
import t from 'tap'

/** A file from its header (an object, or raw text) and its data. */
function build(header: unknown, data: Uint8Array | number = 0, claimed?: bigint): Buffer {
  const json = Buffer.isBuffer(header)
    ? header
    : Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(claimed ?? BigInt(json.length))
  return Buffer.concat([length, json, typeof data === 'number' ? Buffer.alloc(data) : data])
}

/** One float32 tensor of 4 values with some fields replaced. */
const one = (fields: object) => ({ a: { dtype: 'F32', shape: [2, 2], data_offsets: [0, 16], ...fields } })

/** Raw bytes of every kind of pattern the dtype has: NaNs, subnormals and negative zeros included. */
function pattern(dtype: DType, bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => (dtype === 'bool' ? i & 1 : (i * 37 + 201) & 255))
}

const elementBytes = { float32: 4, float16: 2, bfloat16: 2, int8: 1, uint8: 1, int32: 4, int64: 8, bool: 1 }
const formatNames = {
  float32: 'F32',
  float16: 'F16',
  bfloat16: 'BF16',
  int8: 'I8',
  uint8: 'U8',
  int32: 'I32',
  int64: 'I64',
  bool: 'BOOL',
}
const dtypes = Object.keys(formatNames) as DType[]
const bytesOf = async (x: Tensor) => {
  const data = await x.data()
  return Buffer.from(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength)
}

t.test('every dtype and shape comes back with its bits', async (t) => {
  const shapes = [[], [0], [1], [3, 0, 2], [7], [2, 3, 5], [1, 1, 1, 1, 1, 1, 1, 2], [67, 129]]
  const header: Record<string, unknown> = {}
  const data: Uint8Array[] = []
  let next = 0
  for (const dtype of dtypes) {
    for (const shape of shapes) {
      const bytes = shape.reduce((n, size) => n * size, 1) * elementBytes[dtype]
      header[`${dtype} ${shape}`] = { dtype: formatNames[dtype], shape, data_offsets: [next, next + bytes] }
      data.push(pattern(dtype, bytes))
      next += bytes
    }
  }
  const file = path.join(t.testdir(), 'all.safetensors')
  writeFileSync(file, build({ __metadata__: { format: 'kerf', ключ: '値' }, ...header }, Buffer.concat(data)))
  const first = await loadSafetensors(file)
  const again = path.join(path.dirname(file), 'again.safetensors')
  await saveSafetensors(again, first, { metadata: (await readSafetensorsInfo(file)).metadata })
  const second = await loadSafetensors(again)
  t.equal(Object.keys(first).length, dtypes.length * shapes.length)
  let i = 0
  for (const dtype of dtypes) {
    for (const shape of shapes) {
      const name = `${dtype} ${shape}`
      for (const x of [first[name], second[name]] as Tensor[]) {
        t.equal(x.dtype, dtype)
        t.same(x.shape, shape)
        t.ok(x.contiguous && !x.requiresGrad)
        t.ok((await bytesOf(x)).equals(data[i] as Uint8Array), name)
      }
      i++
    }
  }
  const info = await readSafetensorsInfo(again)
  t.same(info.metadata, { format: 'kerf', ключ: '値' })
  t.same(info.tensors['int64 2,3,5'], { dtype: 'int64', shape: [2, 3, 5], bytes: 240 })
})

t.test('the file is what the format says', async (t) => {
  const dict = {
    b: tensor([1, 2, 3], { dtype: 'int8' }),
    a: tensor([[1.5, -2]]),
    c: tensor([7n]),
  }
  const bytes = Buffer.from(await serializeSafetensors(dict, { metadata: { by: 'test' } }))
  const length = Number(bytes.readBigUInt64LE(0))
  const text = bytes.subarray(8, 8 + length).toString()
  t.equal(length % 8, 0, 'the data is aligned')
  t.match(text, /^\{.*\} *$/)
  t.same(JSON.parse(text), {
    __metadata__: { by: 'test' },
    c: { dtype: 'I64', shape: [1], data_offsets: [0, 8] },
    a: { dtype: 'F32', shape: [1, 2], data_offsets: [8, 16] },
    b: { dtype: 'I8', shape: [3], data_offsets: [16, 19] },
  })
  t.equal(bytes.subarray(8 + length).toString('hex'), '0700000000000000' + '0000c03f000000c0' + '010203')
  const reversed = Object.fromEntries(Object.entries(dict).reverse())
  t.ok(
    bytes.equals(await serializeSafetensors(new Map(Object.entries(reversed)), { metadata: { by: 'test' } })),
    'equal dicts, equal files',
  )
  t.same((await parseSafetensors(bytes)).metadata, { by: 'test' })
  const aligned = new Uint8Array(bytes)
  t.same(await (await parseSafetensors(aligned.buffer)).tensors.a?.array(), [[1.5, -2]], 'an ArrayBuffer')
})

t.test('names are data', async (t) => {
  const dict = Object.fromEntries(
    ['__proto__', 'constructor', '', '2', '10', 'a"b\\\n\u0000', 'ü'].map((name, i) => [name, tensor([i])]),
  )
  const file = path.join(t.testdir(), 'names.safetensors')
  await saveSafetensors(file, dict)
  const back = await loadSafetensors(file)
  t.same(new Set(Object.keys(back)), new Set(Object.keys(dict)))
  t.equal(Object.getPrototypeOf(back), Object.prototype)
  for (const [name, x] of Object.entries(back)) t.same(await x.array(), await dict[name]?.array(), JSON.stringify(name))
})

t.test('strided tensors are written row-major, and as they were at the call', async (t) => {
  const base = tensor([
    [1, 2, 3],
    [4, 5, 6],
  ])
  const live = zeros([2])
  const written = serializeSafetensors({ transposed: transpose(base), expanded: expand(tensor([[9]]), [2, 2]), live })
  live.dispose()
  const after = tensor([5, 5]) // likely takes live's bytes
  const { tensors } = await parseSafetensors(await written)
  t.same(await tensors.transposed?.array(), [
    [1, 4],
    [2, 5],
    [3, 6],
  ])
  t.same(await tensors.expanded?.array(), [
    [9, 9],
    [9, 9],
  ])
  t.same(await tensors.live?.array(), [0, 0])
  t.same(await after.array(), [5, 5])
})

t.test('loading obeys scope(), even one that ends before the file is read', async (t) => {
  const file = path.join(t.testdir(), 'a.safetensors')
  await saveSafetensors(file, { a: tensor(new Float32Array(5000).fill(3)) })
  let pending: Promise<Record<string, Tensor>> | undefined
  scope(() => {
    pending = loadSafetensors(file)
    return undefined
  })
  const others = Array.from({ length: 8 }, () => zeros([5000]))
  const { a } = (await pending) as Record<string, Tensor>
  t.same(new Set((await a?.data()) as Float32Array), new Set([3]))
  for (const other of others) t.same(new Set(await other.data()), new Set([0]))
  let inner: Tensor | undefined
  await scope(async () => {
    inner = (await loadSafetensors(file)).a
  })
  t.equal(inner?.disposed, true)
  t.equal(await noGrad(async () => Object.keys(await loadSafetensors(file)).length), 1)
})

t.test('writing is atomic and leaves nothing behind', async (t) => {
  const folder = t.testdir({ real: {} })
  const file = path.join(folder, 'model.safetensors')
  await saveSafetensors(file, { a: tensor([1]) })
  await t.rejects(saveSafetensors(file, { a: tensor([2]), b: 3 as never }), { code: 'ERR_ARGUMENT' })
  t.same(await (await loadSafetensors(file)).a?.array(), [1])
  mkdirSync(path.join(folder, 'taken'))
  await t.rejects(
    saveSafetensors(path.join(folder, 'taken'), { a: tensor([2]) }),
    { code: 'EISDIR' },
    'a folder in the way',
  )
  t.same(readdirSync(folder).sort(), ['model.safetensors', 'real', 'taken'])
  await t.rejects(saveSafetensors(path.join(folder, 'none', 'x'), { a: tensor([2]) }), { code: 'ENOENT' })

  symlinkSync(path.join(folder, 'real', 'target'), path.join(folder, 'link'))
  writeFileSync(path.join(folder, 'real', 'target'), 'old')
  await saveSafetensors(path.join(folder, 'link'), { a: tensor([4]) })
  t.same(await (await loadSafetensors(path.join(folder, 'real', 'target'))).a?.array(), [4], 'through a symbolic link')
  t.same(readdirSync(path.join(folder, 'real')), ['target'])

  const writers = [1, 2, 3, 4].map((value) =>
    saveSafetensors(file, { a: tensor(new Float32Array(50_000).fill(value)) }),
  )
  await Promise.all(writers)
  t.equal(
    new Set((await (await loadSafetensors(file)).a?.data()) as Float32Array).size,
    1,
    'one of the writers won, whole',
  )
})

t.test('large files do not block the event loop', async (t) => {
  const file = path.join(t.testdir(), 'large.safetensors')
  const large = zeros([16, 1024, 1024])
  let turns = 0
  const ticking = setInterval(() => turns++, 1)
  await saveSafetensors(file, { large })
  const whileSaving = turns
  const { large: back } = await loadSafetensors(file)
  clearInterval(ticking)
  t.ok(whileSaving >= 2, `${whileSaving} turns while saving 64 MiB`)
  t.ok(turns - whileSaving >= 2, `${turns - whileSaving} turns while loading`)
  t.same(back?.shape, [16, 1024, 1024])
})

t.test('hostile files are refused with the file, the field and the value', async (t) => {
  const big = 2 ** 50
  const cases: [string, Buffer, RegExp][] = [
    ['empty', Buffer.alloc(0), /0 bytes are too few/],
    ['seven bytes', Buffer.alloc(7), /7 bytes are too few/],
    ['header length beyond the file', build({}, 0, 100n), /header length 100 reaches beyond the file's 10 bytes/],
    [
      'header length 2^64 - 1',
      build({}, 0, 2n ** 64n - 1n),
      /header length 18446744073709551615 is more than 100000000/,
    ],
    ['header length 2^63', build({}, 0, 2n ** 63n), /header length 9223372036854775808 is more/],
    ['header length 0', build('', 16), /must start with '\{', got ""/],
    ['not JSON', build('{"a": '), /the header is not JSON/],
    ['two documents', build('{}{}'), /the header is not JSON/],
    ['leading space', build(' {}'), /must start with '\{', got " "/],
    ['byte order mark', build('\ufeff{}'), /must start with '\{'/],
    ['an array', build('[]'), /must start with '\{'/],
    ['not UTF-8', build(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])), /not UTF-8/],
    [
      'duplicate tensor',
      build(
        '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
        2,
      ),
      /key "a" is given twice/,
    ],
    [
      'duplicate field',
      build('{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', 1),
      /key "dtype" is given twice/,
    ],
    ['duplicate metadata', build('{"__metadata__":{"k":"1","k":"2"}}'), /key "k" is given twice/],
    ['metadata not an object', build({ __metadata__: 'x' }), /__metadata__ must be an object, got "x"/],
    ['metadata null', build({ __metadata__: null }), /__metadata__ must be an object, got null/],
    ['metadata of numbers', build({ __metadata__: { k: 1 } }), /__metadata__: "k" must be a string, got 1/],
    ['entry is null', build({ a: null }), /tensor "a": must be an object, got null/],
    ['entry is a list', build({ a: [] }), /tensor "a": must be an object/],
    [
      'no dtype',
      build({ a: { shape: [], data_offsets: [0, 4] } }, 4),
      /tensor "a": dtype must be one of .*, got undefined/,
    ],
    [
      'no shape',
      build({ a: { dtype: 'F32', data_offsets: [0, 4] } }, 4),
      /tensor "a": shape must be an array, got undefined/,
    ],
    [
      'no offsets',
      build({ a: { dtype: 'F32', shape: [] } }, 4),
      /tensor "a": data_offsets must be two whole numbers, got undefined/,
    ],
    [
      'unknown dtype',
      build(one({ dtype: 'F128' }), 16),
      /dtype must be one of F32 F16 BF16 I8 U8 I32 I64 BOOL, got "F128"/,
    ],
    ['dtype of another type', build(one({ dtype: ['F32'] }), 16), /dtype must be one of/],
    ['dtype toString', build(one({ dtype: 'toString' }), 16), /dtype must be one of .*, got "toString"/],
    ['unknown field', build(one({ extra: 1 }), 16), /tensor "a": unknown field "extra"/],
    ['rank 9', build(one({ shape: [2, 2, 1, 1, 1, 1, 1, 1, 1] }), 16), /shape has 9 axes, at most 8/],
    ['huge rank', build(one({ shape: new Array(100_000).fill(1) }), 16), /shape has 100000 axes/],
    [
      'negative size',
      build('{"a":{"dtype":"F32","shape":[-2,-2],"data_offsets":[0,16]}}', 16),
      /number -2 at key "shape"/,
    ],
    [
      'fractional size',
      build('{"a":{"dtype":"F32","shape":[2.5],"data_offsets":[0,10]}}', 10),
      /number 2\.5 at key "shape"/,
    ],
    ['size 4.0', build('{"a":{"dtype":"F32","shape":[4.0],"data_offsets":[0,16]}}', 16), /number 4\.0 at key "shape"/],
    ['size 4e0', build('{"a":{"dtype":"F32","shape":[4e0],"data_offsets":[0,16]}}', 16), /number 4e0 at key "shape"/],
    ['size -0', build('{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}'), /number -0 at key "shape"/],
    ['size as text', build(one({ shape: ['2', 2] }), 16), /size that is not a whole number/],
    ['nested sizes', build(one({ shape: [[2], 2] }), 16), /size that is not a whole number/],
    ['2^64 elements', build(one({ shape: [2 ** 32, 2 ** 32] }), 16), /more than 2\^40 elements/],
    [
      '2^53 + 1',
      build('{"a":{"dtype":"F32","shape":[9007199254740993],"data_offsets":[0,16]}}', 16),
      /not a whole number|more than 2\^40/,
    ],
    ['zero times too much', build(one({ shape: [0, big, big], data_offsets: [0, 0] })), /more than 2\^40 elements/],
    [
      'shape and bytes differ',
      build(one({ shape: [2, 3] }), 16),
      /float32 \[2, 3\] takes 24 bytes, data_offsets \[0, 16\] are 16/,
    ],
    ['offsets swapped', build(one({ data_offsets: [16, 0] }), 16), /takes 16 bytes, data_offsets \[16, 0\] are -16/],
    ['offsets of three', build(one({ data_offsets: [0, 16, 32] }), 16), /data_offsets must be two whole numbers/],
    ['offsets as text', build(one({ data_offsets: ['0', '16'] }), 16), /data_offsets must be two whole numbers/],
    [
      'offset 2^60',
      build('{"a":{"dtype":"U8","shape":[1],"data_offsets":[1152921504606846976,1152921504606846977]}}', 1),
      /data_offsets must be two whole numbers/,
    ],
    [
      'negative offsets',
      build('{"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}}', 0),
      /number -1 at key "data_offsets"/,
    ],
    ['beyond the data', build(one({}), 15), /reach beyond the 15 bytes of data/],
    [
      'truncated in the middle',
      build({ ...one({}), b: { dtype: 'F32', shape: [4], data_offsets: [16, 32] } }, 20),
      /tensor "b": data_offsets \[16, 32\] reach beyond/,
    ],
    ['bytes left over', build(one({}), 17), /1 bytes after the last tensor belong to none/],
    ['data without tensors', build({}, 8), /8 bytes after the last tensor/],
    [
      'gap',
      build({ ...one({}), b: { dtype: 'U8', shape: [1], data_offsets: [17, 18] } }, 18),
      /tensor "b": data_offsets \[17, 18\] leave a gap from 16/,
    ],
    [
      'gap at the start',
      build(one({ data_offsets: [4, 20] }), 20),
      /tensor "a": data_offsets \[4, 20\] leave a gap from 0/,
    ],
    [
      'overlap',
      build({ ...one({}), b: { dtype: 'U8', shape: [4], data_offsets: [12, 16] } }, 16),
      /tensor "b": data_offsets \[12, 16\] overlap/,
    ],
    [
      'the same bytes twice',
      build({ ...one({}), b: { dtype: 'F32', shape: [4], data_offsets: [0, 16] } }, 16),
      /overlap another/,
    ],
    [
      'bool of 2',
      build({ a: { dtype: 'BOOL', shape: [3], data_offsets: [0, 3] } }, Buffer.from([1, 0, 2])),
      /tensor "a": element 2 of a bool is 2, must be 0 or 1/,
    ],
    ['deep nesting', build(`{"a":${'['.repeat(200_000)}${']'.repeat(200_000)}}`), /tensor "a": must be an object/],
  ]
  const folder = t.testdir()
  for (const [name, bytes, message] of cases) {
    const file = path.join(folder, `${name.replaceAll(/\W/g, '-')}.safetensors`)
    writeFileSync(file, bytes)
    await t.rejects(loadSafetensors(file), { name: 'FormatError', code: 'ERR_FORMAT', message }, name)
    await t.rejects(loadSafetensors(file), { message: new RegExp(path.basename(file)) }, `${name}: names the file`)
    await t.rejects(parseSafetensors(bytes), { code: 'ERR_FORMAT', message }, `${name}: in memory`)
  }
})

t.test('no random damage crashes or hangs', async (t) => {
  const good = Buffer.from(
    await serializeSafetensors(
      { a: tensor([1, 2, 3]), b: tensor([true, false]), c: tensor([[1n]]) },
      { metadata: { k: 'v' } },
    ),
  )
  let state = 12345
  const random = (n: number) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return Math.floor((state / 2 ** 32) * n)
  }
  let refused = 0
  for (let i = 0; i < 1500; i++) {
    const bad = Buffer.from(good.subarray(0, i % 3 === 0 ? random(good.length) : good.length))
    for (let flips = random(3); flips >= 0 && bad.length > 0; flips--) bad[random(bad.length)] = random(256)
    const error = await parseSafetensors(bad).then(
      () => undefined,
      (e: { code?: string }) => e,
    )
    if (error) refused++
    if (error && error.code !== 'ERR_FORMAT') t.fail(`${error}: ${bad.toString('latin1')}`)
  }
  t.ok(refused > 500, `${refused} of 1500 refused`)
})

t.test('wrong arguments', async (t) => {
  const a = tensor([1])
  const gone = tensor([1])
  gone.dispose()
  for (const bad of ['', 'a\0b', 3, null, undefined, {}, Symbol('x')]) {
    await t.rejects(loadSafetensors(bad as never), { code: 'ERR_ARGUMENT' })
    await t.rejects(saveSafetensors(bad as never, { a }), { code: 'ERR_ARGUMENT' })
  }
  for (const bad of [null, 3, 'x', [a], { a: null }, { a: [1] }, { __metadata__: a }, new Map([[1, a]])]) {
    await t.rejects(serializeSafetensors(bad as never), { code: 'ERR_ARGUMENT' })
  }
  await t.rejects(serializeSafetensors({ gone }), { code: 'ERR_DISPOSED' })
  await t.rejects(serializeSafetensors({ a }, { metadata: { k: 1 } as never }), {
    message: /metadata\["k"\] must be a string, got 1/,
  })
  await t.rejects(serializeSafetensors({ a }, { metadata: 'x' as never }), { code: 'ERR_ARGUMENT' })
  for (const bad of [null, 'x', [1, 2], new Float32Array(4), new SharedArrayBuffer(16)]) {
    await t.rejects(parseSafetensors(bad as never), { code: 'ERR_ARGUMENT' })
  }
  await t.rejects(loadSafetensors(path.join(t.testdir(), 'none')), { code: 'ENOENT' })
  await t.rejects(loadSafetensors(t.testdir()), { code: 'ERR_FORMAT', message: /not a regular file/ })
  if (process.platform !== 'win32' && existsSync('/usr/bin/mkfifo')) {
    const fifo = path.join(t.testdir(), 'fifo')
    execFileSync('mkfifo', [fifo])
    await t.rejects(loadSafetensors(fifo), { code: 'ERR_FORMAT' }, 'a FIFO does not block')
  }
})
