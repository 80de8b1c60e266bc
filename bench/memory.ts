/**
 * What docs/adr/0001-memory.md rests on: the cost of a MiB for an output, and what stays alive in a synchronous loop that
 * disposes nothing. Run it as `node --expose-gc dist/bench/memory.js`.
 */
import { add } from '#lib/ops/arithmetic'
import { ones } from '#lib/ops/create'
import { allocate, release, uninitialised } from '#lib/tensor/storage'

const MIB = 1 << 20
const PAGE = 4096

function touch(buffer: ArrayBuffer, offset: number): void {
  const bytes = new Uint8Array(buffer, offset, MIB)
  for (let i = 0; i < MIB; i += PAGE) bytes[i] = 1
}

/** Median microseconds of making a MiB and writing to each of its pages. */
function cost(make: () => void): number {
  const taken: number[] = []
  for (let i = 0; i < 200; i++) {
    const start = performance.now()
    make()
    taken.push((performance.now() - start) * 1000)
  }
  return taken.sort((a, b) => a - b)[100] as number
}

function peakMiB(steps: number, step: () => void): number {
  let peak = 0
  for (let i = 0; i < steps; i++) {
    step()
    if (i % 50 === 0) peak = Math.max(peak, process.memoryUsage.rss())
  }
  return peak / MIB
}

const kept: ArrayBuffer[] = [] // so that no variant is helped by memory that a collection has just given back
const hold = (buffer: ArrayBuffer) => {
  kept.push(buffer)
  if (kept.length > 64) kept.shift()
  return buffer
}

const figures = {
  'new ArrayBuffer, zeroed': cost(() => touch(hold(new ArrayBuffer(MIB)), 0)),
  'not zeroed': cost(() => touch(hold(uninitialised(MIB)), 0)),
  recycled: cost(() => {
    const storage = allocate(MIB)
    touch(storage.buffer, storage.byteOffset)
    release(storage)
  }),
}
for (const [name, us] of Object.entries(figures))
  console.log(`1 MiB and a write to each page, ${name}: ${us.toFixed(1)} us`)

const before = process.memoryUsage.rss() / MIB
const x = ones([MIB / 4])
const peak = peakMiB(8000, () => add(x, 1))
console.log(
  `8,000 results of 1 MiB, synchronous, no dispose: resident ${before.toFixed(0)} MiB before, at most ${peak.toFixed(0)} MiB`,
)
