// Indexing, joining, padding, triangles, one-hot and dropout.
import t from 'tap'
import type { DType } from '#lib/core/dtype'
import { manualSeed } from '#lib/core/rng'
import { arange, ones, tensor, zeros } from '#lib/ops/create'
import { dropout } from '#lib/ops/dropout'
import { embedding, gather, indexAdd, indexSelect, oneHot, scatterAdd } from '#lib/ops/index'
import { cat, chunk, pad, split, stack, tril, triu } from '#lib/ops/join'
import { sum } from '#lib/ops/reduce'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, dtypes, floats, gradients, lay, layoutNames, onEveryTarget, random, read, shapes } from '../matrix'
import * as oracle from '../oracle/array'
import { type Nd, nd } from '../oracle/array'
import { roundTo, ulp } from '../oracle/float'

function indexOf(values: Nd, layout = 'contiguous'): Tensor {
  return lay(layout, 'int64', values).tensor
}

/** Positions in [-n, n), every third negative. */
function positions(shape: readonly number[], n: number, seed: number): Nd {
  return oracle.map(random('int64', shape, seed, [0, n - 1]), (x, i) => (i % 3 === 0 ? x - n : x))
}

const nonEmpty = shapes.filter((s) => s.length > 0 && !s.includes(0))

onEveryTarget('indexSelect, gather', () => {
  const failures: string[] = []
  for (const dtype of dtypes) {
    for (const layout of layoutNames) {
      for (const shape of nonEmpty) {
        const a = lay(layout, dtype, random(dtype, shape, 3))
        for (let axis = 0; axis < shape.length; axis++) {
          const n = shape[axis] as number
          const label = `${dtype} ${layout} axis ${axis}`
          for (const count of [0, 1, 5, 40]) {
            const index = positions([count], n, 8)
            const to = shape.map((s, i) => (i === axis ? count : s))
            const want = nd(to, (at) => {
              const k = index.data[at[axis] as number] as number
              return oracle.at(
                a.values,
                at.map((m, i) => (i === axis ? (k < 0 ? k + n : k) : m)),
              )
            })
            failures.push(
              ...compare(`indexSelect ${label}`, indexSelect(a.tensor, axis, indexOf(index, 'strided')), want),
            )
          }
          const smaller = shape.map((s, i) => (i === axis ? 7 : Math.ceil(s / 2)))
          const index = positions(smaller, n, 9)
          const want = nd(smaller, (at) => {
            const k = oracle.at({ shape: smaller, data: index.data }, at)
            return oracle.at(
              a.values,
              at.map((m, i) => (i === axis ? (k < 0 ? k + n : k) : m)),
            )
          })
          failures.push(
            ...compare(
              `gather ${label}`,
              gather(a.tensor, axis, indexOf(index, layout === 'broadcast' ? 'offset' : layout)),
              want,
            ),
          )
        }
      }
    }
  }
  return failures
})

onEveryTarget('indexAdd, scatterAdd', () => {
  const failures: string[] = []
  for (const dtype of dtypes.filter((d) => d !== 'bool')) {
    for (const layout of layoutNames) {
      for (const shape of nonEmpty) {
        const range: [number, number] = [0, dtype === 'int8' ? 2 : 3]
        const a = lay(layout, dtype, random(dtype, shape, 3, range))
        for (let axis = 0; axis < shape.length; axis++) {
          const n = shape[axis] as number
          const check = (
            name: string,
            out: Tensor,
            from: readonly number[],
            source: Nd,
            at: (where: number[]) => number,
          ) => {
            const totals = { shape, data: Float64Array.from(a.values.data) }
            const magnitudes = Float64Array.from(totals.data)
            for (const where of oracle.indices(from)) {
              const k = at(where)
              const target = where.map((m, i) => (i === axis ? (k < 0 ? k + n : k) : m))
              const flat = target.reduce((f, m, i) => f * (shape[i] as number) + m, 0)
              const value = oracle.at(source, where)
              totals.data[flat] = (totals.data[flat] as number) + value
              magnitudes[flat] = (magnitudes[flat] as number) + Math.abs(value)
            }
            const real = (floats as readonly string[]).includes(dtype)
            // Added one after the other in float32 (at most 40 terms), rounded once.
            failures.push(
              ...compare(`${name} ${dtype} ${layout} axis ${axis}`, out, totals, (i, w) =>
                real ? 40 * 2 ** -24 * (magnitudes[i] as number) + ulp(dtype, w) / 2 : 0,
              ),
            )
          }
          const lines = shape.map((s, i) => (i === axis ? 9 : s))
          const index = positions([9], n, 8)
          const source = lay(layout, dtype, random(dtype, lines, 4, range))
          check(
            'indexAdd',
            indexAdd(a.tensor, axis, indexOf(index), source.tensor),
            lines,
            source.values,
            (w) => index.data[w[axis] as number] as number,
          )
          const smaller = shape.map((s, i) => (i === axis ? 7 : Math.ceil(s / 2)))
          const scattered = positions(smaller, n, 9)
          const values = lay(layout, dtype, random(dtype, smaller, 4, range))
          check(
            'scatterAdd',
            scatterAdd(a.tensor, axis, indexOf(scattered), values.tensor),
            smaller,
            values.values,
            (w) => scattered.data[w.reduce((f, m, i) => f * (smaller[i] as number) + m, 0)] as number,
          )
        }
      }
    }
  }
  return failures
})

