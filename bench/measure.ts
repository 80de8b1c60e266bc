/**
 * Times contenders against each other on a noisy machine: many short bursts, interleaved, so that whatever slows the
 * machine for a moment slows all of them; best and median a call.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Timing } from '#lib/cli/report'

export interface Contender {
  /** Makes `times` calls and returns when their results are there. */
  run(times: number): void | Promise<void>
  /** Before each burst: threads that this contender needs, say. Not timed. */
  before?(): void
}

/** Long enough that a clock read and a sleeping thread's wake-up vanish, short enough to fall between disturbances. */
const BURST_MS = 4
const MIN_BURSTS = 7
const MAX_BURSTS = 60

export interface MeasureOptions {
  /** Milliseconds that each contender may take. */
  budgetMs: number
  /** Waits for a quiet process before each burst: a peer's workers spin for tens of milliseconds after a product. */
  settle?: boolean
}

const SETTLE_STEP_MS = 4
const SETTLE_LIMIT_MS = 300

/** Waits until the process uses less than a quarter of a CPU: nobody else's threads then share the next burst. */
export async function settled(): Promise<void> {
  const until = performance.now() + SETTLE_LIMIT_MS
  do {
    const since = performance.now()
    const before = process.cpuUsage()
    await sleep(SETTLE_STEP_MS)
    const used = process.cpuUsage(before)
    if ((used.user + used.system) / 1000 < (performance.now() - since) / 4) return
  } while (performance.now() < until)
}

async function seconds(contender: Contender, times: number): Promise<number> {
  const start = process.hrtime.bigint()
  // A synchronous contender is not awaited: a turn of the microtask queue is not its work.
  const waiting = contender.run(times)
  if (waiting) await waiting
  return Number(process.hrtime.bigint() - start) / 1e9
}

/** Calls for a burst of BURST_MS, by the best of a few trials: a disturbed one would make the bursts too short. */
async function calibrate(contender: Contender): Promise<number> {
  contender.before?.()
  await seconds(contender, 1)
  for (let times = 1; ; times *= 4) {
    let took = await seconds(contender, times)
    if (took < BURST_MS / 4000) continue
    for (let trial = 0; trial < 3; trial++) took = Math.min(took, await seconds(contender, times))
    return Math.max(1, Math.ceil((times * BURST_MS) / 1000 / took))
  }
}

/** A Timing for each contender, in their order. */
export async function measure(
  contenders: Contender[],
  { budgetMs, settle = false }: MeasureOptions,
): Promise<Timing[]> {
  const calls: number[] = []
  for (const contender of contenders) calls.push(await calibrate(contender))
  const samples: number[][] = contenders.map(() => [])
  const since = performance.now()
  let resting = 0
  const late = () => performance.now() - since - resting > budgetMs * contenders.length
  for (let round = 0; round < MAX_BURSTS && (round < MIN_BURSTS || !late()); round++) {
    for (let i = 0; i < contenders.length; i++) {
      const at = (i + round) % contenders.length
      const contender = contenders[at] as Contender
      const times = calls[at] as number
      contender.before?.()
      if (settle) {
        const rest = performance.now()
        await settled()
        resting += performance.now() - rest
      }
      await seconds(contender, Math.ceil(times / 8)) // back into the caches, threads awake
      samples[at]?.push((await seconds(contender, times)) / times)
    }
  }
  return samples.map((taken, i) => {
    const sorted = taken.sort((a, b) => a - b)
    const middle = sorted.length >> 1
    const median =
      sorted.length % 2 ? (sorted[middle] as number) : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2
    return { best: (sorted[0] as number) * 1e6, median: median * 1e6, bursts: sorted.length, calls: calls[i] as number }
  })
}
