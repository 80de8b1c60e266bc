/** A progress bar on stderr, if that is a terminal. */
import type { SingleBar } from 'cli-progress'

/** 'auto': a bar when stderr is a terminal; false: none. */
export type ProgressOption = 'auto' | false

export class Bar {
  #bar: SingleBar | null = null

  /** @param steps of an epoch; 0 when nobody knows */
  async start(option: ProgressOption, name: string, steps: number, done: number): Promise<void> {
    if (option === false || !process.stderr.isTTY) return
    // Only now: most programs that load kerf show no bar.
    const { SingleBar } = await import('cli-progress')
    const total = steps > 0 ? '{bar} {percentage}% | {value}/{total}' : '{value}'
    this.#bar = new SingleBar({
      format: `{name} ${total} | loss {loss} | {eta} s`,
      stream: process.stderr,
      clearOnComplete: true,
    })
    this.#bar.start(steps, done, { name, loss: '-' })
  }

  step(loss: number): void {
    this.#bar?.increment(1, { loss: loss.toPrecision(4) })
  }

  stop(): void {
    this.#bar?.stop()
    this.#bar = null
  }
}
