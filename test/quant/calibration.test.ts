// What every observer promises: independence of batches and order, its errors, its answers for degenerate values; and
// what clipping gains. The choices of thresholds have their references in thresholds.test.ts.
import fc from 'fast-check'
import t from 'tap'
import type { Convention } from '#lib/core/quantization'
import {
  type CalibrationName,
  calibrations,
  entropy,
  minMax,
  movingAverage,
  mse,
  type Observer,
  percentile,
} from '#lib/quant/calibration'
import { generator } from '../matrix'
import { errorOf, f32, holds, normals, rangeOf, sample, seed, student } from './values'

const names = Object.keys(calibrations) as CalibrationName[]
const orderless = names.filter((name) => name !== 'movingAverage')

const finite = fc.array(fc.float({ noDefaultInfinity: true, noNaN: true }), { minLength: 1, maxLength: 60 })

holds(
  'neither batches nor order change a range, to the last bit',
  fc.property(finite, seed, (list, s) => {
    const values = Float32Array.from(list)
    const next = generator(s)
    const shuffled = values.map((x) => x)
    for (let i = shuffled.length - 1; i > 0; i--) {
      const j = Math.floor(next() * (i + 1))
      ;[shuffled[i], shuffled[j]] = [shuffled[j] as number, shuffled[i] as number]
    }
    const cuts = [0, ...[next(), next(), next()].map((x) => Math.floor(x * values.length)), values.length]
    cuts.sort((a, b) => a - b) // equal cuts make empty batches
    const batches = cuts.slice(1).map((end, i) => shuffled.slice(cuts[i], end))
    return orderless.every((name) => {
      const whole = rangeOf(calibrations[name](), values)
      const split = rangeOf(calibrations[name](), ...batches)
      return Object.is(whole.min, split.min) && Object.is(whole.max, split.max)
    })
  }),
  40,
)

holds(
  'a range is in order and no wider than the values',
  fc.property(finite, fc.array(fc.double({ min: 1, max: 100 }), { maxLength: 1 }), (list, percents) => {
    const values = Float32Array.from(list)
    const [low, high] = [Math.min(...values), Math.max(...values)]
    const observers = [
      ...names.map((name) => calibrations[name]()),
      ...(['narrow', 'pytorch', 'noClip'] as const).map((convention) => mse({ convention, bins: 5 })),
      ...percents.flatMap((p) => [true, false].map((symmetric) => percentile({ percentile: p, symmetric, bins: 3 }))),
      entropy({ bins: 3, quantizedBins: 2 }),
    ]
    return observers.every((observer) => {
      const { min, max } = rangeOf(observer, values)
      return low <= min && min <= max && max <= high && !Object.is(min, -0) && !Object.is(max, -0)
    })
  }),
  60,
)

t.test('minMax and movingAverage', (t) => {
  const batches = [f32(3, -1, 2), f32(), f32(10), f32(-7, 0.5)]
  t.same(rangeOf(minMax(), ...batches), { min: -7, max: 10 })
  // 10, then 10 is new: 3 + 0.5 * 7 = 6.5; then 6.5 + 0.5 * (0.5 - 6.5) = 3.5
  t.same(rangeOf(movingAverage({ rate: 0.5 }), ...batches), { min: (-1 + 10) / 2 / 2 - 7 / 2, max: 3.5 })
  t.same(rangeOf(movingAverage(), f32(0, 100), f32(-100, 0)), { min: -1, max: 99 }, 'the default rate is 0.01')
  // -2^100 + x is a multiple of 2^48: the average of the minima ends above that of the maxima.
  const x = 1.5 * 2 ** 47
  t.same(rangeOf(movingAverage({ rate: 1 }), f32(-(2 ** 100), 0), f32(x)), { min: 2 ** 48, max: 2 ** 48 })
  t.end()
})

t.test('clipping pays where a few values are far out', (t) => {
  // A million normal values and one of 12. Measured, as factors on the error of minMax: 4.6 to 4.8 for symmetric int8,
  // 2.3 to 2.5 with a zero point, for all three.
  const values = sample(1e6, normals(7))
  values[5] = 12
  const full = rangeOf(minMax(), values)
  const gain = (observer: Observer, convention: Convention) =>
    errorOf(values, full, convention) / errorOf(values, rangeOf(observer, values), convention)
  const observers = (convention: Convention) => [
    percentile(),
    percentile({ symmetric: true }),
    entropy(),
    mse({ convention }),
  ]
  for (const observer of observers('narrow')) {
    const factor = gain(observer, 'narrow')
    t.ok(factor > 4, `${observer.name}, narrow: ${factor}`)
  }
  for (const observer of observers('affine')) {
    const factor = gain(observer, 'affine')
    t.ok(factor > 2, `${observer.name}, affine: ${factor}`)
  }
  // The tails of Student's t are many values: clipping them costs, and only mse weighs it (measured: 1.9).
  const heavy = sample(200000, student(8))
  const range = rangeOf(minMax(), heavy)
  const best = rangeOf(mse({ convention: 'narrow' }), heavy)
  const factor = errorOf(heavy, range, 'narrow') / errorOf(heavy, best, 'narrow')
  t.ok(factor > 1.5, `Student: ${factor}`)
  t.end()
})

