// Reductions against float64: every subset of axes, every layout, every dtype.
import t from 'tap'
import { backward } from '#lib/autograd/backward'
import { type DType, floatOf, isFloat, sumOf } from '#lib/core/dtype'
import { tensor, zeros } from '#lib/ops/create'
import { max, mean, min, sum } from '#lib/ops/reduce'
import { all, any, argmax, argmin, cumsum, std, variance } from '#lib/ops/statistics'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, dtypes, floats, lay, layoutNames, onEveryTarget, random, shapes, subsets } from '../matrix'
import * as oracle from '../oracle/array'
import { type Nd, nd } from '../oracle/array'
import { roundTo, ulp, unit } from '../oracle/float'

/** At most 64 float32 additions follow each other before float64 takes over (native/cpu/vectors.h). */
const CHAIN = 64 * unit('float32')

function drop(a: Nd, axes: readonly number[]): Nd {
  return { shape: a.shape.filter((_, i) => !axes.includes(i)), data: a.data }
}

function eachCase(
  dtype: DType,
  range: [number, number] | undefined,
  body: (a: Tensor, values: Nd, axes: number[], label: string) => void,
): void {
  for (const layout of layoutNames) {
    for (const shape of shapes) {
      const a = lay(layout, dtype, random(dtype, shape, shape.length + 3, range))
      for (const axes of subsets(shape.length)) body(a.tensor, a.values, axes, `${dtype} ${layout} axes [${axes}]`)
    }
  }
}

const intRange = (dtype: DType): [number, number] | undefined => (dtype === 'int64' ? [-(2 ** 40), 2 ** 40] : undefined)

onEveryTarget('sum', () => {
  const failures: string[] = []
  for (const dtype of dtypes) {
    eachCase(dtype, intRange(dtype), (a, values, axes, label) => {
      const want = oracle.fold(values, axes, oracle.sum)
      const magnitude = oracle.fold(oracle.abs(values), axes, oracle.sum)
      const out = sum(a, axes, { keepdim: true })
      if (out.dtype !== sumOf(dtype)) failures.push(`sum ${label}: dtype is ${out.dtype}`)
      const tolerance = (i: number, w: number) =>
        isFloat(dtype) ? CHAIN * (magnitude.data[i] as number) + ulp(dtype, w) / 2 : 0
      failures.push(...compare(`sum ${label}`, out, want, tolerance))
      failures.push(...compare(`sum without keepdim ${label}`, sum(a, axes), drop(want, axes), tolerance))
    })
  }
  return failures
})

onEveryTarget('mean', () => {
  const failures: string[] = []
  for (const dtype of dtypes) {
    eachCase(dtype, isFloat(dtype) || dtype === 'bool' ? undefined : [0, 100], (a, values, axes, label) => {
      const magnitude = oracle.fold(oracle.abs(values), axes, oracle.mean)
      const type = floatOf(dtype)
      failures.push(
        ...compare(
          `mean ${label}`,
          mean(a, axes, { keepdim: true }),
          oracle.fold(values, axes, oracle.mean),
          (i, w) => 2 * CHAIN * (magnitude.data[i] as number) + ulp(type, w) / 2,
        ),
      )
    })
  }
  return failures
})

onEveryTarget('max, min', () => {
  const failures: string[] = []
  for (const dtype of dtypes) {
    eachCase(dtype, undefined, (a, values, axes, label) => {
      if (axes.some((i) => values.shape[i] === 0)) return
      failures.push(
        ...compare(
          `max ${label}`,
          max(a, axes, { keepdim: true }),
          oracle.fold(values, axes, (line) => Math.max(...line)),
        ),
      )
      failures.push(
        ...compare(
          `min ${label}`,
          min(a, axes),
          drop(
            oracle.fold(values, axes, (line) => Math.min(...line)),
            axes,
          ),
        ),
      )
    })
  }
  return failures
})

