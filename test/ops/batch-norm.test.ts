// batchNorm and its gradients against float64.
import t from 'tap'
import { batchNorm } from '#lib/ops/batch-norm'
import { detach } from '#lib/ops/clone'
import { full, ones, randn, tensor, zeros } from '#lib/ops/create'
import { expand } from '#lib/ops/shape'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, floats, gradients, lay, layoutNames, onEveryTarget, random } from '../matrix'
import { at, fold, mean, type Nd, nd, sum } from '../oracle/array'
import { ulp, unit } from '../oracle/float'
import { batchAxes, normalize } from '../oracle/images'

const U = unit('float32')
/** Additions that may follow each other in float32, see native/cpu/vectors.h. */
const CHAIN = 64 * U
const EPS = 1e-3
/** Of the batch's mean, from values up to 3: its sum's error and its own rounding. */
const OFF = 3 * (CHAIN + 2 * U)
const shapes = [
  [5, 3],
  [257, 3],
  [33, 130],
  [2, 3, 5],
  [4, 2, 3, 5],
  [3, 5, 7, 9],
  [2, 1, 33, 17],
  [1, 3, 2, 1, 2],
]

const flat = (a: Nd): Nd => ({ shape: [a.data.length], data: a.data })
const wanting = (a: Tensor): Tensor => Object.assign(a, { requiresGrad: true })
/** An element a channel, read at an element's index. */
const channel = (a: Nd, index: readonly number[]): number => a.data[index[1] as number] as number

onEveryTarget('batchNorm while training', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const layout of layoutNames) {
      for (const shape of shapes) {
        const c = shape[1] as number
        const x = lay(layout, dtype, random(dtype, shape, 5, [-3, 3]))
        const w = lay('strided', dtype, random(dtype, [c], 6, [0.5, 2]))
        const b = lay('contiguous', dtype, random(dtype, [c], 7))
        const { h, rstd, mean: m, variance } = normalize(x.values, EPS)
        const [runningMean, runningVar] = [full([c], 2), full([c], 3)]
        const options = { weight: w.tensor, bias: b.tensor, runningMean, runningVar, momentum: 0.25, eps: EPS }
        const got = batchNorm(x.tensor, { ...options, training: true })
        const want = nd(
          shape,
          (index, i) => channel(w.values, index) * (h.data[i] as number) + channel(b.values, index),
        )
        const error = nd(shape, (index, i) => {
          const normal = at(rstd, index) * OFF + (CHAIN + 6 * U) * Math.abs(h.data[i] as number)
          return channel(w.values, index) * normal + 2 * U * Math.abs(channel(b.values, index))
        })
        const label = `${dtype} ${layout}`
        failures.push(
          ...compare(label, got, want, (i, v) => (error.data[i] as number) + 2 * U * Math.abs(v) + ulp(dtype, v) / 2),
        )
        const n = x.values.data.length / c
        const means = nd([c], (_, i) => 0.75 * 2 + 0.25 * (m.data[i] as number))
        failures.push(...compare(`${label} runningMean`, runningMean, means, (_, v) => 0.25 * OFF + ulp('float32', v)))
        const variances = nd([c], (_, i) => 0.75 * 3 + (0.25 * (variance.data[i] as number) * n) / (n - 1))
        failures.push(
          ...compare(`${label} runningVar`, runningVar, variances, (_, v) => (CHAIN + 8 * U) * v + ulp('float32', v)),
        )
      }
    }
  }
  return failures
})

