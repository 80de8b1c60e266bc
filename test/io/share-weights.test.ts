/** Shared weights: k-means against other formulations of it, and what it leaves alone. */
import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { manualSeed, nn, randn, type Tensor, tensor } from 'kerf'
import { parseCompressed, serializeCompressed, shareWeights } from 'kerf/io'
import t from 'tap'
import { Pauses } from '#lib/core/pauses'
import { kMeans, sortedNonZeros } from '#lib/io/k-means'
import { generator } from '../matrix'

const fail = (): never => {
  throw new Error('not finite')
}
const errorOf = (values: readonly number[], centroids: ArrayLike<number>) =>
  values.reduce((sum, v) => sum + Math.min(...Array.from(centroids, (c) => (v - c) ** 2)), 0)

/** Lloyd as for points in space: every value looks at every centroid, the lower of two equally near ones wins. */
function lloyd(values: readonly number[], k: number): number[] {
  const [low, high] = [Math.min(...values), Math.max(...values)]
  let centroids = Array.from({ length: k }, (_, j) => low + ((high - low) / (k - 1)) * j)
  let clusters: number[][] = []
  for (let before = ''; ; ) {
    clusters = centroids.map(() => [])
    for (const v of values) {
      let nearest = 0
      // |v - a| > |b - v| without the roundings of the differences, which would decide ties.
      for (let j = 1; j < k; j++) if (2 * v > (centroids[nearest] as number) + (centroids[j] as number)) nearest = j
      clusters[nearest]?.push(v)
    }
    centroids = clusters.map((own, j) =>
      own.length === 0 ? (centroids[j] as number) : own.reduce((a, b) => a + b, 0) / own.length,
    )
    const now = JSON.stringify(clusters)
    if (now === before) break
    before = now
  }
  return centroids.filter((_, j) => (clusters[j] as number[]).length > 0)
}

/** The least squared error of k clusters: dynamic programming over where the last one begins. */
function optimum(sorted: readonly number[], k: number): number {
  const cost = (from: number, to: number) => {
    const own = sorted.slice(from, to)
    const mean = own.reduce((a, b) => a + b, 0) / own.length
    return own.reduce((sum, v) => sum + (v - mean) ** 2, 0)
  }
  let best = sorted.map((_, i) => cost(0, i + 1))
  for (let clusters = 2; clusters <= k; clusters++)
    best = best.map((one, i) =>
      sorted.slice(0, i).reduce((b, _, j) => Math.min(b, (best[j] as number) + cost(j + 1, i + 1)), one),
    )
  return best.at(-1) as number
}

// Multiples of 1/8 make midpoints and sums exact, so that ties are decided alike.
const eighths = fc.array(
  fc.integer({ min: -200, max: 200 }).map((v) => v / 8),
  { minLength: 12, maxLength: 60 },
)

t.test('k-means is that of Lloyd, and no better than the optimum', async (t) => {
  await fc.assert(
    fc.asyncProperty(eighths, fc.constantFrom(2, 3, 4, 8), async (values, k) => {
      const sorted = [...values].sort((a, b) => a - b)
      if (new Set(values).size <= k) return
      const centroids = [...(await kMeans(Float32Array.from(sorted), k, new Pauses()))]
      const expected = lloyd(sorted, k)
      t.equal(centroids.length, expected.length)
      // Both divide equal sums by equal counts; what differs is the rounding to float32.
      t.same(centroids, expected.map(Math.fround))
      t.ok(errorOf(sorted, centroids) >= optimum(sorted, k) - 1e-6 * sorted.length)
    }),
  )
  const separated = [1, 1.5, 2, 50, 51, 100, 101, 102].flatMap((v) => [v, v + 0.25])
  const found = await kMeans(Float32Array.from(separated), 3, new Pauses())
  t.same(
    await kMeans(Float32Array.of(1, 1.25, 1.25, 100), 4, new Pauses()),
    [1, 1.25, 100],
    'few values are their own centroids',
  )
  t.ok(Math.abs(errorOf(separated, found) - optimum(separated, 3)) < 1e-4, 'clear clusters are found')
})