onEveryTarget('embedding and its gradient', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const width of [1, 7, 16, 65]) {
      const table = lay('contiguous', dtype, random(dtype, [11, width], 3))
      const index = random('int64', [4, 5], 2, [0, 10])
      table.tensor.requiresGrad = true
      const out = embedding(indexOf(index), table.tensor, { paddingIdx: 3 })
      failures.push(
        ...compare(
          `embedding ${dtype}`,
          out,
          nd([4, 5, width], ([i, j, k]) =>
            oracle.at(table.values, [oracle.at(index, [i, j] as number[]), k as number]),
          ),
        ),
      )
      const grad = lay('permuted', dtype, random(dtype, [4, 5, width], 6))
      const want = nd([11, width], ([row, k]) =>
        row === 3
          ? 0
          : oracle.sum(
              Array.from(index.data, (r, i) =>
                r === row ? (grad.values.data[i * width + (k as number)] as number) : 0,
              ),
            ),
      )
      failures.push(
        ...compare(
          `embedding grad ${dtype}`,
          gradients(out, grad.tensor)[0] as Tensor,
          want,
          (_, w) => 20 * 4 * 2 ** -24 * 20 + ulp(dtype, w) / 2,
        ),
      )
    }
  }
  return failures
})

t.test('positions out of range are ERR_RANGE at the next barrier, and the stream goes on', (t) => {
  const a = arange(0, 6, 1)
  for (const bad of [6, -7, 2 ** 40]) {
    t.throws(() => indexSelect(a, 0, tensor([0, bad], { dtype: 'int64' })).dataSync(), {
      code: 'ERR_RANGE',
      message: /indexSelect: index .* is outside \[-6, 6\)/,
    })
    t.throws(() => gather(a, 0, tensor([bad], { dtype: 'int64' })).dataSync(), { code: 'ERR_RANGE' })
    t.throws(() => scatterAdd(a, 0, tensor([bad], { dtype: 'int64' }), ones([1])).dataSync(), { code: 'ERR_RANGE' })
    t.equal(sum(a).item(), 15)
  }
  t.throws(() => oneHot(tensor([3], { dtype: 'int64' }), 3).dataSync(), { code: 'ERR_RANGE' })
  t.equal(sum(a).item(), 15)
  t.throws(() => gather(a, 0, tensor([0.5])), {
    code: 'ERR_DTYPE',
    message: 'gather: index must be int64 or int32 or uint8 or int8, got float32',
  })
  t.throws(() => gather(ones([2, 3]), 1, tensor([[0], [0], [0]], { dtype: 'int64' })), {
    code: 'ERR_SHAPE',
    message: 'gather: index [3, 1] is not inside a [2, 3] off axis 1',
  })
  t.throws(() => indexSelect(a, 0, tensor([[1]], { dtype: 'int64' })), { code: 'ERR_SHAPE' })
  t.end()
})

