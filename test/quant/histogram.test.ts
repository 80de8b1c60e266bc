// The bins against a count of the values themselves.
import fc from 'fast-check'
import t from 'tap'
import { Histogram } from '#lib/quant/histogram'

const finite = fc.array(fc.float({ noDefaultInfinity: true, noNaN: true }), { minLength: 1, maxLength: 60 })

t.test('a histogram loses no count as it grows, and every value is in its bin', (t) => {
  const property = fc.property(
    fc.array(finite, { minLength: 1, maxLength: 5 }),
    fc.integer({ min: 2, max: 40 }),
    (lists, bins) => {
      const histogram = new Histogram(bins)
      for (const list of lists) histogram.add(Float32Array.from(list), Math.min(...list), Math.max(...list))
      const values = lists.flat()
      const { width } = histogram
      const { counts, first } = histogram.signed()
      // A negative value lies in the mirrored bin, which is open on the left.
      const place = (x: number) => (x < 0 ? -1 - Math.floor(-x / width) : Math.floor(x / width))
      const wanted = Array.from(counts, () => 0)
      for (const x of values) wanted[place(x) - first] = (wanted[place(x) - first] ?? 0) + 1
      const amax = Math.max(...values.map(Math.abs))
      return (
        wanted.length === counts.length &&
        wanted.every((count, k) => count === counts[k]) &&
        histogram.total === values.length &&
        histogram.zeros === values.filter((x) => x === 0).length &&
        (amax === 0 || (amax / width >= bins && amax / width < 2 * bins)) &&
        histogram.magnitudes().reduce((a, b) => a + b) === values.length
      )
    },
  )
  const result = fc.check(property, { seed: 20240229, numRuns: 200 })
  t.notOk(result.failed, fc.defaultReportMessage(result) ?? '')
  t.end()
})

t.test('bins are as documented', (t) => {
  const histogram = new Histogram(4)
  histogram.add(Float32Array.of(0, 0, -0), 0, 0)
  t.same([...histogram.magnitudes()], [3])
  t.same(histogram.signed(), { counts: Float64Array.of(3), first: 0 })
  // 5 is in [4, 8) bins of width 1; -5 is in the mirrored bin, and so is -4.
  histogram.add(Float32Array.of(5, -5, -4, -1, 0.5), -5, 5)
  t.equal(histogram.width, 1)
  t.same([...histogram.magnitudes()], [4, 1, 0, 0, 1, 2])
  t.same(histogram.signed(), { counts: Float64Array.of(1, 1, 0, 0, 1, 0, 4, 0, 0, 0, 0, 1), first: -6 })
  // 8 needs width 2: pairs are merged.
  histogram.add(Float32Array.of(8), 8, 8)
  t.equal(histogram.width, 2)
  t.same([...histogram.magnitudes()], [5, 0, 3, 0, 1])
  t.equal(histogram.zeros, 3)
  t.equal(histogram.total, 9)
  histogram.reset()
  histogram.add(Float32Array.of(-1), -1, -1)
  t.same(histogram.signed(), { counts: Float64Array.of(1, 0, 0, 0, 0), first: -5 })
  t.equal(histogram.zeros, 0)
  t.end()
})
