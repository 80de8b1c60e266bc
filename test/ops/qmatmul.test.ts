// matmul of bytes and MatMulInteger: exact, whatever signs, zero points, sizes and layouts.
import t from 'tap'
import { addon } from '#lib/native/load'
import { tensor, zeros } from '#lib/ops/create'
import { matmul } from '#lib/ops/matmul'
import { matmulInteger } from '#lib/ops/qmatmul'
import { expand } from '#lib/ops/shape'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, lay, layoutNames, onEveryTarget, random, useThreads } from '../matrix'
import * as oracle from '../oracle/array'
import { nd } from '../oracle/array'
import { integerProduct } from '../oracle/quantize'
import { type Byte, kinds, lower, onEveryCase, operand, signs, upper, zeroPoint } from './bytes'

// Around the tiles of all rows (4, 6, 13 and 14 rows; 8, 16 and 32 columns), quads of k, vectors of them, and primes.
const sizes: [number, number, number][] = [
  [1, 1, 1],
  [1, 1, 4],
  [2, 3, 3],
  [3, 5, 5],
  [4, 7, 16],
  [5, 8, 17],
  [6, 9, 31],
  [7, 15, 33],
  [8, 16, 7],
  [12, 17, 64],
  [13, 31, 12],
  [14, 32, 63],
  [15, 33, 65],
  [27, 64, 8],
  [28, 65, 15],
  [29, 13, 129],
  [1, 257, 61],
  [257, 1, 61],
  [37, 41, 257],
  [3, 2, 1021],
]

onEveryCase(
  'every combination of signs, nn, nt, tn, tt, at every edge',
  sizes.flatMap(([m, n, k]) =>
    signs.flatMap(([da, db], i) =>
      ['nn', 'nt', 'tn', 'tt'].map((form) => {
        const a = operand(da, random(da, [m, k], 3 + i), form[0] === 't')
        const b = operand(db, random(db, [k, n], 4 + i), form[1] === 't')
        return {
          label: `${da} ${db} ${form} m=${m} n=${n} k=${k}`,
          run: () => matmul(a.tensor, b.tensor),
          want: integerProduct(a.values, b.values),
        }
      }),
    ),
  ),
)

onEveryCase(
  'zero points: none, one, one a row or column',
  [
    [1, 1, 1],
    [3, 5, 4],
    [5, 17, 9],
    [14, 33, 33],
    [29, 31, 70],
    [1, 40, 13],
    [40, 1, 5],
  ].flatMap(([m, n, k]) =>
    signs.flatMap(([da, db]) =>
      kinds.flatMap((rows) =>
        kinds.map((columns) => {
          const a = operand(da, random(da, [m as number, k as number], 5))
          const b = operand(db, random(db, [k as number, n as number], 6))
          const za = zeroPoint(rows, da, m as number, 7)
          const zb = zeroPoint(columns, db, n as number, 8)
          return {
            label: `${da} ${db} zeros ${rows}, ${columns} m=${m} n=${n} k=${k}`,
            run: () => matmulInteger(a.tensor, b.tensor, za.tensor, zb.tensor),
            want: integerProduct(a.values, b.values, za.at, zb.at),
          }
        }),
      ),
    ),
  ),
)

