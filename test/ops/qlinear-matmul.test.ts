// QLinearMatMul: the exact sums, one float32 factor (aScale * bScale) / yScale, the zero point added before rounding.
import t from 'tap'
import { integerRange } from '#lib/core/quantization'
import { addon } from '#lib/native/load'
import { tensor, zeros } from '#lib/ops/create'
import { qlinearMatmul } from '#lib/ops/qmatmul'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, lay, onEveryTarget, random, useThreads } from '../matrix'
import { type Nd, nd, matmul as product } from '../oracle/array'
import { halfToEven } from '../oracle/float'
import { f, integerProduct, requantized } from '../oracle/quantize'
import { type Byte, bytes, type Case, kinds, onEveryCase, operand, signs, type Zeros, zeroPoint } from './bytes'

const u8 = (values: unknown) => tensor(values as number[], { dtype: 'uint8' })
const s8 = (values: unknown) => tensor(values as number[], { dtype: 'int8' })

onEveryTarget("ONNX's own numbers", () => {
  const a = [
    [208, 236, 0, 238],
    [3, 214, 255, 29],
  ]
  const b = [
    [152, 51, 244],
    [60, 26, 255],
    [0, 127, 246],
    [127, 254, 247],
  ]
  const less = (rows: number[][]) => rows.map((row) => Array.from(Int8Array.from(row, (x) => x - 127))) // 128 wraps
  const [sa, sb, sy] = [tensor([0.0066]), tensor([0.00705]), tensor([0.0107])]
  const want = [
    [168, 115, 255],
    [1, 66, 151],
  ]
  const wantSigned = [
    [41, -12, -9],
    [1, -75, -128],
  ]
  const flat = (rows: number[][], shape: number[]): Nd => ({ shape, data: Float64Array.from(rows.flat()) })
  return [
    ...compare('uint8', qlinearMatmul(u8(a), sa, u8([113]), u8(b), sb, u8([114]), sy, u8([118])), flat(want, [2, 3])),
    ...compare(
      'int8',
      qlinearMatmul(s8(less(a)), sa, s8([113 - 127]), s8(less(b)), sb, s8([114 - 127]), sy, s8([118 - 127])),
      flat(wantSigned, [2, 3]),
    ),
    ...compare(
      'a batch',
      qlinearMatmul(u8([a, a]), sa, u8([113]), u8([b, b]), sb, u8([114]), sy, u8([118])),
      flat([...want, ...want], [2, 2, 3]),
    ),
  ]
})

interface Scale {
  tensor: Tensor<'float32'>
  at: (i: number) => number
}
function scaleOf(kind: Zeros, n: number, seed: number, range: [number, number]): Scale {
  const values = random('float32', kind === 'many' ? [n] : [], seed, range)
  return {
    tensor: tensor(values.data, { shape: values.shape, dtype: 'float32' }),
    at: (i) => values.data[kind === 'many' ? i : 0] as number,
  }
}

interface Shape {
  m: number
  n: number
  k: number
}
/** A product whose results are about 60 steps from the zero point: most of them are not clipped. */
function makeCase(
  { m, n, k }: Shape,
  [da, db]: [Byte, Byte],
  to: Byte,
  rows: [Zeros, Zeros],
  columns: [Zeros, Zeros],
): Case {
  const a = operand(da, random(da, [m, k], 3))
  const b = operand(db, random(db, [k, n], 4))
  const [za, zb] = [zeroPoint(rows[1], da, m, 5), zeroPoint(columns[1], db, n, 6)]
  const [sa, sb] = [scaleOf(rows[0], m, 7, [0.01, 0.03]), scaleOf(columns[0], n, 8, [-0.02, 0.02])]
  const { qmin, qmax } = integerRange(to)
  const zy = to === 'int8' ? -7 : 119
  const sums = integerProduct(a.values, b.values, za.at, zb.at)
  const typical = Math.sqrt(sums.data.reduce((total, x) => total + x * x, 0) / sums.data.length)
  const sy = f((0.02 * 0.012 * Math.max(typical, 1)) / 60)
  const factor = (i: number, j: number) => f(f(sa.at(i) * sb.at(j)) / sy)
  return {
    label: `${da} ${db} to ${to}, scale and zero point of rows ${rows}, of columns ${columns}, m=${m} n=${n} k=${k}`,
    run: () =>
      qlinearMatmul(
        a.tensor,
        sa.tensor,
        za.tensor,
        b.tensor,
        sb.tensor,
        zb.tensor,
        tensor(sy),
        tensor(zy, { dtype: to }),
      ),
    want: nd([m, n], ([i, j], flat) =>
      requantized(sums.data[flat] as number, factor(i as number, j as number), zy, qmin, qmax),
    ),
  }
}

