/**
 * Two results of `kerf bench --json` side by side:
 *   node dist/bench/compare.js bench/results/before.json bench/results/after.json
 * Exit code 1 when a row is slower than before by more than the tolerance, in best and in median.
 */
import { readFileSync } from 'node:fs'
import type { BenchReport, BenchRow } from '#lib/cli/report'

/** Gaps below it are noise on the machines that we know. */
const TOLERANCE = 0.05

export interface Difference {
  name: string
  threads: number
  /** Time after divided by time before. */
  best: number
  median: number
  slower: boolean
}

export function compare(before: BenchReport, after: BenchReport): Difference[] {
  const key = (row: BenchRow) => `${row.suite} ${row.name} ${row.threads}`
  const old = new Map(before.rows.map((row) => [key(row), row]))
  return after.rows.flatMap((row) => {
    const was = old.get(key(row))
    if (!was) return []
    const best = row.best / was.best
    const median = row.median / was.median
    return [{ name: row.name, threads: row.threads, best, median, slower: Math.min(best, median) > 1 + TOLERANCE }]
  })
}

function main(files: string[]): number {
  if (files.length !== 2) {
    console.error('usage: compare.js before.json after.json')
    return 2
  }
  const [before, after] = files.map((file) => JSON.parse(readFileSync(file, 'utf8')) as BenchReport)
  const differences = compare(before as BenchReport, after as BenchReport)
  for (const d of differences) {
    const mark = d.slower ? '  slower' : ''
    console.log(`${d.name}, ${d.threads} threads: best x${d.best.toFixed(3)}, median x${d.median.toFixed(3)}${mark}`)
  }
  return differences.some((d) => d.slower) ? 1 : 0
}

if (require.main === module) process.exitCode = main(process.argv.slice(2))
