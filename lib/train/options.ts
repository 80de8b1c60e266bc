/** What a Trainer is told, checked against each other. */
import { GradScaler } from '../amp/grad-scaler'
import { ArgumentError, show } from '../core/errors'
import { checkInteger, checkNumber } from '../core/shape'
import { checkPath, type PathLike } from '../io/source'
import { checkModel } from '../nn/model'
import type { Module } from '../nn/module'
import { Optimizer } from '../optim/optimizer'
import type { ReduceLROnPlateau } from '../optim/plateau'
import type { Schedule } from '../optim/schedules'
import type { Tensor } from '../tensor/tensor'
import { EarlyStopping, type EarlyStoppingOptions } from './early-stopping'
import { Ema } from './ema'
import type { EpochResult, StepResult } from './history'
import { Log, type LogOption } from './log'
import { checkMetrics, type Metric } from './metrics'
import type { ProgressOption } from './progress'

export interface TrainerOptions {
  model: Module
  /** Of the model's parameters. */
  optimizer: Optimizer
  /** The mean over the samples of a batch, a tensor of one element: `crossEntropy`, say. */
  loss: (output: Tensor, target: Tensor) => Tensor
  /**
   * Moves the learning rate: its step() is called after every step of the optimizer, or every epoch (`scheduleEvery`). A
   * ReduceLROnPlateau is given the loss, of the validation data if there is any, after every epoch.
   */
  schedule?: Schedule | ReduceLROnPlateau
  /** Default 'step'. */
  scheduleEvery?: 'step' | 'epoch'
  /** For float16: the loss is scaled, and steps whose gradients overflow are skipped. */
  scaler?: GradScaler
  /** Forward runs in this precision, as amp.autocast does it; default null, in that of the weights. */
  autocast?: 'bfloat16' | 'float16' | null
  /** Batches a step: their gradients make the mean over all their samples. Default 1. */
  accumulate?: number
  /** Scales the gradients so that their norm is at most this (optim.clipGradNorm); default: not at all. */
  clipNorm?: number
  /** Averages of the model's weights, which are updated after every step and evaluated. */
  ema?: Ema
  /** Measured beside the loss, on training and validation data. */
  metrics?: Readonly<Record<string, Metric>>
  /** Stops when a metric has stopped improving. */
  earlyStopping?: EarlyStoppingOptions
  /** Saves everything after every `every` epochs (default 1), and after every `steps` steps if given. */
  checkpoint?: { path: PathLike; every?: number; steps?: number }
  /** A file of JSON lines, to which is appended; `{ path, every }` has a line for every so many steps too. */
  log?: LogOption
  /** An HTML file with curves and tables, written anew after every epoch. */
  report?: PathLike
  /** A bar on stderr when that is a terminal: default 'auto'; false: none. */
  progress?: ProgressOption
  /** Called, and waited for, after each step, before a checkpoint: pruning little by little can happen here. */
  onStep?: (result: StepResult) => void | Promise<void>
  /** Called, and waited for, after each epoch, before its checkpoint. */
  onEpoch?: (result: EpochResult) => void | Promise<void>
  /** manualSeed(seed) when training begins; a resumed run goes on with the numbers of its checkpoint instead. */
  seed?: number
}

/** The options, checked, with their defaults. */
export interface Plan {
  readonly model: Module
  readonly optimizer: Optimizer
  readonly loss: TrainerOptions['loss']
  readonly schedule: Schedule | ReduceLROnPlateau | null
  readonly scheduleEvery: 'step' | 'epoch'
  readonly scaler: GradScaler | null
  readonly autocast: 'bfloat16' | 'float16' | null
  readonly accumulate: number
  readonly clipNorm: number | null
  readonly ema: Ema | null
  readonly metrics: readonly [name: string, metric: Metric][]
  readonly early: EarlyStopping | null
  readonly checkpoint: { readonly path: PathLike; readonly every: number; readonly steps: number } | null
  readonly log: Log | null
  readonly report: PathLike | null
  readonly progress: ProgressOption
  readonly onStep: TrainerOptions['onStep'] | null
  readonly onEpoch: TrainerOptions['onEpoch'] | null
  readonly seed: number | null
}

const op = 'Trainer'

function checkChoice<T>(name: string, value: T, choices: readonly T[]): T {
  if (!choices.includes(value))
    throw new ArgumentError(`${op}: ${name} must be ${choices.map(show).join(', ')}, got ${show(value)}`)
  return value
}

