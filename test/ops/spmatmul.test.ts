// linear() and matmul() by sparse weights against float64 loop nests over the same zeros, on every row of kernels.
import t from 'tap'
import { backward } from '#lib/autograd/backward'
import { choose, targetName } from '#lib/native/load'
import { syncBlocking } from '#lib/native/stream'
import { mul } from '#lib/ops/arithmetic'
import { full, tensor, zeros } from '#lib/ops/create'
import type { ActivationName } from '#lib/ops/epilogue'
import { linear, matmul } from '#lib/ops/matmul'
import { sum } from '#lib/ops/reduce'
import { transpose } from '#lib/ops/shape'
import { sparsify } from '#lib/ops/sparse'
import { sparseKernel } from '#lib/ops/sparse-kernels'
import { cast, gelu, relu, sigmoid, silu, tanh } from '#lib/ops/unary'
import type { SparseFormat, SparsePacked } from '#lib/tensor/sparse'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, cpuRowsOnly, floats, generator, lay, layoutNames, onEveryTarget, random, read } from '../matrix'
import * as oracle from '../oracle/array'
import { type Nd, nd } from '../oracle/array'
import { ulp } from '../oracle/float'

type Float = (typeof floats)[number]
const U = 2 ** -24

/** Random weights with so many zeros, some whole rows and columns among them. */
function sparseWeights(dtype: Float, shape: [number, number], density: number, seed: number): Nd {
  const next = generator(seed)
  const values = random(dtype, shape, seed + 1)
  const emptyRow = Math.floor(next() * shape[0])
  return nd(shape, ([i], flat) => (next() < density && i !== emptyRow ? (values.data[flat] as number) : 0))
}

/** At most two in every four. */
function twoOfFour(w: Nd): Nd {
  const columns = w.shape[1] as number
  return nd(w.shape, ([i, j], flat) => {
    const row = (i as number) * columns + 4 * Math.floor((j as number) / 4)
    const before = w.data.slice(row, flat).filter((v) => v !== 0).length
    return before < 2 ? (w.data[flat] as number) : 0
  })
}

/** x W^T + bias in float64, and how far float32 sums in any order may be from it: a rounding for each term and a few more. */
function product(x: Nd, w: Nd, bias: Nd | null) {
  const turned = nd([w.shape[1] as number, w.shape[0] as number], ([i, j]) => oracle.at(w, [j as number, i as number]))
  const n = w.shape[0] as number
  const b = (flat: number) => (bias ? (bias.data[flat % n] as number) : 0)
  const exact = oracle.map(oracle.matmul(x, turned), (v, flat) => v + b(flat))
  const size = oracle.map(oracle.matmul(oracle.abs(x), oracle.abs(turned)), (v, flat) => v + Math.abs(b(flat)))
  const terms = (x.shape.at(-1) as number) + 4
  return { exact, bound: (flat: number) => terms * U * (size.data[flat] as number) }
}
const half = (dtype: Float, v: number) => (dtype === 'float32' ? 0 : ulp(dtype, v) / 2)
/** Bit for bit. */
const exactly = () => 0
const of = (dtype: Float, v: Nd) => tensor(v.data, { shape: v.shape, dtype })

// Around few rows (6) and vectors of 4, 8, 16 rows; groups of 256 and tiles of 64 outputs; blocks of 128 inputs and more.
const shapes: [number, number, number][] = [
  [1, 1, 1],
  [1, 63, 64],
  [2, 65, 63],
  [3, 7, 130],
  [4, 300, 65],
  [6, 128, 257],
  [7, 64, 128],
  [8, 5, 40],
  [15, 257, 31],
  [16, 256, 200],
  [17, 33, 513],
  [33, 70, 129],
  [64, 20, 100],
  [65, 19, 77],
  [131, 11, 36],
]

onEveryTarget('linear by CSR: dtypes, densities, bias', () =>
  floats.flatMap((dtype, i) =>
    shapes.flatMap(([m, n, k], j) =>
      [0.05, 0.5, 1].flatMap((density, l) => {
        const x = random(dtype, [m, k], i + j)
        const w = sparseWeights(dtype, [n, k], density, j + l)
        const bias = (j + l) % 2 ? random('float32', [n], j) : null
        const { exact, bound } = product(x, w, bias)
        const got = linear(of(dtype, x), sparsify(of(dtype, w), 'csr'), bias && of('float32', bias))
        const label = `${dtype} ${m}x${n}x${k} density ${density}`
        return compare(label, got, exact, (flat, v) => bound(flat) + half(dtype, v))
      }),
    ),
  ),
)