// onnxruntime#7524: vpmaddubsw adds two products of bytes in int16, which saturates at 32767. There, A of 0 and 255 with the
// zero point 42 by B of +-127 with -26 came out wrong; extremes everywhere go beyond that in every pair.
onEveryCase(
  'extremes in every position: no sum saturates on the way',
  signs.flatMap(([da, db]) =>
    [
      [-128, 127],
      [127, 127],
      [255, 0],
      [255, -128],
      [0, 255],
      [255, 255],
    ].flatMap(([x, y]) =>
      [
        [null, null],
        [42, -26],
        [lower[da], upper[db]],
        [upper[da], lower[db]],
      ].map(([za, zb]) => {
        const [m, n, k] = [15, 34, 67]
        const clip = (v: number, dtype: Byte) => Math.min(upper[dtype], Math.max(lower[dtype], v))
        const a = operand(
          da,
          nd([m, k], ([i, p]) => clip(((i as number) + (p as number)) % 7 ? (x as number) : (y as number), da)),
        )
        const b = operand(
          db,
          nd([k, n], ([p, j]) => clip(((p as number) + (j as number)) % 5 ? (y as number) : (x as number), db)),
        )
        const zero = (v: number | null | undefined, dtype: Byte) =>
          v === null || v === undefined ? null : clip(v, dtype)
        const [zeroA, zeroB] = [zero(za, da), zero(zb, db)]
        return {
          label: `${da} ${db} of ${x} and ${y}, zeros ${zeroA} ${zeroB}`,
          run: () =>
            matmulInteger(
              a.tensor,
              b.tensor,
              zeroA === null ? null : tensor(zeroA, { dtype: da }),
              zeroB === null ? null : tensor([zeroB], { dtype: db }),
            ),
          want: integerProduct(
            a.values,
            b.values,
            () => zeroA ?? 0,
            () => zeroB ?? 0,
          ),
        }
      }),
    ),
  ),
)

onEveryCase(
  'k in several blocks, with zero points',
  signs.flatMap(([da, db]) =>
    [
      [1, 9, 3073],
      [7, 33, 4621],
      [15, 5, 6151],
      [29, 40, 3079],
      [16, 3, 12_289],
    ].map(([m, n, k]) => {
      const a = operand(da, random(da, [m as number, k as number], 9))
      const b = operand(db, random(db, [k as number, n as number], 10))
      const za = zeroPoint('many', da, m as number, 11)
      const zb = zeroPoint('many', db, n as number, 12)
      return {
        label: `${da} ${db} m=${m} n=${n} k=${k}`,
        run: () => matmulInteger(a.tensor, b.tensor, za.tensor, zb.tensor),
        want: integerProduct(a.values, b.values, za.at, zb.at),
      }
    }),
  ),
)

onEveryTarget('the largest inner sizes, at the extremes that int32 holds', () => {
  const failures: string[] = []
  const filled = (shape: number[], value: number, dtype: Byte) => expand(tensor([[value]], { dtype }), shape)
  for (const [da, a, za, db, b, zb, k] of [
    ['uint8', 255, 0, 'int8', -128, null, 65_793],
    ['uint8', 0, 255, 'int8', -128, null, 65_793],
    ['int8', -128, 127, 'int8', -128, null, 65_793],
    ['int8', 127, -128, 'int8', -128, null, 65_793],
    ['uint8', 255, 0, 'uint8', 255, null, 33_025],
    ['uint8', 255, 0, 'uint8', 0, 255, 33_025],
    ['int8', -128, 127, 'uint8', 255, 0, 33_025],
    ['int8', -128, 127, 'int8', -128, 127, 33_025],
    ['uint8', 0, 255, 'int8', 127, -128, 33_025],
  ] as [Byte, number, number, Byte, number, number | null, number][]) {
    for (const m of [1, 3]) {
      const zeroB = zb === null ? null : tensor(zb, { dtype: db })
      const got = matmulInteger(filled([m, k], a, da), filled([k, 2], b, db), tensor(za, { dtype: da }), zeroB)
      const value = (a - za) * (b - (zb ?? 0)) * k
      failures.push(
        ...compare(
          `${da} ${a} - ${za} by ${db} ${b} - ${zb}, k=${k}`,
          got,
          nd([m, 2], () => value),
        ),
      )
    }
  }
  return failures
})

