// Thresholds against slow references that work on the values themselves: sorted values, a KL search and searches of all
// ranges written from their definitions, in float64.
import fc from 'fast-check'
import t from 'tap'
import type { Convention, QuantDType } from '#lib/core/quantization'
import { entropy, minMax, mse, percentile, type Range } from '#lib/quant/calibration'
import { binWidth, errorOf, f32, holds, laplace, normals, rangeOf, sample, seed, student } from './values'

t.test('percentile is within a bin of the sorted values', (t) => {
  const n = 20011 // no share of it is whole
  const next = normals(5)
  for (const [label, draw] of [
    ['normal', normals(3)],
    ['Student', student(4)],
    ['positive', () => Math.abs(next()) + 1],
  ] as const) {
    const values = sample(n, draw)
    const sorted = values.slice().sort()
    const magnitudes = values.map(Math.abs).sort()
    for (const bins of [64, 2048])
      for (const p of [50, 90, 99.9, 99.99, 100]) {
        const width = binWidth(values, bins)
        const outside = Math.floor((n * (100 - p)) / 200)
        const found = rangeOf(percentile({ percentile: p, bins }), values)
        const low = sorted[outside] as number
        const high = sorted[n - 1 - outside] as number
        t.ok(Math.abs(found.min - low) <= width, `${label} ${bins} ${p}: min ${found.min}, ${low}`)
        t.ok(Math.abs(found.max - high) <= width, `${label} ${bins} ${p}: max ${found.max}, ${high}`)
        const threshold = magnitudes[n - 1 - Math.floor((n * (100 - p)) / 100)] as number
        const both = rangeOf(percentile({ percentile: p, bins, symmetric: true }), values)
        t.ok(Math.abs(both.max - threshold) <= width, `${label} ${bins} ${p}: |x| ${both.max}, ${threshold}`)
        t.equal(both.min, Math.max(-both.max, sorted[0] as number))
        // Mirrored values give the mirrored range: what is computed on one side is computed on the other.
        const mirrored = rangeOf(
          percentile({ percentile: p, bins }),
          values.map((x) => -x),
        )
        t.ok(Math.abs(mirrored.min + found.max) <= 1e-9 * found.max, `${label} ${bins} ${p}: mirrored max`)
        t.ok(Math.abs(mirrored.max + found.min) <= 1e-9 * found.max, `${label} ${bins} ${p}: mirrored min`)
      }
  }
  t.end()
})

/** The search as its definition reads: one distribution after the other, bin by bin. */
function slowEntropy(values: Float32Array, bins: number, levels: number): number {
  const width = binWidth(values, bins)
  const counts: number[] = []
  for (const x of values) {
    const k = Math.floor(Math.abs(x) / width)
    while (counts.length <= k) counts.push(0)
    ;(counts[k] as number)++
  }
  counts[0] = counts[1] as number
  const sum = (list: number[]) => list.reduce((a, b) => a + b, 0)
  const divergences = new Map<number, number>()
  for (let i = levels; i <= counts.length; i++) {
    const p = counts.slice(0, i)
    const q = p.slice()
    for (let level = 0; level < levels; level++) {
      const members = p.map((_, k) => k).filter((k) => Math.floor((k * levels) / i) === level && (p[k] as number) > 0)
      const mean = sum(members.map((k) => p[k] as number)) / members.length
      for (const k of members) q[k] = mean
    }
    p[i - 1] = (p[i - 1] as number) + sum(counts.slice(i))
    const [ps, qs] = [sum(p), sum(q)]
    const terms = p.map((x, k) => (x === 0 ? 0 : (x / ps) * Math.log(x / ps / ((q[k] as number) / qs))))
    divergences.set(i, sum(terms))
  }
  const least = Math.min(...[...divergences.values()].filter((x) => !Number.isNaN(x)))
  const last = [...divergences].filter(([, x]) => x <= least + 1e-10).at(-1) as [number, number]
  return last[0] * width
}