t.test('sorting is sorting, without zeros', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.float({ noNaN: true, noDefaultInfinity: true })), async (values) => {
      const expected = Float32Array.from(values.filter((v) => v !== 0)).sort()
      t.same(await sortedNonZeros(Float32Array.from(values), new Pauses(), fail), expected)
    }),
  )
  await t.rejects(sortedNonZeros(Float32Array.of(1, Number.NaN), new Pauses(), fail), /not finite/)
})

t.test('every weight becomes the nearest centroid of its tensor; zeros stay', async (t) => {
  const next = generator(4)
  const before = Float32Array.from({ length: 6000 }, () => (next() < 0.8 ? 0 : next() * next() - 0.3))
  before[17] = -0
  const [w, half, bias] = [
    tensor(before).reshape([60, 100]),
    tensor(before).reshape([100, 60]).to('bfloat16'),
    randn([9]),
  ]
  const [halfBefore, biasBefore] = [(await half.to('float32').data()) as Float32Array, await bias.data()]
  const shared = await shareWeights({ w, half, bias, ids: tensor([[1n, 2n]]) }, { bits: 4 })
  t.same(Object.keys(shared), ['w', 'half'], 'no biases, no integers')
  t.same(await bias.data(), biasBefore)
  const after = (await w.data()) as Float32Array
  const { centroids, mse } = shared.w as { centroids: Float32Array; mse: number }
  t.equal(centroids.length, 16)
  t.same(
    centroids,
    [...centroids].sort((a, b) => a - b),
  )
  let squares = 0
  for (let i = 0; i < before.length; i++) {
    const [old, now] = [before[i] as number, after[i] as number]
    squares += (old - now) ** 2
    if (old === 0 && !Object.is(now, 0)) t.fail(`${i}: ${now}`)
    if (old !== 0 && Math.abs(old - now) !== Math.min(...Array.from(centroids, (c) => Math.abs(old - c))))
      t.fail(`${i}: ${old} -> ${now}`)
  }
  t.ok(Math.abs(mse - squares / before.length) < 1e-12)
  const sum = (of: Float32Array) => of.reduce((a, b) => a + b, 0)
  t.ok(Math.abs(sum(before) - sum(after)) < 1e-3, 'centroids are means: the sum stays')

  const halfAfter = (await half.to('float32').data()) as Float32Array
  t.ok(new Set(halfAfter).size <= 17)
  t.ok(halfAfter.every((v, i) => (v === 0) === (halfBefore[i] === 0)))

  const once = await w.data()
  t.equal((await shareWeights({ w }, { bits: 4 })).w?.mse, 0)
  t.same(await w.data(), once, 'a second time changes nothing')
  await shareWeights({ w: w.to('float32') }, { bits: 1 })
})

t.test('a model, its options, and what the file then is', async (t) => {
  manualSeed(3)
  const model = new nn.Sequential(new nn.Linear(64, 32), new nn.ReLU(), new nn.Linear(32, 8))
  const last = await (model.stateDict()['2.weight'] as Tensor).data()
  const shared = await shareWeights(model, { bits: (name) => (name === '0.weight' ? 3 : 5), skip: ['2.weight'] })
  t.same(Object.keys(shared), ['0.weight'])
  t.equal(shared['0.weight']?.centroids.length, 8)
  t.same(await (model.stateDict()['2.weight'] as Tensor).data(), last)
  await shareWeights(model)
  const x = randn([5, 64])
  const y = await model.forward(x).data()
  const file = await serializeCompressed(model.stateDict())
  const other = new nn.Sequential(new nn.Linear(64, 32), new nn.ReLU(), new nn.Linear(32, 8))
  other.loadStateDict((await parseCompressed(file)).tensors)
  t.same(await other.forward(x).data(), y, 'computes the same bits')

  manualSeed(3)
  const again = new nn.Sequential(new nn.Linear(64, 32), new nn.ReLU(), new nn.Linear(32, 8))
  await shareWeights(again, { bits: (name) => (name === '0.weight' ? 3 : 5), skip: (name) => name === '2.weight' })
  await shareWeights(again)
  const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
  t.equal(digest(await serializeCompressed(again.stateDict())), digest(file), 'deterministic')

  const w = randn([20, 20])
  t.same(Object.keys(await shareWeights({ encoder: w, decoder: w })), ['encoder'], 'tied weights are done once')
  t.same(Object.keys(await shareWeights(new Map([['w', randn([3, 0])]]))), ['w'], 'nothing to do')
})

