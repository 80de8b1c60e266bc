// softmax, norms and their gradients against float64.
import t from 'tap'
import { ones, tensor } from '#lib/ops/create'
import { layerNorm, rmsNorm } from '#lib/ops/norm'
import { logSoftmax, softmax } from '#lib/ops/softmax'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, floats, gradients, lay, layoutNames, onEveryTarget, random, shapes } from '../matrix'
import * as oracle from '../oracle/array'
import { type Nd, nd } from '../oracle/array'
import { ulp, unit } from '../oracle/float'

const U = unit('float32')
/** Additions that may follow each other in float32, see native/cpu/vectors.h. */
const CHAIN = 64 * U

function wanting(a: Tensor): Tensor {
  a.requiresGrad = true
  return a
}

onEveryTarget('softmax, logSoftmax along every axis', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const layout of layoutNames) {
      for (const shape of shapes) {
        const a = lay(layout, dtype, random(dtype, shape, 5, [-8, 8]))
        for (let axis = 0; axis < shape.length; axis++) {
          const label = `${dtype} ${layout} axis ${axis}`
          // exp(x - max) inherits the rounding of x - max, at most 16; then exp, the sum and one product.
          const relative = 16 * U + CHAIN + 4 * U
          failures.push(
            ...compare(
              `softmax ${label}`,
              softmax(a.tensor, axis),
              oracle.along(a.values, axis, oracle.softmax),
              (_, w) => relative * w + ulp(dtype, w) / 2,
            ),
          )
          const logs = oracle.along(a.values, axis, (line) => line.map((x) => x - oracle.logSumExp(line)))
          failures.push(
            ...compare(
              `logSoftmax ${label}`,
              logSoftmax(a.tensor, axis),
              logs,
              (_, w) => relative + 3 * U * Math.abs(w) + ulp(dtype, w) / 2,
            ),
          )
        }
      }
    }
  }
  return failures
})

onEveryTarget('gradients of softmax and logSoftmax', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const layout of layoutNames) {
      for (const shape of [[1], [17], [5, 33], [3, 257], [2, 3, 5]]) {
        for (let axis = 0; axis < shape.length; axis++) {
          const a = lay('contiguous', dtype, random(dtype, shape, 5, [-3, 3]))
          const g = lay(layout, dtype, random(dtype, shape, 6, [-1, 1]))
          const lines = (f: (grad: number[], x: number[]) => number[]): Nd => {
            const read = (source: Nd, start: readonly number[]) =>
              Array.from({ length: shape[axis] as number }, (_, k) =>
                oracle.at(
                  source,
                  start.map((m, i) => (i === axis ? k : m)),
                ),
              )
            return oracle.along(g.values, axis, (grad, start) => f(grad, read(a.values, start)))
          }
          const label = `${dtype} ${layout} [${shape}] axis ${axis}`
          const p = (x: number[]) => oracle.softmax(x)
          const soft = lines((grad, x) => {
            const y = p(x)
            const dot = oracle.sum(grad.map((v, i) => v * (y[i] as number)))
            return y.map((v, i) => v * ((grad[i] as number) - dot))
          })
          // The rule starts from y as it was rounded to the dtype: its error enters times |grad - dot| <= 2, and in the dot.
          const y = oracle.along(a.values, axis, oracle.softmax)
          const eps = 4 * unit(dtype) + CHAIN + 24 * U
          failures.push(
            ...compare(
              `softmax grad ${label}`,
              gradients(softmax(wanting(a.tensor), axis), g.tensor)[0] as Tensor,
              soft,
              (i, w) => 2 * eps * (y.data[i] as number) + ulp(dtype, w),
            ),
          )
          const log = lines((grad, x) => {
            const total = oracle.sum(grad)
            return p(x).map((v, i) => (grad[i] as number) - v * total)
          })
          const sums = lines((grad) => grad.map(() => oracle.sum(grad.map(Math.abs))))
          // y = log p, with |y| <= 6 + log n, is rounded to the dtype: exp(y) is off by that much.
          const rounding = (6 + Math.log(shape[axis] as number)) * unit(dtype) + CHAIN + 24 * U
          failures.push(
            ...compare(
              `logSoftmax grad ${label}`,
              gradients(logSoftmax(wanting(a.tensor), axis), g.tensor)[0] as Tensor,
              log,
              (i, w) =>
                rounding * (y.data[i] as number) * (sums.data[i] as number) +
                CHAIN * (sums.data[i] as number) * (y.data[i] as number) +
                ulp(dtype, w),
            ),
          )
        }
      }
    }
  }
  return failures
})

