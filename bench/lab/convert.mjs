// How good the choices of prune.convert(model, 'auto') are: each layer is converted, then all formats are timed against each
// other for much longer than convert does, and the chosen one is compared with the best of them.
//
//   npm run build && node bench/lab/convert.mjs [threads]
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)
const { nn, noGrad, prune, tensor } = require('../../dist/index.js')
const { choose, targetName } = require('../../dist/native/load.js')
const { syncBlocking } = require('../../dist/native/stream.js')

choose(targetName(), Number(process.argv[2] ?? 1))

let state = 1
const uniform = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return state / 2 ** 32
}

/** Weights in a pattern: each function fills a row-major matrix with so many columns. */
const patterns = {
  scattered: (zeros) => (w) => w.map(() => (uniform() < zeros ? 0 : uniform() - 0.5)),
  '2:4': () => (w) => w.map((_, i) => ((i + Math.floor(i / 4)) % 2 ? 0 : uniform() - 0.5)),
  blocks: (zeros) => (w) => {
    for (let at = 0; at < w.length; at += 16)
      if (uniform() >= zeros) for (let i = at; i < at + 16; i++) w[i] = uniform() - 0.5
    return w
  },
}

function layer(n, k, fill) {
  const made = new nn.Linear(k, n)
  made.loadStateDict({
    weight: tensor(fill(new Float32Array(n * k)), { shape: [n, k] }),
    bias: tensor(new Float32Array(n)),
  })
  return new nn.Sequential(made).eval()
}

function times(models, x, ms) {
  const best = models.map(() => Number.POSITIVE_INFINITY)
  const end = performance.now() + ms
  while (performance.now() < end) {
    for (const [i, model] of models.entries()) {
      const calls = Math.max(1, Math.round(0.4 / best[i]))
      const start = performance.now()
      noGrad(() => {
        for (let call = 0; call < calls; call++) model.forward(x).dispose()
      })
      syncBlocking()
      best[i] = Math.min(best[i], (performance.now() - start) / calls)
    }
  }
  return best
}

const cases = [256, 1024, 2048].flatMap((n) =>
  [1, 8, 32, 256].flatMap((rows) => [
    ...[0.4, 0.5, 0.6, 0.7, 0.8, 0.9].map((zeros) => ({
      n,
      rows,
      name: `scattered ${zeros}`,
      fill: patterns.scattered(zeros),
    })),
    { n, rows, name: '2:4', fill: patterns['2:4']() },
    { n, rows, name: 'blocks 0.6', fill: patterns.blocks(0.6) },
  ]),
)

let worst = 1
let over = 0
for (const { n, rows, name, fill } of cases) {
  const model = layer(n, n, fill)
  const formats = [
    'csr',
    ...(name === '2:4' ? ['2:4'] : []),
    ...(name.startsWith('blocks') ? [{ block: [1, 16] }] : []),
  ]
  const models = [model]
  for (const format of formats) {
    const other = layer(n, n, (w) => w)
    other.loadStateDict(model.stateDict())
    models.push((await prune.convert(other, format)).model)
  }
  const converted = layer(n, n, (w) => w)
  converted.loadStateDict(model.stateDict())
  const { layers } = await prune.convert(converted, 'auto', { rows })
  const chosen = JSON.stringify(layers[0].format)
  const x = tensor(Float32Array.from({ length: rows * n }, uniform), { shape: [rows, n] })
  const best = times(models, x, 400)
  const keys = ['"dense"', ...formats.map((format) => JSON.stringify(format))]
  const ratio = best[keys.indexOf(chosen)] / Math.min(...best)
  worst = Math.max(worst, ratio)
  if (ratio > 1.1) over++
  const all = keys.map((key, i) => `${key} ${(1000 * best[i]).toFixed(1)}`).join(', ')
  console.log(`${n} x ${n}, ${rows} rows, ${name}: ${chosen}, ${ratio.toFixed(2)} of the best (us: ${all})`)
}
console.log(`${cases.length} layers: worst ${worst.toFixed(2)} of the best, ${over} over 1.1`)
