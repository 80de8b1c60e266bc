// resize and its gradient against float64.
import fc from 'fast-check'
import t from 'tap'
import { randn, tensor, zeros } from '#lib/ops/create'
import { type ResizeOptions, resize } from '#lib/ops/resize'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, floats, gradients, lay, layoutNames, onEveryTarget, random, read } from '../matrix'
import { nd } from '../oracle/array'
import { ulp, unit } from '../oracle/float'
import { type Ratio, resized } from '../oracle/images'

const U = unit('float32')
const wanting = (a: Tensor): Tensor => Object.assign(a, { requiresGrad: true })

/** PyTorch's rule for where an output lies. */
function ratio(input: number, { mode, alignCorners }: ResizeOptions, out: number, scale?: number): Ratio {
  const step = scale === undefined ? input / out : 1 / scale
  if (alignCorners) return { out, at: (o) => (out > 1 ? (o * (input - 1)) / (out - 1) : 0) }
  if (mode === 'bilinear') return { out, at: (o) => (o + 0.5) * step - 0.5 }
  return { out, at: (o) => (scale === undefined ? Math.floor((o * input) / out) : o / scale) }
}

const cases: ResizeOptions[] = (['nearest', 'bilinear', 'corners'] as const).flatMap((name) => {
  const kind = name === 'nearest' ? { mode: name } : { mode: 'bilinear' as const, alignCorners: name === 'corners' }
  return [
    { size: 1, ...kind },
    { size: [3, 50], ...kind },
    { size: [9, 4], ...kind },
    { scale: 2, ...kind },
    { scale: [1.5, 0.7], ...kind },
  ] as ResizeOptions[]
})

onEveryTarget('resize and its gradient', () => {
  const failures: string[] = []
  for (const dtype of floats) {
    for (const layout of layoutNames) {
      for (const shape of [
        [1, 1, 1, 2],
        [2, 3, 4, 5],
        [1, 2, 7, 40],
        [3, 1, 9, 17],
      ]) {
        for (const options of cases) {
          const x = lay(layout, dtype, random(dtype, shape, 5))
          const [h, w] = shape.slice(2) as [number, number]
          const pair = <T>(p: T | readonly [T, T]): readonly [T, T] =>
            Array.isArray(p) ? (p as [T, T]) : [p as T, p as T]
          const scale = options.scale === undefined ? [undefined, undefined] : pair(options.scale as number)
          const out = options.size === undefined ? [] : pair(options.size as number)
          const axis = (i: 0 | 1, size: number) =>
            ratio(size, options, out[i] ?? Math.floor(size * (scale[i] as number)), scale[i])
          const [rows, columns] = [axis(0, h), axis(1, w)]
          const label = `${dtype} ${layout} [${shape}] ${JSON.stringify(options)}`
          if (rows.out < 1 || columns.out < 1) {
            failures.push(`${label}: no pixels`)
            continue
          }
          const { shape: wanted, parts } = resized(x.values, rows, columns, options.mode === 'nearest')
          const over = (f: (v: number) => number) =>
            nd(wanted, (_, i) =>
              (parts[i] as [number, number][]).reduce((s, [at, u]) => s + u * f(x.values.data[at] as number), 0),
            )
          const want = over((v) => v)
          const top = Math.max(...x.values.data.map(Math.abs))
          // The weights of both axes round to float32 (to 1 at most: one unit each, twice), then three operations an axis.
          const exact = options.mode === 'nearest'
          const tolerance = (_: number, y: number) => (exact ? 0 : 10 * U * top + ulp(dtype, y) / 2)
          const got = resize(wanting(x.tensor), options)
          failures.push(...compare(label, got, want, tolerance))
          const g = lay(layout, dtype, random(dtype, wanted, 6, [-1, 1]))
          const [total, size, terms] = [nd(shape, () => 0), nd(shape, () => 0), nd(shape, () => 0)]
          for (const [i, list] of parts.entries()) {
            for (const [at, u] of list) {
              total.data[at] = (total.data[at] as number) + u * (g.values.data[i] as number)
              size.data[at] = (size.data[at] as number) + Math.abs(g.values.data[i] as number)
              terms.data[at] = (terms.data[at] as number) + 1
            }
          }
          const [da] = gradients(got, g.tensor) as [Tensor]
          failures.push(
            ...compare(
              `${label} da`,
              da,
              total,
              (i, y) => (10 + (terms.data[i] as number)) * U * (size.data[i] as number) + ulp(dtype, y) / 2,
            ),
          )
        }
      }
    }
  }
  return failures
})

