// Sparse int8 weights: products of bytes are exactly those of the dense quantized weights; with a float input they are those of
// the float weights that the integers stand for.
import t from 'tap'
import { backward } from '#lib/autograd/backward'
import { perChannel, perTensor } from '#lib/core/quantization'
import { native } from '#lib/native/call'
import { choose, targetName } from '#lib/native/load'
import { mul } from '#lib/ops/arithmetic'
import { ones, tensor, zeros } from '#lib/ops/create'
import { linear, matmul } from '#lib/ops/matmul'
import { empty } from '#lib/ops/op'
import { quantizeCode } from '#lib/ops/qmatmul'
import { dequantize } from '#lib/ops/quantize'
import type { InputQuantization } from '#lib/ops/quantized-linear'
import { sum } from '#lib/ops/reduce'
import { densify, sparsify } from '#lib/ops/sparse'
import { packedFor, sparseKernel } from '#lib/ops/sparse-kernels'
import { QuantizedTensor } from '#lib/tensor/quantized'
import { type SparseFormat, SparseTensor } from '#lib/tensor/sparse'
import { compare, generator, onEveryTarget, random, read } from '../matrix'
import { nd } from '../oracle/array'

const exactly = () => 0

/** int8 weights with zeros, at most two non-zeros in every four neighbours of a row, extremes among them; empty rows too. */
function integers(n: number, k: number, density: number, seed: number): Int8Array {
  const next = generator(seed)
  const values = new Int8Array(n * k)
  for (let i = 0; i < n; i++) {
    if (n > 2 && i === 1) continue
    for (let j = 0; j < k; j++) {
      const before = values.subarray(i * k + 4 * Math.floor(j / 4), i * k + j).filter((v) => v !== 0).length
      if (before < 2 && next() < density) values[i * k + j] = next() < 0.2 ? -128 : Math.floor(next() * 255) - 127
    }
  }
  return values
}

const quantized = (values: Int8Array, n: number, k: number, channels: boolean, seed = 1) =>
  new QuantizedTensor({
    shape: [n, k],
    dtype: 'int8',
    granularity: channels ? perChannel(0) : perTensor,
    values: tensor(values, { shape: [n, k], dtype: 'int8' }),
    scale: channels
      ? tensor(Float32Array.from({ length: n }, (_, i) => 0.01 + ((i * seed) % 7) / 100))
      : tensor(0.02, { dtype: 'float32' }),
  })

const formats: SparseFormat[] = ['csr', '2:4', { block: [1, 16] }, { block: [3, 5] }]

// Around 16 and 32 outputs, quads and 16 inputs, 1 to 10 rows at a time, vectors of 4, 8, 16 rows, groups of 256 outputs.
const shapes: [number, number, number][] = [
  [1, 1, 4],
  [1, 33, 60],
  [2, 16, 20],
  [3, 260, 36],
  [5, 7, 128],
  [9, 31, 64],
  [16, 32, 100],
  [17, 70, 516],
  [70, 40, 48],
  [131, 34, 32],
]

onEveryTarget('sums of bytes are the exact integers of a loop nest, in every form', () =>
  shapes.flatMap(([m, n, k], i) =>
    [0.05, 0.4, 1].flatMap((density) =>
      formats.flatMap((format) => {
        const w = integers(n, k, density, i)
        const s = sparsify(quantized(w, n, k, false), format)
        const next = generator(i + 40)
        const bytes = Uint8Array.from({ length: m * k }, () => (next() < 0.3 ? 255 : Math.floor(next() * 256)))
        const out = empty('int32', [m, n], s.device)
        const { packed, form, count } = packedFor('test', 'bytes', s, m, 'int8')
        const x = tensor(bytes, { shape: [m, k], dtype: 'uint8' })
        native.spqmatmul(out, x, quantizeCode.none, null, null, null, packed, null, null, 0, form, count)
        const want = nd([m, n], ([row, col]) => {
          let total = 0
          for (let p = 0; p < k; p++)
            total += (bytes[(row as number) * k + p] as number) * (w[(col as number) * k + p] as number)
          return total
        })
        return compare(`${JSON.stringify(format)} ${m}x${n}x${k} density ${density}`, out, want, exactly)
      }),
    ),
  ),
)

const inputs: [string, InputQuantization][] = [
  ['tensor', 'tensor'],
  ['token', 'token'],
  ['uint8', { scale: tensor(0.02), zeroPoint: tensor(100, { dtype: 'int32' }) }],
  ['int8', { scale: tensor(0.02), dtype: 'int8' }],
]

onEveryTarget('layers of bytes give what the dense quantized layer gives, bit for bit', () =>
  inputs.flatMap(([name, quantizeInput]) =>
    [1, 4, 37].flatMap((m) =>
      formats.flatMap((format, i) => {
        const q = quantized(integers(70, 64, 0.4, m), 70, 64, i % 2 === 0)
        const dtype = m === 4 ? 'bfloat16' : 'float32'
        const x = tensor(random(dtype, [m, 64], 6).data, { shape: [m, 64], dtype })
        const bias = tensor(random('float32', [70], 7).data)
        const multiplier = i % 2 ? tensor(random('float32', [64], 8).data) : null
        const options = { quantizeInput, multiplier, activation: 'relu' } as const
        const want = read(linear(x, q, bias, options))
        const got = linear(x, sparsify(q, format), bias, options)
        return compare(`${name} ${JSON.stringify(format)} m=${m}`, got, want, exactly)
      }),
    ),
  ),
)

