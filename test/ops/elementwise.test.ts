// Elementwise ops against float64: every row of kernels, dtype, layout and edge size.
import t from 'tap'
import { type DType, floatOf, isFloat, promote } from '#lib/core/dtype'
import * as arithmetic from '#lib/ops/arithmetic'
import { tensor } from '#lib/ops/create'
import * as unary from '#lib/ops/unary'
import type { Tensor } from '#lib/tensor/tensor'
import {
  compare,
  dtypes,
  floats,
  integers,
  lay,
  layoutNames,
  lengths,
  onEveryTarget,
  random,
  read,
  shapes,
} from '../matrix'
import { map, type Nd, nd, zip } from '../oracle/array'
import { decode, erf, erfc, roundTo, ulp } from '../oracle/float'

interface Function1 {
  f: (x: number) => number
  op: (a: Tensor) => Tensor
  /** Largest error of the float32 result in its own ulp, as native/cpu/simd_math.h states; 0 is correctly rounded. */
  ulps: number
  range?: [number, number]
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x))
const halfToEven = (x: number) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x))

const functions: Record<string, Function1> = {
  neg: { f: (x) => -x, op: arithmetic.neg, ulps: 0 },
  abs: { f: Math.abs, op: arithmetic.abs, ulps: 0 },
  sign: { f: Math.sign, op: unary.sign, ulps: 0 },
  floor: { f: Math.floor, op: unary.floor, ulps: 0 },
  ceil: { f: Math.ceil, op: unary.ceil, ulps: 0 },
  round: { f: halfToEven, op: unary.round, ulps: 0 },
  relu: { f: (x) => (x > 0 || Number.isNaN(x) ? x : 0), op: unary.relu, ulps: 0 },
  sqrt: { f: Math.sqrt, op: unary.sqrt, ulps: 0, range: [0, 50] },
  rsqrt: { f: (x) => 1 / Math.sqrt(x), op: unary.rsqrt, ulps: 2, range: [0.001, 50] },
  exp: { f: Math.exp, op: unary.exp, ulps: 1, range: [-20, 11] },
  log: { f: Math.log, op: unary.log, ulps: 1, range: [0, 1000] },
  log1p: { f: Math.log1p, op: unary.log1p, ulps: 1, range: [-1, 10] },
  sin: { f: Math.sin, op: unary.sin, ulps: 2, range: [-30, 30] },
  cos: { f: Math.cos, op: unary.cos, ulps: 2, range: [-30, 30] },
  tanh: { f: Math.tanh, op: unary.tanh, ulps: 2, range: [-10, 10] },
  sigmoid: { f: sigmoid, op: unary.sigmoid, ulps: 2, range: [-20, 20] },
  silu: { f: (x) => (x === -Infinity ? NaN : x * sigmoid(x)), op: unary.silu, ulps: 3, range: [-20, 20] },
  // Far in the left tail gelu is a product of a tiny erfc: the header states 80 ulp without fused multiplies.
  gelu: { f: (x) => (x / 2) * erfc(-x / Math.SQRT2), op: unary.gelu, ulps: 80, range: [-6, 6] },
  erf: { f: erf, op: unary.erf, ulps: 2, range: [-5, 5] },
}

/** One rounding to the dtype of a float32 result that is off by `ulps`. */
function tolerance(dtype: DType, ulps: number): (flat: number, want: number) => number {
  const rounding = dtype === 'float32' ? 0 : 0.5
  return (_, want) =>
    rounding * ulp(dtype, want) + (ulps + (ulps > 0 && dtype === 'float32' ? 0.5 : 0)) * ulp('float32', want)
}

/** Exact functions give exactly the rounded float64; the others a value within their bound of it. */
function check(label: string, got: Tensor, exact: Nd, ulps: number): string[] {
  const dtype = got.dtype
  if (ulps === 0)
    return compare(
      label,
      got,
      map(exact, (x) => roundTo(dtype, Math.fround(x))),
    )
  const inRange = map(exact, (x) => (Math.abs(roundTo(dtype, x)) === Infinity ? roundTo(dtype, x) : x))
  return compare(label, got, inRange, tolerance(dtype, ulps))
}

