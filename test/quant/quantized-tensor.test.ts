// QuantizedTensor: what its parts must be, who owns them, and that it refuses once it is disposed.
import { inspect } from 'node:util'
import t from 'tap'
import { type Granularity, perChannel, perGroup, perTensor, perToken } from '#lib/core/quantization'
import { choose } from '#lib/native/load'
import { tensor, zeros } from '#lib/ops/create'
import { cat } from '#lib/ops/join'
import { linear, matmul, pack } from '#lib/ops/matmul'
import { dequantize } from '#lib/ops/quantize'
import { slice, transpose } from '#lib/ops/shape'
import { quantize } from '#lib/quant/quantize'
import { scope } from '#lib/tensor/context'
import { type QuantizedParts, QuantizedTensor } from '#lib/tensor/quantized'
import { recycledBytes } from '#lib/tensor/storage'
import type { Tensor } from '#lib/tensor/tensor'
import { random } from '../matrix'

const bytes = (shape: number[], dtype: 'int8' | 'uint8' = 'int8') => zeros(shape, { dtype })

function parts(change: object = {}): QuantizedParts {
  return {
    shape: [4, 6],
    dtype: 'int8',
    granularity: perTensor,
    values: bytes([4, 6]) as Tensor<'int8'>,
    scale: tensor(1),
    ...change,
  }
}

t.test('says what it is', (t) => {
  const q = new QuantizedTensor(
    parts({ granularity: perChannel(0), scale: zeros([4]), zeroPoint: zeros([4], { dtype: 'int32' }) }),
  )
  t.same(
    { rank: q.rank, size: q.size, bits: q.bits, bytes: q.bytes },
    { rank: 2, size: 24, bits: 8, bytes: 24 + 16 + 16 },
  )
  t.equal(String(q), 'QuantizedTensor<int8>[4, 6] per channel(0)')
  t.equal(inspect(q), String(q))
  for (const [dtype, bits] of [
    ['uint8', 8],
    ['int4', 4],
    ['uint4', 4],
  ] as const) {
    const four = bits === 4
    const other = new QuantizedTensor(parts({ dtype, values: bytes(four ? [4, 3] : [4, 6], 'uint8') }))
    t.equal(other.bits, bits, dtype)
    t.equal(other.zeroPoint, null)
    t.equal(other.bytes, (four ? 12 : 24) + 4)
  }
  t.end()
})

t.test('shapes of scales', (t) => {
  const wanted: [Granularity, number[]][] = [
    [perTensor, []],
    [perChannel(1), [6]],
    [perChannel(-2), [4]],
    [perGroup(4), [4, 2]],
    [perGroup(2 ** 40), [4, 1]],
    [perToken, [4]],
  ]
  for (const [granularity, shape] of wanted) {
    t.doesNotThrow(() => new QuantizedTensor(parts({ granularity, scale: zeros(shape) })))
    const off = [...shape, 1]
    t.throws(() => new QuantizedTensor(parts({ granularity, scale: zeros(off) })), {
      code: 'ERR_SHAPE',
      message: /^QuantizedTensor: scale per /,
    })
    const zeroPoint = zeros(off, { dtype: 'int32' })
    t.throws(() => new QuantizedTensor(parts({ granularity, scale: zeros(shape), zeroPoint })), {
      code: 'ERR_SHAPE',
      message: /^QuantizedTensor: zeroPoint must be int32/,
    })
  }
  t.end()
})

