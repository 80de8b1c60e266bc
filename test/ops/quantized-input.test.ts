// linear() with quantized input: x becomes bytes by the definition, sums are exact, and what follows is a few float32
// operations in a known order; so every result without an activation is the one that the oracle gives, bit for bit.
import t from 'tap'
import { type Granularity, integerRange, perChannel, perTensor, perToken } from '#lib/core/quantization'
import { addon } from '#lib/native/load'
import { tensor, zeros } from '#lib/ops/create'
import { linear } from '#lib/ops/matmul'
import type { InputQuantization } from '#lib/ops/quantized-linear'
import { expand, reshape } from '#lib/ops/shape'
import { quantize } from '#lib/quant/quantize'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, floats, lay, layoutNames, onEveryTarget, random, useThreads } from '../matrix'
import { at, map, type Nd, nd } from '../oracle/array'
import { roundTo, ulp } from '../oracle/float'
import { code, dynamicScale, f, integerProduct } from '../oracle/quantize'
import { type Byte, bytes } from './bytes'
import { activationNames, activations, afterActivation, type Weights, weights } from './weights'

type Float = (typeof floats)[number]

interface Given {
  scale: number
  zero: number | null
  dtype: Byte
}
type How = 'tensor' | 'token' | Given

interface Bytes {
  codes: Nd
  /** Of row i. */
  scale: (i: number) => number
  zero: (i: number) => number
}

/** x as bytes: by the range of all of it or of each row, or as given. */
function toBytes(x: Nd, how: How): Bytes {
  const [m, k] = x.shape as [number, number]
  const row = (i: number) => x.data.subarray(i * k, (i + 1) * k)
  const of = (): { scale: number; zero: number }[] => {
    if (how === 'tensor') return new Array(m).fill(dynamicScale(x.data))
    if (how === 'token') return Array.from({ length: m }, (_, i) => dynamicScale(row(i)))
    return new Array(m).fill({ scale: f(how.scale), zero: how.zero ?? 0 })
  }
  const own = of()
  const { qmin, qmax } = integerRange(typeof how === 'string' ? 'uint8' : how.dtype)
  const [scale, zero] = [(i: number) => own[i]?.scale as number, (i: number) => own[i]?.zero as number]
  const codes = nd(x.shape, ([i], flat) =>
    code(x.data[flat] as number, scale(i as number), zero(i as number), qmin, qmax),
  )
  return { codes, scale, zero }
}

/** The float32 result before an activation. */
function epilogue(x: Bytes, w: Weights, bias: Nd | null): Nd {
  const [n, k] = w.codes.shape as [number, number]
  const many = w.scale.data.length > 1
  const column = (values: Nd | null, j: number) => (values ? (values.data[many ? j : 0] as number) : 0)
  const right = nd([k, n], ([p, j]) => at(w.codes, [j as number, p as number]))
  const sums = integerProduct(x.codes, right, x.zero, (j) => column(w.zero, j))
  return nd(sums.shape, ([i, j], flat) => {
    const scaled = f(f(sums.data[flat] as number) * f(x.scale(i as number) * column(w.scale, j as number)))
    return bias ? f(scaled + (bias.data[j as number] as number)) : scaled
  })
}

function asOption(how: How): InputQuantization {
  if (typeof how === 'string') return how
  const zeroPoint = how.zero === null ? null : tensor(how.zero, { dtype: how.dtype })
  return { scale: tensor(how.scale), zeroPoint, dtype: how.dtype }
}

const hows: How[] = [
  'tensor',
  'token',
  { scale: 0.03, zero: 117, dtype: 'uint8' },
  { scale: 0.02, zero: null, dtype: 'uint8' },
  { scale: 0.025, zero: -9, dtype: 'int8' },
  { scale: -0.025, zero: null, dtype: 'int8' },
]
const granularities: Granularity[] = [perTensor, perChannel(0), perChannel(-2), perToken]
const byWay = (how: How) => JSON.stringify(how)

