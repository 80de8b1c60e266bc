// What bench/gpu.sh left in a folder becomes a short report and bench/results/<card>.json; ends with 1 where a cu::
// function differs from the emulator or a product is wrong. `report.mjs [--dry] FOLDER`
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'

const dry = process.argv[2] === '--dry'
const folder = process.argv[dry ? 3 : 2]
if (!folder) throw new Error('report.mjs [--dry] FOLDER')

const lines = (name) => {
  const file = path.join(folder, name)
  if (!existsSync(file)) return []
  const text = readFileSync(file, 'utf8').trim()
  return text ? text.split('\n').map((line) => JSON.parse(line)) : []
}

/** Where the words of a function differ; null if nowhere. */
function difference(seen, wanted) {
  if (seen.length !== wanted.length) return `${seen.length} words instead of ${wanted.length}`
  const at = seen.findIndex((word, i) => word !== wanted[i])
  return at < 0 ? null : `word ${at} is ${seen[at]}, in the emulator ${wanted[at]}`
}

const emulated = new Map(
  lines('conformance-emulated.jsonl')
    .filter((line) => line.conformance)
    .map((line) => [line.conformance, line.words]),
)
const dumps = lines(dry ? 'conformance-emulated.jsonl' : 'conformance.jsonl').filter((line) => line.conformance)
const conformance = dumps.map(({ conformance: what, words }) => ({
  what,
  difference: difference(words, emulated.get(what) ?? []),
}))
const checks = lines('check.jsonl').filter((line) => line.check && !line.report)
const reports = lines('check.jsonl').filter((line) => line.report)
const card = lines(dry ? 'check.jsonl' : 'conformance.jsonl').find((line) => line.card)

const differing = conformance.filter((line) => line.difference)
const wrong = checks.filter((line) => !line.right)
console.log(`${conformance.length} dumps of cu:: functions, ${differing.length} unlike the emulator`)
for (const line of differing) console.log(`  ${line.what}: ${line.difference}`)
console.log(`${checks.length} products, ${wrong.length} wrong, ${reports.length} reports`)
for (const { check, m, n, k, worst } of wrong) console.log(`  ${check} ${m}x${n}x${k}: ${worst} of its bound`)

if (!dry) {
  const times = lines('time.jsonl')
  const torch = lines('torch.jsonl')
  for (const shape of new Set(times.map(({ m, n, k }) => `${m}x${n}x${k}`))) {
    const of = (line) => `${line.m}x${line.n}x${line.k}` === shape
    console.log(`\n${shape}`)
    for (const { torch: what, us } of torch.filter(of)) console.log(`  torch ${what}: ${us} us`)
    const sorted = times.filter(of).sort((a, b) => a.us - b.us)
    for (const { time, parts, us, tflops } of sorted.slice(0, 12))
      console.log(`  ${time}, ${parts} parts: ${us} us, ${tflops} TFLOPS`)
  }
  const sanitizerFile = path.join(folder, 'sanitizer.txt')
  const sanitizer = existsSync(sanitizerFile) ? readFileSync(sanitizerFile, 'utf8').trim().split('\n') : []
  const name = card.card.toLowerCase().replace(/[^a-z0-9]+/g, '-')
  const file = path.join('bench', 'results', `${name}.json`)
  const result = { card, date: new Date().toISOString().slice(0, 10), conformance, checks, times, torch, sanitizer }
  writeFileSync(file, `${JSON.stringify(result, null, 1)}\n`)
  // what the emulator's tests can replay
  writeFileSync(path.join('bench', 'results', `${name}-conformance.json`), `${JSON.stringify(dumps)}\n`)
  console.log(`\n${file}`)
}
process.exitCode = differing.length || wrong.length || reports.length || !dumps.length || !checks.length ? 1 : 0