onEveryTarget(
  'linear by long rows: several blocks of inputs, and blocks of thousands where there is little in them',
  () =>
    (
      [
        [1, 70, 5000, 0.02],
        [20, 300, 5000, 0.002],
        [40, 40, 3000, 0.3],
        [5, 3, 40000, 0.001],
        [9, 3, 70000, 0.0005],
      ] as const
    ).flatMap(([m, n, k, density]) => {
      const x = random('float32', [m, k], m)
      const w = sparseWeights('float32', [n, k], density, n)
      const { exact, bound } = product(x, w, null)
      return compare(`${m}x${n}x${k}`, linear(of('float32', x), sparsify(of('float32', w), 'csr')), exact, bound)
    }),
)

const formats: SparseFormat[] = ['csr', '2:4', { block: [1, 16] }, { block: [4, 4] }, { block: [3, 5] }]

// Runs of 8 inputs (blocks), fours (2:4), and sizes around 32 and 128 outputs, 32 inputs, vectors of rows.
const formatShapes: [number, number, number][] = [
  [1, 37, 60],
  [2, 128, 64],
  [3, 161, 32],
  [6, 33, 132],
  [7, 130, 8],
  [19, 257, 60],
  [48, 129, 68],
  [49, 12, 260],
  [130, 20, 140],
]

onEveryTarget('every format, at many sizes', () =>
  formats.flatMap((format) =>
    floats.flatMap((dtype) =>
      formatShapes.flatMap(([m, n, k], i) => {
        const w = twoOfFour(sparseWeights(dtype, [n, k], 0.5, 5 + i))
        const x = random(dtype, [m, k], 6)
        const bias = i % 2 ? random('float32', [n], i) : null
        const { exact, bound } = product(x, w, bias)
        const got = linear(of(dtype, x), sparsify(of(dtype, w), format), bias && of('float32', bias))
        const label = `${JSON.stringify(format)} ${dtype} ${m}x${n}x${k}`
        return compare(label, got, exact, (flat, v) => bound(flat) + half(dtype, v))
      }),
    ),
  ),
)

onEveryTarget('layouts of x, batches of any rank, float32 results of 16-bit inputs', () =>
  layoutNames.flatMap((layout) =>
    [2, 9].flatMap((rows) => {
      const x = lay(layout, 'float16', random('float16', [2, rows, 21], 7))
      const w = sparseWeights('float16', [13, 21], 0.4, 8)
      const flat = { shape: [2 * rows, 21], data: x.values.data }
      const { exact, bound } = product(flat, w, null)
      const got = linear(x.tensor, sparsify(of('float16', w), 'csr'), null, { dtype: 'float32' })
      return compare(`${layout} ${rows}`, got, { shape: [2, rows, 13], data: exact.data }, bound)
    }),
  ),
)

const activations: Record<ActivationName, (x: Tensor) => Tensor> = { relu, gelu, silu, sigmoid, tanh }

onEveryTarget('a fused activation is the op of that name applied to the float32 sums', () =>
  floats.flatMap((dtype) =>
    Object.entries(activations).flatMap(([name, op]) =>
      [3, 20].flatMap((m) => {
        const x = of(dtype, random(dtype, [m, 50], 9))
        const w = sparsify(of(dtype, sparseWeights(dtype, [70, 50], 0.3, 10)), 'csr')
        const bias = of('float32', random('float32', [70], 11))
        const got = linear(x, w, bias, { activation: name as ActivationName })
        const want = cast(op(linear(x, w, bias, { dtype: 'float32' })), dtype)
        return compare(`${dtype} ${name} m=${m}`, got, read(want), exactly)
      }),
    ),
  ),
)

onEveryTarget('zeros of W count as zero whatever they meet; stored values meet NaN and infinity as IEEE has it', () => {
  const failures: string[] = []
  for (const format of formats) {
    for (const m of [1, 2, 4, 20, 100]) {
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
        const w = nd([3, 72], ([i, j]) => (i === 0 ? 0 : i === 1 ? (j === 5 ? 2 : 0) : j === 66 ? -1 : 0))
        const x = nd([m, 72], ([, j]) => (j === 5 || j === 0 ? bad : 1))
        const got = read(linear(of('float32', x), sparsify(of('float32', w), format)))
        const want = nd([m, 3], ([, j]) => (j === 0 ? 0 : j === 1 ? bad * 2 : -1))
        got.data.forEach((v, i) => {
          if (!Object.is(v, want.data[i]))
            failures.push(`${JSON.stringify(format)} m=${m} ${bad}: element ${i} is ${v}, not ${want.data[i]}`)
        })
      }
    }
  }
  return failures
})

onEveryTarget('nothing to add up: no inputs, no outputs, no rows, no non-zeros', () =>
  (
    [
      [5, 4, 0],
      [2, 4, 0],
      [0, 4, 4],
      [3, 0, 4],
      [20, 0, 4],
      [3, 300, 8],
      [30, 300, 8],
    ] as const
  ).flatMap(([m, n, k]) =>
    formats.flatMap((format) => {
      const bias = random('float32', [n], 3)
      const got = linear(full([m, k], 1), sparsify(zeros([n, k]), format), of('float32', bias))
      return compare(
        `${JSON.stringify(format)} ${m}x${n}x${k}`,
        got,
        nd([m, n], ([, j]) => bias.data[j as number] as number),
        exactly,
      )
    }),
  ),
)

