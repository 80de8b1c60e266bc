import { ArgumentError, show } from '../core/errors'
import { checkInteger, checkNumber } from '../core/shape'

export interface EarlyStoppingOptions {
  /** 'loss' or the name of a metric, of the validation data if there is any; default 'loss'. */
  metric?: string
  /** Epochs without improvement before training stops. */
  patience: number
  /** Whether the metric should fall or rise; default 'min' for the loss, 'max' for others. */
  mode?: 'min' | 'max'
  /** What counts as an improvement; default 0, any. */
  minDelta?: number
}

export interface EarlyStoppingState {
  best: number
  badEpochs: number
}

/** Tells when a metric has stopped improving. */
export class EarlyStopping {
  readonly metric: string
  readonly mode: 'min' | 'max'
  readonly patience: number
  readonly minDelta: number
  #best: number
  #badEpochs = 0

  /** @throws ArgumentError for options that make no sense */
  constructor(op: string, options: EarlyStoppingOptions) {
    if (typeof options !== 'object' || options === null)
      throw new ArgumentError(`${op}: earlyStopping must be { metric, patience, mode }, got ${show(options)}`)
    const { metric = 'loss', minDelta = 0 } = options
    if (typeof metric !== 'string')
      throw new ArgumentError(`${op}: earlyStopping.metric must be a string, got ${show(metric)}`)
    this.metric = metric
    this.mode = options.mode ?? (metric === 'loss' ? 'min' : 'max')
    if (this.mode !== 'min' && this.mode !== 'max')
      throw new ArgumentError(`${op}: earlyStopping.mode must be 'min' or 'max', got ${show(this.mode)}`)
    this.patience = checkInteger(op, 'earlyStopping.patience', options.patience, 1)
    this.minDelta = checkNumber(op, 'earlyStopping.minDelta', minDelta)
    if (this.minDelta < 0) throw new ArgumentError(`${op}: earlyStopping.minDelta must be >= 0, got ${minDelta}`)
    this.#best = this.mode === 'min' ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY
  }

  /** Whether it is time to stop. */
  get over(): boolean {
    return this.#badEpochs >= this.patience
  }

  /** Takes the value of an epoch; NaN is no improvement. */
  step(value: number): void {
    const better = this.mode === 'min' ? value < this.#best - this.minDelta : value > this.#best + this.minDelta
    if (better) {
      this.#best = value
      this.#badEpochs = 0
    } else this.#badEpochs++
  }

  stateDict(): EarlyStoppingState {
    return { best: this.#best, badEpochs: this.#badEpochs }
  }

  loadStateDict(state: EarlyStoppingState): void {
    const op = 'earlyStopping: loadStateDict'
    if (typeof state?.best !== 'number')
      throw new ArgumentError(`${op}: best must be a number, got ${show(state?.best)}`)
    this.#badEpochs = checkInteger(op, 'badEpochs', state.badEpochs, 0)
    this.#best = state.best
  }
}
