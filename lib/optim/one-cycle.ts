import { ArgumentError, show } from '../core/errors'
import { checkInteger, checkNumber } from '../core/shape'
import type { GroupOptions } from './optimizer'
import { type Schedulable, Schedule } from './schedules'

export interface OneCycleOptions {
  maxLr: number
  totalSteps: number
  /** Part of the steps in which lr rises; default 0.3. */
  pctStart?: number
  /** Default 'cos'. */
  annealStrategy?: 'cos' | 'linear'
  /** lr starts at maxLr / divFactor; default 25. */
  divFactor?: number
  /** lr ends at its start / finalDivFactor; default 1e4. */
  finalDivFactor?: number
  /** Moves momentum (or the first beta) against lr; default true. */
  cycleMomentum?: boolean
  /** Default 0.85. */
  baseMomentum?: number
  /** Default 0.95. */
  maxMomentum?: number
}

interface MomentumGroup extends GroupOptions {
  momentum?: number
  betas?: readonly [number, number]
}

/** The 1cycle policy (Smith and Topin 2018) in its two-phase form, as in PyTorch: up to maxLr, then down to almost nothing. */
export class OneCycleLR extends Schedule {
  readonly options: Required<OneCycleOptions>

  constructor(optimizer: Schedulable, options: OneCycleOptions) {
    super(optimizer)
    const full = {
      pctStart: 0.3,
      annealStrategy: 'cos' as const,
      divFactor: 25,
      finalDivFactor: 1e4,
      cycleMomentum: true,
      baseMomentum: 0.85,
      maxMomentum: 0.95,
      ...options,
    }
    checkInteger('OneCycleLR', 'totalSteps', full.totalSteps, 1)
    for (const key of ['maxLr', 'pctStart', 'divFactor', 'finalDivFactor', 'baseMomentum', 'maxMomentum'] as const) {
      checkNumber('OneCycleLR', key, full[key])
    }
    if (full.pctStart < 0 || full.pctStart > 1)
      throw new ArgumentError(`OneCycleLR: pctStart must be in [0, 1], got ${full.pctStart}`)
    if (full.annealStrategy !== 'cos' && full.annealStrategy !== 'linear') {
      throw new ArgumentError(`OneCycleLR: annealStrategy must be 'cos' or 'linear', got ${show(full.annealStrategy)}`)
    }
    if (full.cycleMomentum && optimizer.paramGroups.some((g) => momentumKey(g) === null)) {
      throw new ArgumentError(
        'OneCycleLR: the optimizer has no momentum to cycle: give it one, or { cycleMomentum: false }',
      )
    }
    this.options = full
    this.apply()
  }

  lrAt(_base: number, step: number): number {
    const { maxLr, divFactor, finalDivFactor } = this.options
    const start = maxLr / divFactor
    return this.#at(step, start, maxLr, start / finalDivFactor)
  }

  /** The momentum at a step. */
  momentumAt(step: number): number {
    const { baseMomentum, maxMomentum } = this.options
    return this.#at(step, maxMomentum, baseMomentum, maxMomentum)
  }

  /** The call after the last of totalSteps steps changes nothing: lr stays at its end. One more throws, as in PyTorch. */
  override step(): void {
    if (this.stepCount >= this.options.totalSteps) {
      throw new ArgumentError(`OneCycleLR: step ${this.stepCount + 1} is beyond totalSteps, ${this.options.totalSteps}`)
    }
    super.step()
  }

  protected override apply(): void {
    super.apply()
    if (!this.options.cycleMomentum) return
    const momentum = this.momentumAt(this.stepCount)
    for (const group of this.optimizer.paramGroups as MomentumGroup[]) {
      if (momentumKey(group) === 'betas') group.betas = [momentum, (group.betas as readonly [number, number])[1]]
      else group.momentum = momentum
    }
  }

  #at(step: number, from: number, peak: number, to: number): number {
    const rising = this.options.pctStart * this.options.totalSteps - 1
    const last = this.options.totalSteps - 1
    const at = Math.min(step, last)
    if (at <= rising) return this.#between(from, peak, rising === 0 ? 1 : at / rising)
    return this.#between(peak, to, last === rising ? 1 : (at - rising) / (last - rising))
  }

  #between(from: number, to: number, part: number): number {
    if (this.options.annealStrategy === 'linear') return from + (to - from) * part
    return to + ((from - to) * (1 + Math.cos(Math.PI * part))) / 2
  }
}

function momentumKey(group: MomentumGroup): 'momentum' | 'betas' | null {
  if (Array.isArray(group.betas)) return 'betas'
  return typeof group.momentum === 'number' && group.momentum > 0 ? 'momentum' : null
}