onEveryTarget('gradients of x and of the bias are those of the dense product', () =>
  (['relu', 'gelu', undefined] as const).flatMap((activation) => {
    const w = sparseWeights('float32', [9, 14], 0.4, 12)
    const g = of('float32', random('float32', [2, 3, 9], 15))
    const results = [of('float32', w), sparsify(of('float32', w), 'csr')].map((weights) => {
      const x = of('float32', random('float32', [2, 3, 14], 13))
      const bias = of('float32', random('float32', [9], 14))
      x.requiresGrad = true
      bias.requiresGrad = true
      const out = linear(x, weights as Tensor, bias, { activation })
      backward(sum(mul(out, g)))
      return [x.grad, bias.grad]
    })
    const [dense, sparse] = results as [[Tensor, Tensor], [Tensor, Tensor]]
    const size = 9 * 4 * 4 * 1.2 // terms of at most 4 x 4; gelu's slope is below 1.2
    return [
      ...compare(`x ${activation}`, sparse[0], read(dense[0]), () => 40 * U * size),
      ...compare(`bias ${activation}`, sparse[1], read(dense[1]), () => 40 * U * size),
    ]
  }),
)

onEveryTarget('matmul by a sparse matrix on the right', () =>
  [1, 12].flatMap((m) => {
    const w = sparseWeights('float32', [33, 20], 0.3, 16)
    const x = random('float32', [m, 33], 17)
    const b = sparsify(of('float32', w), { block: [2, 2] })
    const turned = nd([20, 33], ([i, j]) => oracle.at(w, [j as number, i as number]))
    const { exact, bound } = product(x, turned, null)
    return [0, 1].flatMap(() => compare(`m=${m}`, matmul(of('float32', x), b), exact, bound))
  }),
)

t.test('results are the same bits for any number of threads', { skip: cpuRowsOnly }, (t) => {
  const x = of('float32', random('float32', [70, 900], 20))
  const few = of('float32', random('float32', [3, 900], 21))
  const w = of('float32', twoOfFour(sparseWeights('float32', [1500, 900], 0.2, 22)))
  for (const format of formats) {
    const s = sparsify(w, format)
    const bits = [1, 2, 3, 8].map((threads) => {
      choose(targetName(), threads)
      const all = [linear(x, s), linear(few, s)].map((y) => Buffer.from((y.dataSync() as Float32Array).buffer))
      return Buffer.concat(all).toString('base64')
    })
    t.equal(new Set(bits).size, 1, JSON.stringify(format))
    choose(targetName(), 0)
  }
  t.end()
})

t.test('weights are packed once, and again for another row of kernels', { skip: cpuRowsOnly }, (t) => {
  const chosen = targetName()
  const w = sparsify(of('float32', sparseWeights('float32', [8, 8], 0.5, 1)), 'csr')
  const x = full([20, 8], 1)
  const first = linear(x, w)
  const { packed } = w.made.packed.get('float panels') as SparsePacked
  linear(x, w)
  t.equal(w.made.packed.get('float panels')?.packed, packed)
  linear(full([1, 8], 1), w)
  const few = sparseKernel('float', w, 1).includes('tables')
  t.equal(w.made.packed.has('float tables'), few, 'a form of its own for few rows, where kernels have one')
  syncBlocking()
  choose('generic', 0)
  t.strictSame(linear(x, w).dataSync().length, first.size)
  t.not(w.made.packed.get('float panels')?.packed, packed)
  t.ok(packed.disposed)
  choose(chosen, 0)
  w.dispose()
  t.throws(() => linear(x, w), { code: 'ERR_DISPOSED' })
  t.end()
})

t.test('what linear and matmul refuse', (t) => {
  const w = sparsify(tensor([[0, 1, 0]]), 'csr')
  t.throws(() => linear(zeros([2, 4]), w), /linear: x \[2, 4\] does not end in the 3 inputs of w \[1, 3\]/)
  t.throws(() => linear(zeros([2, 3], { dtype: 'int32' }), w), { code: 'ERR_DTYPE' })
  t.throws(() => linear(zeros([2, 3]), w, zeros([2])), /bias must be \[1\]/)
  t.throws(
    () => linear(zeros([2, 3]), w, null, { dtype: 'float16' as never }),
    /with sparse weights dtype must be float32/,
  )
  t.throws(() => linear(zeros([2, 3]), w, null, { activation: 'x' as never }), /activation must be/)
  t.throws(() => matmul(zeros([2, 3]), w), /inner sizes differ: a is \[2, 3\], b is \[1, 3\]/)
  t.throws(() => matmul(zeros([]), w), { code: 'ERR_SHAPE' })
  t.same(transpose(matmul(zeros([2, 1]), w)).shape, [3, 2])
  t.end()
})