onEveryTarget('batchNorm by given statistics, and its gradients', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const layout of layoutNames) {
      for (const shape of [...shapes, [0, 3], [2, 3, 0], [1, 4]]) {
        const c = shape[1] as number
        const x = lay(layout, dtype, random(dtype, shape, 5, [-3, 3]))
        const g = lay(layout, dtype, random(dtype, shape, 8, [-1, 1]))
        const w = lay('contiguous', dtype, random(dtype, [c], 6, [0.5, 2]))
        const b = lay('contiguous', dtype, random(dtype, [c], 7))
        const m = random('float32', [c], 9, [-1, 1])
        const v = random('float32', [c], 10, [0.1, 2])
        const [runningMean, runningVar] = [tensor(m.data), tensor(v.data)]
        const [a, weight, bias] = [wanting(x.tensor), wanting(w.tensor), wanting(b.tensor)]
        const got = batchNorm(a, { weight, bias, runningMean, runningVar, eps: EPS })
        const rstd = nd([c], (_, i) => 1 / Math.sqrt((v.data[i] as number) + EPS))
        const h = nd(shape, (index, i) => ((x.values.data[i] as number) - channel(m, index)) * channel(rstd, index))
        const want = nd(
          shape,
          (index, i) => channel(w.values, index) * (h.data[i] as number) + channel(b.values, index),
        )
        // x - mean, rstd, two products and the sum round once each.
        const size = nd(
          shape,
          (index, i) => channel(w.values, index) * Math.abs(h.data[i] as number) + Math.abs(channel(b.values, index)),
        )
        const label = `${dtype} ${layout}`
        failures.push(
          ...compare(label, got, want, (i, y) => 6 * U * (size.data[i] as number) + ulp(dtype, y) / 2),
          ...compare(`${label} runningMean`, runningMean, m),
          ...compare(`${label} runningVar`, runningVar, v),
        )
        const [da, dw, db] = gradients(got, g.tensor) as [Tensor, Tensor, Tensor]
        const wantA = nd(
          shape,
          (index, i) => channel(w.values, index) * channel(rstd, index) * (g.values.data[i] as number),
        )
        failures.push(...compare(`${label} da`, da, wantA, (_, y) => 4 * U * Math.abs(y) + ulp(dtype, y) / 2))
        const gh = nd(shape, (_, i) => (g.values.data[i] as number) * (h.data[i] as number))
        const axes = batchAxes(shape.length)
        const absolute = (a: Nd) => fold(a, axes, (line) => sum(line.map(Math.abs))).data
        const [allGh, allG] = [absolute(gh), absolute(g.values)]
        failures.push(
          ...compare(
            `${label} dweight`,
            dw,
            flat(fold(gh, axes, sum)),
            (i, y) => (CHAIN + 6 * U) * (allGh[i] as number) + ulp(dtype, y),
          ),
          ...compare(
            `${label} dbias`,
            db,
            flat(fold(g.values, axes, sum)),
            (i, y) => CHAIN * (allG[i] as number) + ulp(dtype, y),
          ),
        )
      }
    }
  }
  return failures
})

onEveryTarget('gradients of batchNorm through its own statistics', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const layout of layoutNames) {
      for (const shape of shapes) {
        const c = shape[1] as number
        const axes = batchAxes(shape.length)
        const x = lay(layout, dtype, random(dtype, shape, 5, [-3, 3]))
        const g = lay(layout, dtype, random(dtype, shape, 8, [-1, 1]))
        const w = lay('contiguous', dtype, random(dtype, [c], 6, [0.5, 2]))
        const b = lay('contiguous', dtype, random(dtype, [c], 7))
        const [a, weight, bias] = [wanting(x.tensor), wanting(w.tensor), wanting(b.tensor)]
        const [da, dw, db] = gradients(batchNorm(a, { weight, bias, eps: EPS, training: true }), g.tensor) as Tensor[]
        const { h, rstd } = normalize(x.values, EPS)
        const gh = nd(shape, (_, i) => (g.values.data[i] as number) * (h.data[i] as number))
        const [meanG, meanGh] = [fold(g.values, axes, mean), fold(gh, axes, mean)]
        const absolute = (from: Nd) => fold(from, axes, (line) => mean(line.map(Math.abs)))
        const [allG, allGh] = [absolute(g.values), absolute(gh)]
        const want = nd(shape, (index, i) => {
          const pulled = at(meanG, index) + (h.data[i] as number) * at(meanGh, index)
          return channel(w.values, index) * at(rstd, index) * ((g.values.data[i] as number) - pulled)
        })
        // h is off by `slip` and relatively by that of rstd (twice: it is in the slope as well); mean(g h) by what that and
        // its own sum make of it.
        const R = CHAIN + 6 * U
        const error = nd(shape, (index, i) => {
          const slip = at(rstd, index) * OFF
          const [normal, grad] = [Math.abs(h.data[i] as number), Math.abs(g.values.data[i] as number)]
          const dot = at(allG, index) * slip + 2 * R * at(allGh, index)
          const inside = CHAIN * at(allG, index) + normal * dot + (slip + 2 * R * normal) * at(allGh, index)
          const whole = R * (grad + at(allG, index) + normal * at(allGh, index))
          return channel(w.values, index) * at(rstd, index) * (inside + whole)
        })
        const label = `${dtype} ${layout} [${shape}]`
        const n = x.values.data.length / c
        failures.push(
          ...compare(`${label} da`, da as Tensor, want, (i, y) => (error.data[i] as number) + ulp(dtype, y) / 2),
          ...compare(`${label} dweight`, dw as Tensor, flat(fold(gh, axes, sum)), (i, y) => {
            const slip = (rstd.data[i] as number) * OFF
            return n * ((allG.data[i] as number) * slip + 2 * R * (allGh.data[i] as number)) + ulp(dtype, y)
          }),
          ...compare(
            `${label} dbias`,
            db as Tensor,
            flat(fold(g.values, axes, sum)),
            (i, y) => n * CHAIN * (allG.data[i] as number) + ulp(dtype, y),
          ),
        )
      }
    }
  }
  return failures
})