t.test('refuses parts that do not fit', (t) => {
  const refused = (change: object, code: string, message: string | RegExp) =>
    t.throws(() => new QuantizedTensor(parts(change)), { code, message })
  for (const nothing of [undefined, null, 3, 'x'])
    t.throws(() => new QuantizedTensor(nothing as never), {
      code: 'ERR_ARGUMENT',
      message: /^QuantizedTensor: parts must be an object, got/,
    })
  refused({ dtype: 'int16' }, 'ERR_ARGUMENT', 'QuantizedTensor: dtype must be int8 uint8 int4 uint4, got "int16"')
  for (const shape of [undefined, null, 'ab', { length: 2 }, [4.5, 6], [-4, 6]])
    refused({ shape }, 'ERR_ARGUMENT', /^QuantizedTensor: (shape|sizes) must be/)
  refused({ shape: [6, 4] }, 'ERR_SHAPE', 'QuantizedTensor: values of int8 [6, 4] are [6, 4], not [4, 6]')
  refused({ dtype: 'uint8' }, 'ERR_DTYPE', 'QuantizedTensor: values of uint8 are uint8, not int8')
  refused({ dtype: 'int4' }, 'ERR_DTYPE', 'QuantizedTensor: values of int4 are uint8, not int8')
  refused(
    { dtype: 'int4', values: bytes([4, 6], 'uint8') },
    'ERR_SHAPE',
    'QuantizedTensor: values of int4 [4, 6] are [4, 3], not [4, 6]',
  )
  refused(
    { dtype: 'int4', shape: [], values: bytes([], 'uint8') },
    'ERR_SHAPE',
    'QuantizedTensor: int4 needs at least one axis',
  )
  refused({ values: [1, 2] }, 'ERR_ARGUMENT', 'QuantizedTensor: values must be a tensor, got object')
  refused({ scale: 1 }, 'ERR_ARGUMENT', 'QuantizedTensor: scale must be a tensor, got number')
  refused(
    { scale: tensor(1, { dtype: 'float16' }) },
    'ERR_DTYPE',
    'QuantizedTensor: scale must be float32, not float16',
  )
  refused({ zeroPoint: tensor(0) }, 'ERR_SHAPE', 'QuantizedTensor: zeroPoint must be int32 [], not float32 []')
  refused({ values: transpose(bytes([6, 4])) }, 'ERR_ARGUMENT', 'QuantizedTensor: parts must be contiguous')
  refused({ granularity: perChannel(2) }, 'ERR_SHAPE', /^QuantizedTensor: axis 2/)
  refused({ granularity: { kind: 'row' } }, 'ERR_ARGUMENT', /^QuantizedTensor: granularity must be/)
  const gone = tensor(1)
  gone.dispose()
  refused({ scale: gone }, 'ERR_DISPOSED', /^QuantizedTensor: /)
  t.end()
})

t.test('nothing about it changes after it is made', (t) => {
  const shape = [4, 6]
  const granularity = { kind: 'group', size: 4 }
  const q = new QuantizedTensor(parts({ shape, granularity, scale: zeros([4, 2]) }))
  shape[0] = 2
  granularity.size = 1
  t.same(q.shape, [4, 6])
  t.same(q.granularity, { kind: 'group', size: 4 })
  t.equal(String(q), 'QuantizedTensor<int8>[4, 6] per group(4)')
  t.end()
})

const weights = () => tensor(random('float32', [5, 8], 3).data, { shape: [5, 8], dtype: 'float32' })
const row = () => tensor(random('float32', [1, 8], 4).data, { shape: [1, 8], dtype: 'float32' })

t.test('outlives the scope that made it and those that use it', (t) => {
  const q = scope(() => quantize(weights(), { granularity: perChannel(0) }))
  const unsigned = scope(() => quantize(weights(), { dtype: 'uint8' }))
  const turned = scope(() => quantize(transpose(weights()), { granularity: perChannel(1) }))
  const uses = {
    dequantize: () => dequantize(q),
    linear: () => linear(row(), q),
    'linear with quantized input': () => linear(row(), q, null, { quantizeInput: 'tensor' }),
    'the same with zero points': () => linear(row(), unsigned, null, { quantizeInput: 'tensor' }),
    matmul: () => matmul(row(), turned),
    'linear again': () => linear(row(), q),
  }
  for (const [name, use] of Object.entries(uses)) {
    const run = () => scope(() => Array.from(use().dataSync()))
    const first = run()
    t.same(run(), first, name)
    choose('generic', 0)
    run()
    choose('', 0)
    t.same(run(), first, `${name}, after another row of kernels`)
  }
  const packed = pack(weights())
  const first = scope(() => Array.from(linear(row(), packed).dataSync()))
  t.same(
    scope(() => Array.from(linear(row(), packed).dataSync())),
    first,
    'a packed float matrix too',
  )
  const inScope = scope(() => pack(weights()))
  t.same(
    scope(() => Array.from(linear(row(), inScope).dataSync())),
    first,
    'and one made in a scope',
  )
  t.end()
})

