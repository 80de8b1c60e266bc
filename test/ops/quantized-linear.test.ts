// Weight-only products: float activations at 16 bits times weights of 4 and 8 bits, against float64 with a derived bound.
import t from 'tap'
import {
  type Granularity,
  integerRange,
  perChannel,
  perGroup,
  perTensor,
  perToken,
  type QuantDType,
} from '#lib/core/quantization'
import { addon } from '#lib/native/load'
import { full, tensor, zeros } from '#lib/ops/create'
import { linear, matmul } from '#lib/ops/matmul'
import { reshape, slice } from '#lib/ops/shape'
import { QuantizedTensor } from '#lib/tensor/quantized'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, floats, lay, layoutNames, onEveryTarget, onGpu, random, read, useThreads } from '../matrix'
import { type Nd, nd } from '../oracle/array'
import { ulp } from '../oracle/float'
import { activationNames, activations, afterActivation, type Weights, weightProduct, weights } from './weights'

type Float = (typeof floats)[number]
const formats: QuantDType[] = ['int8', 'uint8', 'int4', 'uint4']
const granularities: Granularity[] = [
  perTensor,
  perChannel(0),
  perChannel(-2),
  perToken,
  perGroup(7),
  perGroup(32),
  perGroup(128),
  perGroup(300),
  perGroup(5000),
]
const groupOf = (g: Granularity) => (g.kind === 'group' ? g.size : Infinity)
const half = (dtype: Float, v: number) => (dtype === 'float32' ? 0 : ulp(dtype, v) / 2)

interface Example {
  label: string
  dtype: Float
  x: Nd
  w: Weights
  exact: Nd
  error: Nd
}
function example(
  dtype: Float,
  format: QuantDType,
  granularity: Granularity,
  withZeros: boolean,
  shape: readonly number[],
  x?: Nd,
): Example {
  const [m, n, k] = shape as [number, number, number]
  const inputs = x ?? random(dtype, [m, k], 3)
  const w = weights(format, [n, k], granularity, withZeros, 4)
  const label = `${dtype} by ${format} ${JSON.stringify(granularity)}${withZeros ? ' with zero points' : ''} m=${m} n=${n} k=${k}`
  return {
    label,
    dtype,
    x: inputs,
    w,
    ...weightProduct(inputs, w.values, Math.min(groupOf(granularity), Math.max(k, 1))),
  }
}
const make = ({ x, dtype }: Example) => tensor(x.data, { shape: x.shape, dtype })
const check = (e: Example): string[] =>
  compare(e.label, linear(make(e), e.w.q), e.exact, (i, v) => (e.error.data[i] as number) + half(e.dtype, v))

// Around panels of 8, 16 and 32 columns, tiles of 1 to 12 rows, quads and eights of k, groups, chunks of 256; primes.
const shapes = [
  [1, 1, 1],
  [2, 3, 5],
  [3, 7, 8],
  [1, 8, 9],
  [4, 9, 31],
  [5, 16, 32],
  [1, 17, 33],
  [6, 33, 64],
  [2, 5, 127],
  [9, 64, 129],
  [1, 40, 256],
  [3, 13, 257],
  [13, 31, 301],
  [7, 37, 1021],
] as const

const examples = formats.flatMap((format, i) =>
  granularities.flatMap((granularity, j) =>
    [false, true].flatMap((withZeros) =>
      shapes
        .filter((_, s) => (s + i + j) % 3 === 0 || s > 11)
        .map((shape, s) => example(floats[(s + j) % 3] as Float, format, granularity, withZeros, shape)),
    ),
  ),
)

onEveryTarget('every format, granularity and dtype, at every edge', () => examples.flatMap(check))

const tall = [
  example('float32', 'int4', perGroup(32), false, [64, 40, 70]),
  example('float32', 'uint4', perGroup(7), true, [64, 40, 33]),
  example('float32', 'int8', perChannel(0), false, [64, 33, 70]),
  example('float16', 'uint8', perGroup(128), true, [64, 17, 300]),
]

onEveryTarget('0 to 20 rows and 64; what a row gives does not depend on the others', () => {
  const failures: string[] = []
  for (const e of tall) {
    const x = make(e)
    failures.push(...check(e))
    const whole = read(linear(x, e.w.q))
    const n = e.exact.shape[1] as number
    for (let m = 0; m <= 20; m++) {
      const rows = linear(slice(x, [[3, 3 + m]]), e.w.q)
      failures.push(
        ...compare(
          `${e.label}, ${m} rows`,
          rows,
          nd([m, n], (_, flat) => whole.data[3 * n + flat] as number),
        ),
      )
    }
  }
  return failures
})

const flatOf = (i: number | undefined, p: number | undefined) => (i as number) * 600 + (p as number)

