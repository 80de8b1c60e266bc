/** .npy: NumPy's own bytes, round trips, both orders, all versions, and files that must be refused. */
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { type DType, type Tensor, tensor, transpose } from 'kerf'
import { loadNpy, parseNpy, saveNpy, serializeNpy } from 'kerf/io'
import t from 'tap'

function build(header: string, data: Uint8Array | number = 0, version = [1, 0]): Buffer {
  const major = version[0] as number
  const text = Buffer.from(header, major === 3 ? 'utf8' : 'latin1')
  const length = Buffer.alloc(major === 1 ? 2 : 4)
  if (major === 1) length.writeUInt16LE(text.length)
  else length.writeUInt32LE(text.length)
  return Buffer.concat([
    Buffer.from('\x93NUMPY', 'latin1'),
    Buffer.from(version),
    length,
    text,
    typeof data === 'number' ? Buffer.alloc(data) : data,
  ])
}

const header = (descr: string, shape: string, order = 'False') =>
  `{'descr': '${descr}', 'fortran_order': ${order}, 'shape': ${shape}, }\n`

t.test('what NumPy writes', async (t) => {
  // numpy.save(f, numpy.array([[1.5, -2.0, 3.25]], dtype='<f4')) of NumPy 1.24
  const bytes = Buffer.concat([
    Buffer.from('\x93NUMPY\x01\x00\x76\x00', 'latin1'),
    Buffer.from(`${"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }".padEnd(117)}\n`),
    Buffer.from('0000c03f000000c000005040', 'hex'),
  ])
  const x = await parseNpy(bytes)
  t.equal(x.dtype, 'float32')
  t.same(await x.array(), [[1.5, -2, 3.25]])
  const own = Buffer.from(await serializeNpy(x))
  t.equal(own.subarray(0, 10).toString('latin1').slice(0, 8), '\x93NUMPY\x01\x00')
  t.equal((10 + own.readUInt16LE(8)) % 64, 0, 'the data is aligned to 64')
  t.same(await (await parseNpy(own)).array(), [[1.5, -2, 3.25]])
})

t.test('every dtype and rank comes back with its bits', async (t) => {
  const folder = t.testdir()
  const elementBytes = { float32: 4, float16: 2, int8: 1, uint8: 1, int32: 4, int64: 8, bool: 1 }
  const descriptors = {
    float32: '<f4',
    float16: '<f2',
    int8: '|i1',
    uint8: '|u1',
    int32: '<i4',
    int64: '<i8',
    bool: '|b1',
  }
  for (const dtype of Object.keys(elementBytes) as (keyof typeof elementBytes)[]) {
    for (const shape of [[], [0], [5], [3, 0], [2, 3, 4], [1, 1, 1, 1, 1, 1, 2, 2]]) {
      const bytes = shape.reduce((n, size) => n * size, 1) * elementBytes[dtype]
      const data = Uint8Array.from({ length: bytes }, (_, i) => (dtype === 'bool' ? i & 1 : (i * 91 + 130) & 255))
      const x = await parseNpy(
        build(header(descriptors[dtype], shape.length === 1 ? `(${shape},)` : `(${shape.join(', ')})`), data),
      )
      const file = path.join(folder, `${dtype}-${shape.join('-')}.npy`)
      await saveNpy(file, x)
      const back = await loadNpy(file)
      t.equal(back.dtype, dtype as DType)
      t.same(back.shape, shape)
      const read = await back.data()
      t.ok(
        Buffer.from(read.buffer as ArrayBuffer, read.byteOffset, read.byteLength).equals(data),
        `${dtype} [${shape}]`,
      )
      t.ok(
        readFileSync(file)
          .subarray(-bytes || Number.POSITIVE_INFINITY)
          .equals(data),
      )
    }
  }
})

t.test('Fortran order, versions 2 and 3, and the forms that NumPy accepts', async (t) => {
  const values = Buffer.from([1, 2, 3, 4, 5, 6])
  const columns = await parseNpy(build(header('|u1', '(2, 3)', 'True'), values))
  t.same(await columns.array(), [
    [1, 3, 5],
    [2, 4, 6],
  ])
  t.same(columns.strides, [1, 2])
  t.same(
    await (await parseNpy(await serializeNpy(columns))).array(),
    [
      [1, 3, 5],
      [2, 4, 6],
    ],
    'written row-major',
  )
  t.same(await (await parseNpy(build(header('|u1', '(2, 3)'), values, [2, 0]))).array(), [
    [1, 2, 3],
    [4, 5, 6],
  ])
  t.same(await (await parseNpy(build(header('|u1', '(6,)'), values, [3, 0]))).array(), [1, 2, 3, 4, 5, 6])
  t.same(
    await (await parseNpy(build("{ 'shape':(3L,2L,),'descr' : '|u1','fortran_order':False }", values))).shape,
    [3, 2],
  )
  t.same(
    await transpose(
      tensor([
        [1, 2],
        [3, 4],
      ]),
    ).array(),
    await (
      await parseNpy(
        await serializeNpy(
          transpose(
            tensor([
              [1, 2],
              [3, 4],
            ]),
          ),
        ),
      )
    ).array(),
  )
})

