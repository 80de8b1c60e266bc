/** Measures one row of the report: kerf, this machine's peak at the same thing, and the peer, interleaved. */
import os from 'node:os'
import type { BenchOptions, BenchRow, LoopRow, Peak, PeerTiming, Rate, Timing } from '#lib/cli/report'
import { addon, choose, targetName } from '#lib/native/load'
import { syncBlocking } from '#lib/native/stream'
import type { Tensor } from '#lib/tensor/tensor'
import { type Contender, measure } from './measure'
import { PEER, type PeerRun } from './peer'

export interface Ceiling {
  kind: Peak['kind']
  /** For 'read': the very bytes that the kernel reads. */
  buffer?: ArrayBuffer
  byteOffset?: number
  bytes?: number
  /** Of this kind a call, where it takes more of them than its work counts. */
  operations?: number
}

/** Operations, or bytes read, a call. */
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
  /** What a call does; the first is shown as its rate. */
  work?: Work[]
  /** What this machine could do at best of each kind of work. */
  ceilings?: Ceiling[]
  /** kerf without what the row is about. */
  baseline?: { name: string; contender: Contender }
  peers?: PeerRun[]
  notes?: string[]
}

/** A row to come, with the name that the progress bar shows. */
export interface Case<R extends BenchRow | LoopRow = BenchRow> {
  name: string
  run(): Promise<R>
}

/** Calls that make a tensor each. */
export const calls = (call: () => Tensor): Contender => ({
  run(times) {
    for (let i = 0; i < times; i++) call().dispose()
    syncBlocking()
  },
})

/** The machine's dot products of bytes, if the row of kernels has an instruction for them; otherwise a note. */
export function dotCeiling(notes: string[], operations?: number): Ceiling[] {
  if (addon.probe('int8dot', 1) > 0) return [{ kind: 'int8dot', operations }]
  notes.push(`no arithmetic ceiling: ${targetName()} has no dot product of bytes`)
  return []
}

/** One and all of the CPUs, or what was asked for. */
export function threadCounts(options: BenchOptions): number[] {
  if (options.threads.length > 0) return options.threads
  const all = os.availableParallelism()
  return all > 1 ? [1, all] : [1]
}

/** Whether this machine has that row of kernels. */
export const runnable = (target: string): boolean =>
  addon.machine().targets.some((t) => t.name === target && t.compiled && t.supported)

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

const unitOf: Record<Peak['kind'], Rate['unit']> = {
  fma: 'GFLOP/s',
  bf16dot: 'GFLOP/s',
  int8dot: 'GOP/s',
  read: 'GB/s',
}

export async function measureRow(spec: RowSpec, options: BenchOptions): Promise<BenchRow> {
  const { work = [], peers = [], baseline } = spec
  const ceilings = (spec.ceilings ?? []).map((ceiling) => ({ ...ceiling, ...ceilingContender(ceiling) }))
  const contenders: Contender[] = [
    spec.contender,
    ...(baseline ? [baseline.contender] : []),
    ...peers.flatMap((peer) => [peer.preallocated, peer.fresh]),
    ...ceilings.map((ceiling) => ceiling.contender),
  ]
  const timings = await measure(contenders, { budgetMs: options.budgetMs, settle: peers.length > 0 })
  const take = () => timings.shift() as Timing // in the order of the contenders
  const own = take()
  const against = (t: Timing) => ({ ...t, ratioBest: t.best / own.best, ratioMedian: t.median / own.median })
  const base = baseline ? { name: baseline.name, ...against(take()) } : null
  const outputs = ['preallocated', 'fresh'] as const
  const theirs: PeerTiming[] = peers.flatMap(({ variant }) =>
    outputs.map((output) => ({ name: PEER, ...(variant ? { variant } : {}), output, ...against(take()) })),
  )
  const peaks: Peak[] = ceilings.map(({ kind, amount, operations }) => {
    const unit = unitOf[kind]
    const done = operations ?? (work.find((w) => w.unit === unit) as Work).amount
    const rate = rateOf(own, done, unit)
    const peak = rateOf(take(), amount, unit)
    return {
      kind,
      ...peak,
      percentBest: (100 * rate.best) / peak.best,
      percentMedian: (100 * rate.median) / peak.median,
    }
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
    rate: work[0] ? rateOf(own, work[0].amount, work[0].unit) : null,
    peaks,
    baseline: base,
    peers: theirs,
    notes: spec.notes ?? [],
  }
}