onEveryCase(
  'every combination of signs, scales and zero points per tensor, row and column',
  [
    { m: 1, n: 1, k: 3 },
    { m: 5, n: 17, k: 9 },
    { m: 15, n: 34, k: 35 },
  ].flatMap((shape) =>
    signs.flatMap((sign) =>
      bytes.flatMap((to) =>
        (['one', 'many'] as const).flatMap((scale) =>
          kinds.flatMap((zero) =>
            (['one', 'many'] as const).map((other) => makeCase(shape, sign, to, [scale, zero], [other, zero])),
          ),
        ),
      ),
    ),
  ),
)

onEveryCase(
  'at every edge, also with k in several blocks',
  [
    [1, 1, 1],
    [1, 33, 7],
    [4, 8, 4],
    [6, 16, 5],
    [7, 32, 64],
    [13, 31, 12],
    [14, 65, 33],
    [29, 9, 3],
    [257, 1, 6],
    [1, 257, 5],
    [3, 2, 0],
    [15, 40, 4621],
    [9, 1031, 3079],
    [29, 9, 12_289],
    [16, 5, 33_025],
  ].flatMap(([m, n, k]) =>
    signs.map((sign, i) =>
      makeCase({ m, n, k } as Shape, sign, bytes[i % 2] as Byte, ['one', 'many'], ['many', 'many']),
    ),
  ),
)

onEveryTarget('ties: the zero point is added before rounding to even, not after', () => {
  const failures: string[] = []
  for (const to of bytes) {
    for (const zero of [0, 1, 2, 3, 100, 101]) {
      // Sums 1 to 39 by the factor 1 / 4: 2.5 + 1 is rounded to 4, while 2.5 would be rounded to 2 and become 3.
      const a = u8(Array.from({ length: 39 }, (_, i) => [i + 1]))
      const got = qlinearMatmul(
        a,
        tensor(0.5),
        null,
        s8([[1, -1]]),
        tensor(0.25),
        null,
        tensor(0.5),
        tensor(zero, { dtype: to }),
      )
      const { qmin, qmax } = integerRange(to)
      const exact = (i: number, j: number) => ((i + 1) * (j ? -1 : 1)) / 4
      const want = nd([39, 2], ([i, j]) =>
        Math.max(qmin, Math.min(qmax, halfToEven(exact(i as number, j as number) + zero))),
      )
      failures.push(...compare(`${to} ${zero}`, got, want))
      const after = nd([39, 2], ([i, j]) =>
        Math.max(qmin, Math.min(qmax, halfToEven(exact(i as number, j as number)) + zero)),
      )
      if (zero % 2 && after.data.join() === want.data.join()) failures.push(`${to} ${zero}: the two orders agree`)
    }
  }
  return failures
})

onEveryTarget('scales of every size: sums and factors that overflow, vanish or are NaN', () => {
  const failures: string[] = []
  const a = [
    [0, 1, 255],
    [127, 128, 3],
    [0, 0, 0],
  ]
  const b = [
    [1, -128],
    [-1, 127],
    [3, 0],
  ]
  const sums = integerProduct(
    { shape: [3, 3], data: Float64Array.from(a.flat()) },
    { shape: [3, 2], data: Float64Array.from(b.flat()) },
  )
  for (const sa of [1e-40, 1e-20, 1, 1e20, 1e38, -1, Infinity, Number.NaN, 0]) {
    for (const sb of [1e-20, 1, 1e20]) {
      for (const sy of [1e-38, 0.01, 1e10, 1e38, Infinity, 0, Number.NaN]) {
        for (const to of bytes) {
          const { qmin, qmax } = integerRange(to)
          const factor = f(f(f(sa) * f(sb)) / f(sy))
          const got = qlinearMatmul(
            u8(a),
            tensor(sa),
            null,
            s8(b),
            tensor(sb),
            null,
            tensor(sy),
            tensor(9, { dtype: to }),
          )
          const want = nd([3, 2], (_, flat) => requantized(sums.data[flat] as number, factor, 9, qmin, qmax))
          failures.push(...compare(`${sa} ${sb} ${sy} ${to}`, got, want))
        }
      }
    }
  }
  return failures
})