t.test('softmax does not overflow, and says NaN where nothing is possible', (t) => {
  t.same(softmax(tensor([1000, 1000])).arraySync(), [0.5, 0.5])
  t.same(softmax(tensor([-Infinity, 0])).arraySync(), [0, 1])
  t.same(logSoftmax(tensor([-1000, 1000])).arraySync(), [-2000, 0])
  t.ok((softmax(tensor([-Infinity, -Infinity])).arraySync() as number[]).every(Number.isNaN))
  t.ok((softmax(tensor([NaN, 0])).arraySync() as number[]).every(Number.isNaN))
  t.equal(softmax(tensor([1, 2], { dtype: 'int32' })).dtype, 'float32')
  t.throws(() => softmax(tensor([1]), 1), {
    code: 'ERR_SHAPE',
    message: 'softmax: axis 1 does not exist in a tensor of 1 axes',
  })
  t.end()
})

interface Norm {
  run: (a: Tensor, n: number, weight: Tensor, bias: Tensor, eps: number) => Tensor
  centered: boolean
}
const norms: Record<string, Norm> = {
  layerNorm: { run: (a, n, w, b, eps) => layerNorm(a, n, w, b, eps), centered: true },
  rmsNorm: { run: (a, n, w, _, eps) => rmsNorm(a, n, w, eps), centered: false },
}
const EPS = 1e-3
const normShapes = [[1], [17], [5, 33], [3, 257], [2, 3, 16], [0, 4], [65, 7]]

function statistics(line: readonly number[], centered: boolean): { m: number; rstd: number } {
  const m = centered ? oracle.mean(line) : 0
  return { m, rstd: 1 / Math.sqrt(oracle.mean(line.map((x) => (x - m) ** 2)) + EPS) }
}

