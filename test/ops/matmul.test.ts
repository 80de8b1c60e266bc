// Matrix products against float64, with the error bound that float32 accumulation over k allows.
import t from 'tap'
import { ones, tensor, zeros } from '#lib/ops/create'
import { linear, type MatmulOptions, matmul, pack } from '#lib/ops/matmul'
import { permute, transpose } from '#lib/ops/shape'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, floats, lay, layoutNames, onEveryTarget, random } from '../matrix'
import * as oracle from '../oracle/array'
import { type Nd, nd } from '../oracle/array'
import { erfc, ulp, unit } from '../oracle/float'

const U = unit('float32')
type Float = (typeof floats)[number]

/** Error of k fused or unfused float32 steps: k * u * (|A| |B|), and one rounding to the result's dtype. */
function bound(a: Nd, b: Nd, dtype: Float): (flat: number, want: number) => number {
  const magnitude = oracle.matmul(oracle.abs(a), oracle.abs(b))
  const k = a.shape[a.shape.length - 1] as number
  return (i, w) => (k + 2) * U * (magnitude.data[i] as number) + (dtype === 'float32' ? 0 : ulp(dtype, w) / 2)
}

/** A matrix as asked for, or the transpose of its transpose in memory. */
function operand(
  dtype: Float,
  shape: readonly number[],
  seed: number,
  transposed: boolean,
): { tensor: Tensor; values: Nd } {
  const values = random(dtype, shape, seed, [-1, 1])
  if (!transposed) return lay('contiguous', dtype, values)
  const [m, n] = shape as [number, number]
  const flipped = nd([n, m], ([i, j]) => values.data[(j as number) * n + (i as number)] as number)
  return { tensor: transpose(lay('contiguous', dtype, flipped).tensor), values }
}

// Around the register tiles of all rows (6, 8, 12, 14 rows; 16 and 32 columns), with primes and long, thin shapes.
const sizes: [number, number, number][] = [
  [1, 1, 1],
  [2, 3, 5],
  [5, 7, 16],
  [6, 15, 8],
  [7, 16, 17],
  [8, 17, 31],
  [12, 32, 12],
  [13, 33, 40],
  [14, 31, 2],
  [15, 32, 33],
  [28, 64, 64],
  [29, 65, 127],
  [1, 257, 33],
  [257, 1, 33],
  [33, 1, 257],
  [1, 1, 513],
  [61, 67, 71],
  [3, 130, 1000],
]

onEveryTarget('nn, nt, tn, tt at every edge', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const [m, n, k] of sizes) {
      for (const form of ['nn', 'nt', 'tn', 'tt']) {
        const a = operand(dtype, [m, k], 3, form[0] === 't')
        const b = operand(dtype, [k, n], 4, form[1] === 't')
        const want = oracle.matmul(a.values, b.values)
        const label = `${dtype} ${form} m=${m} n=${n} k=${k}`
        const tolerance = bound(a.values, b.values, dtype)
        failures.push(...compare(label, matmul(a.tensor, b.tensor), want, tolerance))
        failures.push(...compare(`packed ${label}`, matmul(a.tensor, pack(b.tensor)), want, tolerance))
        failures.push(
          ...compare(
            `float32 result ${label}`,
            matmul(a.tensor, b.tensor, { dtype: 'float32' }),
            want,
            bound(a.values, b.values, 'float32'),
          ),
        )
      }
    }
  }
  return failures
})

onEveryTarget('several tiles of every kernel in both directions', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    const a = operand(dtype, [257, 130], 3, false)
    const b = operand(dtype, [130, 258], 4, false)
    const want = oracle.matmul(a.values, b.values)
    for (const result of [dtype, 'float32'] as const) {
      const got = matmul(a.tensor, b.tensor, { dtype: result })
      failures.push(...compare(`${dtype} to ${result}`, got, want, bound(a.values, b.values, result)))
    }
  }
  return failures
})

onEveryTarget('any layout', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const x of layoutNames) {
      for (const y of layoutNames) {
        const a = lay(x, dtype, random(dtype, [9, 19], 3, [-1, 1]))
        const b = lay(y, dtype, random(dtype, [19, 35], 4, [-1, 1]))
        const want = oracle.matmul(a.values, b.values)
        failures.push(
          ...compare(`${dtype} ${x} ${y}`, matmul(a.tensor, b.tensor), want, bound(a.values, b.values, dtype)),
        )
      }
    }
  }
  return failures
})

