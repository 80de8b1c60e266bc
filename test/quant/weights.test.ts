// Round-to-nearest weight quantization against float64 loops, its error bound, and the errors its modes make.
import t from 'tap'
import { dequantizeWeights, quantizeWeights, type WeightOptions } from '#lib/quant/weights'
import { generator } from '../matrix'
import { modes, normalWeights, oracleCode, oracleGrid, squaredError } from './data'

const u = 2 ** -24 // unit roundoff of float32
const [OUT, INPUTS] = [7, 83]
const groupSizes = [1, 16, 32, INPUTS, 1000]
const at = (a: ArrayLike<number> | null, i: number) => a?.[i] ?? 0

/** Mean squared error of quantizing w with some options. */
function mse(w: Float32Array, out: number, inputs: number, options: WeightOptions): number {
  return squaredError(w, dequantizeWeights(quantizeWeights(w, out, inputs, options))) / w.length
}

t.test('codes, scales and zero points are those of a loop over the definition', (t) => {
  for (const mode of modes) {
    for (const groupSize of groupSizes) {
      const w = normalWeights(groupSize, OUT, INPUTS)
      const q = quantizeWeights(w, OUT, INPUTS, { ...mode, groupSize })
      const groups = Math.ceil(INPUTS / groupSize)
      const wanted = { codes: [] as number[], scale: [] as number[], zero: [] as number[] }
      for (let o = 0; o < OUT; o++) {
        for (let g = 0; g < groups; g++) {
          const row = [...w.subarray(o * INPUTS, (o + 1) * INPUTS)].slice(g * groupSize, (g + 1) * groupSize)
          const grid = oracleGrid(row, mode.bits, mode.symmetric)
          wanted.scale.push(grid.scale)
          wanted.zero.push(grid.zero)
          wanted.codes.push(...row.map((x) => oracleCode(x, grid)))
        }
      }
      const name = `${JSON.stringify(mode)}, groups of ${groupSize}`
      t.same([...q.codes], wanted.codes, `codes, ${name}`)
      t.same([...q.scale], wanted.scale, `scales, ${name}`)
      t.same(q.zeroPoint && [...q.zeroPoint], mode.symmetric ? null : wanted.zero, `zero points, ${name}`)
    }
  }
  t.end()
})

t.test('numbers by hand', (t) => {
  const q4 = (w: number[], symmetric = true) =>
    quantizeWeights(Float32Array.from(w), 1, w.length, { bits: 4, groupSize: w.length, symmetric })
  const negative = q4([-4, 3.5, 1, 0, 0.25, 0.75])
  t.same([...negative.codes], [-8, 7, 2, 0, 0, 2], 'ties go to the even code')
  t.same([...negative.scale], [0.5])
  const positive = q4([4, -3.5, 1, 0])
  t.same([...positive.codes], [-8, 7, -2, 0], 'a positive extreme makes the scale negative')
  t.same([...positive.scale], [-0.5])
  t.same([...dequantizeWeights(positive)], [4, -3.5, 1, 0])
  t.same([...q4([4, -4, 3]).codes], [7, -8, 6], 'the opposite of the extreme is clipped')
  const affine = q4([-5, 10, 0, 7], false)
  t.same([...affine.codes], [-8, 7, -3, 4])
  t.same([...affine.scale, ...(affine.zeroPoint as Int32Array)], [1, -3])
  const q8 = quantizeWeights(Float32Array.of(-12.7, 6.4, 12.7), 1, 3, { bits: 8, groupSize: 3, symmetric: true })
  t.same([...q8.codes], [-127, 64, 127])
  t.end()
})

t.test('|w - dequantized| is at most half a step, one where 4 symmetric bits clip', (t) => {
  for (const mode of modes) {
    for (const groupSize of groupSizes) {
      const w = normalWeights(groupSize + 1, 40, INPUTS)
      const q = quantizeWeights(w, 40, INPUTS, { ...mode, groupSize })
      const back = dequantizeWeights(q)
      const groups = Math.ceil(INPUTS / groupSize)
      // Roundings, each u of at most 2^bits steps: the scale (two, with the difference of an affine range), the
      // quotient and the product.
      const slack = 4 * u * 2 ** mode.bits
      let worst = 0
      let clipped = 0
      for (let i = 0; i < w.length; i++) {
        const row = Math.floor(i / INPUTS)
        const scale = at(q.scale, row * groups + Math.floor((i % INPUTS) / groupSize))
        const beyond = mode.symmetric && mode.bits === 4 && at(w, i) / scale > 7.5
        const steps = Math.abs(at(w, i) - at(back, i)) / Math.abs(scale)
        if (beyond) clipped = Math.max(clipped, steps)
        else worst = Math.max(worst, steps)
      }
      t.ok(worst <= 0.5 + slack && clipped <= 1 + slack, `${JSON.stringify(mode)}, ${groupSize}: ${worst} ${clipped}`)
    }
  }
  t.end()
})

t.test('more bits and smaller groups make smaller errors', (t) => {
  for (const symmetric of [true, false]) {
    const sums = { 4: [0, 0, 0, 0, 0], 8: [0, 0, 0, 0, 0] }
    const sizes = [16, 32, 64, 128, 512]
    for (let seed = 1; seed <= 5; seed++) {
      const w = normalWeights(seed, 16, 512)
      for (const bits of [4, 8] as const) {
        for (const [i, groupSize] of sizes.entries())
          sums[bits][i] = at(sums[bits], i) + mse(w, 16, 512, { bits, groupSize, symmetric })
      }
    }
    for (let i = 0; i < sizes.length; i++) {
      const [four, eight] = [at(sums[4], i), at(sums[8], i)]
      t.ok(eight < four / 100, `groups of ${sizes[i]}, 8 bits: ${four / eight} times better`) // 16 times finer steps
      if (i === 0) continue
      t.ok(at(sums[4], i - 1) <= four && at(sums[8], i - 1) <= eight, `${sizes[i - 1]} no worse than ${sizes[i]}`)
    }
  }
  t.end()
})