t.test('only parameters of a model are weights', async (t) => {
  const model = new nn.Linear(40, 40)
  const scale = randn([40, 40])
  const before = await scale.data()
  model.registerBuffer('scale', scale)
  t.same(Object.keys(await shareWeights(model)), ['weight'])
  t.same(await scale.data(), before)
})

t.test('LeNet-300-100, pruned to 8 %, takes a fortieth of its float32 bytes', async (t) => {
  manualSeed(1)
  const dict: Record<string, Tensor> = {}
  for (const [name, shape] of Object.entries({ a: [300, 784], b: [100, 300], c: [10, 100] })) {
    const values = (await randn(shape).data()) as Float32Array
    const limit = Float32Array.from(values, Math.abs).sort()[Math.floor(0.92 * values.length)] as number
    dict[`${name}.weight`] = tensor(values.map((v) => (Math.abs(v) < limit ? 0 : v))).reshape(shape)
    dict[`${name}.bias`] = randn(shape.slice(0, 1))
  }
  await shareWeights(dict, { bits: 5 })
  const file = await serializeCompressed(dict)
  const bytes = Object.values(dict).reduce((sum, { bytes }) => sum + bytes, 0)
  t.equal(bytes, 4 * 266_610)
  t.ok(bytes / file.length > 39.5, `${file.length} bytes, ${bytes / file.length} times less`)
  const { tensors } = await parseCompressed(file)
  for (const [name, x] of Object.entries(dict)) t.same(await tensors[name]?.data(), await x.data(), name)
})

t.test('layers forget what they derived from their weights', async (t) => {
  class Probe extends nn.Linear {
    told = 0
    protected override stateLoaded(): void {
      this.told++
    }
  }
  const layer = new Probe(40, 40)
  await shareWeights(layer)
  t.equal(layer.told, 1)
})

t.test('wrong arguments change nothing', async (t) => {
  const good = randn([10, 10])
  const before = await good.data()
  const bad = tensor([[1, Number.NaN]])
  await t.rejects(shareWeights({ good, bad }), {
    code: 'ERR_ARGUMENT',
    message: /"bad" has a weight that is not finite: NaN/,
  })
  t.same(await good.data(), before)
  const gone = randn([10, 10])
  const pending = shareWeights({ good, gone }, { bits: 2 })
  gone.dispose()
  await t.rejects(pending, { code: 'ERR_DISPOSED' })
  t.same(await good.data(), before)
  for (const bits of [0, 16, 2.5, '5', Number.NaN])
    await t.rejects(shareWeights({ good }, { bits } as never), { code: 'ERR_ARGUMENT', message: /bits of "good"/ })
  await t.rejects(shareWeights({ good }, { skip: ['none'] }), {
    code: 'ERR_ARGUMENT',
    message: /no tensor has the name "none"/,
  })
  await t.rejects(shareWeights({ good }, { skip: 'good' as never }), { code: 'ERR_ARGUMENT' })
  for (const target of [null, 3, [good], { good: 1 }])
    await t.rejects(shareWeights(target as never), { code: 'ERR_ARGUMENT' })
})