onEveryTarget('cat, stack, split, chunk', () => {
  const failures: string[] = []
  for (const dtype of dtypes) {
    for (const layout of layoutNames) {
      for (const shape of shapes.filter((s) => s.length > 0)) {
        for (let axis = 0; axis < shape.length; axis++) {
          const parts = [0, 1, 2].map((k) =>
            lay(
              layout,
              dtype,
              random(
                dtype,
                shape.map((n, i) => (i === axis ? n + k : n)),
                k,
              ),
            ),
          )
          const ends = parts.map((_, k) => oracle.sum(parts.slice(0, k + 1).map((p) => p.values.shape[axis] as number)))
          const joined = nd(
            shape.map((n, i) => (i === axis ? (ends[2] as number) : n)),
            (at) => {
              const k = ends.findIndex((end) => (at[axis] as number) < end)
              return oracle.at(
                (parts[k] as { values: Nd }).values,
                at.map((m, i) => (i === axis ? m - (ends[k - 1] ?? 0) : m)),
              )
            },
          )
          const label = `${dtype} ${layout} axis ${axis}`
          const out = cat(
            parts.map((p) => p.tensor),
            axis,
          )
          failures.push(...compare(`cat ${label}`, out, joined))
          split(
            out,
            parts.map((p) => p.values.shape[axis] as number),
            axis,
          ).forEach((piece, k) => {
            // Views of axes of size 1 broadcast in at(): compare with the part itself.
            failures.push(...compare(`split ${label}`, piece, (parts[k] as { values: Nd }).values))
          })
        }
        const a = lay(layout, dtype, random(dtype, shape, 4))
        const b = lay('contiguous', dtype, random(dtype, shape, 5))
        const want = nd([2, ...shape], (at) => oracle.at(at[0] === 0 ? a.values : b.values, at.slice(1)))
        failures.push(...compare(`stack ${dtype} ${layout}`, stack([a.tensor, b.tensor]), want))
      }
    }
  }
  return failures
})

t.test('cat promotes; split and chunk cut like PyTorch; errors', (t) => {
  const mixed = cat([tensor([1], { dtype: 'int8' }) as Tensor, tensor([0.5])])
  t.equal(mixed.dtype, 'float32')
  t.same(mixed.arraySync(), [1, 0.5])
  t.same(
    split(arange(0, 7, 1), 3).map((p) => p.arraySync()),
    [[0, 1, 2], [3, 4, 5], [6]],
  )
  t.same(
    chunk(arange(0, 7, 1), 3).map((p) => p.shape),
    [[3], [3], [1]],
  )
  t.same(stack([ones([2]), zeros([2])], -1).arraySync(), [
    [1, 0],
    [1, 0],
  ])
  t.throws(() => cat([ones([2, 3]), ones([3, 2])]), {
    code: 'ERR_SHAPE',
    message: 'cat: [2, 3] and [3, 2] differ off axis 0',
  })
  t.throws(() => cat([]), {
    code: 'ERR_ARGUMENT',
    message: 'cat: tensors must be an array of at least one tensor, got []',
  })
  t.throws(() => cat([ones([1]), 3 as never]), { message: 'cat: tensors[1] must be a tensor, got 3' })
  t.throws(() => split(ones([4]), [1, 2]), {
    code: 'ERR_SHAPE',
    message: 'split: sizes [1, 2] do not add up to axis 0 of [4]',
  })
  const a = ones([2], { requiresGrad: true })
  const b = ones([3])
  const grads = gradients(cat([a, b]), arange(0, 5, 1))
  t.same(
    grads.map((g) => g?.arraySync() ?? null),
    [[0, 1], null],
  )
  t.end()
})

onEveryTarget('pad, with negative sizes too; triu, tril', () => {
  const failures: string[] = []
  for (const dtype of dtypes) {
    for (const layout of layoutNames) {
      for (const [shape, pads] of [
        [[5], [2, 3]],
        [[5], [-1, 2]],
        [[5], [0, -5]],
        [
          [3, 4],
          [1, 0, 2, 1],
        ],
        [
          [3, 4],
          [-1, -1, 0, 2],
        ],
        [
          [2, 3, 4],
          [1, 2],
        ],
        [
          [0, 2],
          [0, 0, 1, 1],
        ],
        [
          [33, 17],
          [3, 3, 3, 3],
        ],
      ] as [number[], number[]][]) {
        const a = lay(layout, dtype, random(dtype, shape, 3))
        const value = dtype === 'bool' ? 1 : 7
        const before = shape.map((_, i) => pads[2 * (shape.length - 1 - i)] ?? 0)
        const after = shape.map((_, i) => pads[2 * (shape.length - 1 - i) + 1] ?? 0)
        const want = nd(
          shape.map((n, i) => n + (before[i] as number) + (after[i] as number)),
          (at) => {
            const from = at.map((m, i) => m - (before[i] as number))
            return from.every((m, i) => m >= 0 && m < (shape[i] as number)) ? oracle.at(a.values, from) : value
          },
        )
        failures.push(...compare(`pad ${dtype} ${layout} ${pads}`, pad(a.tensor, pads, { value }), want))
      }
      for (const shape of [
        [1, 1],
        [4, 5],
        [33, 17],
        [2, 3, 3],
        [0, 3],
      ]) {
        const a = lay(layout, dtype, random(dtype, shape, 3))
        const [rows, columns] = [shape.length - 2, shape.length - 1]
        for (const k of [0, 1, -2, 40, -40]) {
          const keep = (test: (d: number) => boolean) =>
            nd(shape, (at, flat) =>
              test((at[columns] as number) - (at[rows] as number)) ? (a.values.data[flat] as number) : 0,
            )
          failures.push(
            ...compare(
              `triu ${dtype} ${layout} ${k}`,
              triu(a.tensor, k),
              keep((d) => d >= k),
            ),
          )
          failures.push(
            ...compare(
              `tril ${dtype} ${layout} ${k}`,
              tril(a.tensor, k),
              keep((d) => d <= k),
            ),
          )
        }
      }
    }
  }
  return failures
})

