// Losses against float64, with the gradients that their rules give.
import t from 'tap'
import { backward } from '#lib/autograd/backward'
import { ones, tensor } from '#lib/ops/create'
import * as loss from '#lib/ops/loss'
import { permute } from '#lib/ops/shape'
import { logSoftmax } from '#lib/ops/softmax'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, floats, gradients, lay, layoutNames, onEveryTarget, random, read } from '../matrix'
import * as oracle from '../oracle/array'
import { type Nd, nd } from '../oracle/array'
import { ulp, unit } from '../oracle/float'

const U = unit('float32')
/** Logits within [-8, 8]: the difference to the maximum, exp, log and a chain of sums, each a few units. */
const LOSS = 128 * 16 * U

function scalar(x: number): Nd {
  return { shape: [], data: Float64Array.of(x) }
}

/** PyTorch's definition: (1 - s) * -log p[label] + s / c * sum(-log p). */
function rowLoss(logits: readonly number[], label: number, smoothing: number): number {
  const log = logits.map((x) => x - oracle.logSumExp(logits))
  return -(1 - smoothing) * (log[label] as number) - (smoothing / logits.length) * oracle.sum(log)
}

function rowsOf(a: Nd): number[][] {
  const [n, c] = a.shape as [number, number]
  return Array.from({ length: n }, (_, i) => Array.from(a.data.subarray(i * c, (i + 1) * c)))
}

onEveryTarget('crossEntropy and its gradient', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const layout of layoutNames) {
      for (const [n, c] of [
        [1, 1],
        [1, 2],
        [5, 10],
        [17, 33],
        [3, 257],
        [65, 7],
      ] as const) {
        for (const labelSmoothing of [0, 0.1]) {
          const a = lay(layout, dtype, random(dtype, [n, c], 5, [-8, 8]))
          const labels = Array.from({ length: n }, (_, i) => (i % 4 === 3 ? -100 : (i * 7) % c))
          const y = tensor(labels, { dtype: 'int64' })
          const rows = rowsOf(a.values)
          const each = rows.map((row, i) =>
            labels[i] === -100 ? 0 : rowLoss(row, labels[i] as number, labelSmoothing),
          )
          const count = labels.filter((l) => l !== -100).length
          const label = `${dtype} ${layout} [${n}, ${c}] smoothing ${labelSmoothing}`
          const options = { labelSmoothing }
          const close = (_: number, w: number) => LOSS + 4 * U * Math.abs(w)
          failures.push(
            ...compare(
              `none ${label}`,
              loss.crossEntropy(a.tensor, y, { ...options, reduction: 'none' }),
              { shape: [n], data: Float64Array.from(each) },
              close,
            ),
          )
          failures.push(
            ...compare(
              `sum ${label}`,
              loss.crossEntropy(a.tensor, y, { ...options, reduction: 'sum' }),
              scalar(oracle.sum(each)),
              (_, w) => n * LOSS + 64 * U * w,
            ),
          )
          a.tensor.requiresGrad = true
          const out = loss.crossEntropy(a.tensor, y, options)
          failures.push(...compare(`mean ${label}`, out, scalar(oracle.sum(each) / count), (_, w) => LOSS + 64 * U * w))
          const want = nd([n, c], ([i, j]) => {
            if (labels[i as number] === -100) return 0
            const p = oracle.softmax(rows[i as number] as number[])[j as number] as number
            const target = (labels[i as number] === j ? 1 - labelSmoothing : 0) + labelSmoothing / c
            return (p - target) / count
          })
          failures.push(
            ...compare(
              `gradient ${label}`,
              gradients(out, ones([]))[0] as Tensor,
              want,
              (_, w) => (LOSS + 8 * U) / count + ulp(dtype, w) / 2,
            ),
          )
        }
      }
    }
  }
  return failures
})

