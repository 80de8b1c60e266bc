/** Pauses for the event loop in long loops of JavaScript. */

/** How long a loop computes before others get a turn. */
const SLICE_MS = 8

/**
 * Keeps a long loop from blocking the event loop. Ask `due()` every millisecond of work or so (it costs some 50 ns) and
 * `await take()` when it says so.
 */
export class Pauses {
  #until = performance.now() + SLICE_MS

  due(): boolean {
    return performance.now() >= this.#until
  }

  async take(): Promise<void> {
    await new Promise<void>((resolve) => setImmediate(resolve))
    this.#until = performance.now() + SLICE_MS
  }
}

/** Elements that `inSlices` hands out at once: some 3 ns of work each make a fraction of a millisecond. */
const SLICE = 1 << 16

/** Runs `work` over [0, n) in slices, in order, with pauses between them. */
export async function inSlices(n: number, pauses: Pauses, work: (from: number, to: number) => void): Promise<void> {
  for (let from = 0; from < n; from += SLICE) {
    if (pauses.due()) await pauses.take()
    work(from, Math.min(from + SLICE, n))
  }
}

/** Work that yields every fraction of a millisecond. */
export type Steps<R> = Generator<void, R>

/** Does it in one go. */
export function atOnce<R>(steps: Steps<R>): R {
  for (;;) {
    const step = steps.next()
    if (step.done) return step.value
  }
}

/** Does it with pauses. */
export async function inTurns<R>(steps: Steps<R>, pauses: Pauses): Promise<R> {
  for (;;) {
    const step = steps.next()
    if (step.done) return step.value
    if (pauses.due()) await pauses.take()
  }
}