t.test('the gradient of pad is the inside; errors', (t) => {
  const a = ones([3], { requiresGrad: true })
  t.same((gradients(pad(a, [1, 1]), arange(0, 5, 1))[0] as Tensor).arraySync(), [1, 2, 3])
  t.same((gradients(pad(a, [-1, 2]), arange(0, 4, 1))[0] as Tensor).arraySync(), [0, 0, 1])
  t.throws(() => pad(a, [1]), { code: 'ERR_ARGUMENT', message: /pads must be \[before, after\] for at most 1 axes/ })
  t.throws(() => pad(a, [-2, -2]), { code: 'ERR_SHAPE', message: 'pad: axis 0 of [3] cannot lose 4 elements' })
  t.throws(() => triu(a), { code: 'ERR_SHAPE', message: 'triu: a must have at least two axes, its shape is [3]' })
  t.end()
})

t.test('oneHot', (t) => {
  const index = tensor(
    [
      [0, 2],
      [1, 1],
    ],
    { dtype: 'int64' },
  )
  t.same(oneHot(index, 3).shape, [2, 2, 3])
  t.same(read(oneHot(index)).data, [1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0])
  for (const dtype of dtypes as DType[])
    t.same(read(oneHot(tensor([1, 0], { dtype: 'uint8' }), 2, { dtype })).data, [0, 1, 1, 0], dtype)
  t.end()
})

onEveryTarget('dropout: kept elements are scaled, the share is right, backward uses the same mask', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const [layout, shape] of [
      ['contiguous', [10000]],
      ['permuted', [101, 97]],
      ['contiguous', [1]],
      ['contiguous', [0]],
    ] as [string, number[]][]) {
      manualSeed(4)
      const p = 0.3
      const a = lay(layout, dtype, random(dtype, shape, 3, [1, 2]))
      a.tensor.requiresGrad = true
      const out = dropout(a.tensor, p)
      const { data } = read(out)
      const kept = Array.from(data).filter((x) => x !== 0).length
      const n = data.length
      // Five standard deviations of a binomial count.
      if (n > 100 && Math.abs(kept - 0.7 * n) > 5 * Math.sqrt(n * 0.21)) failures.push(`${kept} of ${n} are kept`)
      const want = oracle.map(a.values, (x, i) => (data[i] === 0 ? 0 : x / (1 - p)))
      failures.push(...compare(`dropout ${dtype} ${layout}`, out, want, (_, w) => ulp(dtype, w)))
      if (n === 0) continue
      const grad = gradients(
        out,
        lay(
          'contiguous',
          dtype,
          nd(shape, () => 1),
        ).tensor,
      )[0] as Tensor
      failures.push(
        ...compare(
          `dropout grad ${dtype} ${layout}`,
          grad,
          oracle.map(a.values, (_, i) => (data[i] === 0 ? 0 : roundTo(dtype, 1 / (1 - p)))),
          (_, w) => ulp(dtype, w),
        ),
      )
    }
  }
  return failures
})

t.test('dropout: seeded, off when not training, everything at p = 1', (t) => {
  const a = ones([64])
  manualSeed(1)
  const first = dropout(a).dataSync()
  const second = dropout(a).dataSync()
  manualSeed(1)
  t.same(dropout(a).dataSync(), first)
  t.notSame(second, first)
  t.same(dropout(a, 0.5, { training: false }).dataSync(), a.dataSync())
  t.equal(sum(dropout(a, 1)).item(), 0)
  t.throws(() => dropout(a, 1.5), { code: 'ERR_ARGUMENT', message: 'dropout: p must be a number from 0 to 1, got 1.5' })
  t.end()
})