onEveryTarget('batches and broadcasting', () => {
  const failures: string[] = []
  const cases: [number[], number[]][] = [
    [
      [3, 4, 5],
      [3, 5, 6],
    ],
    [
      [3, 4, 5],
      [5, 6],
    ],
    [
      [4, 5],
      [3, 5, 6],
    ],
    [
      [2, 1, 4, 5],
      [3, 5, 6],
    ],
    [
      [1, 3, 4, 5],
      [2, 1, 5, 6],
    ],
    [
      [0, 4, 5],
      [5, 6],
    ],
    [
      [2, 0, 5],
      [5, 6],
    ],
    [
      [4, 5],
      [7, 0, 5, 6],
    ],
    [
      [2, 3, 17, 33],
      [2, 3, 33, 9],
    ],
  ]
  for (const dtype of floats) {
    for (const [shapeA, shapeB] of cases) {
      for (const layout of layoutNames) {
        const a = lay(layout, dtype, random(dtype, shapeA, 3, [-1, 1]))
        const b = lay(layout, dtype, random(dtype, shapeB, 4, [-1, 1]))
        const want = oracle.matmul(a.values, b.values)
        failures.push(
          ...compare(
            `${dtype} ${layout} [${shapeA}] x [${shapeB}]`,
            matmul(a.tensor, b.tensor),
            want,
            bound(a.values, b.values, dtype),
          ),
        )
      }
    }
  }
  return failures
})

const activations: Record<string, (x: number) => number> = {
  relu: (x) => Math.max(0, x),
  gelu: (x) => (x / 2) * erfc(-x / Math.SQRT2),
  silu: (x) => x / (1 + Math.exp(-x)),
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  tanh: Math.tanh,
}

onEveryTarget('bias and activation, in matmul and linear, plain and packed', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const [m, n, k] of [
      [1, 1, 1],
      [5, 17, 9],
      [14, 32, 33],
      [29, 65, 20],
    ] as const) {
      const a = lay('contiguous', dtype, random(dtype, [m, k], 3, [-1, 1]))
      const w = lay('contiguous', dtype, random(dtype, [n, k], 4, [-1, 1]))
      const b = lay('reversed', dtype, random(dtype, [n], 5, [-1, 1]))
      const turned = nd([k, n], ([p, j]) => oracle.at(w.values, [j, p] as number[]))
      const before = oracle.zip(oracle.matmul(a.values, turned), b.values, (x, y) => x + y)
      const exact = bound(a.values, turned, 'float32')
      for (const [activation, f] of [['none', (x: number) => x], ...Object.entries(activations)] as [
        string,
        (x: number) => number,
      ][]) {
        const options: MatmulOptions = activation === 'none' ? {} : { activation: activation as 'relu' }
        const want = oracle.map(before, f)
        // All slopes are at most 1.13 (gelu), and the functions themselves are within a few ulp of values around 1.
        const tolerance = (i: number, v: number) =>
          1.2 * (exact(i, 0) + 4 * U * Math.abs(before.data[i] as number)) +
          4 * U +
          (dtype === 'float32' ? 0 : ulp(dtype, v) / 2)
        const label = `${dtype} ${activation} m=${m} n=${n} k=${k}`
        failures.push(
          ...compare(
            `matmul ${label}`,
            matmul(a.tensor, transpose(w.tensor), { ...options, bias: b.tensor }),
            want,
            tolerance,
          ),
        )
        failures.push(...compare(`linear ${label}`, linear(a.tensor, w.tensor, b.tensor, options), want, tolerance))
        failures.push(
          ...compare(`packed linear ${label}`, linear(a.tensor, pack(w.tensor), b.tensor, options), want, tolerance),
        )
      }
    }
  }
  return failures
})

onEveryTarget('vectors, empty sizes, k = 0', () => {
  const failures: string[] = []
  const product = (a: number[], b: number[], want: Nd, options: MatmulOptions = {}) =>
    failures.push(...compare(`[${a}] x [${b}]`, matmul(ones(a), ones(b), options), want))
  product([3], [3], { shape: [], data: Float64Array.of(3) })
  product(
    [3],
    [3, 2],
    nd([2], () => 3),
  )
  product(
    [2, 3],
    [3],
    nd([2], () => 3),
  )
  product(
    [4, 2, 3],
    [3],
    nd([4, 2], () => 3),
  )
  product(
    [3],
    [4, 3, 2],
    nd([4, 2], () => 3),
  )
  product(
    [2, 0],
    [0, 3],
    nd([2, 3], () => 0),
  )
  product(
    [2, 0],
    [0, 3],
    nd([2, 3], () => 1),
    { bias: ones([3]) },
  )
  product(
    [0, 2],
    [2, 3],
    nd([0, 3], () => 0),
  )
  product(
    [2, 3],
    [3, 0],
    nd([2, 0], () => 0),
  )
  failures.push(
    ...compare(
      'packed k = 0',
      matmul(ones([2, 0]), pack(ones([0, 3]))),
      nd([2, 3], () => 0),
    ),
  )
  return failures
})