for (const [name, { f, op, ulps, range }] of Object.entries(functions)) {
  onEveryTarget(name, () => {
    const failures: string[] = []
    for (const dtype of floats) {
      for (const layout of layoutNames) {
        for (const shape of [...shapes, ...(layout === 'contiguous' ? lengths.map((n) => [n]) : [])]) {
          const { tensor: a, values } = lay(layout, dtype, random(dtype, shape, shape.length + 7, range))
          failures.push(...check(`${name} ${dtype} ${layout}`, op(a), map(values, f), ulps))
        }
      }
      const special = nd([6], (_, i) => [NaN, Infinity, -Infinity, 0, 1, -1][i] as number)
      if (name !== 'sin' && name !== 'cos') {
        failures.push(
          ...check(
            `${name} ${dtype} special values`,
            op(lay('contiguous', dtype, special).tensor),
            map(special, f),
            ulps,
          ),
        )
      }
    }
    return failures
  })

  onEveryTarget(`${name} over 20,000 float32 values`, () => {
    const { tensor: a, values } = lay('contiguous', 'float32', random('float32', [20000], 11, range))
    return check(name, op(a), map(values, f), ulps)
  })
}

t.test('integers and bool go through float32 where the result is real', (t) => {
  for (const dtype of [...integers, 'bool'] as DType[]) {
    const { tensor: a, values } = lay('contiguous', dtype, random(dtype, [9], 3, dtype === 'bool' ? [0, 1] : [0, 9]))
    t.equal(unary.exp(a).dtype, 'float32')
    t.same(check(`exp ${dtype}`, unary.exp(a), map(values, Math.exp), 1), [])
  }
  t.end()
})

const wrap: Record<string, (x: bigint) => number> = {
  int8: (x) => Number(BigInt.asIntN(8, x)),
  uint8: (x) => Number(BigInt.asUintN(8, x)),
  int32: (x) => Number(BigInt.asIntN(32, x)),
  int64: (x) => Number(BigInt.asIntN(64, x)),
}

interface Function2 {
  real: (x: number, y: number) => number
  whole: (x: bigint, y: bigint) => bigint
  op: (a: Tensor, b: Tensor) => Tensor
}

const arithmeticOps: Record<string, Function2> = {
  add: { real: (x, y) => x + y, whole: (x, y) => x + y, op: arithmetic.add },
  sub: { real: (x, y) => x - y, whole: (x, y) => x - y, op: arithmetic.sub },
  mul: { real: (x, y) => x * y, whole: (x, y) => x * y, op: arithmetic.mul },
  maximum: { real: (x, y) => Math.max(x, y), whole: (x, y) => (x > y ? x : y), op: arithmetic.maximum },
  minimum: { real: (x, y) => Math.min(x, y), whole: (x, y) => (x < y ? x : y), op: arithmetic.minimum },
}

const pairs: [readonly number[], readonly number[]][] = [
  [[], []],
  [[17], [17]],
  [[17], []],
  [[], [0]],
  [
    [5, 1],
    [1, 7],
  ],
  [[4, 33], [33]],
  [
    [3, 1, 5],
    [2, 1],
  ],
  [
    [2, 3, 16],
    [2, 3, 16],
  ],
  [
    [0, 4],
    [1, 4],
  ],
  [[129], [1]],
]

for (const [name, { real, whole, op }] of Object.entries(arithmeticOps)) {
  onEveryTarget(`${name} of two tensors`, () => {
    const failures: string[] = []
    for (const dtype of [...floats, ...integers]) {
      for (const layout of layoutNames) {
        for (const [shapeA, shapeB] of [...pairs, ...lengths.map((n) => [[n], [n]] as [number[], number[]])]) {
          for (const other of [layout, 'contiguous']) {
            // int64 products stay below 2^53, where float64 still tells them apart.
            const range: [number, number] | undefined = dtype === 'int64' ? [-(2 ** 25), 2 ** 25] : undefined
            const a = lay(layout, dtype, random(dtype, shapeA, 5, range))
            const b = lay(other, dtype, random(dtype, shapeB, 6, range))
            const want = isFloat(dtype)
              ? zip(a.values, b.values, (x, y) => roundTo(dtype, Math.fround(real(x, y))))
              : zip(a.values, b.values, (x, y) => (wrap[dtype] as (x: bigint) => number)(whole(BigInt(x), BigInt(y))))
            failures.push(...compare(`${name} ${dtype} ${layout} ${other}`, op(a.tensor, b.tensor), want))
          }
        }
      }
    }
    return failures
  })
}