onEveryTarget('NaN wins max, min, argmax and argmin', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const n of [1, 2, 16, 17, 33, 100]) {
      for (const at of [0, n >> 1, n - 1]) {
        const values = nd([n, 3], ([i, j]) => (i === at && j === 1 ? NaN : ((i as number) * 7) % 5))
        for (const axis of [0, 1]) {
          const a = lay(axis === 0 ? 'contiguous' : 'permuted', dtype, values).tensor
          failures.push(
            ...compare(
              `max ${dtype} ${n}`,
              max(a, axis),
              drop(
                oracle.fold(values, [axis], (l) => Math.max(...l)),
                [axis],
              ),
            ),
          )
          failures.push(
            ...compare(
              `min ${dtype} ${n}`,
              min(a, axis),
              drop(
                oracle.fold(values, [axis], (l) => Math.min(...l)),
                [axis],
              ),
            ),
          )
          failures.push(
            ...compare(
              `argmax ${dtype} ${n}`,
              argmax(a, axis),
              drop(
                oracle.fold(values, [axis], (l) => position(l, true)),
                [axis],
              ),
            ),
          )
          failures.push(
            ...compare(
              `argmin ${dtype} ${n}`,
              argmin(a, axis),
              drop(
                oracle.fold(values, [axis], (l) => position(l, false)),
                [axis],
              ),
            ),
          )
        }
      }
    }
  }
  return failures
})

/** The first NaN, or the first of the largest (smallest). */
function position(line: readonly number[], highest: boolean): number {
  const nan = line.findIndex(Number.isNaN)
  return nan >= 0 ? nan : line.indexOf(highest ? Math.max(...line) : Math.min(...line))
}

onEveryTarget('argmax, argmin: the first of equal ones, along every axis', () => {
  const failures: string[] = []
  for (const dtype of dtypes) {
    for (const layout of layoutNames) {
      for (const shape of shapes) {
        const a = lay(layout, dtype, random(dtype, shape, 3, dtype === 'bool' ? [0, 1] : [0, 6]))
        const rounded = lay(layout, dtype, oracle.map(a.values, Math.round))
        for (let axis = 0; axis < shape.length; axis++) {
          if (shape[axis] === 0) continue
          const label = `${dtype} ${layout} axis ${axis}`
          const want = oracle.fold(rounded.values, [axis], (line) => position(line, true))
          failures.push(...compare(`argmax ${label}`, argmax(rounded.tensor, axis), drop(want, [axis])))
          const least = oracle.fold(rounded.values, [axis], (line) => position(line, false))
          failures.push(...compare(`argmin ${label}`, argmin(rounded.tensor, axis, { keepdim: true }), least))
        }
        if (a.values.data.length > 0) {
          const flat = position(Array.from(rounded.values.data), true)
          failures.push(
            ...compare(`argmax ${dtype} ${layout}`, argmax(rounded.tensor), { shape: [], data: Float64Array.of(flat) }),
          )
        }
      }
    }
  }
  return failures
})

onEveryTarget('variance, std', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const correction of [0, 1]) {
      eachCase(dtype, [1, 3], (a, values, axes, label) => {
        // Deviations are exact to half an ulp of values up to 3 and enter squared; their sum follows the chain bound.
        const want = oracle.fold(values, axes, (line) => oracle.variance(line, correction))
        const tolerance = (_: number, w: number) =>
          4 * CHAIN * w + 8 * unit('float32') * Math.sqrt(w) + 36 * unit('float32') ** 2 + ulp(dtype, w) / 2
        failures.push(
          ...compare(`variance ${label}`, variance(a, axes, { correction, keepdim: true }), want, tolerance),
        )
        const root = oracle.map(want, Math.sqrt)
        failures.push(
          ...compare(
            `std ${label}`,
            std(a, axes, { correction, keepdim: true }),
            root,
            (i, w) =>
              Math.sqrt((want.data[i] as number) + tolerance(i, want.data[i] as number)) -
              w +
              ulp(dtype, w) +
              6 * unit('float32') * w,
          ),
        )
      })
    }
  }
  return failures
})

t.test('variance of large, close numbers does not cancel; std of float16 does not overflow', (t) => {
  const near = tensor(Float64Array.from({ length: 1000 }, (_, i) => 1e4 + (i % 2)))
  t.ok(Math.abs(variance(near, null, { correction: 0 }).item() - 0.25) < 1e-5)
  const far = tensor([-300, 300, -300, 300], { dtype: 'float16' })
  t.equal(std(far, null, { correction: 0 }).item(), 300)
  t.end()
})