onEveryTarget('NaN and infinity go where they must and nowhere else', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const [m, n, k] of [
      [3, 4, 5],
      [15, 33, 17],
    ] as const) {
      const a = nd([m, k], ([i, p]) => (i === 1 && p === 2 ? NaN : 1))
      const b = nd([k, n], ([p, j]) => (p === 3 && j === 2 ? Infinity : 1))
      const zero = nd([m, k], ([i, p]) =>
        i === 0 && p === 3 ? 0 : (a.data[(i as number) * k + (p as number)] as number),
      )
      const want = oracle.matmul(zero, b)
      failures.push(
        ...compare(
          `${dtype} m=${m}`,
          matmul(lay('contiguous', dtype, zero).tensor, lay('contiguous', dtype, b).tensor),
          want,
        ),
      )
    }
  }
  return failures
})

t.test('mixed dtypes promote; a row does not depend on how many rows there are', (t) => {
  const half = ones([2, 3], { dtype: 'float16' })
  t.equal(matmul(half, ones([3, 2])).dtype, 'float32')
  t.equal(matmul(half, ones([3, 2], { dtype: 'bfloat16' })).dtype, 'float32')
  t.equal(matmul(half, ones([3, 2], { dtype: 'float16' })).dtype, 'float16')
  const a = tensor(random('float32', [64, 100], 3).data, { shape: [64, 100] })
  const b = tensor(random('float32', [100, 48], 4).data, { shape: [100, 48] })
  const whole = matmul(a, b).dataSync()
  const first = matmul(tensor(a.dataSync().slice(0, 100), { shape: [1, 100] }), b).dataSync()
  const worst = first.reduce((w, x, j) => Math.max(w, Math.abs(x - (whole[j] as number))), 0)
  t.ok(worst <= 200 * U * 1600, `${worst}`)
  t.end()
})

t.test('the gradients of matmul, linear and bias', (t) => {
  const a = lay('contiguous', 'float32', random('float32', [2, 5, 4], 3))
  const b = lay('contiguous', 'float32', random('float32', [4, 3], 4))
  const bias = lay('contiguous', 'float32', random('float32', [3], 6))
  const g = lay('contiguous', 'float32', random('float32', [10, 3], 5))
  for (const x of [a, b, bias]) x.tensor.requiresGrad = true
  const rows = { shape: [10, 4], data: a.values.data }
  const turn = (v: Nd) => nd([v.shape[1] as number, v.shape[0] as number], ([i, j]) => oracle.at(v, [j, i] as number[]))
  const out = matmul(a.tensor, b.tensor, { bias: bias.tensor })
  const node = out.node?.inputs[0]?.node ?? out.node // through the reshape of the folded batch
  const grads = node?.vjp(g.tensor) as Tensor[]
  const close = () => 20 * 16 * U
  t.same(compare('da', grads[0] as Tensor, oracle.matmul(g.values, turn(b.values)), close), [])
  t.same(compare('db', grads[1] as Tensor, oracle.matmul(turn(rows), g.values), close), [])
  t.same(
    compare('dbias', grads[2] as Tensor, { shape: [3], data: oracle.fold(g.values, [0], oracle.sum).data }, close),
    [],
  )
  t.end()
})

t.test('errors show the shapes', (t) => {
  t.throws(() => matmul(ones([2, 3]), ones([4, 5])), {
    code: 'ERR_SHAPE',
    message: 'matmul: inner sizes differ: a is [2, 3], b is [4, 5]',
  })
  t.throws(() => matmul(ones([2, 3, 4]), ones([3, 4, 5])), {
    code: 'ERR_SHAPE',
    message: 'matmul: shapes [2] and [3] do not broadcast',
  })
  t.throws(() => matmul(ones([]), ones([1])), { code: 'ERR_SHAPE' })
  t.throws(() => matmul(zeros([2, 2], { dtype: 'int64' }), zeros([2, 2], { dtype: 'int64' })), {
    code: 'ERR_DTYPE',
    message: /no int64 kernel/,
  })
  t.throws(() => matmul(ones([2, 2]), ones([2, 2]), { activation: 'selu' as never }), {
    message: /activation must be relu, gelu, silu, sigmoid or tanh, got "selu"/,
  })
  t.throws(() => linear(ones([2, 3]), ones([4, 5])), {
    code: 'ERR_SHAPE',
    message: 'linear: x [2, 3] does not end in the 5 inputs of w [4, 5]',
  })
  t.throws(() => pack(permute(ones([2, 3, 4]), [2, 1, 0])), {
    code: 'ERR_SHAPE',
    message: 'pack: w must have two axes, its shape is [4, 3, 2]',
  })
  t.end()
})