onEveryTarget('div, also of integers', () => {
  const failures: string[] = []
  for (const dtype of dtypes) {
    for (const layout of layoutNames) {
      const a = lay(
        layout,
        dtype,
        random(
          dtype,
          [5, 33],
          5,
          dtype === 'bool' ? [0, 1] : ([-99, 99].map((x) => (dtype === 'uint8' ? Math.abs(x) : x)) as [number, number]),
        ),
      )
      const b = lay(layout, dtype, random(dtype, [5, 33], 6, dtype === 'bool' ? [0, 1] : [0, 50]))
      const out = arithmetic.div(a.tensor, b.tensor)
      if (out.dtype !== floatOf(dtype)) failures.push(`div ${dtype} gives ${out.dtype}`)
      failures.push(
        ...compare(
          `div ${dtype} ${layout}`,
          out,
          zip(a.values, b.values, (x, y) => roundTo(out.dtype, Math.fround(x / y))),
        ),
      )
    }
  }
  return failures
})

onEveryTarget('pow', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const layout of layoutNames) {
      const a = lay(layout, dtype, random(dtype, [5, 33], 5, [0, 4]))
      const b = lay('contiguous', dtype, random(dtype, [33], 6, [-3, 3]))
      failures.push(
        ...check(`pow ${dtype} ${layout}`, arithmetic.pow(a.tensor, b.tensor), zip(a.values, b.values, Math.pow), 2),
      )
      const squared = map(a.values, (x) => x * x)
      failures.push(...check(`square ${dtype} ${layout}`, arithmetic.pow(a.tensor, 2), squared, 2))
    }
  }
  return failures
})

onEveryTarget('comparisons, where, clamp', () => {
  const compares: Record<string, [(a: Tensor, b: Tensor) => Tensor, (x: number, y: number) => boolean]> = {
    eq: [arithmetic.eq, (x, y) => x === y],
    ne: [arithmetic.ne, (x, y) => x !== y],
    lt: [arithmetic.lt, (x, y) => x < y],
    le: [arithmetic.le, (x, y) => x <= y],
    gt: [arithmetic.gt, (x, y) => x > y],
    ge: [arithmetic.ge, (x, y) => x >= y],
  }
  const failures: string[] = []
  for (const dtype of dtypes) {
    for (const layout of layoutNames) {
      for (const [shapeA, shapeB] of pairs) {
        const range: [number, number] = dtype === 'bool' ? [0, 1] : [0, 3]
        const round = (v: Nd) => map(v, (x) => (x < 0.3 && isFloat(dtype) ? NaN : Math.round(x)))
        const a = lay(layout, dtype, round(random(dtype, shapeA, 5, range)))
        const b = lay(layout, dtype, round(random(dtype, shapeB, 6, range)))
        for (const [name, [op, f]] of Object.entries(compares)) {
          failures.push(
            ...compare(
              `${name} ${dtype} ${layout}`,
              op(a.tensor, b.tensor),
              zip(a.values, b.values, (x, y) => Number(f(x, y))),
            ),
          )
        }
        const condition = lay(layout, 'bool', random('bool', shapeB, 9))
        const chosen = zip(
          a.values,
          zip(condition.values, b.values, (c, y) => (c ? -Infinity : y)),
          (x, y) => (y === -Infinity ? x : y),
        )
        failures.push(
          ...compare(`where ${dtype} ${layout}`, arithmetic.where(condition.tensor, a.tensor, b.tensor), chosen),
        )
        const clamped = map(a.values, (x) => Math.min(2, Math.max(1, x)))
        if (dtype !== 'bool')
          failures.push(...compare(`clamp ${dtype} ${layout}`, arithmetic.clamp(a.tensor, 1, 2), clamped))
      }
    }
  }
  return failures
})

