import { ArgumentError, show } from '../core/errors'
import { checkInteger, checkNumber } from '../core/shape'
import type { Schedulable } from './schedules'

export interface PlateauOptions {
  /** Whether the metric should fall or rise; default 'min'. */
  mode?: 'min' | 'max'
  /** Default 0.1. */
  factor?: number
  /** Steps without improvement that are tolerated; default 10. */
  patience?: number
  /** What counts as an improvement, relative to the best or absolute; default 1e-4, 'rel'. */
  threshold?: number
  thresholdMode?: 'rel' | 'abs'
  /** Steps after a cut that count nothing; default 0. */
  cooldown?: number
  minLr?: number
  /** A smaller change of lr is not made; default 1e-8. */
  eps?: number
}

export interface PlateauState {
  best: number
  badSteps: number
  cooldownLeft: number
}

/** Multiplies lr by a factor when a metric stops improving: step(metric) once an evaluation, as in PyTorch. */
export class ReduceLROnPlateau {
  readonly options: Required<PlateauOptions>
  /** The best metric so far. */
  best: number
  #badSteps = 0
  #cooldownLeft = 0

  constructor(
    readonly optimizer: Schedulable,
    options: PlateauOptions = {},
  ) {
    this.options = {
      mode: 'min',
      factor: 0.1,
      patience: 10,
      threshold: 1e-4,
      thresholdMode: 'rel',
      cooldown: 0,
      minLr: 0,
      eps: 1e-8,
      ...options,
    }
    const { mode, thresholdMode, factor } = this.options
    if (!Array.isArray(optimizer?.paramGroups))
      throw new ArgumentError(`ReduceLROnPlateau: expected an optimizer, got ${show(optimizer)}`)
    if (mode !== 'min' && mode !== 'max')
      throw new ArgumentError(`ReduceLROnPlateau: mode must be 'min' or 'max', got ${show(mode)}`)
    if (thresholdMode !== 'rel' && thresholdMode !== 'abs') {
      throw new ArgumentError(`ReduceLROnPlateau: thresholdMode must be 'rel' or 'abs', got ${show(thresholdMode)}`)
    }
    if (!(factor >= 0 && factor < 1))
      throw new ArgumentError(`ReduceLROnPlateau: factor must be in [0, 1), got ${show(factor)}`)
    checkInteger('ReduceLROnPlateau', 'patience', this.options.patience, 0)
    checkInteger('ReduceLROnPlateau', 'cooldown', this.options.cooldown, 0)
    for (const key of ['threshold', 'minLr', 'eps'] as const) checkNumber('ReduceLROnPlateau', key, this.options[key])
    this.best = mode === 'min' ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY
  }

  get lrs(): number[] {
    return this.optimizer.paramGroups.map((group) => group.lr)
  }

  /** @param metric the loss or score just measured; NaN counts as no improvement */
  step(metric: number): void {
    if (typeof metric !== 'number')
      throw new ArgumentError(`ReduceLROnPlateau: the metric must be a number, got ${show(metric)}`)
    if (this.#better(metric)) {
      this.best = metric
      this.#badSteps = 0
    } else {
      this.#badSteps++
    }
    if (this.#cooldownLeft > 0) {
      this.#cooldownLeft--
      this.#badSteps = 0
    }
    if (this.#badSteps <= this.options.patience) return
    const { factor, minLr, eps, cooldown } = this.options
    for (const group of this.optimizer.paramGroups) {
      const next = Math.max(group.lr * factor, minLr)
      if (group.lr - next > eps) group.lr = next
    }
    this.#cooldownLeft = cooldown
    this.#badSteps = 0
  }

  stateDict(): PlateauState {
    return { best: this.best, badSteps: this.#badSteps, cooldownLeft: this.#cooldownLeft }
  }

  loadStateDict(state: PlateauState): void {
    const best = checkNumber('ReduceLROnPlateau: loadStateDict', 'best', state?.best)
    this.#badSteps = checkInteger('ReduceLROnPlateau: loadStateDict', 'badSteps', state.badSteps, 0)
    this.#cooldownLeft = checkInteger('ReduceLROnPlateau: loadStateDict', 'cooldownLeft', state.cooldownLeft, 0)
    this.best = best
  }

  #better(metric: number): boolean {
    const { mode, threshold, thresholdMode } = this.options
    const margin = mode === 'min' ? -threshold : threshold
    const bar = thresholdMode === 'rel' ? this.best * (1 + margin) : this.best + margin
    return mode === 'min' ? metric < bar : metric > bar
  }
}