t.test('the same size is the same image, and corners stay', (t) => {
  const shape = fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 20 }))
  fc.assert(
    fc.property(shape, shape, fc.integer(), ([h, w], [outH, outW], seed) => {
      const x = lay('contiguous', 'float32', random('float32', [1, 2, h, w], seed)).tensor
      for (const mode of ['nearest', 'bilinear'] as const)
        t.same(compare(mode, resize(x, { size: [h, w], mode }), read(x)), [])
      const corners = read(resize(x, { size: [outH + 1, outW + 1], mode: 'bilinear', alignCorners: true }))
      t.equal(corners.data[0], read(x).data[0])
      t.equal(corners.data[corners.data.length - 1], read(x).data[2 * h * w - 1])
    }),
    { numRuns: 50 },
  )
  t.end()
})

t.test('as PyTorch says in its documentation of Upsample', (t) => {
  const x = tensor([0, 1, 2, 3], { shape: [1, 1, 2, 2] })
  const bilinear = (options: ResizeOptions) =>
    (resize(x, { ...options, mode: 'bilinear' }).arraySync() as number[][][][])[0]
  t.same(resize(x, { scale: 2 }).arraySync(), [
    [
      [
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [2, 2, 3, 3],
        [2, 2, 3, 3],
      ],
    ],
  ])
  t.same(bilinear({ scale: 2 })?.[0]?.[1], [0.5, 0.75, 1.25, 1.5])
  t.match(
    bilinear({ size: 4, alignCorners: true })?.[0]?.[0]?.map((v) => v.toFixed(4)),
    ['0.0000', '0.3333', '0.6667', '1.0000'],
  )
  t.end()
})

t.test('what resize refuses', (t) => {
  const x = randn([1, 2, 4, 6])
  const refuses = (options: unknown, message: string, a: Tensor = x) =>
    t.throws(() => resize(a, options as ResizeOptions), { message })
  refuses(null, 'resize: options must be an object, got null')
  refuses({}, 'resize: either size or scale must be given, got undefined and undefined')
  refuses({ size: 2, scale: 2 }, 'resize: either size or scale must be given, got 2 and 2')
  refuses({ size: 0 }, 'resize: size must be a whole number from 1 to 16777216, got 0')
  refuses({ size: [2] }, 'resize: size must be a number or [height, width], got [2]')
  refuses({ scale: -1 }, 'resize: scale must be a number above 0 or [height, width], got -1')
  refuses({ scale: NaN }, 'resize: scale must be a number above 0 or [height, width], got NaN')
  refuses({ scale: Infinity }, 'resize: scale must be a number above 0 or [height, width], got Infinity')
  refuses({ scale: 1e-300 }, 'resize: cannot make [1, 2, 0, 0] of [1, 2, 4, 6]')
  refuses({ size: 2, mode: 'bicubic' }, "resize: mode must be 'nearest' or 'bilinear', got \"bicubic\"")
  refuses({ size: 2, alignCorners: true }, 'resize: alignCorners must be true (bilinear only) or false, got true')
  refuses({ size: 2 }, 'resize: x must be [n, channels, height, width], its shape is [3]', zeros([3]))
  refuses({ size: 2 }, 'resize: cannot make [1, 1, 2, 2] of [1, 1, 0, 3]', zeros([1, 1, 0, 3]))
  t.throws(() => resize(x, { size: 2 ** 24 }), { code: 'ERR_SHAPE' })
  t.same(resize(zeros([0, 1, 2, 2]), { size: [2 ** 24, 3] }).shape, [0, 1, 2 ** 24, 3])
  t.end()
})