interface Example {
  label: string
  dtype: Float
  x: Nd
  how: How
  w: Weights
  before: Nd
}
function example(
  dtype: Float,
  how: How,
  format: Byte,
  granularity: Granularity,
  withZeros: boolean,
  shape: readonly number[],
  bias: Nd | null = null,
  values?: Nd,
): Example {
  const [m, n, k] = shape as [number, number, number]
  const x = values ?? random(dtype, [m, k], 3, [-3, 4])
  const w = weights(format, [n, k], granularity, withZeros, 4)
  const label = `${dtype} as ${byWay(how)} by ${format} ${JSON.stringify(granularity)} ${withZeros} m=${m} n=${n} k=${k}`
  return { label, dtype, x, how, w, before: epilogue(toBytes(x, how), w, bias) }
}
const make = ({ x, dtype }: Example) => tensor(x.data, { shape: x.shape, dtype })
const rounded = (a: Nd, dtype: Float) => map(a, (v) => roundTo(dtype, v))

const shapes = [
  [1, 1, 1],
  [1, 9, 3],
  [2, 5, 4],
  [4, 8, 5],
  [5, 17, 33],
  [6, 16, 64],
  [13, 31, 65],
  [14, 33, 31],
  [15, 7, 100],
  [29, 40, 17],
  [3, 5, 0],
  [29, 9, 4621],
]
const examples = hows.flatMap((how, i) =>
  bytes.flatMap((format, j) =>
    granularities.flatMap((granularity, g) =>
      [false, true].flatMap((withZeros) =>
        shapes
          .filter((_, s) => (s + i + g) % 3 === 0)
          .map((shape, s) => example(floats[(s + j) % 3] as Float, how, format, granularity, withZeros, shape)),
      ),
    ),
  ),
)

onEveryTarget('by tensor, by token, by a given scale: bit for bit', () =>
  examples.flatMap((e) =>
    compare(e.label, linear(make(e), e.w.q, null, { quantizeInput: asOption(e.how) }), rounded(e.before, e.dtype)),
  ),
)

onEveryTarget('bias, activations, a float32 result of 16-bit inputs', () => {
  const failures: string[] = []
  for (const [i, how] of hows.entries()) {
    const bias = random('float32', [19], 5, [-1, 1])
    const e = example(floats[i % 3] as Float, how, bytes[i % 2] as Byte, perChannel(0), i % 2 === 0, [9, 19, 37], bias)
    const laid = lay('strided', 'float32', bias).tensor
    for (const dtype of [e.dtype, 'float32'] as const) {
      const run = (activation?: (typeof activationNames)[number]) =>
        linear(make(e), e.w.q, laid, { quantizeInput: asOption(how), dtype, activation })
      failures.push(...compare(`${e.label} to ${dtype}`, run(), rounded(e.before, dtype)))
      const relu = map(e.before, activations.relu)
      failures.push(...compare(`${e.label} relu to ${dtype}`, run('relu'), rounded(relu, dtype)))
      for (const activation of activationNames) {
        const want = map(e.before, activations[activation])
        const allowed = (flat: number, v: number) =>
          afterActivation(0, e.before.data[flat] as number) + (dtype === 'float32' ? 0 : ulp(dtype, v) / 2)
        failures.push(...compare(`${e.label} ${activation} to ${dtype}`, run(activation), want, allowed))
      }
    }
  }
  return failures
})

onEveryTarget("a multiplier of x's columns comes before everything else", () => {
  const failures: string[] = []
  for (const how of hows) {
    for (const dtype of floats) {
      for (const layout of ['contiguous', 'reversed', 'strided']) {
        // The longer one is cut into blocks of k.
        const [m, k] = how === 'token' && dtype === 'float16' ? [15, 4621] : [5, 37]
        const x = random(dtype, [m, k], 3, [-3, 4])
        const multiplier = lay(layout, 'float32', random('float32', [k], 9, [-2, 2]))
        const product = nd([m, k], ([, p], flat) =>
          f((x.data[flat] as number) * (multiplier.values.data[p as number] as number)),
        )
        const e = example(dtype, how, 'int8', perChannel(0), false, [m, 11, k], null, product)
        for (const from of ['contiguous', 'permuted']) {
          const got = linear(lay(from, dtype, x).tensor, e.w.q, null, {
            quantizeInput: asOption(how),
            multiplier: multiplier.tensor as Tensor<'float32'>,
          })
          failures.push(...compare(`${layout} ${from} ${e.label}`, got, rounded(e.before, dtype)))
        }
      }
    }
  }
  return failures
})

