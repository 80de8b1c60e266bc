// Fills README's table of measured figures from a result of `kerf bench --vs onnxruntime-node --json`:
//
//   node tools/readme-table.mjs bench/results/NAME.json     take this result from now on
//   node tools/readme-table.mjs --check                     fail unless the table is what its result says
//
// The marker in README names the result, so that every figure there comes from a committed file.
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const readme = path.join(root, 'README.md')
const SECTION = /<!-- measured: (.*?) -->\n[\s\S]*?<!-- \/measured -->/

const digits = (x) => (x >= 1000 ? x.toFixed(0) : Number(x.toPrecision(3)).toString())
const time = (us) => (us >= 1000 ? `${digits(us / 1000)} ms` : `${digits(us)} us`)
const percent = (x) => `${x.toFixed(0)} %`

const KINDS = { fma: 'FMA', bf16dot: 'bf16 dot', read: 'read' }

function cells(row) {
  const { rate } = row
  const peer = row.peers.find((p) => p.output === 'preallocated')
  const peaks = row.peaks.map(
    (p) => `${percent(p.percentBest)} / ${percent(p.percentMedian)} of ${digits(p.best)} (${KINDS[p.kind]})`,
  )
  return [
    row.name,
    row.threads,
    `${time(row.best)} / ${time(row.median)}`,
    rate ? `${digits(rate.best)} / ${digits(rate.median)} ${rate.unit}` : '',
    peaks.join('; '),
    peer ? `${time(peer.best)} / ${time(peer.median)}` : row.notes.length > 0 ? 'none' : '',
    peer ? `${peer.ratioBest.toFixed(2)}x / ${peer.ratioMedian.toFixed(2)}x` : '',
  ]
}

export function table(report) {
  const peers = Object.entries(report.peers).map(([name, version]) => `${name} ${version}`)
  const peer = peers.join(', ') || 'peer'
  const m = report.machine
  const lines = [
    `${m.cpu}, ${m.cores} cores, ${m.platform}, node ${m.node}, ${report.date.slice(0, 10)}. Each figure is best / median of short bursts; a ratio`,
    "is the peer's time divided by kerf's.",
    '',
    `| float products: m x n x k, packed | threads | time | rate | of peak | ${peer} | ratio |`,
    '|---|---|---|---|---|---|---|',
    ...report.rows.map((row) => `| ${cells(row).join(' | ')} |`),
  ]
  for (const row of report.loop) {
    const figures = `p50 ${digits(row.p50)} ms, p99 ${digits(row.p99)} ms, max ${digits(row.max)} ms`
    lines.push(
      '',
      `Event loop while ${row.name}, ${row.threads} threads: a turn takes ${figures} (1 ms of it is the clock's own).`,
    )
  }
  return lines.join('\n')
}

function section(file) {
  const body = file === 'none' ? 'Not measured yet.' : table(JSON.parse(readFileSync(path.join(root, file), 'utf8')))
  return `<!-- measured: ${file} -->\n${body}\n<!-- /measured -->`
}

function main(argument) {
  const text = readFileSync(readme, 'utf8')
  const found = SECTION.exec(text)
  if (!found) throw new Error('README.md: the markers of the measured table are gone')
  const check = argument === '--check'
  const file =
    check || argument === undefined ? found[1] : path.relative(root, path.resolve(argument)).replaceAll('\\', '/')
  const wanted = text.replace(SECTION, () => section(file))
  if (wanted === text) return
  if (check) throw new Error(`README.md: the measured table is not that of ${file}: run node tools/readme-table.mjs`)
  writeFileSync(readme, wanted)
  console.log(`README.md: measured table from ${file}`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    main(process.argv[2])
  } catch (error) {
    console.error(error.message)
    process.exitCode = 1
  }
}
