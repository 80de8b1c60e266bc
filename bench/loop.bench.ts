/** How late timers fire while large products are computed: nothing may block the event loop. */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import type { BenchOptions, LoopRow } from '#lib/cli/report'
import { addon } from '#lib/native/load'
import { sync } from '#lib/native/stream'
import { ones } from '#lib/ops/create'
import { matmul, pack } from '#lib/ops/matmul'
import { type Case, threadCounts, withThreads } from './row'
import { asked } from './wanted'

const SIZE = 2048
const CALLS = 30

async function lateness(threads: number): Promise<LoopRow> {
  const a = ones([SIZE, SIZE])
  const p = pack(a)
  matmul(a, p).dispose()
  await sync()
  // Expects a turn every millisecond; its histogram holds the time between turns, so 1 ms belongs to the clock.
  const histogram = monitorEventLoopDelay({ resolution: 1 })
  histogram.enable()
  await sleep(20)
  histogram.reset()
  for (let i = 0; i < CALLS; i++) {
    matmul(a, p).dispose()
    await sync()
  }
  histogram.disable()
  a.dispose()
  p.dispose()
  return {
    suite: 'loop',
    name: `float32 ${SIZE}x${SIZE}x${SIZE}, awaited ${CALLS} times`,
    why: 'a server must answer while it computes',
    threads,
    calls: CALLS,
    p50: histogram.percentile(50) / 1e6,
    p99: histogram.percentile(99) / 1e6,
    max: histogram.max / 1e6,
  }
}

export function loopCases(options: BenchOptions): Case<LoopRow>[] {
  if (!asked(options, 'loop', 'float32') || options.shapes.length > 0) return []
  return threadCounts(options).map((threads) => ({
    name: `event loop, ${threads} threads`,
    run: () => withThreads(threads, addon.machine().target, () => lateness(threads)),
  }))
}
