/** Measures one row of the report: kerf, this machine's peak at the same thing, and the peer, interleaved. */
import os from 'node:os'
import type { BenchOptions, BenchRow, Peak, PeerTiming, Rate, Timing } from '#lib/cli/report'
import { addon, choose, targetName } from '#lib/native/load'
import { syncBlocking } from '#lib/native/stream'
import { type Contender, measure } from './measure'
import { PEER, type PeerRun } from './peer'

export interface Ceiling {
  kind: Peak['kind']
  /** For 'read': the very bytes that the kernel reads. */
  buffer?: ArrayBuffer
  byteOffset?: number
  bytes?: number
}

/** Floating-point operations, or bytes read, a call. */
export interface Work {
  unit: Rate['unit']
  amount: number
}

export interface RowSpec {
  suite: string
  name: string
  why: string
  dtype: string
  shape: number[]
  threads: number
  kernel: string | null
  contender: Contender
  /** What a call does, in the unit that its first ceiling has. */
  work?: Work[]
  /** What this machine could do at best of each kind of work. */
  ceilings?: Ceiling[]
  peer?: PeerRun | null
  notes?: string[]
}

/** One and all of the CPUs, or what was asked for. */
export function threadCounts(options: BenchOptions): number[] {
  if (options.threads.length > 0) return options.threads
  const all = os.availableParallelism()
  return all > 1 ? [1, all] : [1]
}

/** Calls `fn` with so many threads and this row of kernels; both are put back. */
export async function withThreads<R>(threads: number, target: string, fn: () => Promise<R>): Promise<R> {
  const before = { threads: addon.machine().threads, target: targetName() }
  syncBlocking()
  choose(target, threads)
  try {
    return await fn()
  } finally {
    syncBlocking()
    choose(before.target, before.threads)
  }
}

const ROUNDS = 20_000 // about 35 us a probe

function ceilingContender(ceiling: Ceiling): { contender: Contender; amount: number } {
  const { kind, buffer, byteOffset, bytes = 0 } = ceiling
  const once = (): number =>
    kind === 'read' ? addon.probe('read', bytes, buffer, byteOffset) : addon.probe(kind, ROUNDS)
  return {
    amount: once(),
    contender: {
      run(times) {
        for (let i = 0; i < times; i++) once()
      },
    },
  }
}

const rateOf = (t: Timing, amount: number, unit: Rate['unit']): Rate => ({
  unit,
  best: amount / t.best / 1000,
  median: amount / t.median / 1000,
})

export async function measureRow(spec: RowSpec, options: BenchOptions): Promise<BenchRow> {
  const { work = [], peer } = spec
  const ceilings = (spec.ceilings ?? []).map((ceiling) => ({ kind: ceiling.kind, ...ceilingContender(ceiling) }))
  const contenders: Contender[] = [spec.contender]
  if (peer) contenders.push(peer.preallocated, peer.fresh)
  contenders.push(...ceilings.map((ceiling) => ceiling.contender))
  const timings = await measure(contenders, { budgetMs: options.budgetMs, settle: Boolean(peer) })
  const own = timings[0] as Timing
  const rates = work.map(({ amount, unit }) => rateOf(own, amount, unit))

  const peaks: Peak[] = ceilings.map(({ kind, amount }, i) => {
    const unit = kind === 'read' ? 'GB/s' : 'GFLOP/s'
    const rate = rates.find((r) => r.unit === unit) as Rate
    const peak = rateOf(timings[contenders.length - ceilings.length + i] as Timing, amount, unit)
    return {
      kind,
      ...peak,
      percentBest: (100 * rate.best) / peak.best,
      percentMedian: (100 * rate.median) / peak.median,
    }
  })
  const peers: PeerTiming[] = (peer ? (['preallocated', 'fresh'] as const) : []).map((output, i) => {
    const t = timings[1 + i] as Timing
    return { name: PEER, output, ...t, ratioBest: t.best / own.best, ratioMedian: t.median / own.median }
  })
  return {
    suite: spec.suite,
    name: spec.name,
    why: spec.why,
    dtype: spec.dtype,
    shape: spec.shape,
    threads: spec.threads,
    target: targetName(),
    kernel: spec.kernel,
    ...own,
    rate: rates[0] ?? null,
    peaks,
    peers,
    notes: spec.notes ?? [],
  }
}