t.test('crossEntropy takes [c], [n, c, d...], other label dtypes, and probabilities', (t) => {
  const a = random('float32', [2, 3, 4, 5], 3)
  const labels = random('int64', [2, 4, 5], 4, [0, 2])
  const x = tensor(a.data, { shape: a.shape })
  const y = tensor(labels.data, { shape: labels.shape, dtype: 'int32' })
  const want = nd([2, 4, 5], ([n, h, w]) =>
    rowLoss(
      [0, 1, 2].map((c) => oracle.at(a, [n, c, h, w] as number[])),
      oracle.at(labels, [n, h, w] as number[]),
      0,
    ),
  )
  t.same(
    compare('none', loss.crossEntropy(x, y, { reduction: 'none' }), want, () => LOSS),
    [],
  )
  t.same(
    compare('mean', loss.crossEntropy(x, y), scalar(oracle.mean(Array.from(want.data))), () => LOSS),
    [],
  )
  const one = loss.crossEntropy(tensor([1, 2, 3]), tensor(2, { dtype: 'uint8' }), { reduction: 'none' })
  t.same(
    compare('[c]', one, scalar(rowLoss([1, 2, 3], 2, 0)), () => LOSS),
    [],
  )

  const p = tensor([
    [0.2, 0.3, 0.5],
    [1, 0, 0],
  ])
  const logits = [
    [1, -1, 2],
    [0.5, 0, 3],
  ]
  const soft = (s: number) =>
    oracle.mean(
      logits.map((row, i) => {
        const log = row.map((v) => v - oracle.logSumExp(row))
        return -oracle.sum(
          ((p.arraySync() as number[][])[i] as number[]).map((q, j) => (q * (1 - s) + s / 3) * (log[j] as number)),
        )
      }),
    )
  t.same(
    compare('probabilities', loss.crossEntropy(tensor(logits), p), scalar(soft(0)), () => LOSS),
    [],
  )
  t.same(
    compare('smoothed', loss.crossEntropy(tensor(logits), p, { labelSmoothing: 0.3 }), scalar(soft(0.3)), () => LOSS),
    [],
  )
  t.end()
})

t.test('all labels ignored: NaN mean, 0 sum; a label out of range: ERR_RANGE at the next barrier', (t) => {
  const x = ones([2, 3])
  const ignored = tensor([-100, -100], { dtype: 'int64' })
  t.ok(Number.isNaN(loss.crossEntropy(x, ignored).item()))
  t.equal(loss.crossEntropy(x, ignored, { reduction: 'sum' }).item(), 0)
  t.equal(loss.nllLoss(x, ignored, { reduction: 'sum' }).item(), 0)
  for (const bad of [3, -1]) {
    const labels = tensor([0, bad], { dtype: 'int64' })
    t.throws(() => loss.crossEntropy(x, labels).item(), { code: 'ERR_RANGE' })
    t.throws(() => loss.nllLoss(x, labels).item(), { code: 'ERR_RANGE' })
    t.equal(loss.crossEntropy(x, labels, { ignoreIndex: bad }).item().toFixed(6), Math.log(3).toFixed(6))
  }
  t.equal(ones([2]).dataSync().length, 2)
  t.end()
})

t.test('nllLoss of logSoftmax is crossEntropy', (t) => {
  for (const shape of [[7, 5], [4, 6, 3], [9]]) {
    const a = tensor(random('float32', shape, 3).data, { shape })
    const lead = shape.length === 1 ? [] : shape.filter((_, i) => i !== 1)
    const labels = random('int64', lead, 4, [0, ((shape.length === 1 ? shape[0] : shape[1]) as number) - 1])
    const y = tensor(labels.data, { shape: lead, dtype: 'int64' })
    for (const reduction of ['none', 'sum', 'mean'] as const) {
      const want = read(loss.crossEntropy(a, y, { reduction, ignoreIndex: 1 }))
      t.same(
        compare(
          `${shape} ${reduction}`,
          loss.nllLoss(logSoftmax(a, shape.length === 1 ? 0 : 1), y, { reduction, ignoreIndex: 1 }),
          want,
          () => LOSS,
        ),
        [],
      )
    }
  }
  t.end()
})