function checkFunction<T>(name: string, value: T | undefined): T | null {
  if (value !== undefined && typeof value !== 'function')
    throw new ArgumentError(`${op}: ${name} must be a function, got ${show(value)}`)
  return value ?? null
}

function checkInstance<T>(name: string, value: T | undefined, type: new (...args: never[]) => T): T | null {
  if (value === undefined) return null
  if (!(value instanceof type)) throw new ArgumentError(`${op}: ${name} must be a ${type.name}, got ${show(value)}`)
  return value
}

function checkOptimizer(model: Module, optimizer: unknown): Optimizer {
  if (!(optimizer instanceof Optimizer))
    throw new ArgumentError(`${op}: optimizer must be an optimizer of kerf/optim, got ${show(optimizer)}`)
  const held = new Set(optimizer.paramGroups.flatMap(({ params }) => params))
  if (!model.parameters().some((parameter) => held.has(parameter)))
    throw new ArgumentError(`${op}: the optimizer holds no parameter of the model: make it after changing the model`)
  return optimizer
}

function checkSchedule(schedule: unknown): TrainerOptions['schedule'] | null {
  if (schedule === undefined) return null
  const { step, stateDict, loadStateDict } = (schedule ?? {}) as Schedule
  if ([step, stateDict, loadStateDict].some((method) => typeof method !== 'function'))
    throw new ArgumentError(`${op}: schedule must be a schedule of kerf/optim, got ${show(schedule)}`)
  return schedule as Schedule
}

function checkCheckpoint(given: TrainerOptions['checkpoint']): Plan['checkpoint'] {
  if (given === undefined) return null
  if (typeof given !== 'object' || given === null)
    throw new ArgumentError(`${op}: checkpoint must be { path, every }, got ${show(given)}`)
  return {
    path: checkPath(`${op}: checkpoint`, given.path),
    every: checkInteger(op, 'checkpoint.every', given.every ?? 1, 1),
    steps: given.steps === undefined ? 0 : checkInteger(op, 'checkpoint.steps', given.steps, 1),
  }
}

export function checkOptions(options: TrainerOptions): Plan {
  if (typeof options !== 'object' || options === null)
    throw new ArgumentError(`${op}: options must be an object, got ${show(options)}`)
  const { model, clipNorm } = options
  checkModel(op, model)
  if (clipNorm !== undefined && !(checkNumber(op, 'clipNorm', clipNorm) > 0))
    throw new ArgumentError(`${op}: clipNorm must be > 0, got ${clipNorm}`)
  if (typeof options.loss !== 'function')
    throw new ArgumentError(`${op}: loss must be a function, got ${show(options.loss)}`)
  const ema = checkInstance('ema', options.ema, Ema)
  if (ema && ema.model !== model) throw new ArgumentError(`${op}: ema averages another model`)
  const metrics = checkMetrics(op, options.metrics)
  const early = options.earlyStopping === undefined ? null : new EarlyStopping(op, options.earlyStopping)
  if (early) checkChoice('earlyStopping.metric', early.metric, ['loss', ...metrics.map(([name]) => name)])
  return {
    model,
    optimizer: checkOptimizer(model, options.optimizer),
    loss: options.loss,
    schedule: checkSchedule(options.schedule) ?? null,
    scheduleEvery: checkChoice('scheduleEvery', options.scheduleEvery ?? 'step', ['step', 'epoch']),
    scaler: checkInstance('scaler', options.scaler, GradScaler),
    autocast: checkChoice('autocast', options.autocast ?? null, ['bfloat16', 'float16', null]),
    accumulate: checkInteger(op, 'accumulate', options.accumulate ?? 1, 1),
    clipNorm: clipNorm ?? null,
    ema,
    metrics,
    early,
    checkpoint: checkCheckpoint(options.checkpoint),
    log: options.log === undefined ? null : new Log(op, options.log),
    report: options.report === undefined ? null : checkPath(`${op}: report`, options.report),
    progress: checkChoice('progress', options.progress ?? 'auto', ['auto', false]),
    onStep: checkFunction('onStep', options.onStep),
    onEpoch: checkFunction('onEpoch', options.onEpoch),
    seed: options.seed === undefined ? null : checkInteger(op, 'seed', options.seed, 0),
  }
}
