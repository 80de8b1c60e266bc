/** Which of several ways to compute the same is fastest on this machine, now. */
import { Pauses } from '../core/pauses'
import { noGrad } from '../tensor/context'
import { type DeviceName, finish, finishBlocking } from '../tensor/device'
import type { Tensor } from '../tensor/tensor'

/** How long a race lasts; longer when a single round does. */
const BUDGET_MS = 25
/** A repetition: long enough for the clock and the pool's wake-up, short enough that some fit between two disturbances. */
const REPETITION_MS = 0.4
/** Of all, so that the first, whose code is not compiled yet, does not decide. */
const LEAST_ROUNDS = 3
/**
 * After that many rounds, what is so many times slower than the best is not tried again, if a call takes longer than a
 * repetition. A shorter one costs the race no more than the others do, and may only have been disturbed so far.
 */
const HOPELESS_AFTER = 2
const HOPELESS = 3

/**
 * Times calls against each other: short repetitions in turn, so that what else the machine does meets all of them. No
 * repetition blocks the event loop, but that calls of less than a millisecond are waited for in place.
 *
 * @param contenders each makes a tensor that nobody keeps
 * @returns the best time of a call of each, in milliseconds
 */
export async function race(contenders: readonly (() => Tensor)[]): Promise<number[]> {
  const pauses = new Pauses()
  const best = contenders.map(() => Number.POSITIVE_INFINITY)
  const repeat = async (i: number, times: number) => {
    const call = contenders[i] as () => Tensor
    const start = performance.now()
    let device: DeviceName = 'cpu'
    noGrad(() => {
      for (let n = 0; n < times; n++) {
        const made = call()
        device = made.device
        made.dispose()
      }
    })
    // Waiting in place is exact; a barrier of the event loop adds some 50 us, which is nothing to a long call.
    if ((best[i] as number) < 1) finishBlocking(device)
    else await finish(device)
    best[i] = Math.min(best[i] as number, (performance.now() - start) / times)
    if (pauses.due()) await pauses.take()
  }
  // The first call packs the weights.
  for (const [i] of contenders.entries()) await repeat(i, 1)
  best.fill(Number.POSITIVE_INFINITY)
  for (const [i] of contenders.entries()) await repeat(i, 1)
  const end = performance.now() + BUDGET_MS
  for (let round = 0; round < LEAST_ROUNDS || performance.now() < end; round++) {
    const limit =
      round < HOPELESS_AFTER ? Number.POSITIVE_INFINITY : Math.max(REPETITION_MS, HOPELESS * Math.min(...best))
    for (const [i, ms] of best.entries()) if (ms <= limit) await repeat(i, Math.max(1, Math.round(REPETITION_MS / ms)))
  }
  return best
}
