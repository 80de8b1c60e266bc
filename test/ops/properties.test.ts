// What must hold whatever the shapes and values are, on random ones; a failing case is shrunk to a small one.
import fc from 'fast-check'
import t from 'tap'
import type { DType } from '#lib/core/dtype'
import { broadcastShapes } from '#lib/core/shape'
import { add, gt, mul, neg, sub, where } from '#lib/ops/arithmetic'
import { tensor } from '#lib/ops/create'
import { gather } from '#lib/ops/index'
import { cat, split } from '#lib/ops/join'
import { matmul } from '#lib/ops/matmul'
import { max, sum } from '#lib/ops/reduce'
import { flip, permute, reshape, transpose } from '#lib/ops/shape'
import { logSoftmax, softmax } from '#lib/ops/softmax'
import { argmax, cumsum } from '#lib/ops/statistics'
import { cast, exp } from '#lib/ops/unary'
import type { Tensor } from '#lib/tensor/tensor'
import { random, read } from '../matrix'
import * as oracle from '../oracle/array'
import { unit } from '../oracle/float'

const U = unit('float32')
const extent = fc.integer({ min: 0, max: 9 })
const shape = fc.array(extent, { minLength: 0, maxLength: 4 })
const seed = fc.integer({ min: 1, max: 1e6 })

function make(
  dims: readonly number[],
  from: number,
  dtype: DType = 'float32',
  range: [number, number] = [-2, 2],
): Tensor {
  return tensor(random(dtype, dims, from, range).data, { shape: dims, dtype })
}

function values(a: Tensor): number[] {
  return Array.from(read(a).data)
}

function holds<T>(name: string, property: fc.IProperty<T>): void {
  t.test(name, (t) => {
    const result = fc.check(property, { seed: 20240229, numRuns: 150 })
    t.notOk(result.failed, fc.defaultReportMessage(result) ?? name)
    t.end()
  })
}

function near(a: Tensor, b: Tensor, tolerance: (i: number) => number): boolean {
  const [x, y] = [values(a), values(b)]
  return a.shape.join() === b.shape.join() && x.every((v, i) => Math.abs(v - (y[i] as number)) <= tolerance(i))
}

function same(a: Tensor, b: Tensor): boolean {
  return near(a, b, () => 0)
}

holds(
  'matmul is linear: (x + y) b = x b + y b',
  fc.property(extent, extent, extent, seed, (m, k, n, s) => {
    // Sixteenths: sums and products are exact in float32, so the two sides are equal and not only close.
    const exact = (dims: number[], from: number) => mul(make(dims, from, 'int32', [-32, 32]), 1 / 16)
    const [x, y, b] = [exact([m, k], s), exact([m, k], s + 1), exact([k, n], s + 2)]
    return same(matmul(add(x, y), b), add(matmul(x, b), matmul(y, b)))
  }),
)

holds(
  'the transpose of a product is the product of the transposes, reversed',
  fc.property(extent, extent, extent, seed, (m, k, n, s) => {
    const [a, b] = [make([m, k], s), make([k, n], s + 1)]
    const bound = oracle.matmul(oracle.abs(read(a)), oracle.abs(read(b)))
    return near(
      reshape(transpose(matmul(a, b)), [n * m]),
      reshape(matmul(transpose(b), transpose(a)), [n * m]),
      (i) => {
        const [row, column] = [i % m, Math.floor(i / m)]
        return 2 * (k + 1) * U * (bound.data[row * n + column] as number)
      },
    )
  }),
)

holds(
  'broadcasting adds what repeating would add',
  fc.property(shape, fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }), seed, (dims, ones, s) => {
    const small = dims.map((n, i) => (ones[i] ? 1 : n)).slice(ones[0] ? 1 : 0)
    const [a, b] = [make(dims, s), make(small, s + 1)]
    const want = oracle.zip(read(a), read(b), (x, y) => Math.fround(x + y))
    return (
      add(a, b).shape.join() === broadcastShapes('add', dims, small).join() &&
      values(add(a, b)).every((v, i) => v === want.data[i])
    )
  }),
)

holds(
  'sub is add of neg, and flip twice is nothing',
  fc.property(shape, seed, (dims, s) => {
    const [a, b] = [make(dims, s), make(dims, s + 1)]
    const axes = dims.map((_, i) => i)
    return same(sub(a, b), add(a, neg(b))) && same(flip(flip(a, axes), axes), a)
  }),
)

holds(
  'permuting before a sum over all axes changes nothing but rounding',
  fc.property(shape, seed, (dims, s) => {
    const a = make(dims, s)
    const total = oracle.sum(values(a).map(Math.abs))
    return near(
      sum(
        permute(
          a,
          dims.map((_, i) => dims.length - 1 - i),
        ),
      ),
      sum(a),
      () => 128 * U * total,
    )
  }),
)

holds(
  'integer sums do not depend on the order of axes',
  fc.property(shape, seed, (dims, s) => {
    const a = make(dims, s, 'int32', [-(2 ** 31), 2 ** 31 - 1])
    let step: Tensor = a as Tensor
    for (let i = dims.length - 1; i >= 0; i--) step = sum(step, i)
    return same(sum(a), step)
  }),
)

holds(
  'cat undoes split',
  fc.property(
    fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 4 }),
    fc.nat(3),
    fc.integer({ min: 1, max: 4 }),
    seed,
    (dims, at, size, s) => {
      const axis = at % dims.length
      const a = make(dims, s)
      return same(cat(split(a, size, axis), axis), a)
    },
  ),
)

holds(
  'softmax adds up to 1 and keeps the order; exp of logSoftmax is softmax; a constant changes nothing',
  fc.property(fc.integer({ min: 1, max: 40 }), seed, (n, s) => {
    const a = make([n], s, 'float32', [-9, 9])
    const p = softmax(a)
    const shifted = softmax(add(a, 64))
    return (
      Math.abs(oracle.sum(values(p)) - 1) < 100 * U &&
      values(p)[Number(argmax(a).item())] === max(p).item() &&
      near(exp(logSoftmax(a)), p, () => 100 * U) &&
      near(shifted, p, () => 200 * U)
    )
  }),
)

holds(
  'the last of a running sum is the sum; gather at argmax is max',
  fc.property(fc.integer({ min: 1, max: 300 }), seed, (n, s) => {
    const a = make([n], s, 'int32')
    const best = argmax(a, 0, { keepdim: true })
    return (
      values(cumsum(a, 0))[n - 1] === Number(sum(a).item()) && same(gather(a, 0, best), max(a, 0, { keepdim: true }))
    )
  }),
)

holds(
  'casts that widen come back unchanged',
  fc.property(
    shape,
    seed,
    fc.constantFrom(
      ['float16', 'float32'],
      ['bfloat16', 'float32'],
      ['int8', 'int64'],
      ['uint8', 'int32'],
      ['int8', 'float16'],
    ),
    (dims, s, [from, to]) => {
      const a = make(dims, s, from as DType, from === 'uint8' ? [0, 255] : [-128, 127])
      return same(cast(cast(a, to as DType), from as DType), a)
    },
  ),
)

holds(
  'where picks, it does not compute: a NaN that is not picked leaves no trace',
  fc.property(shape, seed, (dims, s) => {
    const a = make(dims, s)
    const positive = gt(a, 0)
    return values(where(positive, a, where(positive, Number.NaN, 0))).every((v) => v >= 0)
  }),
)