onEveryTarget('with a float input the weights are value * scale in float32', () =>
  [1, 5, 40].flatMap((m) =>
    formats.flatMap((format) => {
      const q = quantized(integers(40, 48, 0.5, m), 40, 48, true)
      const x = tensor(random('float32', [m, 48], 9).data, { shape: [m, 48] })
      const want = read(linear(x, sparsify(dequantize(q), format)))
      return compare(`${JSON.stringify(format)} m=${m}`, linear(x, sparsify(q, format)), want, exactly)
    }),
  ),
)

t.test('from quantized weights to sparse ones and back, exactly', (t) => {
  for (const channels of [false, true]) {
    for (const format of formats) {
      const q = quantized(integers(9, 20, 0.5, 3), 9, 20, channels)
      const s = sparsify(q, format)
      t.equal(s.dtype, 'int8')
      const back = densify(s)
      t.same(back.values.dataSync(), q.values.dataSync())
      t.same(back.scale.dataSync(), q.scale.dataSync())
      t.same(back.granularity, q.granularity)
    }
  }
  t.end()
})

t.test('gradients flow to the input and the bias, straight through its quantization', (t) => {
  const q = quantized(integers(6, 8, 0.5, 4), 6, 8, true)
  const g = tensor(random('float32', [3, 6], 5).data, { shape: [3, 6] })
  for (const quantizeInput of [undefined, 'token'] as const) {
    const results = [q, sparsify(q, 'csr')].map((w) => {
      const x = tensor(random('float32', [3, 8], 6).data, { shape: [3, 8] })
      const bias = zeros([6])
      x.requiresGrad = true
      bias.requiresGrad = true
      backward(sum(mul(linear(x, w as SparseTensor, bias, { quantizeInput }), g)))
      return [x.grad?.dataSync(), bias.grad?.dataSync()]
    })
    t.same(results[0], results[1])
  }
  t.end()
})

t.test('matmul by sparse int8 on the right', (t) => {
  const q = quantized(integers(8, 12, 0.5, 7), 8, 12, true)
  const x = tensor(random('float32', [5, 8], 8).data, { shape: [5, 8] })
  const want = read(matmul(x, dequantize(q)))
  t.same(
    compare('matmul', matmul(x, sparsify(q, 'csr')), want, (flat) => 1e-5 * Math.abs(want.data[flat] as number) + 1e-5),
    [],
  )
  t.end()
})

t.test(
  'both forms are taken: tables for 2:4, panels for few long blocks',
  { skip: targetName().startsWith('avx512_') ? false : 'only rows with tables of bytes choose' },
  (t) => {
    const w = quantized(integers(64, 256, 1, 1), 64, 256, false)
    t.match(sparseKernel('bytes', sparsify(w, '2:4'), 64), /tables/)
    const blocks = new Int8Array(64 * 1024)
    for (let i = 0; i < 64; i++) blocks.fill(1, i * 1024 + 16 * i, i * 1024 + 16 * i + 16)
    t.match(sparseKernel('bytes', sparsify(quantized(blocks, 64, 1024, false), { block: [1, 16] }), 64), /panels/)
    t.end()
  },
)

t.test('results are the same bits for any number of threads', (t) => {
  const q = quantized(integers(1500, 600, 0.4, 1), 1500, 600, true)
  const x = tensor(random('float32', [70, 600], 2).data, { shape: [70, 600] })
  for (const format of ['csr', '2:4'] as const) {
    const s = sparsify(q, format)
    const bits = [1, 2, 3].map((threads) => {
      choose(targetName(), threads)
      return Buffer.from((linear(x, s, null, { quantizeInput: 'token' }).dataSync() as Float32Array).buffer).toString(
        'base64',
      )
    })
    t.equal(new Set(bits).size, 1, format)
    choose(targetName(), 0)
  }
  t.end()
})

t.test('what is refused', (t) => {
  const q = quantized(integers(4, 8, 0.5, 3), 4, 8, true)
  const s = sparsify(q, 'csr')
  const x = ones([2, 8])
  t.throws(
    () => linear(x, sparsify(ones([4, 8]), 'csr'), null, { quantizeInput: 'token' }),
    /quantizeInput needs int8 weights/,
  )
  t.throws(() => linear(x, s, null, { multiplier: ones([8]) }), /multiplier needs quantizeInput/)
  t.throws(() => linear(x, s, null, { quantizeInput: 'row' as never }), /quantizeInput must be/)
  const zeroPoint = zeros([4], { dtype: 'int32' })
  const parts = { shape: [4, 8], dtype: 'int8', granularity: perChannel(0), values: q.values, scale: q.scale } as const
  t.throws(() => sparsify(new QuantizedTensor({ ...parts, zeroPoint }), 'csr'), /must have no zero point/)
  const columns = new QuantizedTensor({ ...parts, granularity: perChannel(1), scale: ones([8]) })
  t.throws(() => sparsify(columns, 'csr'), /must be int8 per tensor or per channel\(0\)/)
  const made = { shape: [4, 8], format: 'csr', values: s.values, pointers: s.pointers, columns: s.columns } as const
  t.throws(() => new SparseTensor(made), /scale/)
  t.throws(() => new SparseTensor({ ...made, scale: ones([3]) }), /scale of csr \[4, 8\] must be \[4\]/)
  const float = sparsify(ones([1, 2]), 'csr')
  t.throws(
    () =>
      new SparseTensor({
        shape: [1, 2],
        format: 'csr',
        values: float.values,
        pointers: float.pointers,
        columns: float.columns,
        scale: ones([1]),
      }),
    /float32 has no scale/,
  )
  t.end()
})