onEveryTarget('chunks of a row have scales of their own: what is large in one costs the others nothing', () => {
  const failures: string[] = []
  const sizes = (...list: number[]) =>
    nd(
      [list.length, 600],
      ([i, p]) =>
        (list[i as number] as number) ** ((p as number) % 256 === 7 ? 1 : 0) * Math.fround(Math.sin(flatOf(i, p))),
    )
  for (const format of formats) {
    for (const granularity of [perTensor, perGroup(64), perGroup(100), perGroup(513)])
      failures.push(...check(example('float32', format, granularity, true, [4, 9, 600], sizes(1, 1e4, 1e-4, 1e8))))
  }
  // Only as far as float32 goes: products may neither overflow nor be subnormal.
  for (const size of [1e-31, 1e-30, 1e-29, 1e-20, 1e20, 1e33]) {
    const x = nd([3, 70], ([i, p]) => Math.fround(size * Math.cos(flatOf(i, p))))
    failures.push(...check(example('float32', 'int8', perGroup(32), true, [3, 9, 70], x)))
  }
  return failures
})

onEveryTarget('the largest sums that a chunk can have fit int32', () => {
  const failures: string[] = []
  for (const format of formats) {
    const { qmin, qmax } = integerRange(format)
    for (const [code, zero] of [
      [qmax, qmin],
      [qmin, qmax],
      [qmin, 0],
      [qmax, 0],
    ] as const) {
      for (const k of [256, 300, 512, 1025]) {
        const values = nd([3, k], () => (code - zero) * 0.5)
        const w = extreme(format, [3, k], code, zero)
        // All of x is the largest of its chunk: 32639, or the same with a high digit only (32640 - 128), of either sign.
        const x = nd(
          [4, k],
          ([i, p]) => ((i as number) % 2 ? -1 : 1) * ((p as number) % 256 && (i as number) > 1 ? 32512 / 32639 : 1),
        )
        const rounded = nd(x.shape, (_, flat) => Math.fround(x.data[flat] as number))
        const { exact, error } = weightProduct(rounded, values, k)
        const got = linear(tensor(rounded.data, { shape: [4, k], dtype: 'float32' }), w)
        failures.push(...compare(`${format} ${code} - ${zero} k=${k}`, got, exact, (i) => error.data[i] as number))
      }
    }
  }
  return failures
})

/** Weights that are all one code, by the scale 1 / 2. */
function extreme(format: QuantDType, shape: number[], code: number, zero: number): QuantizedTensor {
  const [out, k] = shape as [number, number]
  const four = format.endsWith('4')
  const stored = four ? 17 * (code & 15) : code
  const dtype = four ? 'uint8' : (format as 'int8')
  return new QuantizedTensor({
    shape,
    dtype: format,
    granularity: perTensor,
    values: full(four ? [out, Math.ceil(k / 2)] : shape, stored, { dtype }) as Tensor<'int8'>,
    scale: tensor(0.5),
    zeroPoint: tensor(zero, { dtype: 'int32' }),
  })
}

onEveryTarget('a NaN or an infinity makes its row NaN and no other; rows of zeros are exact', () => {
  const failures: string[] = []
  for (const format of formats) {
    for (const dtype of floats) {
      const e = example(dtype, format, perGroup(32), true, [6, 19, 100])
      const plain = read(linear(make(e), e.w.q))
      for (const odd of [Number.NaN, Infinity, -Infinity]) {
        for (const places of [[0], [31], [32], [99], [0, 1, 2, 3], [5, 99]]) {
          const values = nd([6, 100], ([i, p], flat) =>
            i === 2 && places.includes(p as number) ? odd : i === 4 ? 0 : (e.x.data[flat] as number),
          )
          // A GPU multiplies 16-bit floats as they are: an infinity is one.
          const ruined = (column: number) =>
            onGpu && dtype !== 'float32'
              ? values.data
                  .slice(200, 300)
                  .reduce((sum, x, p) => sum + x * (e.w.values.data[column * 100 + p] as number), 0)
              : Number.NaN
          const want = nd([6, 19], ([i, j], flat) =>
            i === 2 ? ruined(j as number) : i === 4 ? 0 : (plain.data[flat] as number),
          )
          const got = linear(tensor(values.data, { shape: [6, 100], dtype }), e.w.q)
          failures.push(...compare(`${odd} at ${places} ${e.label}`, got, want))
        }
      }
    }
  }
  return failures
})

onEveryTarget('bias, activations, a float32 result of 16-bit inputs', () => {
  const failures: string[] = []
  for (const e of [
    example('float32', 'int4', perGroup(32), false, [5, 17, 40]),
    example('float16', 'uint8', perChannel(0), true, [1, 33, 64]),
    example('bfloat16', 'int8', perTensor, false, [14, 8, 9]),
    example('float32', 'uint4', perGroup(8), true, [3, 5, 0]),
  ]) {
    const n = e.exact.shape[1] as number
    for (const kind of [null, 'float32', 'float16'] as const) {
      const bias = kind && lay('reversed', kind, random(kind, [n], 5, [-1, 1]))
      const before = nd(
        e.exact.shape,
        ([, j], flat) => (e.exact.data[flat] as number) + (bias ? (bias.values.data[j as number] as number) : 0),
      )
      for (const activation of [undefined, ...activationNames]) {
        for (const dtype of [e.dtype, 'float32'] as const) {
          const want = activation
            ? nd(before.shape, (_, i) => activations[activation](before.data[i] as number))
            : before
          const got = linear(make(e), e.w.q, bias?.tensor, { activation, dtype })
          const allowed = (i: number, v: number) =>
            afterActivation(e.error.data[i] as number, before.data[i] as number) + half(dtype, v)
          failures.push(...compare(`${e.label} to ${dtype}, bias ${kind}, ${activation}`, got, want, allowed))
        }
      }
    }
  }
  return failures
})

