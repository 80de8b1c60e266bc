// Emulated kernels in every mode: what a program of test/cuda/ printed of its runs, and what is demanded of a kernel and of one that
// was broken.
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { Test } from 'tap'
import { compile, root, run, scratch } from './programs'

interface Site {
  file: string
  line: number
  shared: number
  accesses: number
  cost: number
}

export interface Run {
  kernel: string
  m: number
  n: number
  k: number
  plain: number
  late: number
  seed: number
  worst: number
  reports: string[]
  sites: Site[]
}

async function runs(program: string): Promise<Run[]> {
  const { code, text, errors } = await run(program, [])
  if (code !== 0) throw new Error(`${program} ended with ${code}: ${errors}`)
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Run)
}

const name = (r: Run) => `${r.kernel} ${r.m}x${r.n}x${r.k} ${r.late ? 'late' : 'early'} seed ${r.seed}`

/** Accesses of whole tiles that cost more than 1.05 of the least wavefronts or sectors. */
const expensive = (r: Run) =>
  r.sites
    .filter(({ cost }) => cost > 1.05)
    .map((s) => `${s.file}:${s.line} ${s.shared ? 'shared' : 'global'} ${s.cost}`)

export async function checkKernel(t: Test, kernel: string, wholeTiles: (r: Run) => boolean): Promise<void> {
  const all = await runs(await compile(`${kernel}_check.cc`, root, kernel))
  t.ok(all.length >= 18 && all.some(wholeTiles))
  t.same(
    all.filter((r) => r.reports.length > 0).map((r) => `${name(r)}: ${r.reports}`),
    [],
    'no report',
  )
  t.same(
    all.filter((r) => !(r.worst <= 1)).map((r) => `${name(r)}: ${r.worst} of its bound`),
    [],
    'right',
  )
  t.same(
    all.filter(wholeTiles).flatMap((r) => expensive(r).map((line) => `${name(r)}: ${line}`)),
    [],
    'costs what it must',
  )
}

/** A way to break a kernel, and what must show: `wrong` numbers in some run, a report, or a cost. */
export interface Fault {
  what: string
  program: string
  file: string
  from: string
  to: string
  /** Another case than the program's usual one. */
  quick?: number
  wrong?: 'late' | 'always'
  report?: RegExp
  cost?: number
}

async function checkFault(t: Test, fault: Fault, number: number): Promise<void> {
  const tree = path.join(scratch, `fault${number}`)
  for (const folder of ['core', 'cuda'])
    cpSync(path.join(root, 'native', folder), path.join(tree, 'native', folder), { recursive: true })
  const file = path.join(tree, 'native', 'cuda', fault.file)
  const parts = readFileSync(file, 'utf8').split(fault.from)
  if (!t.equal(parts.length, 2, `${fault.what}: the text to change stands in ${fault.file} once`)) return
  writeFileSync(file, parts.join(fault.to))

  const all = await runs(
    await compile(`${fault.program}_check.cc`, tree, `broken${number}`, `-DKERF_QUICK=${fault.quick ?? 1}`),
  )
  const wrong = (r: Run) => !(r.worst <= 1)
  if (fault.wrong === 'always') t.ok(all.every(wrong), `${fault.what}: wrong numbers`)
  if (fault.wrong === 'late') t.ok(all.filter((r) => r.late).every(wrong), `${fault.what}: wrong numbers in late mode`)
  if (fault.report)
    t.ok(
      all.every((r) => r.reports.some((line) => fault.report?.test(line))),
      `${fault.what}: reported`,
    )
  if (fault.cost) {
    const most = Math.max(...all.flatMap((r) => r.sites.map(({ cost }) => cost)))
    t.equal(most, fault.cost, `${fault.what}: ${fault.cost} times the cost`)
    t.notOk(all.some(wrong), `${fault.what}: the numbers stay right`)
  }
  const reports = [...new Set(all.flatMap((r) => r.reports))].join('; ')
  t.comment(`${fault.what}: wrong in ${all.filter(wrong).length} of ${all.length} runs; ${reports || 'no report'}`)
}

/** Breaks kernels, two at a time. */
export async function checkFaults(t: Test, faults: readonly Fault[]): Promise<void> {
  const queue = faults.map((fault, number) => ({ fault, number }))
  const worker = async () => {
    for (let next = queue.shift(); next; next = queue.shift()) await checkFault(t, next.fault, next.number)
  }
  await Promise.all([worker(), worker()])
}
