// Views: the same bytes under other shapes and strides, against index arithmetic; and their gradients.
import t from 'tap'
import { backward } from '#lib/autograd/backward'
import { mul } from '#lib/ops/arithmetic'
import { arange, ones, tensor } from '#lib/ops/create'
import { sum } from '#lib/ops/reduce'
import {
  contiguous,
  expand,
  flip,
  permute,
  type Range,
  reshape,
  slice,
  squeeze,
  transpose,
  unsqueeze,
} from '#lib/ops/shape'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, lay, layoutNames, random, read, shapes } from '../matrix'
import * as oracle from '../oracle/array'
import { type Nd, nd } from '../oracle/array'

function eachLayout(name: string, body: (a: Tensor, values: Nd, label: string) => string[]): void {
  t.test(name, (t) => {
    const failures: string[] = []
    for (const layout of layoutNames) {
      for (const shape of shapes) {
        const { tensor: a, values } = lay(layout, 'int32', random('int32', shape, shape.length + 1))
        failures.push(...body(a, values, `${layout} [${shape}]`))
      }
    }
    t.same(failures.slice(0, 12), [], `${failures.length} failures`)
    t.end()
  })
}

eachLayout('reshape keeps row-major order, copying only when it must', (a, values, label) => {
  const failures: string[] = []
  const n = values.data.length
  const targets = [[n], [1, n], [n, 1], [...values.shape].reverse(), [...values.shape, 1]]
  for (const d of [2, 3, 4]) if (n % d === 0) targets.push([d, n / d], [n / d, 1, d])
  for (const shape of targets)
    failures.push(...compare(`${label} to ${shape}`, reshape(a, shape), { shape, data: values.data }))
  if (n > 0) failures.push(...compare(`${label} to -1`, reshape(a, [-1]), { shape: [n], data: values.data }))
  if (a.contiguous && reshape(a, [n]).buffer !== a.buffer) failures.push(`${label}: a contiguous tensor was copied`)
  return failures
})

eachLayout('permute, transpose', (a, values, label) => {
  const failures: string[] = []
  const rank = values.shape.length
  const orders = [values.shape.map((_, i) => rank - 1 - i), values.shape.map((_, i) => (i + 1) % rank)]
  for (const order of orders) {
    const want = nd(
      order.map((i) => values.shape[i] as number),
      (at) => {
        const from = new Array<number>(rank)
        order.forEach((axis, i) => {
          from[axis] = at[i] as number
        })
        return oracle.at(values, from)
      },
    )
    failures.push(...compare(`permute ${label} ${order}`, permute(a, order), want))
    failures.push(
      ...compare(
        `permute back ${label}`,
        permute(
          permute(a, order),
          order.map((_, i) => order.indexOf(i)),
        ),
        values,
      ),
    )
  }
  if (rank >= 2) failures.push(...compare(`transpose twice ${label}`, transpose(transpose(a)), values))
  return failures
})

eachLayout('slice as in Python', (a, values, label) => {
  if (values.shape.length === 0) return []
  const failures: string[] = []
  const ranges: Range[] = [
    [],
    [1],
    [0, 2],
    [null, -1],
    [-2],
    [0, 100],
    [null, null, 2],
    [null, null, -1],
    [3, 0, -2],
    [5, 2],
    [-100, 100, 3],
  ]
  const last = values.shape.length - 1
  for (const axis of new Set([0, last])) {
    for (const [start, end, step = 1] of ranges) {
      const n = values.shape[axis] as number
      const picked = python(n, start ?? null, end ?? null, step)
      const entries = new Array<Range | null>(axis).fill(null)
      const shape = values.shape.map((s, i) => (i === axis ? picked.length : s))
      const want = nd(shape, (at) =>
        oracle.at(
          values,
          at.map((m, i) => (i === axis ? (picked[m] as number) : m)),
        ),
      )
      failures.push(
        ...compare(`${label} axis ${axis} ${start}:${end}:${step}`, slice(a, [...entries, [start, end, step]]), want),
      )
    }
  }
  if ((values.shape[0] as number) > 0) {
    const want = nd(values.shape.slice(1), (at) => oracle.at(values, [(values.shape[0] as number) - 1, ...at]))
    failures.push(...compare(`${label} [-1]`, slice(a, [-1]), want))
  }
  return failures
})

