// Weights that are packed once: byte products with a QuantizedTensor, and what a cache must survive.
import t from 'tap'
import { type Granularity, perChannel, perGroup, perTensor } from '#lib/core/quantization'
import { native } from '#lib/native/call'
import { tensor } from '#lib/ops/create'
import { linear, matmul, pack } from '#lib/ops/matmul'
import { matmulInteger, qlinearMatmul } from '#lib/ops/qmatmul'
import { packInt4 } from '#lib/ops/quantize'
import { scope } from '#lib/tensor/context'
import { QuantizedTensor } from '#lib/tensor/quantized'
import type { Tensor } from '#lib/tensor/tensor'
import { generator, onEveryTarget } from '../matrix'
import { rint } from '../quant/data'

type Byte = 'int8' | 'uint8'

const lowest = (dtype: Byte) => (dtype === 'int8' ? -128 : 0)

function bytes(dtype: Byte, size: number, seed: number): number[] {
  const next = generator(seed)
  return Array.from({ length: size }, () => lowest(dtype) + Math.floor(256 * next()))
}

interface Weights {
  q: QuantizedTensor
  values: number[]
  scale: number[]
  zero: number[]
}

/** [k, n] with scales of powers of two, and zero points if asked for. */
function weights(dtype: Byte, [k, n]: [number, number], granularity: Granularity, zeros: boolean): Weights {
  const values = bytes(dtype, k * n, 5)
  const count = granularity.kind === 'tensor' ? 1 : n
  const shape = granularity.kind === 'tensor' ? [] : [n]
  const scale = Array.from({ length: count }, (_, j) => 2 ** -(4 + (j % 3)))
  const zero = Array.from({ length: count }, (_, j) => (zeros ? lowest(dtype) + 100 + (j % 7) : 0))
  const q = new QuantizedTensor({
    shape: [k, n],
    dtype,
    granularity,
    values: tensor(values, { shape: [k, n], dtype }) as Tensor<'int8'>,
    scale: tensor(scale, { shape, dtype: 'float32' }),
    zeroPoint: zeros ? tensor(zero, { shape, dtype: 'int32' }) : null,
  })
  const all = (list: number[]) => Array.from({ length: n }, (_, j) => list[count === 1 ? 0 : j] as number)
  return { q, values, scale: all(scale), zero: all(zero) }
}

/** (a - za)(b - zb), in float64. */
function sums(a: number[], za: number, w: Weights, [m, n, k]: [number, number, number]): number[] {
  return Array.from({ length: m * n }, (_, at) => {
    const [i, j] = [Math.floor(at / n), at % n]
    let sum = 0
    for (let p = 0; p < k; p++)
      sum += ((a[i * k + p] as number) - za) * ((w.values[p * n + j] as number) - (w.zero[j] as number))
    return sum
  })
}

/** How often `fn` packed a matrix of bytes. */
function packings(fn: () => void): number {
  const original = native.qpack
  let count = 0
  native.qpack = (packed, b) => {
    count++
    original(packed, b)
  }
  try {
    fn()
  } finally {
    native.qpack = original
  }
  return count
}

const shared = weights('int8', [19, 21], perTensor, false) // packed anew for every target that the test runs on

onEveryTarget('matmulInteger and qlinearMatmul with a QuantizedTensor', () => {
  const size: [number, number, number] = [5, 21, 19]
  const [m, n, k] = size
  const failures: string[] = []
  const expect = (label: string, got: ArrayLike<number>, want: number[]) => {
    const at = want.findIndex((value, i) => got[i] !== value)
    if (at >= 0 || got.length !== want.length) failures.push(`${label}: at ${at} ${got[at]}, not ${want[at]}`)
  }
  for (const left of ['int8', 'uint8'] as const) {
    const a = bytes(left, m * k, 3)
    const za = lowest(left) + 120
    const x = tensor(a, { shape: [m, k], dtype: left })
    const aZero = tensor([za], { shape: [], dtype: left })
    expect(
      `${left} by what other targets packed`,
      matmulInteger(x, shared.q, aZero).dataSync(),
      sums(a, za, shared, size),
    )
    for (const dtype of ['int8', 'uint8'] as const) {
      for (const granularity of [perTensor, perChannel(1), perChannel(-1)]) {
        for (const zeros of [false, true]) {
          const w = weights(dtype, [k, n], granularity, zeros)
          const exact = sums(a, za, w, size)
          const label = `${left} by ${w.q}${zeros ? ' with zero points' : ''}`
          const clipped = exact.map((sum, at) => rint((sum * 0.5 * (w.scale[at % n] as number)) / 64 + 128))
          const aScale = tensor(0.5)
          const yZero = tensor([128], { shape: [], dtype: 'uint8' })
          const packed = packings(() => {
            for (const call of [1, 2]) expect(`${label}, call ${call}`, matmulInteger(x, w.q, aZero).dataSync(), exact)
            expect(
              `${label}, to uint8`,
              qlinearMatmul(x, aScale, aZero, w.q, null, null, tensor(64), yZero).dataSync(),
              clipped.map((v) => Math.min(255, Math.max(0, v))),
            )
          })
          if (packed !== 1) failures.push(`${label}: packed ${packed} times`)
        }
      }
    }
  }
  return failures
})