t.test('constant, positive, single and extreme values', (t) => {
  const tiny = 2 ** -149
  const huge = Math.fround(3.4e38)
  for (const name of names) {
    const of = (...batches: Float32Array[]) => rangeOf(calibrations[name](), ...batches)
    for (const c of [0, 1, -2.5, tiny, -tiny, huge, -huge]) {
      t.same(of(f32(c)), { min: c, max: c }, `${name}: ${c} alone`)
      t.same(of(f32(c, c, c), f32(c)), { min: c, max: c }, `${name}: ${c} again and again`)
    }
    t.same(of(f32(-0, 0), f32(-0)), { min: 0, max: 0 }, `${name}: zeros of both signs`)
    t.ok(Object.is(of(f32(-0)).min, 0), `${name}: no -0`)
    for (const values of [f32(-huge, huge, 1), f32(0, tiny), f32(-tiny, huge), f32(-huge, -huge / 2)]) {
      const { min, max } = of(values)
      t.ok(Number.isFinite(min) && Number.isFinite(max) && min <= max, `${name}: [${min}, ${max}] of ${values}`)
    }
    const next = normals(21)
    const up = of(sample(5000, () => 3 + Math.abs(next())))
    t.ok(up.min >= 3 && up.max > up.min, `${name}: positive values, [${up.min}, ${up.max}]`)
    const down = of(sample(5000, () => -3 - Math.abs(next())))
    t.ok(down.max <= -3 && down.max > down.min, `${name}: negative values, [${down.min}, ${down.max}]`)
  }
  t.end()
})

t.test('what is wrong is said at once', (t) => {
  const fails = (body: () => unknown, message: RegExp) => t.throws(body, { code: 'ERR_ARGUMENT', message })
  for (const name of names) {
    const observer = calibrations[name]()
    t.equal(observer.name, name)
    const empty = new RegExp(`^${name}: the calibration data was empty`)
    fails(() => observer.range(), empty)
    observer.observe(f32())
    fails(() => observer.range(), empty)
    fails(
      () => observer.observe(f32(1, Number.NaN, 2, Number.NEGATIVE_INFINITY)),
      new RegExp(`^${name}: 2 of 4 calibration values are not finite, the first at index 1: NaN$`),
    )
    fails(
      () => observer.observe(f32(1, 2, Number.POSITIVE_INFINITY)),
      new RegExp(`^${name}: 1 of 3 calibration values is not finite, at index 2: Infinity$`),
    )
    fails(() => observer.range(), empty) // a batch that was refused is not counted, not even in part
    for (const wrong of [null, undefined, 3, [1, 2], new Float64Array(2), 'abc'])
      fails(() => observer.observe(wrong as never), new RegExp(`^${name}: observe takes a Float32Array, got `))
    observer.observe(f32(1, 2))
    t.same(observer.range(), observer.range(), 'asking changes nothing')
    const range = observer.range()
    const before = range.min
    range.min = 99
    t.equal(observer.range().min, before, 'nor does changing the answer')
    observer.reset()
    fails(() => observer.range(), empty)
    t.same(rangeOf(observer, f32(-5, -5)), { min: -5, max: -5 }, 'reset forgets')
  }
  for (const rate of [0, -1, 1.1, Number.NaN, '1', null])
    fails(() => movingAverage({ rate: rate as never }), /^movingAverage: rate must be in \(0, 1\], got /)
  for (const p of [0, -1, 100.1, Number.NaN, '99', null])
    fails(() => percentile({ percentile: p as never }), /^percentile: percentile must be in \(0, 100\], got /)
  fails(() => percentile({ symmetric: 1 as never }), /^percentile: symmetric must be true or false, got 1/)
  for (const make of [percentile, entropy, mse])
    for (const bins of [0, 1, -4, 2.5, Number.NaN, 2 ** 21, '64', null])
      fails(
        () => make({ bins: bins as never }),
        new RegExp(`^${make.name}: bins must be a whole number from 2 to 1048576`),
      )
  for (const quantizedBins of [1, 0, 2.5, '8'])
    fails(
      () => entropy({ quantizedBins: quantizedBins as never }),
      /^entropy: quantizedBins must be a whole number >= 2/,
    )
  fails(() => mse({ dtype: 'float32' as never }), /^mse: dtype must be one of int8, uint8, int4, uint4, got "float32"/)
  fails(() => mse({ convention: 'wide' as never }), /^mse: convention must be one of narrow, pytorch, noClip, affine/)
  fails(() => mse({ dtype: 'uint8', convention: 'narrow' }), /needs a signed format, got uint8/)
  t.end()
})
