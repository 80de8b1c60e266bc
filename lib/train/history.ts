/** What a training run says of itself: results an epoch, and the losses of its steps for a curve. */

/** The loss and the metrics by name: means over the samples. */
export type Scores = { loss: number } & Record<string, number>

export interface StepResult {
  /** Of the epoch that it is in, counted from 0. */
  epoch: number
  /** Steps of the optimizer so far, in all epochs, this one included. */
  step: number
  /** Learning rate of the first group, for the next step. */
  lr: number
  /** Means over the samples of the step. */
  scores: Scores
}

export interface EpochResult {
  /** Counted from 0. */
  epoch: number
  /** Steps of the optimizer so far, in all epochs. */
  step: number
  /** Learning rate of the first group, at the end. */
  lr: number
  /** Means over the epoch, while the weights move. */
  training: Scores
  /** Of the validation data, after the epoch; null without. */
  validation: Scores | null
  /** Wall time of the epoch, validation included; of its last part when it was resumed. */
  seconds: number
}

/** More points than this are not seen on a screen. */
const POINTS = 2000

/** Losses of steps at even distances: every other one is dropped when there are too many. */
export class Curve {
  #every = 1
  #steps: number[] = []
  #losses: number[] = []

  get steps(): readonly number[] {
    return this.#steps
  }

  get losses(): readonly number[] {
    return this.#losses
  }

  add(step: number, loss: number): void {
    if (step % this.#every !== 0) return
    this.#steps.push(step)
    this.#losses.push(loss)
    if (this.#steps.length <= POINTS) return
    this.#every *= 2
    const kept = this.#steps.map((step) => step % this.#every === 0)
    this.#steps = this.#steps.filter((_, i) => kept[i])
    this.#losses = this.#losses.filter((_, i) => kept[i])
  }

  stateDict(): { every: number; steps: number[]; losses: number[] } {
    return { every: this.#every, steps: [...this.#steps], losses: [...this.#losses] }
  }

  loadStateDict(state: { every: number; steps: number[]; losses: number[] }): void {
    this.#every = state.every
    this.#steps = [...state.steps]
    this.#losses = [...state.losses]
  }
}
