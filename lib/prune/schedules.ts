/** How sparsity grows while a model is trained. A schedule computes; prune to what it says every some steps. */
import { ArgumentError, show } from '../core/errors'
import { checkInteger } from '../core/shape'
import { checkOptions, checkSparsity } from './layers'

/** Says how sparse a model should be at a step. */
export interface SparsitySchedule {
  /**
   * The sparsity at a step, from 0 to 1: 0 before `begin`.
   *
   * @throws ArgumentError for a step that is not a whole number >= 0
   */
  sparsityAt(step: number): number
}

export interface RampOptions {
  /** Sparsity at `begin`; default 0. */
  from?: number
  /** Sparsity from `end` on; not less than `from`: what is pruned stays pruned. */
  to: number
  /** First step that prunes; default 0. */
  begin?: number
  /** Step at which `to` is reached, after `begin`. */
  end: number
}

abstract class Ramp implements SparsitySchedule {
  readonly from: number
  readonly to: number
  readonly begin: number
  readonly end: number

  constructor(options: RampOptions) {
    const op = this.constructor.name
    checkOptions(op, options)
    this.from = checkSparsity(op, 'from', options.from ?? 0)
    this.to = checkSparsity(op, 'to', options.to)
    if (this.to < this.from)
      throw new ArgumentError(`${op}: to must not be less than from, got ${show(this.to)} and ${show(this.from)}`)
    this.begin = checkInteger(op, 'begin', options.begin ?? 0, 0)
    this.end = checkInteger(op, 'end', options.end, this.begin + 1)
  }

  protected abstract readonly exponent: number

  sparsityAt(step: number): number {
    checkInteger(this.constructor.name, 'step', step, 0)
    if (step < this.begin) return 0
    if (step >= this.end) return this.to
    const left = 1 - (step - this.begin) / (this.end - this.begin)
    return this.to + (this.from - this.to) * left ** this.exponent
  }
}

/**
 * s(t) = to + (from - to) (1 - (t - begin) / (end - begin))^3: fast at first, when there is much to spare, then ever slower
 * (Zhu and Gupta, "To Prune, or Not to Prune", 2017, eq. 1; TensorFlow Model Optimization's PolynomialDecay).
 *
 * @throws ArgumentError naming an option out of range
 * @example new prune.CubicSchedule({ from: 0, to: 0.9, begin: 0, end: 1000 })
 */
export class CubicSchedule extends Ramp {
  protected readonly exponent = 3
}

/**
 * A straight line from `from` at `begin` to `to` at `end`.
 *
 * @throws ArgumentError naming an option out of range
 */
export class LinearSchedule extends Ramp {
  protected readonly exponent = 1
}

/**
 * Nothing before step `begin`, all at once from it on.
 *
 * @throws ArgumentError naming an option out of range
 */
export class OneShotSchedule implements SparsitySchedule {
  readonly to: number
  readonly begin: number

  /** @param options `begin` defaults to 0 */
  constructor(options: { to: number; begin?: number }) {
    checkOptions('OneShotSchedule', options)
    this.to = checkSparsity('OneShotSchedule', 'to', options.to)
    this.begin = checkInteger('OneShotSchedule', 'begin', options.begin ?? 0, 0)
  }

  sparsityAt(step: number): number {
    return checkInteger('OneShotSchedule', 'step', step, 0) < this.begin ? 0 : this.to
  }
}