t.test('its parts may be views into other tensors', (t) => {
  const q = quantize(weights(), { dtype: 'uint8', granularity: perGroup(3) })
  const four = quantize(weights(), { dtype: 'uint4', granularity: perGroup(3) })
  for (const { shape, dtype, granularity, values, scale, zeroPoint } of [q, four]) {
    const inside = <T extends Tensor>(part: T) => slice(cat([part, part, part], 0), [[5, 10]]) as T
    const zeros = zeroPoint && inside(zeroPoint)
    const view = new QuantizedTensor({
      shape,
      dtype,
      granularity,
      values: inside(values),
      scale: inside(scale),
      zeroPoint: zeros,
    })
    const whole = dtype === 'uint8' ? q : four
    t.same(dequantize(view).dataSync(), dequantize(whole).dataSync(), dtype)
    t.same(linear(row(), view).dataSync(), linear(row(), whole).dataSync(), dtype)
  }
  const [rows, byRow] = [quantize(weights(), { granularity: perChannel(0) }), perChannel(0)]
  const values = slice(cat([rows.values, rows.values], 0), [[5, 10]])
  const view = new QuantizedTensor({
    shape: [5, 8],
    dtype: 'int8',
    granularity: byRow,
    values: values as Tensor<'int8'>,
    scale: rows.scale,
  })
  const how = { quantizeInput: 'token' } as const
  t.same(linear(row(), view, null, how).dataSync(), linear(row(), rows, null, how).dataSync())
  t.end()
})

t.test('refuses once it is disposed, and gives back what was packed for it', (t) => {
  const big = () => tensor(random('float32', [256, 512], 3).data, { shape: [256, 512], dtype: 'float32' })
  const x = zeros([1, 512])
  const q = quantize(big(), { granularity: perChannel(0) })
  const turned = quantize(transpose(big()), { granularity: perChannel(1) })
  linear(x, q, null, { quantizeInput: 'token' }).dataSync()
  linear(x, q).dataSync()
  matmul(x, turned).dataSync()
  const before = recycledBytes()
  q.dispose()
  t.ok(recycledBytes() - before >= 2 * 256 * 512, 'values and packed values')
  turned.dispose()
  t.ok(recycledBytes() - before >= 5 * 256 * 512, 'those of a transpose too')
  q.dispose()
  t.equal(q.disposed, true)
  t.equal(String(q), 'QuantizedTensor<int8>[256, 512] per channel(0) (disposed)')
  const message = (op: string) => `${op}: a quantized tensor of shape [256, 512] was used after dispose()`
  t.throws(() => dequantize(q), { code: 'ERR_DISPOSED', message: message('dequantize') })
  t.throws(() => linear(x, q), { code: 'ERR_DISPOSED', message: message('linear') })
  t.throws(() => matmul(x, turned), { code: 'ERR_DISPOSED', message: /^matmul: / })
  for (const part of ['values', 'scale', 'zeroPoint'] as const) {
    const other = quantize(weights(), { dtype: 'uint8' })
    other[part]?.dispose()
    t.throws(
      () => linear(row(), other),
      { code: 'ERR_DISPOSED', message: /^linear: a quantized tensor/ },
      `without its ${part}`,
    )
    t.throws(() => dequantize(other), { code: 'ERR_DISPOSED' }, `without its ${part}`)
  }
  {
    using short = quantize(weights())
    t.equal(short.disposed, false)
  }
  t.end()
})