t.test('hostile files are refused', async (t) => {
  const cases: [string, Buffer, RegExp][] = [
    ['empty', Buffer.alloc(0), /0 bytes are too few/],
    ['other magic', Buffer.from('PK\x03\x04 zip archive'), /does not start with/],
    ['version 4', build(header('<f4', '()'), 4, [4, 0]), /version 4\.0/],
    ['version 1.1', build(header('<f4', '()'), 4, [1, 1]), /version 1\.1/],
    ['header beyond the file', build(header('<f4', '()')).subarray(0, 40), /reaches beyond the file's 40 bytes/],
    [
      'header of 4 GiB',
      Buffer.from('\x93NUMPY\x02\x00\xff\xff\xff\xff', 'latin1'),
      /header length 4294967295 is more than/,
    ],
    ['big-endian', build(header('>f4', '()'), 4), /got ">f4" \(big-endian/],
    ['float64', build(header('<f8', '()'), 8), /got "<f8" \(convert it/],
    ['objects', build(header('|O', '()'), 8), /got "\|O"/],
    ['structured', build("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1,), }", 4), /structured|needs/],
    ['unknown key', build("{'descr': '<f4', 'x': 1, }", 4), /key "x" is unknown/],
    ['__proto__', build("{'__proto__': '<f4', }", 4), /key "__proto__" is unknown/],
    [
      'key twice',
      build("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (), }", 4),
      /key "descr" is given twice/,
    ],
    ['no shape', build("{'descr': '<f4', 'fortran_order': False, }", 4), /no "shape"/],
    ['not a dict', build('[1, 2, 3]', 4), /needs '\{'/],
    ['empty header', build('', 4), /needs '\{'/],
    ['code', build("{'descr': __import__('os').system('x'), }", 4), /needs a quoted type/],
    ['unclosed', build("{'descr': '<f4'", 4), /needs ',' or '\}'/],
    ['goes on', build(`${header('<f4', '()').trim()} + 1`, 4), /goes on after/],
    ['order as number', build("{'descr': '<f4', 'fortran_order': 1, 'shape': (), }", 4), /needs True or False/],
    ['negative size', build(header('<f4', '(-1,)'), 4), /needs a tuple/],
    ['fractional size', build(header('<f4', '(1.5,)'), 4), /needs a tuple/],
    ['not a tuple', build(header('<f4', '(3)'), 12), /is not a tuple/],
    ['comma twice', build(header('<f4', '(3,,)'), 12), /not a whole number/],
    ['rank 9', build(header('<f4', '(1,1,1,1,1,1,1,1,1)'), 4), /9 axes/],
    ['2^64 elements', build(header('<f4', '(4294967296, 4294967296)'), 4), /more than 2\^40/],
    ['zero times too much', build(header('<f4', '(0, 4294967296, 4294967296)'), 0), /more than 2\^40/],
    ['a number of 400 digits', build(header('<f4', `(${'9'.repeat(400)},)`), 4), /not a whole number/],
    ['truncated', build(header('<f4', '(2, 2)'), 15), /takes 16 bytes, the file has 15/],
    ['left over', build(header('<f4', '(2, 2)'), 17), /takes 16 bytes, the file has 17/],
    ['bool of 255', build(header('|b1', '(2,)'), Buffer.from([1, 255])), /element 1 of a bool is 255/],
  ]
  const folder = t.testdir()
  for (const [name, bytes, message] of cases) {
    const file = path.join(folder, `${name.replaceAll(/\W/g, '-')}.npy`)
    writeFileSync(file, bytes)
    await t.rejects(loadNpy(file), { name: 'FormatError', code: 'ERR_FORMAT', message }, name)
    await t.rejects(loadNpy(file), { message: new RegExp(path.basename(file)) }, `${name}: names the file`)
    await t.rejects(parseNpy(bytes), { code: 'ERR_FORMAT', message }, `${name}: in memory`)
  }
})

t.test('wrong arguments', async (t) => {
  await t.rejects(serializeNpy(tensor([1], { dtype: 'bfloat16' })), { code: 'ERR_DTYPE', message: /no bfloat16/ })
  await t.rejects(serializeNpy({} as Tensor), { code: 'ERR_ARGUMENT' })
  const gone = tensor([1])
  gone.dispose()
  await t.rejects(serializeNpy(gone), { code: 'ERR_DISPOSED' })
  await t.rejects(saveNpy('', tensor([1])), { code: 'ERR_ARGUMENT' })
  await t.rejects(loadNpy(path.join(t.testdir(), 'none')), { code: 'ENOENT' })
})
