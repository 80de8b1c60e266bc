// Pooling and its gradients against loops over windows in float64.
import fc from 'fast-check'
import t from 'tap'
import { full, randn, tensor, zeros } from '#lib/ops/create'
import { type AvgPool2dOptions, adaptiveAvgPool2d, avgPool2d, type MaxPool2dOptions, maxPool2d } from '#lib/ops/pooling'
import { mean } from '#lib/ops/reduce'
import { expand } from '#lib/ops/shape'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, floats, gradients, lay, layoutNames, onEveryTarget, random, read } from '../matrix'
import { type Nd, nd } from '../oracle/array'
import { ulp, unit } from '../oracle/float'
import { adaptiveWindows, argmax, paddedCounts, type Window, windows } from '../oracle/images'

const U = unit('float32')
const wanting = (a: Tensor): Tensor => Object.assign(a, { requiresGrad: true })
const pair = (p: number | readonly [number, number]): [number, number] =>
  typeof p === 'number' ? [p, p] : [p[0], p[1]]

function windowOf(options: MaxPool2dOptions): Window {
  const kernel = pair(options.kernelSize)
  return {
    kernel,
    stride: pair(options.stride ?? kernel),
    padding: pair(options.padding ?? 0),
    dilation: pair(options.dilation ?? 1),
  }
}

const shapes = [
  [1, 1, 1, 1],
  [2, 3, 4, 5],
  [1, 2, 7, 40],
  [3, 1, 9, 6],
  [1, 1, 33, 70],
  [1, 2, 3, 131],
] as const

const pools: MaxPool2dOptions[] = [
  { kernelSize: 1 },
  { kernelSize: 2 },
  { kernelSize: 3, stride: 2, padding: 1 },
  { kernelSize: 3, stride: 1, padding: 1 },
  { kernelSize: 2, stride: 2, ceilMode: true },
  { kernelSize: 3, stride: 2, padding: 1, ceilMode: true },
  { kernelSize: [1, 4], stride: [1, 3], padding: [0, 2] },
  { kernelSize: [3, 2], stride: [3, 5], padding: [1, 1], ceilMode: true },
  { kernelSize: [2, 3], stride: 7, padding: [1, 0], ceilMode: true },
]
const dilated: MaxPool2dOptions[] = [
  { kernelSize: 2, dilation: 2, stride: 1 },
  { kernelSize: 3, dilation: [1, 3], stride: 2, padding: 1 },
  { kernelSize: [3, 2], dilation: [2, 5], stride: [2, 4], padding: 1, ceilMode: true },
]

/** Whether the oracle finds a window for these options. */
function fits(x: Nd, options: MaxPool2dOptions): boolean {
  const { shape } = windows(x, windowOf(options), options.ceilMode ?? false)
  return (shape[2] as number) > 0 && (shape[3] as number) > 0
}

onEveryTarget('maxPool2d and its gradient', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const layout of layoutNames) {
      for (const shape of shapes) {
        // Few values, so that many are equal; NaN and infinities among them.
        const values = random('int8', shape, 5, [-3, 4])
        const data = values.data.map((v) => (v === 4 ? Number.NEGATIVE_INFINITY : v === 3 && shape[3] === 70 ? NaN : v))
        const x = lay(layout, dtype, { shape, data })
        for (const options of [...pools, ...dilated]) {
          if (!fits(x.values, options)) continue
          const label = `${dtype} ${layout} [${shape}] ${JSON.stringify(options)}`
          const found = windows(x.values, windowOf(options), options.ceilMode ?? false)
          const at = found.members.map((members) => argmax(x.values, members))
          const want = nd(
            found.shape,
            (_, i) => ((at[i] as number) < 0 ? -Infinity : x.values.data[at[i] as number]) as number,
          )
          failures.push(...compare(label, maxPool2d(x.tensor, options), want))
          const a = lay(layout, dtype, { shape, data }).tensor
          const out = maxPool2d(wanting(a), options)
          failures.push(...compare(`${label} with taps`, out, want))
          const g = lay(layout, dtype, random(dtype, found.shape, 6, [-1, 1]))
          const [total, size] = [nd(shape, () => 0), nd(shape, () => 0)]
          for (const [i, to] of at.entries()) {
            if (to < 0) continue
            total.data[to] = (total.data[to] as number) + (g.values.data[i] as number)
            size.data[to] = (size.data[to] as number) + Math.abs(g.values.data[i] as number)
          }
          // At most 12 windows share an element; their sum is rounded once more.
          const [da] = gradients(out, g.tensor) as [Tensor]
          failures.push(
            ...compare(`${label} da`, da, total, (i, y) => 12 * U * (size.data[i] as number) + ulp(dtype, y) / 2),
          )
        }
      }
    }
  }
  return failures
})