t.test('one more is refused', (t) => {
  const wide = (k: number, dtype: Byte) => expand(zeros([1, 1], { dtype }), [1, k]) as Tensor<Byte>
  const tall = (k: number, dtype: Byte) => expand(zeros([1, 1], { dtype }), [k, 1]) as Tensor<Byte>
  const zero = zeros([], { dtype: 'int8' })
  const plain = {
    code: 'ERR_SHAPE',
    message: 'matmulInteger: the inner size 65794 could overflow int32: at most 65793',
  }
  const withZero = {
    code: 'ERR_SHAPE',
    message: 'matmulInteger: the inner size 33026 could overflow int32: at most 33025 with a zero point of b',
  }
  t.throws(() => matmulInteger(wide(65_794, 'uint8'), tall(65_794, 'int8')), plain)
  t.throws(() => matmulInteger(wide(65_794, 'int8'), tall(65_794, 'int8'), zero), plain)
  t.throws(() => matmulInteger(wide(33_026, 'uint8'), tall(33_026, 'uint8')), withZero)
  t.throws(() => matmulInteger(wide(33_026, 'int8'), tall(33_026, 'int8'), null, zero), withZero)
  t.throws(() => matmul(wide(65_794, 'uint8'), tall(65_794, 'int8')), {
    code: 'ERR_SHAPE',
    message: /^matmul: the inner size 65794/,
  })
  t.throws(() => matmul(wide(33_026, 'uint8'), tall(33_026, 'uint8')), {
    code: 'ERR_SHAPE',
    message: /^matmul: .* at most 33025/,
  })
  t.end()
})

onEveryTarget('any layout', () => {
  const failures: string[] = []
  for (const x of layoutNames) {
    for (const y of layoutNames) {
      for (const [da, db] of signs) {
        const a = lay(x, da, random(da, [9, 19], 3))
        const b = lay(y, db, random(db, [19, 35], 4))
        const za = lay(y, da, random(da, [9], 5))
        const zb = lay(x, db, random(db, [35], 6))
        const got = matmulInteger(a.tensor, b.tensor, za.tensor, zb.tensor)
        const want = integerProduct(
          a.values,
          b.values,
          (i) => za.values.data[i] as number,
          (j) => zb.values.data[j] as number,
        )
        failures.push(...compare(`${da} ${x} ${db} ${y}`, got, want))
      }
    }
  }
  return failures
})

const batches: [number[], number[]][] = [
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
    [2, 3, 0],
    [3, 4],
  ].map((s, i) => (i ? [0, 4] : s)) as [number[], number[]],
  [
    [2, 3, 7, 33],
    [2, 3, 33, 9],
  ],
  [
    [2, 4, 3, 5],
    [2, 4, 5, 6],
  ],
]

onEveryTarget('batches and broadcasting, with zero points of rows and columns', () => {
  const failures: string[] = []
  for (const [shapeA, shapeB] of batches) {
    for (const layout of layoutNames) {
      for (const [da, db] of signs) {
        const a = lay(layout, da, random(da, shapeA, 3))
        const b = lay(layout, db, random(db, shapeB, 4))
        for (const kind of kinds) {
          const za = zeroPoint(kind, da, shapeA.at(-2) as number, 5)
          const zb = zeroPoint(kind, db, shapeB.at(-1) as number, 6)
          const x = nd(a.values.shape, (index, flat) => (a.values.data[flat] as number) - za.at(index.at(-2) as number))
          const y = nd(b.values.shape, (index, flat) => (b.values.data[flat] as number) - zb.at(index.at(-1) as number))
          const got = matmulInteger(a.tensor, b.tensor, za.tensor, zb.tensor)
          failures.push(...compare(`${layout} ${da} ${db} ${kind} [${shapeA}] x [${shapeB}]`, got, oracle.matmul(x, y)))
        }
      }
    }
  }
  return failures
})

onEveryTarget('vectors, no elements, k = 0 with zero points', () => {
  const failures: string[] = []
  const filled = (shape: number[], value: number) => expand(tensor(value, { dtype: 'uint8' }), shape)
  const three = tensor(3, { dtype: 'uint8' })
  for (const [a, b, shape, k] of [
    [[3], [3], [], 3],
    [[3], [3, 2], [2], 3],
    [[2, 3], [3], [2], 3],
    [[4, 2, 3], [3], [4, 2], 3],
    [[3], [4, 3, 2], [4, 2], 3],
    [[0], [0], [], 0],
    [[2, 0], [0, 3], [2, 3], 0],
    [[14, 0], [0, 40], [14, 40], 0],
    [[0, 2], [2, 3], [0, 3], 2],
    [[2, 3], [3, 0], [2, 0], 3],
  ] as [number[], number[], number[], number][]) {
    const want = (value: number) => nd(shape, () => k * value)
    // Sums of rows are scratch memory: what an earlier product left there must not be read.
    matmulInteger(filled([40, 9], 255), filled([9, 2], 255), null, three).dataSync()
    failures.push(...compare(`[${a}] x [${b}]`, matmul(filled(a, 7), filled(b, 5)), want(35)))
    failures.push(...compare(`zeros [${a}] x [${b}]`, matmulInteger(filled(a, 7), filled(b, 5), three, three), want(8)))
  }
  return failures
})