t.test('vectors and batches times a quantized matrix', (t) => {
  const w = weights('int8', [6, 4], perTensor, false)
  const a = bytes('uint8', 2 * 3 * 6, 9)
  const x = tensor(a, { shape: [2, 3, 6], dtype: 'uint8' })
  const exact = sums(a, 0, w, [6, 4, 6])
  const y = matmulInteger(x, w.q)
  t.same(y.shape, [2, 3, 4])
  t.same([...y.dataSync()], exact)
  const rows = tensor([1, 2, 3], { dtype: 'uint8' }) // a zero point a row: no folding of the batch into rows
  t.equal(
    packings(() => {
      t.same([...matmulInteger(x, w.q, rows).dataSync()].slice(0, 4), sums(a, 1, w, [1, 4, 6]))
    }),
    0,
  )
  const row = matmulInteger(tensor(a.slice(0, 6), { dtype: 'uint8' }), w.q)
  t.same(row.shape, [4])
  t.same([...row.dataSync()], exact.slice(0, 4))
  t.end()
})

t.test('what a quantized b must be', (t) => {
  const x = tensor(bytes('uint8', 12, 1), { shape: [2, 6], dtype: 'uint8' })
  const one = tensor([1], { shape: [], dtype: 'int8' })
  const { q } = weights('int8', [6, 4], perTensor, false)
  t.throws(() => matmulInteger(x, q, null, one), { code: 'ERR_ARGUMENT', message: /bZeroPoint .* has its own/ })
  t.throws(() => qlinearMatmul(x, tensor(1), null, q as never, tensor(1), null, tensor(1), one), {
    code: 'ERR_ARGUMENT',
    message: /bScale .* has its own/,
  })
  t.throws(() => qlinearMatmul(x, tensor(1), null, x, null as never, null, tensor(1), one), { code: 'ERR_ARGUMENT' })
  const rows = weights('int8', [6, 6], perChannel(0), false).q
  t.throws(() => matmulInteger(x, rows), {
    code: 'ERR_DTYPE',
    message: /per channel\(1\), it is int8 per channel\(0\)/,
  })
  const four = new QuantizedTensor({
    shape: [6, 4],
    dtype: 'int4',
    granularity: perGroup(4),
    values: packInt4(tensor(new Array(24).fill(1), { shape: [6, 4], dtype: 'int8' })),
    scale: tensor(new Array(6).fill(1), { shape: [6, 1], dtype: 'float32' }),
  })
  t.throws(() => matmulInteger(x, four), { code: 'ERR_DTYPE', message: /int4 per group\(4\)/ })
  const cube = new QuantizedTensor({
    shape: [1, 6, 4],
    dtype: 'int8',
    granularity: perTensor,
    values: tensor(new Array(24).fill(1), { shape: [1, 6, 4], dtype: 'int8' }),
    scale: tensor(1, { dtype: 'float32' }),
  })
  t.throws(() => matmulInteger(x, cube), { code: 'ERR_SHAPE', message: /must be \[k, n\]/ })
  t.throws(() => matmulInteger(x, weights('int8', [5, 4], perTensor, false).q), { code: 'ERR_SHAPE' })
  q.dispose()
  t.throws(() => matmulInteger(x, q), { code: 'ERR_DISPOSED' })
  t.end()
})

t.test('a scope in which weights were packed does not take them along', (t) => {
  const w = weights('int8', [6, 4], perTensor, true)
  const floats = tensor(bytes('int8', 12, 2), { shape: [2, 6], dtype: 'float32' })
  const ints = tensor(bytes('int8', 12, 2), { shape: [2, 6], dtype: 'int8' })
  const layer = weights('uint8', [4, 6], perTensor, true).q
  const dense = tensor(bytes('int8', 24, 4), { shape: [4, 6], dtype: 'float32' })
  const packed = scope(() => pack(dense))
  const calls: Record<string, () => Tensor> = {
    matmulInteger: () => matmulInteger(ints, w.q),
    'matmul, quantized': () => matmul(floats, w.q),
    'linear, weights only': () => linear(floats, layer),
    'linear, bytes by bytes': () => linear(floats, layer, null, { quantizeInput: 'token' }),
    'linear, packed': () => linear(floats, packed),
  }
  for (const [name, call] of Object.entries(calls)) {
    const inside = scope(() => [...call().dataSync()])
    t.same([...call().dataSync()], inside, name)
  }
  t.end()
})