/** The averages over windows, and what a gradient becomes. */
function checkAverage(
  label: string,
  dtype: (typeof floats)[number],
  layout: string,
  shape: readonly number[],
  found: { shape: number[]; members: number[][] },
  counts: readonly number[],
  run: (a: Tensor) => Tensor,
): string[] {
  const x = lay(layout, dtype, random(dtype, shape, 5))
  const over = (data: Float64Array, f: (v: number) => number) =>
    nd(found.shape, (_, i) => {
      const members = found.members[i] as number[]
      return members.reduce((s, m) => s + f(data[m] as number), 0) / (counts[i] as number)
    })
  const want = over(x.values.data, (v) => v)
  const size = over(x.values.data, Math.abs)
  // A sum of n terms in any order is within n - 1 roundings of its magnitudes; then the quotient.
  const most = Math.max(...found.members.map((members) => members.length))
  const out = run(wanting(x.tensor))
  const failures = compare(label, out, want, (i, y) => most * U * (size.data[i] as number) + ulp(dtype, y) / 2)
  const g = lay(layout, dtype, random(dtype, found.shape, 6, [-1, 1]))
  const [total, magnitude, terms] = [nd(shape, () => 0), nd(shape, () => 0), nd(shape, () => 0)]
  for (const [i, members] of found.members.entries()) {
    for (const m of members) {
      const part = (g.values.data[i] as number) / (counts[i] as number)
      total.data[m] = (total.data[m] as number) + part
      magnitude.data[m] = (magnitude.data[m] as number) + Math.abs(part)
      terms.data[m] = (terms.data[m] as number) + 1
    }
  }
  const [da] = gradients(out, g.tensor) as [Tensor]
  return [
    ...failures,
    ...compare(
      `${label} da`,
      da,
      total,
      (i, y) => ((terms.data[i] as number) + 1) * U * (magnitude.data[i] as number) + ulp(dtype, y) / 2,
    ),
  ]
}

onEveryTarget('avgPool2d and its gradient', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const layout of layoutNames) {
      for (const shape of shapes) {
        const values = nd(shape, () => 0)
        for (const options of pools) {
          if (!fits(values, options)) continue
          const ceil = options.ceilMode ?? false
          const found = windows(values, windowOf(options), ceil)
          for (const countIncludePad of [true, false]) {
            const counts = countIncludePad
              ? paddedCounts(values, windowOf(options), ceil)
              : found.members.map((members) => members.length)
            const label = `${dtype} ${layout} [${shape}] ${JSON.stringify(options)} ${countIncludePad}`
            const run = (a: Tensor) => avgPool2d(a, { ...options, countIncludePad })
            failures.push(...checkAverage(label, dtype, layout, shape, found, counts, run))
          }
        }
      }
    }
  }
  return failures
})

onEveryTarget('adaptiveAvgPool2d and its gradient', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const layout of layoutNames) {
      for (const shape of shapes) {
        for (const size of [
          [1, 1],
          [2, 3],
          [3, 2],
          [7, 1],
          [5, 9],
        ] as const) {
          const found = adaptiveWindows(
            nd(shape, () => 0),
            size,
          )
          const label = `${dtype} ${layout} [${shape}] to [${size}]`
          const counts = found.members.map((members) => members.length)
          const run = (a: Tensor) => adaptiveAvgPool2d(a, size)
          failures.push(...checkAverage(label, dtype, layout, shape, found, counts, run))
        }
      }
    }
  }
  return failures
})

t.test('a maximum that is NaN, and zeros of both signs', (t) => {
  const max = (values: number[]) => maxPool2d(tensor(values, { shape: [1, 1, 2, 2] }), { kernelSize: 2 }).item()
  t.ok(Number.isNaN(max([1, NaN, 3, 2])))
  t.ok(Number.isNaN(max([NaN, 1, 3, 2])))
  t.ok(Object.is(max([-0, 0, -1, -2]), -0), 'the first of equal ones')
  t.equal(max([-Infinity, -Infinity, -Infinity, -Infinity]), -Infinity)
  t.end()
})

t.test('a window of the whole image averages to its mean', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 40 }), fc.integer(), (h, w, seed) => {
      const x = lay('contiguous', 'float32', random('float32', [2, 1, h, w], seed)).tensor
      const want = read(mean(x, [2, 3], { keepdim: true }))
      const close = () => 4 * h * w * U
      const whole = compare('whole', avgPool2d(x, { kernelSize: [h, w] }), want, close)
      t.same([...whole, ...compare('adaptive', adaptiveAvgPool2d(x, 1), want, close)], [])
    }),
    { numRuns: 40 },
  )
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 6 }), fc.integer(), (k, n, seed) => {
      const x = lay('contiguous', 'float32', random('float32', [1, 2, k * n, k * n], seed)).tensor
      const want = read(avgPool2d(x, { kernelSize: k }))
      t.same(
        compare('even windows', adaptiveAvgPool2d(x, n), want, () => 8 * k * k * U),
        [],
      )
    }),
    { numRuns: 40 },
  )
  t.end()
})