onEveryTarget('a variance that is small beside the mean is not lost', () => {
  // E[x^2] - E[x]^2 in float32 would leave nothing of a spread of 1 around 2^14.
  const values = nd([64, 2, 3], (index) => 2 ** 14 + ((index[0] as number) % 5) * 0.5 - 1)
  const x = tensor(values.data, { shape: [64, 2, 3] })
  const { h, rstd } = normalize(values, 1e-5)
  // The mean is rounded to float32: half an ulp of 2^14 is 2^-10.
  const tolerance = (rstd.data[0] as number) * 2 ** -10 + 64 * U
  const columns = tensor(
    values.data.filter((_, i) => i % 3 === 0),
    { shape: [64, 2] },
  )
  const line = nd([64, 2], (index) => h.data[((index[0] as number) * 2 + (index[1] as number)) * 3] as number)
  return [
    ...compare('planes', batchNorm(x, { training: true }), h, () => tolerance),
    ...compare('columns', batchNorm(columns, { training: true }), line, () => tolerance),
  ]
})

t.test('NaN and infinity stay in their channel', (t) => {
  const x = tensor([1, NaN, 2, Infinity, 3, 5], { shape: [2, 3], dtype: 'float32' })
  const y = tensor([1, 2, Infinity, 5], { shape: [2, 2] })
  t.same(
    (batchNorm(y, { training: true, eps: 0 }).arraySync() as number[][]).map((row) => row.map(Number.isNaN)),
    [
      [true, false],
      [true, false],
    ],
  )
  const [runningMean, runningVar] = [zeros([3]), ones([3])]
  t.same(batchNorm(x, { runningMean, runningVar, eps: 0 }).arraySync(), [
    [1, NaN, 2],
    [Infinity, 3, 5],
  ])
  // Given statistics are constants: the gradient does not depend on x.
  const a = wanting(x)
  const out = batchNorm(a, { runningMean, runningVar, eps: 0 })
  t.same((gradients(out, ones([2, 3]))[0] as Tensor).arraySync(), [
    [1, 1, 1],
    [1, 1, 1],
  ])
  t.end()
})

t.test('the gradient is that of the statistics used, whatever became of the running ones', (t) => {
  const x = wanting(randn([4, 2]))
  const [runningMean, runningVar] = [zeros([2]), ones([2])]
  const out = batchNorm(x, { runningMean, runningVar, eps: 0 })
  batchNorm(detach(x), { runningMean, runningVar, training: true, momentum: 1 })
  t.same((gradients(out, ones([4, 2]))[0] as Tensor).arraySync(), ones([4, 2]).arraySync())
  t.end()
})

t.test('what batchNorm refuses', (t) => {
  const x = randn([2, 3, 2])
  const [runningMean, runningVar] = [zeros([3]), ones([3])]
  const refuses = (options: object, message: string | RegExp, a: Tensor = x) =>
    t.throws(() => batchNorm(a, options as never), { message })
  refuses({}, 'batchNorm: runningMean and runningVar are needed unless training is true')
  refuses({ runningMean }, 'batchNorm: runningMean and runningVar must be given together')
  refuses({ runningMean: zeros([2]), runningVar }, 'batchNorm: runningMean must have shape [3], got [2]')
  refuses({ training: true, weight: ones([3, 1]) }, 'batchNorm: weight must have shape [3], got [3, 1]')
  refuses({ training: true, bias: 3 }, 'batchNorm: bias must be a tensor, got 3')
  refuses({ training: 1 }, 'batchNorm: training must be true or false, got 1')
  refuses({ training: true, eps: NaN }, 'batchNorm: eps must be a number, got NaN')
  refuses({ training: true, momentum: 'x' }, 'batchNorm: momentum must be a number, got "x"')
  refuses(
    { runningMean: zeros([3], { dtype: 'float16' }), runningVar },
    'batchNorm: runningMean must be float32, got float16',
  )
  refuses(
    { runningMean: expand(zeros([1]), [3]), runningVar },
    'batchNorm: runningMean must be contiguous, it is changed in place',
  )
  refuses(
    { runningMean: zeros([3], { requiresGrad: true }), runningVar },
    'batchNorm: runningMean must not ask for a gradient',
  )
  refuses({ training: true }, 'batchNorm: x must be [n, channels, ...], its shape is [3]', zeros([3]))
  refuses(
    { training: true },
    'batchNorm: training needs more than one value a channel, x has shape [1, 3]',
    zeros([1, 3]),
  )
  t.throws(() => batchNorm(x, null as never), { code: 'ERR_ARGUMENT' })
  t.equal(batchNorm(tensor([1, 2, 3, 4], { shape: [2, 2], dtype: 'int32' }), { training: true }).dtype, 'float32')
  t.same(batchNorm(zeros([0, 3]), { runningMean, runningVar }).shape, [0, 3])
  t.end()
})