interface Pointwise {
  op: (x: Tensor, y: Tensor, options: object) => Tensor
  f: (x: number, y: number) => number
  /** Derivatives by x and by y. */
  dx: (x: number, y: number) => number
  dy: (x: number, y: number) => number
  target: [number, number]
}
const sigmoid = (x: number) => 1 / (1 + Math.exp(-x))
const pointwise: Record<string, Pointwise> = {
  mseLoss: {
    op: loss.mseLoss,
    f: (x, y) => (x - y) ** 2,
    dx: (x, y) => 2 * (x - y),
    dy: (x, y) => 2 * (y - x),
    target: [-2, 2],
  },
  l1Loss: {
    op: loss.l1Loss,
    f: (x, y) => Math.abs(x - y),
    dx: (x, y) => Math.sign(x - y),
    dy: (x, y) => Math.sign(y - x),
    target: [-2, 2],
  },
  klDiv: {
    op: loss.klDiv,
    f: (x, y) => y * (Math.log(y) - x),
    dx: (_, y) => -y,
    dy: (x, y) => Math.log(y) + 1 - x,
    target: [0.01, 1],
  },
  'klDiv of logarithms': {
    op: (x, y, options) => loss.klDiv(x, y, { ...options, logTarget: true }),
    f: (x, y) => Math.exp(y) * (y - x),
    dx: (_, y) => -Math.exp(y),
    dy: (x, y) => Math.exp(y) * (y - x + 1),
    target: [-4, 0],
  },
  binaryCrossEntropyWithLogits: {
    op: loss.binaryCrossEntropyWithLogits,
    f: (x, y) => (1 - y) * x + Math.log1p(Math.exp(-x)),
    dx: (x, y) => sigmoid(x) - y,
    dy: (x) => -x,
    target: [0, 1],
  },
}

for (const [name, { op, f, dx, dy, target }] of Object.entries(pointwise)) {
  onEveryTarget(name, () => {
    const failures: string[] = []
    for (const dtype of floats) {
      for (const layout of layoutNames) {
        for (const shape of [[1], [17], [5, 33], [2, 3, 4]]) {
          const x = lay(layout, dtype, random(dtype, shape, 5))
          const y = lay(layout, dtype, random(dtype, shape, 6, target))
          const each = oracle.zip(x.values, y.values, f)
          const values = Array.from(each.data)
          const label = `${name} ${dtype} ${layout}`
          const close = () => 64 * U // values up to 40, a handful of float32 operations, each within 2 ulp of numbers up to 8
          failures.push(
            ...compare(
              label,
              op(x.tensor, y.tensor, { reduction: 'none' }),
              each,
              (_, w) => close() + 8 * U * Math.abs(w),
            ),
          )
          failures.push(
            ...compare(
              `${label} sum`,
              op(x.tensor, y.tensor, { reduction: 'sum' }),
              scalar(oracle.sum(values)),
              () => values.length * 128 * U * 8,
            ),
          )
          x.tensor.requiresGrad = true
          y.tensor.requiresGrad = true
          const out = op(x.tensor, y.tensor, {})
          failures.push(...compare(`${label} mean`, out, scalar(oracle.mean(values)), () => 128 * U * 8))
        }
      }
    }
    return failures
  })

  onEveryTarget(`${name}: the gradients of both sides`, () => {
    const failures: string[] = []
    for (const dtype of floats) {
      const x = lay('contiguous', dtype, random(dtype, [3, 17], 5))
      const y = lay('permuted', dtype, random(dtype, [3, 17], 6, target))
      x.tensor.requiresGrad = true
      y.tensor.requiresGrad = true
      backward(op(x.tensor, y.tensor, { reduction: 'sum' }))
      // A handful of float32 operations on numbers up to 8, rounded once to the dtype.
      const close = (_: number, w: number) =>
        64 * U + 8 * U * Math.abs(w) + (dtype === 'float32' ? 0 : ulp(dtype, w) / 2)
      failures.push(
        ...compare(`${name} ${dtype} dx`, x.tensor.grad as Tensor, oracle.zip(x.values, y.values, dx), close),
      )
      failures.push(
        ...compare(`${name} ${dtype} dy`, y.tensor.grad as Tensor, oracle.zip(x.values, y.values, dy), close),
      )
    }
    return failures
  })
}

