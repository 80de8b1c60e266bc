/** `kerf bench`: runs the suites of bench/ and prints a table, or one JSON document. */
import path from 'node:path'
import { SingleBar } from 'cli-progress'
import Table from 'cli-table3'
import { ArgumentError } from '../core/errors'
import type { Baseline, BenchModule, BenchOptions, BenchReport, BenchRow, PeerTiming } from './report'

export interface BenchFlags {
  shapes?: [number, number, number][]
  dtype?: string[]
  threads?: number[]
  vs?: string
  budget: number
  json?: boolean
}

const PEERS = ['onnxruntime-node']

export async function bench(suites: string[], flags: BenchFlags): Promise<void> {
  const module = require(path.join(__dirname, '..', 'bench', 'index.js')) as BenchModule
  const unknown = suites.find((suite) => !(suite in module.suites))
  if (unknown !== undefined) usage(`no suite '${unknown}'; there is: ${Object.keys(module.suites).join(', ')}`)
  if (flags.vs !== undefined && !PEERS.includes(flags.vs)) usage(`--vs knows ${PEERS.join(', ')}, not '${flags.vs}'`)

  const bar =
    process.stderr.isTTY && flags.json !== true
      ? new SingleBar({ format: '{bar} {value}/{total} {name}', clearOnComplete: true })
      : null
  let started = false
  const options: BenchOptions = {
    suites: suites.length > 0 ? suites : Object.keys(module.suites),
    shapes: flags.shapes ?? [],
    dtypes: flags.dtype ?? [],
    threads: flags.threads ?? [],
    peer: flags.vs ?? null,
    budgetMs: flags.budget,
  }
  try {
    const report = await module.run(options, (done, total, name) => {
      if (!started) bar?.start(total, done, { name })
      else bar?.update(done, { name })
      started = true
    })
    bar?.stop()
    if (report.rows.length + report.loop.length === 0) nothing(options)
    process.stdout.write(flags.json === true ? `${JSON.stringify(report, rounded, 2)}\n` : show(report))
  } finally {
    bar?.stop()
  }
}

/** What was asked for does not go together. */
function nothing({ suites, shapes, dtypes }: BenchOptions): never {
  const limits = [
    ...(shapes.length > 0 ? ['--shapes needs a suite of products (matmul, rows, edge, int8)'] : []),
    ...(dtypes.length > 0 ? ['int8 and int4 belong to the suite int8, float dtypes to the others'] : []),
  ]
  const wanted = [...suites, ...dtypes].join(', ')
  usage(`nothing to measure for ${wanted} on this machine${limits.length > 0 ? `: ${limits.join('; ')}` : ''}`)
}

/** Ends in one line and exit code 2 (main.ts). */
function usage(message: string): never {
  throw Object.assign(new ArgumentError(message), { usage: true })
}

/** Five digits are more than any timing means. */
const rounded = (_key: string, value: unknown) =>
  typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(5)) : value

const digits = (x: number) => (x >= 999.5 ? x.toFixed(0) : x.toPrecision(3))
const percent = (x: number) => `${x.toFixed(0)} %`

/** 3 significant digits with a unit that fits. */
export function time(us: number): string {
  if (us >= 100_000) return `${(us / 1e6).toPrecision(3)} s`
  return us >= 1000 ? `${(us / 1000).toPrecision(3)} ms` : `${us.toPrecision(3)} us`
}

const timeAndRatio = (t: PeerTiming | Baseline) =>
  `${time(t.best)} / ${time(t.median)}, ${t.ratioBest.toFixed(2)}x / ${t.ratioMedian.toFixed(2)}x`

function cells(row: BenchRow, withBaseline: boolean): string[] {
  const peers = row.peers.map((p) => {
    const fresh = p.output === 'fresh' ? ', fresh output' : ''
    return `${p.variant ? `${p.variant}: ` : ''}${timeAndRatio(p)}${fresh}`
  })
  return [
    row.name,
    String(row.threads),
    `${time(row.best)} / ${time(row.median)}`,
    row.rate ? `${digits(row.rate.best)} / ${digits(row.rate.median)} ${row.rate.unit}` : '',
    row.peaks
      .map((p) => `${percent(p.percentBest)} / ${percent(p.percentMedian)} of ${digits(p.best)} ${p.kind}`)
      .join('\n'),
    row.kernel ?? row.target,
    ...(withBaseline ? [row.baseline ? `${row.baseline.name}: ${timeAndRatio(row.baseline)}` : ''] : []),
    [...peers, ...row.notes].join('\n'),
  ]
}

export function show(report: BenchReport): string {
  const m = report.machine
  const lines = [`kerf ${report.kerf} on ${m.cpu}, ${m.cores} cores, node ${m.node}; best / median of short bursts`]
  if (report.rows.length > 0) {
    const peers = Object.entries(report.peers).map(([name, version]) => `${name} ${version}`)
    const withBaseline = report.rows.some((row) => row.baseline)
    const table = new Table({
      head: [
        '',
        'threads',
        'time',
        'rate',
        'of peak',
        'kernel',
        ...(withBaseline ? ['baseline: time, ratio'] : []),
        peers.length > 0 ? `${peers.join(', ')}: time, ratio` : 'notes',
      ],
      style: { head: [], border: [] },
    })
    for (const row of report.rows) table.push(cells(row, withBaseline))
    lines.push(table.toString())
  }
  for (const row of report.loop) {
    lines.push(
      `${row.name}, ${row.threads} threads: event loop late by p50 ${row.p50.toFixed(1)} ms, p99 ${row.p99.toFixed(1)} ms, max ${row.max.toFixed(1)} ms`,
    )
  }
  return `${lines.join('\n')}\n`
}