t.test('the last window of ceilMode counts what lies in the padding, not beyond', (t) => {
  const x = full([1, 1, 3, 3], 4)
  const options: AvgPool2dOptions = { kernelSize: 2, ceilMode: true }
  t.same(avgPool2d(x, options).arraySync(), [
    [
      [
        [4, 4],
        [4, 4],
      ],
    ],
  ])
  t.same(avgPool2d(x, { ...options, padding: 1 }).arraySync(), [
    [
      [
        [1, 2],
        [2, 4],
      ],
    ],
  ])
  t.end()
})

t.test('empty batches', (t) => {
  t.same(maxPool2d(zeros([0, 3, 4, 4]), { kernelSize: 2 }).shape, [0, 3, 2, 2])
  const a = wanting(zeros([2, 0, 4, 4]))
  const out = avgPool2d(a, { kernelSize: 2 })
  t.same((gradients(out, zeros([2, 0, 2, 2]))[0] as Tensor).shape, [2, 0, 4, 4])
  t.end()
})

t.test('what pooling refuses', (t) => {
  const x = randn([1, 2, 4, 6])
  const refuses = (options: unknown, message: string, a: Tensor = x) =>
    t.throws(() => maxPool2d(a, options as MaxPool2dOptions), { message })
  refuses(undefined, 'maxPool2d: options must be an object, got undefined')
  refuses({}, 'maxPool2d: kernelSize must be a number or [height, width], got undefined')
  refuses({ kernelSize: [1, 2, 3] }, 'maxPool2d: kernelSize must be a number or [height, width], got [1, 2, 3]')
  refuses({ kernelSize: 0 }, 'maxPool2d: kernelSize must be a whole number from 1 to 16777216, got 0')
  refuses({ kernelSize: 2 ** 25 }, 'maxPool2d: kernelSize must be a whole number from 1 to 16777216, got 33554432')
  refuses({ kernelSize: [2, 2.5] }, 'maxPool2d: kernelSize must be a whole number from 1 to 16777216, got 2.5')
  refuses(
    { kernelSize: 2 ** 13 },
    'maxPool2d: kernelSize [8192, 8192] has more than the 2^24 elements that are possible',
  )
  refuses({ kernelSize: 2, stride: -1 }, 'maxPool2d: stride must be a whole number from 1 to 16777216, got -1')
  refuses({ kernelSize: 2, padding: NaN }, 'maxPool2d: padding must be a whole number from 0 to 16777216, got NaN')
  refuses({ kernelSize: 3, padding: 2 }, 'maxPool2d: padding must be at most half of kernelSize, got [2, 2] for [3, 3]')
  refuses(
    { kernelSize: 4, dilation: 2 ** 23 },
    'maxPool2d: dilation [8388608, 8388608] spreads a window over more than 2^24 elements',
  )
  refuses({ kernelSize: 2, ceilMode: 'no' }, 'maxPool2d: ceilMode must be true or false, got "no"')
  refuses(
    { kernelSize: 5 },
    'maxPool2d: a window of [5, 5], padding [0, 0], dilation [1, 1] does not fit into [1, 2, 4, 6]',
  )
  refuses({ kernelSize: 1 }, 'maxPool2d: x must be [n, channels, height, width], its shape is [2, 2]', zeros([2, 2]))
  refuses({ kernelSize: 1 }, 'maxPool2d: x must be a float tensor, got int32', zeros([1, 1, 2, 2], { dtype: 'int32' }))
  t.throws(() => avgPool2d(x, { kernelSize: 2, countIncludePad: 1 as never }), {
    message: 'avgPool2d: countIncludePad must be true or false, got 1',
  })
  t.throws(() => adaptiveAvgPool2d(x, 0), { code: 'ERR_ARGUMENT' })
  t.throws(() => adaptiveAvgPool2d(zeros([1, 1, 0, 2]), 1), { code: 'ERR_SHAPE' })
  // Strides and windows far beyond the image, and no memory for what they would span.
  t.same(maxPool2d(x, { kernelSize: 2, stride: 2 ** 24 }).shape, [1, 2, 1, 1])
  t.same(maxPool2d(x, { kernelSize: [1, 9], stride: 2 ** 24, ceilMode: true }).shape, [1, 2, 1, 1])
  t.same(maxPool2d(expand(zeros([1]), [1, 1, 3, 3]), { kernelSize: 3 }).arraySync(), [[[[0]]]])
  t.end()
})