onEveryTarget('any layout, more axes, vectors', () => {
  const failures: string[] = []
  for (const layout of layoutNames) {
    for (const [dtype, format] of [
      ['float32', 'int4'],
      ['float16', 'int8'],
      ['bfloat16', 'uint4'],
    ] as const) {
      const laid = lay(layout, dtype, random(dtype, [2, 3, 37], 3))
      const rows = { shape: [6, 37], data: laid.values.data }
      const e = example(dtype, format, perGroup(16), true, [6, 11, 37], rows)
      const got = linear(laid.tensor, e.w.q)
      failures.push(
        ...compare(
          `shape ${layout}`,
          reshape(got, [6, 11]),
          e.exact,
          (i, v) => (e.error.data[i] as number) + half(dtype, v),
        ),
      )
      if (got.shape.join() !== '2,3,11') failures.push(`${layout}: shape is [${got.shape}]`)
    }
  }
  const e = example('float32', 'int8', perChannel(0), false, [1, 5, 9])
  failures.push(
    ...compare(
      'a vector',
      linear(reshape(make(e), [9]), e.w.q),
      { shape: [5], data: e.exact.data },
      (i) => e.error.data[i] as number,
    ),
  )
  for (const [x, w] of [
    [
      [0, 9],
      [5, 9],
    ],
    [
      [3, 9],
      [0, 9],
    ],
    [
      [3, 0],
      [5, 0],
    ],
    [
      [2, 0, 9],
      [5, 9],
    ],
  ] as const) {
    for (const format of formats) {
      const q = weights(format, [...w], perChannel(0), true, 3).q
      failures.push(
        ...compare(
          `[${x}] by [${w}]`,
          linear(zeros(x), q),
          nd([...x.slice(0, -1), w[0]], () => 0),
        ),
      )
    }
  }
  return failures
})

/** The same numbers as a matrix [k, n] that matmul takes on the right. */
function turned({ q, codes, scale, zero }: Weights): QuantizedTensor {
  const [n, k] = codes.shape as [number, number]
  const flipped = nd([k, n], ([p, j]) => codes.data[(j as number) * k + (p as number)] as number)
  const low = (v: number) => v & 15
  const four = q.dtype.endsWith('4')
  const wide = Math.ceil(n / 2)
  const nibbles = nd([k, wide], ([p, b]) => {
    const at = (j: number) => (j < n ? low(flipped.data[(p as number) * n + j] as number) : 0)
    return at(2 * (b as number)) + 16 * at(2 * (b as number) + 1)
  })
  const stored = four ? nibbles : flipped
  return new QuantizedTensor({
    shape: [k, n],
    dtype: q.dtype,
    granularity: q.granularity.kind === 'tensor' ? perTensor : perChannel(1),
    values: tensor(stored.data, { shape: stored.shape, dtype: q.values.dtype }) as Tensor<'int8'>,
    scale: tensor(scale.data, { shape: scale.shape, dtype: 'float32' }),
    zeroPoint: zero && tensor(zero.data, { shape: zero.shape, dtype: 'int32' }),
  })
}

onEveryTarget('matmul by a quantized matrix is linear by its transpose', () => {
  const failures: string[] = []
  for (const format of formats) {
    for (const granularity of [perTensor, perChannel(0)]) {
      const e = example('float32', format, granularity, true, [5, 19, 37])
      const right = turned(e.w)
      const bias = tensor(random('float32', [19], 5).data, { dtype: 'float32' })
      for (const options of [{}, { bias, activation: 'gelu' as const }]) {
        const want = read(linear(make(e), e.w.q, 'bias' in options ? bias : null, { activation: options.activation }))
        failures.push(...compare(`matmul ${e.label}`, matmul(make(e), right, options), want))
      }
      const batch = matmul(reshape(make(e), [1, 5, 37]), right)
      failures.push(...compare('a batch', batch, { shape: [1, 5, 19], data: read(linear(make(e), e.w.q)).data }))
      const vector = slice(make(e), [0])
      failures.push(...compare('a vector', matmul(vector, right), read(linear(vector, e.w.q))))
    }
  }
  return failures
})

t.test('one thread and two give the same bits', (t) => {
  const { threads } = addon.machine()
  const run = (count: number) => {
    useThreads(count)
    return [1, 9, 130].map((m) => {
      const x = tensor(random('float32', [m, 515], 3).data, { shape: [m, 515], dtype: 'float32' })
      return (['int4', 'uint8'] as const).map((format) => {
        const { q } = weights(format, [301, 515], perGroup(128), true, 4)
        return Buffer.from(linear(x, q).dataSync().buffer).toString('base64')
      })
    })
  }
  const one = run(1)
  t.same(run(2), one)
  useThreads(threads)
  t.end()
})
