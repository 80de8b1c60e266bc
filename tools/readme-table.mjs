// Fills the tables of measured figures in README and docs/ from a result of `kerf bench --vs onnxruntime-node --json`, of
// `npm run demo:prune -- --json` or of an `npm run paper:... -- --json`, and draws the pruning job's curve:
//
//   node tools/readme-table.mjs bench/results/NAME.json     take this result from now on
//   node tools/readme-table.mjs --check                     fail unless tables and curve are what their results say
//
// The markers name the results, so that every figure there comes from a committed file.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { curve, table as prunedTable } from './digits-prune.mjs'
import { cnnTable, mixedTable, togetherTable } from './fashion.mjs'
import { table as distilledTable } from './hinton-mnist.mjs'
import { markdownTable } from './markdown.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const digits = (x) => (x >= 1000 ? x.toFixed(0) : Number(x.toPrecision(3)).toString())
const time = (us) => (us >= 1000 ? `${digits(us / 1000)} ms` : `${digits(us)} us`)
const percent = (x) => `${x.toFixed(0)} %`

const KINDS = { fma: 'FMA', bf16dot: 'bf16 dot', int8dot: 'int8 dot', read: 'read' }

// What belongs together is a table of its own, in this order; a suite that was not run has none.
const TABLES = [
  { title: 'Float products', rows: 'm x n x k, weights packed', suites: ['matmul', 'rows', 'edge'] },
  { title: 'int8 and int4', rows: 'm x n x k, weights packed', suites: ['int8'] },
  { title: 'Sparse weights', rows: 'm x n x k', suites: ['sparse'] },
  { title: 'Convolutions', rows: 'kernel, input, output channels', suites: ['conv'] },
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
    ...markdownTable(
      head,
      chosen.map((row) => cells(row, names, withBaseline)),
    ),
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

const has = (report, suite) => report.rows.some((row) => row.suite === suite)

/** What a marker may be called, in README unless `page` says where, which results are for it, and what becomes of them. */
const SECTIONS = [
  { name: 'measured', takes: (report) => report.example === undefined && has(report, 'matmul'), table },
  { name: 'convolutions', takes: (report) => report.example === undefined && !has(report, 'matmul'), table },
  {
    name: 'pruned',
    takes: (report) => report.example === 'digits-prune',
    table: prunedTable,
    drawing: { file: 'docs/lottery-ticket.svg', draw: curve },
  },
  { name: 'distilled', takes: (report) => report.example === 'hinton-mnist', table: distilledTable },
  { name: 'fashion', takes: (report) => report.example === 'fashion-cnn', table: cnnTable },
  { name: 'mixed', page: 'docs/amp.md', takes: (report) => report.example === 'mixed-precision', table: mixedTable },
  { name: 'together', takes: (report) => report.example === 'together', table: togetherTable },
]

const read = (file) => JSON.parse(readFileSync(path.join(root, file), 'utf8'))

/** The files that are not what the results say, and what they should be. `given` replaces the result of its section. */
function changes(given) {
  const wanted = new Map()
  for (const { name, page = 'README.md', takes, table, drawing } of SECTIONS) {
    const target = path.join(root, page)
    const text = wanted.get(target) ?? readFileSync(target, 'utf8')
    const marked = new RegExp(`<!-- ${name}: (.*?) -->\\n[\\s\\S]*?<!-- /${name} -->`)
    const found = marked.exec(text)
    if (!found) throw new Error(`${page}: the markers of the ${name} table are gone`)
    const file = given !== undefined && takes(read(given)) ? given : found[1]
    const body = file === 'none' ? 'Not measured yet.' : table(read(file))
    wanted.set(
      target,
      text.replace(marked, () => `<!-- ${name}: ${file} -->\n${body}\n<!-- /${name} -->`),
    )
    if (drawing && file !== 'none') wanted.set(path.join(root, drawing.file), drawing.draw(read(file)))
  }
  return [...wanted].filter(([file, text]) => !existsSync(file) || readFileSync(file, 'utf8') !== text)
}

function main(argument) {
  const check = argument === '--check'
  const given =
    check || argument === undefined ? undefined : path.relative(root, path.resolve(argument)).replaceAll('\\', '/')
  for (const [file, text] of changes(given)) {
    const name = path.relative(root, file)
    if (check) throw new Error(`${name} is not what its result says: run node tools/readme-table.mjs`)
    writeFileSync(file, text)
    console.log(`${name}: written`)
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    main(process.argv[2])
  } catch (error) {
    console.error(error.message)
    process.exitCode = 1
  }
}