t.test('int64 keeps all 64 bits', (t) => {
  const a = tensor([2n ** 62n, -(2n ** 63n), 9007199254740993n])
  t.same(
    arithmetic.add(a, tensor([1n, -1n, 0n])).dataSync(),
    new BigInt64Array([2n ** 62n + 1n, 2n ** 63n - 1n, 9007199254740993n]),
  )
  t.same(
    arithmetic.mul(a, tensor([2n, 1n, 1n])).dataSync(),
    new BigInt64Array([-(2n ** 63n), -(2n ** 63n), 9007199254740993n]),
  )
  t.same(arithmetic.gt(a, 0).arraySync(), [true, false, true])
  t.end()
})

t.test('the result dtype is the promoted one, for every pair', (t) => {
  for (const x of dtypes) {
    for (const y of dtypes) {
      const a = tensor([1], { dtype: x })
      const b = tensor([1], { dtype: y })
      t.equal(arithmetic.mul(a, b).dtype, promote(x, y), `${x} * ${y}`)
      t.same(read(arithmetic.mul(a, b)).data, [1], `${x} * ${y}`)
    }
  }
  t.end()
})

onEveryTarget('all 65,536 float16 and bfloat16 patterns convert exactly, there and back', () => {
  const failures: string[] = []
  const patterns = Uint16Array.from({ length: 65536 }, (_, i) => i)
  for (const dtype of ['float16', 'bfloat16'] as const) {
    const half = tensor(patterns, { dtype })
    const wide = unary.cast(half, 'float32')
    failures.push(
      ...compare(
        `${dtype} to float32`,
        wide,
        nd([65536], (_, i) => decode(dtype, i)),
      ),
    )
    const back = unary.cast(wide, dtype).dataSync()
    const wrong = Array.from(patterns).filter((i) =>
      Number.isNaN(decode(dtype, i)) ? !Number.isNaN(decode(dtype, back[i] as number)) : back[i] !== i,
    )
    failures.push(...wrong.map((i) => `${dtype} ${i.toString(16)} comes back as ${(back[i] as number).toString(16)}`))
  }
  return failures
})

onEveryTarget('float32 rounds to float16 and bfloat16 half to even', () => {
  const failures: string[] = []
  for (const dtype of ['float16', 'bfloat16'] as const) {
    // Every finite pattern, the middle between it and the next, and the float32 numbers beside the middle.
    const values: number[] = []
    for (let i = 0; i < 0x7fff; i++) {
      const x = decode(dtype, i)
      const y = decode(dtype, i + 1)
      if (!Number.isFinite(x) || !Number.isFinite(y)) continue
      const middle = Math.fround((x + y) / 2)
      for (const v of [middle, middle + ulp('float32', middle), middle - ulp('float32', middle)])
        values.push(Math.fround(v), -Math.fround(v))
    }
    values.push(
      65503,
      65519.99609375,
      65520,
      1e30,
      3.3895313892515355e38,
      3.4028234663852886e38,
      Infinity,
      NaN,
      1e-45,
      2 ** -25,
      2 ** -24,
    )
    const wide = nd([values.length], (_, i) => Math.fround(values[i] as number))
    failures.push(
      ...compare(
        dtype,
        unary.cast(lay('contiguous', 'float32', wide).tensor, dtype),
        map(wide, (x) => roundTo(dtype, x)),
      ),
    )
  }
  return failures
})

onEveryTarget('cast between every two dtypes, in every layout', () => {
  const failures: string[] = []
  for (const from of dtypes) {
    for (const to of dtypes) {
      for (const layout of layoutNames) {
        for (const shape of [[17], [5, 33], [2, 3, 4], [0], [257]]) {
          const signed = from !== 'uint8' && to !== 'uint8' && to !== 'bool'
          const range: [number, number] = from === 'bool' ? [0, 1] : [signed ? -100 : 0, 100]
          const a = lay(layout, from, random(from, shape, 3, range))
          failures.push(
            ...compare(
              `${from} to ${to} ${layout}`,
              unary.cast(a.tensor, to),
              map(a.values, (x) => roundTo(to, x)),
            ),
          )
        }
      }
    }
  }
  return failures
})