t.test('a scale an output is no worse than one for the matrix', (t) => {
  for (const mode of modes) {
    const next = generator(9)
    const spread = Array.from({ length: 16 }, () => 4 ** next())
    const w = normalWeights(3, 16, 128).map((x, i) => x * at(spread, Math.floor(i / 128)))
    const perChannel = mse(w, 16, 128, { ...mode, groupSize: 128 })
    const perTensor = mse(w, 1, 16 * 128, { ...mode, groupSize: 16 * 128 })
    t.ok(perChannel <= 0.7 * perTensor, `${JSON.stringify(mode)}: ${perChannel / perTensor}`)
  }
  t.end()
})

t.test('4 symmetric bits: a signed extreme / -8 beats amax / 7 by the factors that the documentation names', (t) => {
  const narrow = (w: Float32Array, size: number) => {
    let sum = 0
    for (let from = 0; from < w.length; from += size) {
      const group = [...w.subarray(from, from + size)]
      const scale = Math.max(...group.map(Math.abs)) / 7
      for (const x of group) sum += (Math.round(x / scale) * scale - x) ** 2
    }
    return sum / w.length
  }
  for (const size of [32, 128]) {
    const next = generator(size)
    for (const [w, low, high] of [
      [normalWeights(size, 256, size), 0.74, 0.8],
      [Float32Array.from({ length: 256 * size }, () => 2 * next() - 1), 0.88, 0.94],
    ] as const) {
      const factor = mse(w, 256, size, { bits: 4, groupSize: size, symmetric: true }) / narrow(w, size)
      t.ok(factor > low && factor < high, `groups of ${size}: ${factor}`)
    }
  }
  t.end()
})

t.test('zeros, and ranges that float32 hardly holds', (t) => {
  for (const mode of modes) {
    const name = JSON.stringify(mode)
    const zeros = quantizeWeights(Float32Array.of(0, -0, 0, 1, 2, 0), 2, 3, { ...mode, groupSize: 3 })
    t.same([...zeros.codes.subarray(0, 3)], [0, 0, 0], `codes of zeros, ${name}`)
    t.equal(zeros.scale[0], 1, `scale of zeros, ${name}`)
    t.equal(dequantizeWeights(zeros)[5], 0, `0 is exact, ${name}`)
    const tiny = quantizeWeights(Float32Array.of(2 ** -149, 0, -(2 ** -149)), 1, 3, { ...mode, groupSize: 3 })
    t.ok(
      dequantizeWeights(tiny).every((x) => Math.abs(x) <= 2 ** -149),
      `subnormal weights, ${name}`,
    )
    const large = quantizeWeights(Float32Array.of(3e38, 1e38), 1, 2, { ...mode, groupSize: 2 })
    const off = Math.abs(at(dequantizeWeights(large), 1) - 1e38)
    t.ok(off < 1.001 * (3e38 / 16), `large weights, ${name}: ${off}`) // half of the coarsest step
    t.throws(
      () => quantizeWeights(Float32Array.of(1, 3e38, -3e38, 0), 1, 4, { ...mode, groupSize: 3 }),
      { code: 'ERR_ARGUMENT', message: /row 0, group 0/ },
      `a range beyond float32, ${name}`,
    )
  }
  t.end()
})

t.test('bad arguments are errors that name them', (t) => {
  const w = new Float32Array(12)
  const good = { bits: 4, groupSize: 2, symmetric: true } as const
  const fails = (message: RegExp, ...args: unknown[]) =>
    t.throws(() => quantizeWeights(...(args as Parameters<typeof quantizeWeights>)), { code: 'ERR_ARGUMENT', message })
  fails(/w must be a Float32Array\(12\), got Float32Array\(11\)/, new Float32Array(11), 3, 4, good)
  fails(/w must be a Float32Array\(12\), got \[0\]/, [0], 3, 4, good)
  fails(/out must be .* got -3/, w, -3, -4, good)
  fails(/inputs must be .* got 0/, w, 3, 0, good)
  fails(/options must be an object, got undefined/, w, 3, 4)
  fails(/bits must be 4 or 8, got 5/, w, 3, 4, { ...good, bits: 5 })
  fails(/groupSize must be .* got 0/, w, 3, 4, { ...good, groupSize: 0 })
  fails(/groupSize must be .* got 1.5/, w, 3, 4, { ...good, groupSize: 1.5 })
  fails(/symmetric must be true or false, got undefined/, w, 3, 4, { bits: 4, groupSize: 2 })
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
    const hostile = w.slice()
    hostile[7] = bad
    fails(new RegExp(`w must be finite, got ${bad} in row 1, column 3`), hostile, 3, 4, good)
  }
  const q = quantizeWeights(w, 3, 4, { ...good, symmetric: false })
  const short = (message: RegExp, change: object) =>
    t.throws(() => dequantizeWeights({ ...q, ...change }), { code: 'ERR_ARGUMENT', message })
  short(/codes must be a Int8Array\(12\), got Int8Array\(5\)/, { codes: new Int8Array(5) })
  short(/scale must be a Float32Array\(6\), got Float32Array\(3\)/, { scale: new Float32Array(3) })
  short(/zeroPoint must be a Int32Array\(6\), got Uint8Array\(6\)/, { zeroPoint: new Uint8Array(6) })
  short(/groupSize must be .* got 0/, { groupSize: 0 })
  t.throws(() => dequantizeWeights(undefined as never), { code: 'ERR_ARGUMENT', message: /out must be/ })
  t.end()
})
