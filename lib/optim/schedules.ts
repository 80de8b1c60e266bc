/**
 * Learning-rate schedules: each sets the groups' lr once when it is made (step 0) and again at every step(). The lr is
 * computed from the step's number, not from the lr before, so rounding does not pile up and any step can be resumed.
 */
import { ArgumentError, show } from '../core/errors'
import { checkInteger, checkNumber } from '../core/shape'
import type { GroupOptions } from './optimizer'

/** An optimizer whatever its options. */
export interface Schedulable {
  readonly paramGroups: GroupOptions[]
}

export interface ScheduleState {
  step: number
  baseLrs: number[]
}

export abstract class Schedule {
  /** How often step() was called. */
  stepCount = 0
  /** The lr of every group when the schedule was made. */
  baseLrs: number[]

  constructor(readonly optimizer: Schedulable) {
    if (!Array.isArray(optimizer?.paramGroups)) {
      throw new ArgumentError(`${this.constructor.name}: expected an optimizer, got ${show(optimizer)}`)
    }
    this.baseLrs = optimizer.paramGroups.map((group) => group.lr)
  }

  /** The lr of a group with this base at a step. */
  abstract lrAt(base: number, step: number, group: number): number

  /** The lr of every group now. */
  get lrs(): number[] {
    return this.optimizer.paramGroups.map((group) => group.lr)
  }

  /** To be called after the optimizer's step (or once an epoch, if that is the schedule's unit). */
  step(): void {
    this.stepCount++
    this.apply()
  }

  stateDict(): ScheduleState {
    return { step: this.stepCount, baseLrs: [...this.baseLrs] }
  }

  loadStateDict(state: ScheduleState): void {
    const op = `${this.constructor.name}: loadStateDict`
    const step = checkInteger(op, 'step', state?.step, 0)
    if (!Array.isArray(state.baseLrs) || state.baseLrs.length !== this.baseLrs.length) {
      throw new ArgumentError(`${op}: expected the lrs of ${this.baseLrs.length} groups, got ${show(state.baseLrs)}`)
    }
    this.stepCount = step
    this.baseLrs = state.baseLrs.map((lr, i) => checkNumber(op, `baseLrs[${i}]`, lr))
    this.apply()
  }

  /** Writes the lr of this step into the groups. */
  protected apply(): void {
    for (const [i, group] of this.optimizer.paramGroups.entries()) {
      group.lr = this.lrAt(this.baseLrs[i] ?? group.lr, this.stepCount, i)
    }
  }
}

/** lr * gamma^floor(step / stepSize); gamma defaults to 0.1. */
export class StepLR extends Schedule {
  constructor(
    optimizer: Schedulable,
    readonly stepSize: number,
    readonly gamma = 0.1,
  ) {
    super(optimizer)
    checkInteger('StepLR', 'stepSize', stepSize, 1)
    this.apply()
  }

  lrAt(base: number, step: number): number {
    return base * this.gamma ** Math.floor(step / this.stepSize)
  }
}

/** lr * gamma^(milestones passed); gamma defaults to 0.1. */
export class MultiStepLR extends Schedule {
  constructor(
    optimizer: Schedulable,
    readonly milestones: readonly number[],
    readonly gamma = 0.1,
  ) {
    super(optimizer)
    for (const [i, milestone] of milestones.entries()) checkInteger('MultiStepLR', `milestones[${i}]`, milestone, 0)
    this.apply()
  }

  lrAt(base: number, step: number): number {
    return base * this.gamma ** this.milestones.filter((milestone) => milestone <= step).length
  }
}

/** lr * gamma^step. */
export class ExponentialLR extends Schedule {
  constructor(
    optimizer: Schedulable,
    readonly gamma: number,
  ) {
    super(optimizer)
    checkNumber('ExponentialLR', 'gamma', gamma)
    this.apply()
  }

  lrAt(base: number, step: number): number {
    return base * this.gamma ** step
  }
}

