/** What a trainer's checkpoint holds, and whether a file holds it. */
import { ArgumentError, FormatError, show } from '../core/errors'
import type { Means } from '../core/means'
import type { RandomState } from '../core/rng'
import type { LoaderState } from '../data/loader'
import type { PathLike } from '../io/source'
import type { StateDict } from '../nn/module'
import type { EarlyStoppingState } from './early-stopping'
import type { Curve, EpochResult } from './history'

/** An epoch that has begun. */
export interface Running {
  /** Batches done, for data that is no loader. */
  batches: number
  loader: LoaderState | null
  means: Means
}

const parts = ['optimizer', 'schedule', 'scaler', 'ema'] as const
export type PartName = (typeof parts)[number]

export type TrainerState = Partial<Record<PartName, object>> & {
  model: StateDict
  early: EarlyStoppingState | null
  random: RandomState
  history: EpochResult[]
  curve: ReturnType<Curve['stateDict']>
  step: number
  /** Names of what `running.means` has sums of, behind the loss. */
  metrics: string[]
  running: (Omit<Running, 'means'> & { means: ReturnType<Means['stateDict']> }) | null
  loader: LoaderState | null
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null
const isNumbers = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((item) => typeof item === 'number')
const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0

const isScores = (value: unknown) => isObject(value) && isNumbers(Object.values(value))
const isResult = (value: unknown) =>
  isObject(value) &&
  isNumbers([value.epoch, value.step, value.lr, value.seconds]) &&
  isScores(value.training) &&
  (value.validation === null || isScores(value.validation))

function isCurve(value: unknown): boolean {
  if (!isObject(value)) return false
  const { every, steps, losses } = value
  return isCount(every) && every !== 0 && isNumbers(steps) && isNumbers(losses) && steps.length === losses.length
}

function isRunning(value: unknown): boolean {
  if (!isObject(value) || !isCount(value.batches) || !isObject(value.means)) return false
  const { rows, weight, sums } = value.means
  return isCount(rows) && typeof weight === 'number' && isNumbers(sums)
}

/** The states of model, parts and loader are checked by those who load them. */
const fields: Readonly<Record<string, (value: unknown) => boolean>> = {
  model: isObject,
  early: (value) => value === null || isObject(value),
  random: isObject,
  history: (value) => Array.isArray(value) && value.every(isResult),
  curve: isCurve,
  step: isCount,
  metrics: (value) => Array.isArray(value) && value.every((name) => typeof name === 'string'),
  running: (value) => value === null || isRunning(value),
  loader: (value) => value === null || isObject(value),
}

/**
 * The state, for a trainer with these parts and metrics.
 *
 * @throws FormatError when it is none; ArgumentError when it is of other parts, or in the middle of an epoch of other metrics
 */
export function checkState(
  op: string,
  path: PathLike,
  state: Readonly<Record<string, unknown>>,
  kinds: readonly PartName[],
  metrics: readonly string[],
): TrainerState {
  for (const [name, valid] of Object.entries(fields))
    if (!valid(state[name]))
      throw new FormatError(`${op}: ${path}: this is no trainer's checkpoint: ${name} is ${show(state[name])}`)
  for (const name of parts) {
    const there = state[name] !== undefined
    if (there === kinds.includes(name)) continue
    throw new ArgumentError(
      `${op}: ${path}: ${there ? `has a state of ${name}, the trainer has none` : `lacks ${name}, which the trainer has`}`,
    )
  }
  const known = state as unknown as TrainerState
  if (known.running && JSON.stringify(known.metrics) !== JSON.stringify(metrics))
    throw new ArgumentError(
      `${op}: ${path}: the epoch that it is in measures ${show(known.metrics)}, the trainer ${show(metrics)}`,
    )
  return known
}
