// Fills README's tables of measured figures from a result of `kerf bench --vs onnxruntime-node --json`:
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

const KINDS = { fma: 'FMA', bf16dot: 'bf16 dot', int8dot: 'int8 dot', read: 'read' }

// What belongs together is a table of its own, in this order; a suite that was not run has none.
const TABLES = [
  { title: 'Float products', rows: 'm x n x k, weights packed', suites: ['matmul', 'rows', 'edge'] },
  { title: 'int8 and int4', rows: 'm x n x k, weights packed', suites: ['int8'] },
  { title: 'Sparse weights', rows: 'm x n x k', suites: ['sparse'] },
  { title: 'Calls and training', rows: 'what', suites: ['ops', 'train'] },
]

const times = (t) => `${time(t.best)} / ${time(t.median)}`
const ratios = (t) => `${t.ratioBest.toFixed(2)}x / ${t.ratioMedian.toFixed(2)}x`

function cells(row, peers, withBaseline) {
  const { rate, baseline } = row
  const theirs = row.peers.filter((p) => p.output === 'preallocated')
  const failed = row.notes.some((note) => peers.some((name) => note.startsWith(name)))
  const peaks = row.peaks.map(
    (p) => `${percent(p.percentBest)} / ${percent(p.percentMedian)} of ${digits(p.best)} (${KINDS[p.kind]})`,
  )
  return [
    row.name,
    row.threads,
    times(row),
    rate ? `${digits(rate.best)} / ${digits(rate.median)} ${rate.unit}` : '',
    peaks.join('; '),
    ...(withBaseline ? [baseline ? `${ratios(baseline)} (${baseline.name})` : ''] : []),
    theirs.map((p) => `${times(p)}${p.variant ? ` (${p.variant})` : ''}`).join('; ') || (failed ? 'none' : ''),
    theirs.map(ratios).join('; '),
  ]
}

function rowsOf(report, { title, rows, suites }) {
  const chosen = report.rows.filter((row) => suites.includes(row.suite))
  if (chosen.length === 0) return []
  const names = Object.keys(report.peers)
  const peer = Object.entries(report.peers).map(([name, version]) => `${name} ${version}`)
  const withBaseline = chosen.some((row) => row.baseline)
  const head = [
    ...[rows, 'threads', 'time', 'rate', 'of peak'],
    ...(withBaseline ? ['against baseline'] : []),
    ...[peer.join(', ') || 'peer', 'ratio'],
  ]
  return [
    '',
    `### ${title}`,
    '',
    `| ${head.join(' | ')} |`,
    `|${'---|'.repeat(head.length)}`,
    ...chosen.map((row) => `| ${cells(row, names, withBaseline).join(' | ')} |`),
  ]
}

export function table(report) {
  const m = report.machine
  const lines = [
    `${m.cpu}, ${m.cores} cores, ${m.platform}, node ${m.node}, ${report.date.slice(0, 10)}. Each figure is best / median of short bursts; a ratio`,
    "is the other's time divided by kerf's.",
    ...TABLES.flatMap((group) => rowsOf(report, group)),
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