t.test('entropy is the search of its definition', (t) => {
  for (let s = 1; s <= 12; s++) {
    const draw = [normals, laplace, student][s % 3] as (seed: number) => () => number
    const next = draw(s)
    const values = sample(3000, s % 2 ? next : () => Math.max(0, next()))
    for (const [bins, quantizedBins] of [
      [40, 8],
      [64, 63],
      [150, 16],
      [128, 127],
    ] as const) {
      const found = rangeOf(entropy({ bins, quantizedBins }), values)
      const { min, max } = rangeOf(minMax(), values)
      const threshold = slowEntropy(values, bins, quantizedBins)
      t.same(
        found,
        { min: Math.max(min, -threshold), max: Math.min(max, threshold) },
        `${s}: ${bins}, ${quantizedBins}`,
      )
    }
  }
  t.end()
})

t.test('entropy clips outliers: 100,000 normal values with 25 and -20', (t) => {
  for (let s = 1; s <= 5; s++) {
    const values = sample(100002, normals(s))
    values.set([25, -20], 50000)
    // As many bins as levels would leave one candidate, (-20, 25). Measured: 3.97 to 4.56, just where the normal values
    // end; pytorch-quantization's formula in NumPy has 3.98 to 4.15, onnxruntime's own over 2048 signed bins about 4.8.
    const { min, max } = rangeOf(entropy(), values)
    t.equal(min, -max)
    t.ok(max > 3.9 && max < 4.8, `seed ${s}: ${max}`)
  }
  const values = sample(5000, normals(1))
  t.throws(() => entropy({ bins: 128 }), {
    code: 'ERR_ARGUMENT',
    message: /nothing is left to choose; got 128 and 128/,
  })
  // The zeros of a ReLU change nothing.
  const positive = values.map((x) => Math.max(0, x))
  t.same(rangeOf(entropy(), positive, new Float32Array(1e6)), rangeOf(entropy(), positive))
  // Of two values both thresholds lose nothing, but for rounding: the last one wins, and nothing is clipped.
  for (let n = 1; n <= 100; n++) {
    t.same(rangeOf(entropy(), new Float32Array(n).fill(10), f32(100, 100, 100)), { min: 10, max: 100 }, `${n} and 3`)
  }
  t.end()
})

/** The least error that any range of a grid has on the values themselves. */
function slowMse(values: Float32Array, convention: Convention, dtype: QuantDType, steps: number): number {
  const { min, max } = rangeOf(minMax(), values)
  const amax = Math.max(-min, max)
  const shares = Array.from({ length: steps }, (_, i) => (i + 1) / steps)
  const ranges: Range[] =
    convention === 'affine'
      ? shares.flatMap((low) => shares.map((high) => ({ min: Math.min(0, low * min), max: high * max })))
      : shares.map((share) => ({ min: -share * amax, max: share * amax }))
  return Math.min(...ranges.map((range) => errorOf(values, range, convention, dtype)))
}

t.test('mse finds the threshold of least error, and the two ends of least error', (t) => {
  // Half a bin beside the best threshold costs little; so does that a histogram forgets where in its bin a value is.
  const slack = 1.03
  for (const dtype of ['int8', 'int4'] as const)
    for (const [label, draw] of [
      ['normal', normals(11)],
      ['Laplace', laplace(12)],
      ['Student', student(13)],
    ] as const) {
      const values = sample(2000, draw)
      const full = rangeOf(minMax(), values)
      for (const convention of ['narrow', 'pytorch', 'noClip'] as const) {
        const range = rangeOf(mse({ dtype, convention }), values)
        const threshold = Math.max(-range.min, range.max)
        t.same(
          range,
          { min: Math.max(full.min, -threshold), max: Math.min(full.max, threshold) },
          'symmetric, cut down',
        )
        const found = errorOf(values, range, convention, dtype)
        const wanted = slowMse(values, convention, dtype, 400)
        t.ok(found <= slack * wanted, `${label}, ${dtype}, ${convention}: ${found}, brute force has ${wanted}`)
      }
      for (const values2 of [values, values.map((x) => (x > 0 ? x : x / 20)), values.map((x) => Math.max(0, x))]) {
        const found = errorOf(values2, rangeOf(mse({ dtype }), values2), 'affine', dtype)
        const wanted = slowMse(values2, 'affine', dtype, 40)
        t.ok(found <= slack * wanted, `${label}, ${dtype}, affine: ${found}, brute force has ${wanted}`)
      }
    }
  t.end()
})