onEveryTarget('any layout, more axes, vectors', () => {
  const failures: string[] = []
  for (const layout of layoutNames) {
    for (const [i, how] of hows.entries()) {
      const dtype = floats[i % 3] as Float
      const laid = lay(layout, dtype, random(dtype, [2, 3, 23], 3, [-3, 4]))
      const e = example(dtype, how, 'uint8', perChannel(0), true, [6, 9, 23], null, {
        shape: [6, 23],
        data: laid.values.data,
      })
      const got = linear(laid.tensor, e.w.q, null, { quantizeInput: asOption(how) })
      failures.push(...compare(`${layout} ${e.label}`, got, { ...rounded(e.before, dtype), shape: [2, 3, 9] }))
      const vector = example(dtype, how, 'int8', perTensor, false, [1, 4, 23], null, {
        shape: [1, 23],
        data: laid.values.data.subarray(0, 23),
      })
      const flat = linear(reshape(make(vector), [23]), vector.w.q, null, { quantizeInput: asOption(how) })
      failures.push(...compare(`a vector ${vector.label}`, flat, { ...rounded(vector.before, dtype), shape: [4] }))
    }
  }
  return failures
})

onEveryTarget('NaN and infinity: all results, those of the row, or the lowest byte', () => {
  const failures: string[] = []
  for (const odd of [Number.NaN, Infinity, -Infinity]) {
    for (const place of [0, 7, 16, 36]) {
      const x = nd([5, 37], ([i, p]) =>
        i === 2 && p === place ? odd : ((i as number) - 1) * Math.fround(Math.sin(p as number)),
      )
      for (const how of hows) {
        const e = example('float32', how, 'int8', perChannel(0), false, [5, 9, 37], null, x)
        const hit = e.before.data.filter(Number.isNaN).length
        const expected = how === 'tensor' ? 45 : how === 'token' ? 9 : 0
        if (hit !== expected) failures.push(`${e.label}: the oracle has ${hit} NaN, not ${expected}`)
        failures.push(
          ...compare(
            `${odd} at ${place} ${e.label}`,
            linear(make(e), e.w.q, null, { quantizeInput: asOption(how) }),
            e.before,
          ),
        )
      }
    }
  }
  return failures
})

onEveryTarget('no rows, no columns, rows of zeros', () => {
  const failures: string[] = []
  for (const how of hows) {
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
      [
        [4, 40],
        [33, 40],
      ],
    ] as const) {
      for (const format of bytes) {
        const q = weights(format, [...w], perChannel(0), true, 3).q
        const got = linear(zeros(x), q, null, { quantizeInput: asOption(how) })
        failures.push(
          ...compare(
            `${byWay(how)} [${x}] by [${w}]`,
            got,
            nd([...x.slice(0, -1), w[0]], () => 0),
          ),
        )
      }
    }
  }
  return failures
})

t.test('inner sizes that could overflow are refused', (t) => {
  const q = (k: number, dtype: Byte) => quantize(zeros([1, k]), { dtype })
  const x = (k: number) => expand(zeros([1, 1]), [1, k])
  t.doesNotThrow(() => linear(x(65_793), q(65_793, 'int8'), null, { quantizeInput: 'tensor' }))
  t.throws(() => linear(x(65_794), q(65_794, 'int8'), null, { quantizeInput: 'tensor' }), {
    code: 'ERR_SHAPE',
    message: /^linear: the inner size 65794/,
  })
  t.throws(() => linear(x(33_026), q(33_026, 'uint8'), null, { quantizeInput: 'tensor' }), {
    code: 'ERR_SHAPE',
    message: /^linear: the inner size 33026/,
  })
  t.doesNotThrow(() => linear(x(65_794), q(65_794, 'int8')), 'weight-only products have no such limit')
  t.end()
})

t.test('one thread and two give the same bits', (t) => {
  const { threads } = addon.machine()
  const made = (['tensor', 'token'] as const).map((how) =>
    example('float32', how, 'uint8', perChannel(0), true, [130, 301, 515]),
  )
  for (const count of [1, 2]) {
    useThreads(count)
    for (const e of made)
      t.same(compare(`${count}`, linear(make(e), e.w.q, null, { quantizeInput: e.how as 'token' }), e.before), [])
  }
  useThreads(threads)
  t.end()
})