for (const [name, { run, centered }] of Object.entries(norms)) {
  onEveryTarget(name, () => {
    const failures: string[] = []
    for (const dtype of floats) {
      for (const layout of layoutNames) {
        for (const shape of normShapes) {
          const n = shape[shape.length - 1] as number
          const a = lay(layout, dtype, random(dtype, shape, 5, [-3, 3]))
          const w = lay('strided', dtype, random(dtype, [n], 6, [0.5, 2]))
          const b = lay('contiguous', dtype, random(dtype, [n], 7))
          const normal = oracle.along(a.values, shape.length - 1, (line) => {
            const { m, rstd } = statistics(line, centered)
            return line.map((x) => (x - m) * rstd)
          })
          const want = nd(shape, (index, flat) => {
            const j = index[index.length - 1] as number
            return (
              (normal.data[flat] as number) * (w.values.data[j] as number) +
              (centered ? (b.values.data[j] as number) : 0)
            )
          })
          // rstd <= 32; (x - m) is off by an ulp of 3 and of m; rstd by the chain bound; then three roundings.
          const tolerance = (i: number, v: number) =>
            2 * (32 * 8 * U + (CHAIN + 4 * U) * Math.abs(normal.data[i] as number)) + 8 * U + ulp(dtype, v) / 2
          failures.push(
            ...compare(`${name} ${dtype} ${layout}`, run(a.tensor, n, w.tensor, b.tensor, EPS), want, tolerance),
          )
        }
      }
    }
    return failures
  })

  onEveryTarget(`gradients of ${name}`, () => {
    const failures: string[] = []
    for (const dtype of floats) {
      for (const layout of layoutNames) {
        for (const shape of [[17], [5, 33], [3, 257], [65, 7], [2, 3, 16]]) {
          const n = shape[shape.length - 1] as number
          const last = shape.length - 1
          const a = lay(layout, dtype, random(dtype, shape, 5, [-3, 3]))
          const g = lay(layout, dtype, random(dtype, shape, 8, [-1, 1]))
          const w = lay('contiguous', dtype, random(dtype, [n], 6, [0.5, 2]))
          const b = lay('contiguous', dtype, random(dtype, [n], 7))
          const out = run(wanting(a.tensor), n, wanting(w.tensor), wanting(b.tensor), EPS)
          const [da, dw, db] = gradients(out, g.tensor) as Tensor[]
          const scale = oracle.along(a.values, last, (line) => line.map(() => statistics(line, centered).rstd))
          const h = oracle.along(a.values, last, (line) => {
            const { m, rstd } = statistics(line, centered)
            return line.map((x) => (x - m) * rstd)
          })
          const wg = nd(
            shape,
            (index, flat) => (g.values.data[flat] as number) * (w.values.data[index[last] as number] as number),
          )
          const means = oracle.fold(wg, [last], oracle.mean)
          const dots = oracle.fold(
            { shape, data: wg.data.map((x, i) => x * (h.data[i] as number)) },
            [last],
            oracle.mean,
          )
          const wantA = nd(shape, (index, i) => {
            const pulled = (h.data[i] as number) * oracle.at(dots, index) + (centered ? oracle.at(means, index) : 0)
            return (scale.data[i] as number) * ((wg.data[i] as number) - pulled)
          })
          // |wg| <= 2, |h| <= sqrt(n), and sums of n terms divided by n follow the chain bound; 32 = the largest rstd.
          const relative = 8 * (CHAIN + 32 * U)
          failures.push(
            ...compare(
              `${name} da ${dtype} ${layout}`,
              da as Tensor,
              wantA,
              (i, v) =>
                relative * (scale.data[i] as number) * (1 + Math.abs(h.data[i] as number)) * (scale.data[i] as number) +
                ulp(dtype, v) / 2,
            ),
          )
          const column = (f: (flat: number) => number): Nd => {
            const totals = new Float64Array(n)
            for (let i = 0; i < g.values.data.length; i++) totals[i % n] = (totals[i % n] as number) + f(i)
            return { shape: [n], data: totals }
          }
          const gh = (i: number) => (g.values.data[i] as number) * (h.data[i] as number)
          const bound = column((i) => Math.abs(gh(i)) + (scale.data[i] as number))
          failures.push(
            ...compare(
              `${name} dweight ${dtype} ${layout}`,
              dw as Tensor,
              column(gh),
              (i, v) => (CHAIN + 16 * U) * (bound.data[i] as number) + ulp(dtype, v),
            ),
          )
          if (!centered) continue
          const absolute = column((i) => Math.abs(g.values.data[i] as number))
          failures.push(
            ...compare(
              `${name} dbias ${dtype} ${layout}`,
              db as Tensor,
              column((i) => g.values.data[i] as number),
              (i, v) => CHAIN * (absolute.data[i] as number) + ulp(dtype, v),
            ),
          )
        }
      }
    }
    return failures
  })
}

t.test('norms over several axes, without weights, and with defaults', (t) => {
  const a = lay('permuted', 'float32', random('float32', [4, 3, 5], 2))
  const flat = { shape: [4, 15], data: a.values.data }
  const want = oracle.along(flat, 1, (line) => {
    const m = oracle.mean(line)
    return line.map((x) => (x - m) / Math.sqrt(oracle.variance(line, 0) + 1e-5))
  })
  const close = () => 1e-5
  t.same(compare('layerNorm', layerNorm(a.tensor, [3, 5]), { shape: [4, 3, 5], data: want.data }, close), [])
  t.same(layerNorm(a.tensor, [3, 5], ones([3, 5]), null).shape, [4, 3, 5])
  const rms = oracle.along(flat, 1, (line) =>
    line.map((x) => x / Math.sqrt(oracle.mean(line.map((v) => v * v)) + 2 ** -23)),
  )
  t.same(compare('rmsNorm', rmsNorm(a.tensor, [3, 5]), { shape: [4, 3, 5], data: rms.data }, close), [])
  t.throws(() => layerNorm(a.tensor, 4), {
    code: 'ERR_SHAPE',
    message: 'layerNorm: normalizedShape [4] does not end the shape [4, 3, 5]',
  })
  t.throws(() => rmsNorm(a.tensor, 5, ones([4])), {
    code: 'ERR_SHAPE',
    message: 'rmsNorm: weight must have shape [5], got [4]',
  })
  t.end()
})