/** Half a cosine from lr at step 0 to etaMin (default 0) at step tMax (SGDR without restarts, Loshchilov 2017, eq. 5). */
export class CosineAnnealingLR extends Schedule {
  readonly etaMin: number

  constructor(
    optimizer: Schedulable,
    readonly tMax: number,
    options: { etaMin?: number } = {},
  ) {
    super(optimizer)
    checkInteger('CosineAnnealingLR', 'tMax', tMax, 1)
    this.etaMin = checkNumber('CosineAnnealingLR', 'etaMin', options.etaMin ?? 0)
    this.apply()
  }

  lrAt(base: number, step: number): number {
    return this.etaMin + ((base - this.etaMin) * (1 + Math.cos((Math.PI * step) / this.tMax))) / 2
  }
}

/**
 * A factor that goes in a straight line from startFactor (default 1/3) to endFactor (default 1) over totalIters steps
 * (default 5) and stays there: a warm-up.
 */
export class LinearLR extends Schedule {
  readonly startFactor: number
  readonly endFactor: number
  readonly totalIters: number

  constructor(optimizer: Schedulable, options: { startFactor?: number; endFactor?: number; totalIters?: number } = {}) {
    super(optimizer)
    this.startFactor = checkNumber('LinearLR', 'startFactor', options.startFactor ?? 1 / 3)
    this.endFactor = checkNumber('LinearLR', 'endFactor', options.endFactor ?? 1)
    this.totalIters = checkInteger('LinearLR', 'totalIters', options.totalIters ?? 5, 1)
    this.apply()
  }

  lrAt(base: number, step: number): number {
    const part = Math.min(step, this.totalIters) / this.totalIters
    return base * (this.startFactor + (this.endFactor - this.startFactor) * part)
  }
}

/** lr * factor(step); one function for all groups, or one a group. */
export class LambdaLR extends Schedule {
  constructor(
    optimizer: Schedulable,
    readonly factor: ((step: number) => number) | readonly ((step: number) => number)[],
  ) {
    super(optimizer)
    const list = typeof factor === 'function' ? [factor] : factor
    if (!Array.isArray(list) || list.some((f) => typeof f !== 'function')) {
      throw new ArgumentError(`LambdaLR: expected a function or one a group, got ${show(factor)}`)
    }
    if (typeof factor !== 'function' && factor.length !== this.baseLrs.length) {
      throw new ArgumentError(`LambdaLR: ${factor.length} functions for ${this.baseLrs.length} groups`)
    }
    this.apply()
  }

  lrAt(base: number, step: number, group: number): number {
    const factor = typeof this.factor === 'function' ? this.factor : (this.factor[group] as (step: number) => number)
    return base * factor(step)
  }
}

/**
 * One schedule after the other, each counting from 0 at its milestone: `new SequentialLR(optimizer, [warmUp, cosine],
 * [500])` warms up for 500 steps. All of them must be made on the same optimizer before the first step.
 */
export class SequentialLR extends Schedule {
  constructor(
    optimizer: Schedulable,
    readonly schedules: readonly Schedule[],
    readonly milestones: readonly number[],
  ) {
    super(optimizer)
    if (schedules.length === 0 || milestones.length !== schedules.length - 1) {
      throw new ArgumentError(
        `SequentialLR: ${schedules.length} schedules need ${schedules.length - 1} milestones, got ${milestones.length}`,
      )
    }
    for (const [i, milestone] of milestones.entries()) {
      checkInteger('SequentialLR', `milestones[${i}]`, milestone, i === 0 ? 1 : (milestones[i - 1] as number) + 1)
    }
    // The first one was made when the optimizer still had its own lr; later ones saw what that one had set.
    this.baseLrs = [...(schedules[0] as Schedule).baseLrs]
    this.apply()
  }

  lrAt(base: number, step: number, group: number): number {
    const passed = this.milestones.filter((milestone) => milestone <= step).length
    const start = passed === 0 ? 0 : (this.milestones[passed - 1] as number)
    return (this.schedules[passed] as Schedule).lrAt(base, step - start, group)
  }
}