t.test('one thread and two give the same bytes', (t) => {
  const { threads } = addon.machine()
  const a = random('uint8', [70, 515], 3)
  const b = random('int8', [515, 300], 4)
  const zero = random('int8', [300], 5)
  const run = (count: number) => {
    useThreads(count)
    const x = tensor(a.data, { shape: a.shape, dtype: 'uint8' })
    const y = tensor(b.data, { shape: b.shape, dtype: 'int8' })
    return matmulInteger(x, y, tensor(42, { dtype: 'uint8' }), tensor(zero.data, { dtype: 'int8' }))
  }
  const want = integerProduct(
    a,
    b,
    () => 42,
    (j) => zero.data[j] as number,
  )
  t.same(compare('1', run(1), want), [])
  t.same(compare('2', run(2), want), [])
  useThreads(threads)
  t.end()
})

t.test('dtypes of results; errors name op, argument and value', (t) => {
  const a = zeros([2, 3], { dtype: 'int8' })
  const b = zeros([3, 4], { dtype: 'uint8' })
  t.equal(matmul(a, b).dtype, 'int32')
  t.equal(matmul(a, b, { dtype: 'float32' }).dtype, 'float32')
  const refused = (run: () => unknown, code: string, message: string | RegExp) => t.throws(run, { code, message })
  refused(() => matmul(a, a), 'ERR_SHAPE', 'matmul: inner sizes differ: a is [2, 3], b is [2, 3]')
  refused(
    () => matmul(a, b, { activation: 'relu' }),
    'ERR_DTYPE',
    'matmul: a product of integers takes no bias and no activation',
  )
  refused(
    () => matmul(a, b, { bias: zeros([4]) }),
    'ERR_DTYPE',
    'matmul: a product of integers takes no bias and no activation',
  )
  refused(
    () => matmulInteger(a, zeros([3, 4]) as never),
    'ERR_DTYPE',
    'matmulInteger: b must be int8 or uint8, got float32',
  )
  refused(() => matmulInteger(3 as never, b), 'ERR_ARGUMENT', 'matmulInteger: a must be a tensor, got 3')
  refused(() => matmulInteger(zeros([], { dtype: 'int8' }), b), 'ERR_SHAPE', 'matmulInteger: a needs at least one axis')
  refused(
    () => matmulInteger(zeros([2, 4], { dtype: 'int8' }), b),
    'ERR_SHAPE',
    'matmulInteger: inner sizes differ: a is [2, 4], b is [3, 4]',
  )
  refused(
    () => matmulInteger(zeros([2, 2, 3], { dtype: 'int8' }), zeros([3, 3, 4], { dtype: 'int8' })),
    'ERR_SHAPE',
    /^matmulInteger: shapes \[2\] and \[3\] do not broadcast/,
  )
  refused(
    () => matmulInteger(a, b, zeros([3], { dtype: 'int8' })),
    'ERR_SHAPE',
    'matmulInteger: aZeroPoint must have one element or be [2], it is [3]',
  )
  refused(
    () => matmulInteger(a, b, null, zeros([2, 4], { dtype: 'uint8' })),
    'ERR_SHAPE',
    'matmulInteger: bZeroPoint must have one element or be [4], it is [2, 4]',
  )
  refused(
    () => matmulInteger(a, b, zeros([])),
    'ERR_DTYPE',
    'matmulInteger: aZeroPoint must be int8 or uint8 or int32, got float32',
  )
  const gone = zeros([2, 3], { dtype: 'int8' })
  gone.dispose()
  refused(() => matmulInteger(gone, b), 'ERR_DISPOSED', /^matmulInteger: /)
  refused(() => matmulInteger(a, b, gone), 'ERR_DISPOSED', /^matmulInteger: /)
  t.end()
})