onEveryTarget('batches, vectors, layouts', () => {
  const failures: string[] = []
  const scale = tensor(0.02)
  const sy = tensor(1.5)
  for (const [shapeA, shapeB, out] of [
    [
      [2, 3, 5],
      [5, 4],
      [2, 3, 4],
    ],
    [
      [3, 5],
      [2, 5, 4],
      [2, 3, 4],
    ],
    [
      [2, 1, 3, 5],
      [3, 5, 4],
      [2, 3, 3, 4],
    ],
    [
      [0, 3, 5],
      [5, 4],
      [0, 3, 4],
    ],
    [[5], [5], []],
    [[5], [5, 4], [4]],
    [[3, 5], [5], [3]],
    [[2, 3, 5], [5], [2, 3]],
    [[5], [2, 5, 4], [2, 4]],
  ] as [number[], number[], number[]][]) {
    for (const layout of ['contiguous', 'strided', 'permuted', 'broadcast', 'reversed']) {
      const a = lay(layout, 'uint8', random('uint8', shapeA, 3))
      const b = lay(layout, 'int8', random('int8', shapeB, 4))
      const [rows, columns] = [
        shapeA.length > 1 ? (shapeA.at(-2) as number) : 1,
        shapeB.length > 1 ? (shapeB.at(-1) as number) : 1,
      ]
      const za = zeroPoint('many', 'uint8', rows, 5)
      const sb = scaleOf('many', columns, 6, [0.01, 0.03])
      const left = shapeA.length > 1 ? a.values : { shape: [1, 5], data: a.values.data }
      const right = shapeB.length > 1 ? b.values : { shape: [5, 1], data: b.values.data }
      const got = qlinearMatmul(a.tensor as Tensor<'uint8'>, scale, za.tensor, b.tensor, sb.tensor, null, sy, s8(3))
      const shifted = nd(left.shape, (index, flat) => (left.data[flat] as number) - za.at(index.at(-2) as number))
      const sums = product(shifted, right).data
      const want = sums.map((sum, i) => requantized(sum, f(f(f(0.02) * sb.at(i % columns)) / 1.5), 3, -128, 127))
      failures.push(...compare(`${layout} [${shapeA}] x [${shapeB}]`, got, { shape: out, data: want }))
    }
  }
  return failures
})

t.test('one thread and two give the same bytes', (t) => {
  const { threads } = addon.machine()
  const { run, want } = makeCase(
    { m: 70, n: 300, k: 515 },
    ['uint8', 'int8'],
    'uint8',
    ['many', 'many'],
    ['many', 'many'],
  )
  for (const count of [1, 2]) {
    useThreads(count)
    t.same(compare(`${count}`, run(), want), [])
  }
  useThreads(threads)
  t.end()
})

t.test('errors name op, argument and value', (t) => {
  const [a, b, s] = [zeros([2, 3], { dtype: 'uint8' }), zeros([3, 4], { dtype: 'int8' }), tensor(1)]
  const right = { a, aScale: s, aZero: null, b, bScale: s, bZero: null, yScale: s, yZero: u8(0) }
  const refused = (change: object, code: string, message: string | RegExp) => {
    const x = { ...right, ...change }
    t.throws(() => qlinearMatmul(x.a, x.aScale, x.aZero, x.b, x.bScale, x.bZero, x.yScale, x.yZero), { code, message })
  }
  refused({ a: s }, 'ERR_DTYPE', 'qlinearMatmul: a must be int8 or uint8, got float32')
  refused({ aScale: zeros([3]) }, 'ERR_SHAPE', 'qlinearMatmul: aScale must have one element or be [2], it is [3]')
  refused({ aScale: u8(1) }, 'ERR_DTYPE', /^qlinearMatmul: aScale must be float32 or/)
  refused({ aScale: 1 }, 'ERR_ARGUMENT', 'qlinearMatmul: aScale must be a tensor, got 1')
  refused({ bScale: zeros([2]) }, 'ERR_SHAPE', 'qlinearMatmul: bScale must have one element or be [4], it is [2]')
  refused(
    { bZero: zeros([2], { dtype: 'int8' }) },
    'ERR_SHAPE',
    'qlinearMatmul: bZeroPoint must have one element or be [4], it is [2]',
  )
  refused({ yScale: zeros([4]) }, 'ERR_SHAPE', 'qlinearMatmul: yScale must have one element or be [1], it is [4]')
  refused({ yZero: undefined }, 'ERR_ARGUMENT', 'qlinearMatmul: yZeroPoint must be a tensor, got undefined')
  refused(
    { yZero: tensor(0, { dtype: 'int32' }) },
    'ERR_DTYPE',
    'qlinearMatmul: yZeroPoint must be int8 or uint8, got int32',
  )
  refused(
    { yZero: zeros([4], { dtype: 'int8' }) },
    'ERR_SHAPE',
    'qlinearMatmul: yZeroPoint must have one element or be [1], it is [4]',
  )
  refused(
    { b: zeros([2, 4], { dtype: 'int8' }) },
    'ERR_SHAPE',
    'qlinearMatmul: inner sizes differ: a is [2, 3], b is [2, 4]',
  )
  const gone = tensor(1)
  gone.dispose()
  for (const name of ['a', 'aScale', 'aZero', 'b', 'bScale', 'bZero', 'yScale', 'yZero'])
    refused({ [name]: gone }, 'ERR_DISPOSED', /^qlinearMatmul: /)
  t.end()
})