t.test('mse counts values as spread over their bin, and zeros as zeros', (t) => {
  // A few wide bins, against points spread over them and the same candidates.
  const [bins, perBin] = [6, 60]
  const full = sample(300, laplace(14))
  for (const values of [full, full.map((x) => Math.max(0, x)), full.map((x) => x - 20)]) {
    const width = binWidth(values, bins)
    const inBin = (x: number, i: number) => (x === 0 ? 0 : (Math.floor(x / width) + (i + 1 / 2) / perBin) * width)
    const points = sample(values.length * perBin, (i) => inBin(values[Math.floor(i / perBin)] as number, i % perBin))
    const { min, max } = rangeOf(minMax(), values)
    const edges = Array.from({ length: 4 * bins + 1 }, (_, i) => (i - 2 * bins) * width)
    const lows = [min, ...edges.filter((x) => min < x && x <= 0)]
    const highs = [max, ...edges.filter((x) => 0 <= x && x < max)]
    const candidates = {
      affine: lows.flatMap((low) => highs.map((high) => [low, high] as const)),
      narrow: [...lows.map((x) => -x), ...highs]
        .filter((x) => x > 0)
        .map((x) => [Math.max(min, -x), Math.min(max, x)] as const),
    }
    for (const dtype of ['int8', 'int4'] as const)
      for (const convention of ['affine', 'narrow'] as const) {
        const error = (range: Range) => errorOf(points, range, convention, dtype)
        const ranges = candidates[convention].filter(([low, high]) => low < high)
        const wanted = Math.min(...ranges.map(([low, high]) => error({ min: low, max: high })))
        const found = error(rangeOf(mse({ bins, dtype, convention }), values))
        t.ok(Math.abs(found / wanted - 1) < 1e-3, `[${min}, ${max}], ${dtype}, ${convention}: ${found}, ${wanted}`)
      }
  }
  // The zeros of a ReLU change nothing.
  const positive = sample(5000, laplace(15)).map((x) => Math.max(0, x))
  positive[0] = 100
  t.same(rangeOf(mse({ bins: 64 }), positive, new Float32Array(1e6)), rangeOf(mse({ bins: 64 }), positive))
  // Quantized as if [0, 0] were a range, with scale 1, these would have the least error.
  const whole = sample(30000, (i) => (i * 15) / 30000)
  whole[1] = 20
  t.same(rangeOf(mse({ bins: 8, dtype: 'uint4' }), whole), { min: 0, max: 16 })
  t.end()
})

holds(
  'mse is no worse than minMax on the values themselves',
  fc.property(seed, fc.integer({ min: 20, max: 3000 }), fc.constantFrom(normals, laplace, student), (s, n, draw) => {
    const values = sample(n, draw(s))
    const full = rangeOf(minMax(), values)
    // The histogram knows the squared errors of rounding as uniform ones. Of n such their mean is off by
    // sqrt(0.8 / n) of itself, and two of them are compared.
    const slack = 1 + 3 * Math.sqrt((2 * 0.8) / n)
    return (['narrow', 'affine'] as const).every((convention) => {
      const best = rangeOf(mse({ convention }), values)
      return errorOf(values, best, convention) <= slack * errorOf(values, full, convention)
    })
  }),
  30,
)