onEveryTarget('the gradient of std arrives in the dtype of its input', () => {
  const failures: string[] = []
  const n = 37
  for (const dtype of floats) {
    const { tensor: a, values } = lay('contiguous', dtype, random(dtype, [n], 5))
    a.requiresGrad = true
    backward(std(a))
    if (a.grad === null) {
      failures.push(`${dtype}: no gradient`)
      continue
    }
    if (a.grad.dtype !== dtype) failures.push(`${dtype}: the gradient is ${a.grad.dtype}`)
    const mean = oracle.mean([...values.data])
    const scale = 1 / ((n - 1) * Math.sqrt(oracle.variance([...values.data], 1)))
    const want = oracle.map(values, (x) => (x - mean) * scale)
    // Values up to 3: the deviation is off by the mean's chain and two roundings; its factor by the variance's chain (half of it
    // after the root) and a handful of roundings; then the cast.
    const tolerance = (_: number, w: number) =>
      3 * (CHAIN + 2 * unit('float32')) * scale + (4 * CHAIN + 8 * unit('float32')) * Math.abs(w) + ulp(dtype, w) / 2
    failures.push(...compare(`grad of std ${dtype}`, a.grad, want, tolerance))
  }
  return failures
})

onEveryTarget('cumsum along every axis', () => {
  const failures: string[] = []
  for (const dtype of dtypes) {
    for (const layout of layoutNames) {
      for (const shape of shapes) {
        const a = lay(layout, dtype, random(dtype, shape, 3, intRange(dtype)))
        for (let axis = 0; axis < shape.length; axis++) {
          const running = (line: number[]) => line.map((_, i) => oracle.sum(line.slice(0, i + 1)))
          const magnitude = oracle.along(oracle.abs(a.values), axis, running)
          failures.push(
            ...compare(
              `cumsum ${dtype} ${layout} axis ${axis}`,
              cumsum(a.tensor, axis),
              oracle.along(a.values, axis, running),
              (i, w) =>
                isFloat(dtype)
                  ? (shape[axis] as number) * unit('float32') * (magnitude.data[i] as number) + ulp(dtype, w) / 2
                  : 0,
            ),
          )
        }
      }
    }
  }
  return failures
})

t.test('a long float32 sum loses nothing that matters', (t) => {
  const n = 1_000_003
  const values = Float32Array.from({ length: n }, (_, i) => 0.1 + (i % 7) * 1e-3)
  let exact = 0
  for (const x of values) exact += x
  t.ok(Math.abs(sum(tensor(values)).item() - exact) <= CHAIN * exact)
  t.end()
})

t.test('nothing to reduce', (t) => {
  const none = zeros([0, 3])
  t.equal(sum(none).item(), 0)
  t.same(sum(none, 0).arraySync(), [0, 0, 0])
  t.ok(Number.isNaN(mean(none).item()))
  t.same(sum(none, 1).shape, [0])
  for (const op of [max, min, argmax, argmin])
    t.throws(() => op(none, 0), { code: 'ERR_SHAPE', message: `${op.name}: nothing to choose from over axis 0` })
  t.equal(any(none).item(), false)
  t.equal(all(none).item(), true)
  t.end()
})

t.test('any and all', (t) => {
  const a = tensor([
    [0, 0, 1],
    [2, NaN, 3],
  ])
  t.same(any(a, 0).arraySync(), [true, true, true])
  t.same(all(a, 1).arraySync(), [false, true])
  t.same(all(a, 1, { keepdim: true }).shape, [2, 1])
  t.equal(roundTo('bool', 3), 1)
  t.end()
})

t.test('errors name op, argument and value', (t) => {
  const a = tensor([
    [1, 2],
    [3, 4],
  ])
  t.throws(() => sum(a, 2), { code: 'ERR_SHAPE', message: 'sum: axis 2 does not exist in a tensor of 2 axes' })
  t.throws(() => variance(a, [0, 0]), { message: 'variance: axis 0 is given twice' })
  t.throws(() => std(a, 0, { correction: 'x' as never }), {
    code: 'ERR_ARGUMENT',
    message: 'std: correction must be a number, got "x"',
  })
  t.throws(() => argmax(3 as never), { message: 'argmax: a must be a tensor, got 3' })
  t.throws(() => cumsum(a, 0.5), { message: 'cumsum: axis must be a whole number, got 0.5' })
  t.end()
})