t.test('binaryCrossEntropyWithLogits: no overflow, a gradient at 0, posWeight', (t) => {
  t.same(loss.binaryCrossEntropyWithLogits(tensor([1000, -1000]), tensor([1, 0])).item(), 0)
  t.same(loss.binaryCrossEntropyWithLogits(tensor([1000]), tensor([0])).item(), 1000)
  const x = tensor([0, 1, -2], { requiresGrad: true })
  const y = tensor([0.25, 1, 0])
  const plain = loss.binaryCrossEntropyWithLogits(x, y, { reduction: 'none' })
  const slope = gradients(plain, ones([3]))[0] as Tensor
  const want = [0, 1, -2].map((v, i) => sigmoid(v) - ([0.25, 1, 0][i] as number))
  t.same(
    compare('dx', slope, { shape: [3], data: Float64Array.from(want) }, () => 8 * U),
    [],
  )
  const weighted = loss.binaryCrossEntropyWithLogits(x, y, { reduction: 'none', posWeight: tensor([3]) })
  const softplus = (v: number) => Math.log1p(Math.exp(-v))
  const heavy = [0, 1, -2].map((v, i) => {
    const q = [0.25, 1, 0][i] as number
    return 3 * q * softplus(v) + (1 - q) * (v + softplus(v))
  })
  t.same(
    compare('posWeight', weighted, { shape: [3], data: Float64Array.from(heavy) }, () => 32 * U),
    [],
  )
  t.end()
})

t.test("klDiv: 'batchmean' divides by the batch, PyTorch's default 'mean' by the elements; 0 log 0 is 0", (t) => {
  const x = logSoftmax(
    tensor([
      [1, 2],
      [3, 4],
      [0, 0],
    ]),
  )
  const y = tensor([
    [0, 1],
    [0.5, 0.5],
    [0.3, 0.7],
  ])
  const total = loss.klDiv(x, y, { reduction: 'sum' }).item()
  t.ok(Number.isFinite(total) && total > 0)
  t.ok(Math.abs(loss.klDiv(x, y, { reduction: 'batchmean' }).item() - total / 3) < 1e-6)
  t.ok(Math.abs(loss.klDiv(x, y).item() - total / 6) < 1e-6)
  t.end()
})

t.test('errors name op, argument and value', (t) => {
  const x = ones([4, 3])
  const y = tensor([0, 1, 2, 0], { dtype: 'int64' })
  t.throws(() => loss.mseLoss(ones([4, 1]), ones([4])), {
    code: 'ERR_SHAPE',
    message: 'mseLoss: input [4, 1] and target [4] must have one shape',
  })
  t.throws(() => loss.crossEntropy(x, permute(ones([3, 4]), [1, 0]), { reduction: 'median' as never }), {
    code: 'ERR_ARGUMENT',
    message: /reduction must be mean, sum, none/,
  })
  t.throws(() => loss.crossEntropy(x, tensor([true, false, true, false])), {
    code: 'ERR_DTYPE',
    message: /labels must be int64 or int32/,
  })
  t.throws(() => loss.crossEntropy(ones([5, 3]), y), {
    code: 'ERR_SHAPE',
    message: 'crossEntropy: labels must have shape [5], got [4]',
  })
  t.throws(() => loss.crossEntropy(x, y, { labelSmoothing: 2 }), {
    message: 'crossEntropy: labelSmoothing must be a number from 0 to 1, got 2',
  })
  t.throws(() => loss.nllLoss(x, y, { ignoreIndex: 0.5 }), {
    message: 'nllLoss: ignoreIndex must be a whole number, got 0.5',
  })
  t.end()
})
