// SmoothQuant's scales against their formula, and the identity that lets a network use them.
import t from 'tap'
import { smoothScales } from '#lib/quant/smooth'
import { normal, normalWeights } from './data'

const [OUT, INPUTS, ROWS] = [11, 24, 9]
const at = (a: ArrayLike<number>, i: number) => a[i] as number

t.test('s = max|X|^alpha / max|W|^(1 - alpha)', (t) => {
  const w = normalWeights(1, OUT, INPUTS)
  const next = normal(2)
  const actMax = Float32Array.from({ length: INPUTS }, () => Math.exp(2 * next()))
  for (const alpha of [undefined, 0, 0.3, 0.75, 1]) {
    const s = smoothScales(actMax, w, OUT, INPUTS, alpha === undefined ? undefined : { alpha })
    const a = alpha ?? 0.5
    const wanted = Array.from({ length: INPUTS }, (_, j) => {
      const column = Array.from({ length: OUT }, (_, o) => Math.abs(at(w, o * INPUTS + j)))
      return at(actMax, j) ** a / Math.max(...column) ** (1 - a)
    })
    t.same([...s], wanted.map(Math.fround), `alpha ${alpha}`)
  }
  t.end()
})

t.test('channels without activations or weights get 1, and neither weights nor scales count as less than 1e-5', (t) => {
  const w = Float32Array.of(0, 1, 1e4, 1e-30, 0, -1, 1e4, 0)
  const s = smoothScales(Float32Array.of(4, 0, 1e-12, 4), w, 2, 4)
  t.same([...s], [1, 1, 1e-5, 2 / Math.sqrt(1e-5)].map(Math.fround))
  const edge = smoothScales(Float32Array.of(3.4e38), Float32Array.of(2 ** -149), 1, 1)
  t.ok(Number.isFinite(edge[0]), `${edge[0]}`)
  t.end()
})

t.test('(X / s) (W * s)^T = X W^T, and the outliers of X are gone', (t) => {
  const w = normalWeights(3, OUT, INPUTS)
  const next = normal(4)
  const x = Float32Array.from({ length: ROWS * INPUTS }, (_, i) => next() * (i % INPUTS === 5 ? 100 : 1))
  const max = (v: Float32Array) =>
    Float32Array.from({ length: INPUTS }, (_, j) => Math.max(...v.filter((_, i) => i % INPUTS === j).map(Math.abs)))
  const s = smoothScales(max(x), w, OUT, INPUTS)
  const smoothX = x.map((v, i) => v / at(s, i % INPUTS))
  const smoothW = w.map((v, i) => v * at(s, i % INPUTS))
  let worst = 0
  for (let r = 0; r < ROWS; r++) {
    for (let o = 0; o < OUT; o++) {
      let [plain, smooth, magnitude] = [0, 0, 0]
      for (let j = 0; j < INPUTS; j++) {
        const term = at(x, r * INPUTS + j) * at(w, o * INPUTS + j)
        plain += term
        magnitude += Math.abs(term)
        smooth += at(smoothX, r * INPUTS + j) * at(smoothW, o * INPUTS + j)
      }
      worst = Math.max(worst, Math.abs(plain - smooth) / magnitude)
    }
  }
  t.ok(worst <= 1e-6, `off by ${worst}`) // two roundings of 2^-24 a term
  const spread = (v: Float32Array) => Math.max(...max(v)) / Math.min(...max(v))
  t.ok(spread(smoothX) < spread(x) / 5, `${spread(x)} to ${spread(smoothX)}`)
  t.end()
})

t.test('bad arguments are errors that name them', (t) => {
  const w = new Float32Array(6)
  const x = new Float32Array(3)
  const fails = (message: RegExp, ...args: unknown[]) =>
    t.throws(() => smoothScales(...(args as Parameters<typeof smoothScales>)), { code: 'ERR_ARGUMENT', message })
  fails(/actMax must be a Float32Array\(3\), got Float32Array\(2\)/, new Float32Array(2), w, 2, 3)
  fails(/w must be a Float32Array\(6\), got null/, x, null, 2, 3)
  fails(/out must be .* got 0/, x, w, 0, 3)
  fails(/actMax must be finite and >= 0, got -1 at 2/, Float32Array.of(0, 0, -1), w, 2, 3)
  fails(/actMax must be finite and >= 0, got NaN at 1/, Float32Array.of(0, Number.NaN, 0), w, 2, 3)
  fails(/w must be finite, got NaN in row 1, column 2/, x, Float32Array.of(0, 0, 0, 0, 0, Number.NaN), 2, 3)
  for (const alpha of [-0.1, 1.1, Number.NaN, '0.5'])
    fails(new RegExp(`alpha must be .* got .?${alpha}`), x, w, 2, 3, { alpha })
  t.end()
})