/** The positions that Python's x[start:end:step] picks, found by walking. */
function python(n: number, start: number | null, end: number | null, step: number): number[] {
  const clip = (v: number, low: number, high: number) => Math.min(Math.max(v < 0 ? v + n : v, low), high)
  const from = start === null ? (step > 0 ? 0 : n - 1) : step > 0 ? clip(start, 0, n) : clip(start, -1, n - 1)
  const to = end === null ? (step > 0 ? n : -1) : step > 0 ? clip(end, 0, n) : clip(end, -1, n - 1)
  const picked: number[] = []
  for (let i = from; step > 0 ? i < to : i > to; i += step) picked.push(i)
  return picked
}

eachLayout('flip, squeeze, unsqueeze, expand, contiguous', (a, values, label) => {
  const failures: string[] = []
  const rank = values.shape.length
  for (let axis = 0; axis < rank; axis++) {
    const n = values.shape[axis] as number
    const turned = nd(values.shape, (at) =>
      oracle.at(
        values,
        at.map((m, i) => (i === axis ? n - 1 - m : m)),
      ),
    )
    failures.push(...compare(`flip ${label}`, flip(a, axis), turned))
  }
  for (let axis = 0; axis <= rank; axis++) {
    const shape = [...values.shape.slice(0, axis), 1, ...values.shape.slice(axis)]
    failures.push(...compare(`unsqueeze ${label}`, unsqueeze(a, axis), { shape, data: values.data }))
    failures.push(...compare(`squeeze ${label}`, squeeze(unsqueeze(a, axis), axis), values))
  }
  failures.push(
    ...compare(`squeeze all ${label}`, squeeze(a), { shape: values.shape.filter((n) => n !== 1), data: values.data }),
  )
  const repeated = nd([3, ...values.shape], (at) => oracle.at(values, at.slice(1)))
  failures.push(...compare(`expand ${label}`, expand(a, [3, ...values.shape.map(() => -1)]), repeated))
  const dense = contiguous(
    flip(
      a,
      values.shape.map((_, i) => i),
    ),
  )
  if (!dense.contiguous) failures.push(`contiguous ${label} is not`)
  return failures
})

t.test('gradients land where the elements came from', (t) => {
  const views: Record<string, (a: Tensor) => Tensor> = {
    reshape: (a) => reshape(a, [4, 3]),
    'reshape of a transpose': (a) => reshape(transpose(a), [12]),
    permute: (a) => permute(a, [1, 0]),
    slice: (a) =>
      slice(a, [
        [0, 3, 2],
        [null, null, -2],
      ]),
    'slice to a scalar': (a) => slice(a, [1, 2]),
    flip: (a) => flip(a, [0, 1]),
    expand: (a) => expand(a, [2, 3, 4]),
    unsqueeze: (a) => squeeze(unsqueeze(a, 1)),
    contiguous: (a) => contiguous(transpose(a)),
  }
  for (const [name, view] of Object.entries(views)) {
    const a = reshape(arange(0, 12, 1), [3, 4])
    // The position of every element of the view in `a`, and a weight for each: the gradient is the sum of weights.
    const from = read(view(a))
    const weights = nd(from.shape, (_, flat) => flat + 1)
    const leaf = ones([3, 4], { requiresGrad: true })
    backward(sum(mul(view(leaf), tensor(weights.data, { shape: weights.shape }))))
    const want = new Float64Array(12)
    from.data.forEach((position, i) => {
      want[position] = (want[position] as number) + (weights.data[i] as number)
    })
    t.same(compare(name, leaf.grad as Tensor, { shape: [3, 4], data: want }), [], name)
  }
  t.end()
})

t.test('errors name op, argument and value', (t) => {
  const a = ones([2, 3])
  t.throws(() => reshape(a, [4]), { code: 'ERR_SHAPE', message: 'reshape: 6 elements of [2, 3] do not fit [4]' })
  t.throws(() => reshape(a, [-1, -1]), { code: 'ERR_ARGUMENT' })
  t.throws(() => permute(a, [0, 0]), { message: 'permute: axes [0, 0] name an axis twice' })
  t.throws(() => transpose(a, 0, 2), { message: 'transpose: axis 2 does not exist in a tensor of 2 axes' })
  t.throws(() => expand(a, [3, 3]), { message: 'expand: [2, 3] does not repeat to [3, 3]' })
  t.throws(() => slice(a, [[0, 1, 0]]), { message: 'slice: step of axis 0 must not be 0' })
  t.throws(() => slice(a, [2]), { message: 'slice: index 2 of axis 0 is outside a size of 2' })
  t.throws(() => slice(a, [null, null, null]), { message: 'slice: 3 ranges for a tensor of 2 axes' })
  t.end()
})
