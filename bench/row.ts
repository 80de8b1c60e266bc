/** Measures one row of the report: kerf, this machine's peak at the same thing, and the peer, interleaved. */
import os from 'node:os'
import type { BenchOptions, BenchRow, Peak, PeerTiming, Rate, Timing } from '#lib/cli/report'
import { addon, choose, targetName } from '#lib/native/load'
import { syncBlocking } from '#lib/native/stream'
import { type Contender, measure } from './measure'
import { PEER, PEER_REST_MS, type PeerRun } from './peer'

export interface Ceiling {
  kind: Peak['kind']
  /** For 'read': the very bytes that the kernel reads. */
  buffer?: ArrayBuffer
  byteOffset?: number
  bytes?: number
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
  /** Floating-point operations, or bytes read, a call. */
  work?: { unit: Rate['unit']; amount: number }
  ceiling?: Ceiling
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
  const { work, peer } = spec
  const ceiling = spec.ceiling ? ceilingContender(spec.ceiling) : null
  const contenders: Contender[] = [spec.contender]
  if (peer) contenders.push(peer.preallocated, peer.fresh)
  if (ceiling) contenders.push(ceiling.contender)
  const restMs = peer ? PEER_REST_MS : 0
  const timings = await measure(contenders, { budgetMs: options.budgetMs, restMs })
  const own = timings[0] as Timing
  const rate = work ? rateOf(own, work.amount, work.unit) : null

  let peak: Peak | null = null
  if (ceiling && rate && spec.ceiling) {
    const best = rateOf(timings.at(-1) as Timing, ceiling.amount, rate.unit)
    peak = {
      kind: spec.ceiling.kind,
      ...best,
      percentBest: (100 * rate.best) / best.best,
      percentMedian: (100 * rate.median) / best.median,
    }
  }
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
    rate,
    peak,
    peers,
    notes: spec.notes ?? [],
  }
}
