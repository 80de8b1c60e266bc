/** Trains a model: the loop around model, optimizer and loss, with all that must survive an interruption. */
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { isIterable } from '../core/checks'
import { ArgumentError, show } from '../core/errors'
import { Means } from '../core/means'
import { manualSeed, randomState, setRandomState } from '../core/rng'
import { checkInteger } from '../core/shape'
import type { Batch } from '../data/dataset'
import { Loader, type LoaderState } from '../data/loader'
import type { PathLike } from '../io/source'
import { keepingModes } from '../nn/model'
import { ReduceLROnPlateau } from '../optim/plateau'
import { noGrad } from '../tensor/context'
import { loadCheckpoint, saveCheckpoint } from './checkpoint'
import { Curve, type EpochResult, type Scores } from './history'
import { checkOptions, type Plan, type TrainerOptions } from './options'
import { Bar } from './progress'
import { configuration, runReport } from './run-report'
import { checkState, type PartName, type Running } from './state'
import { Accumulation, fieldsOf, run } from './step'

/** Batches: arrays of the input, the target, and what else there is. It is iterated once an epoch: an array or a loader. */
export type TrainData = Iterable<Batch> | AsyncIterable<Batch>

export interface FitOptions {
  /** How many there are in all, those that an earlier fit() or the checkpoint has behind it included. Default 1. */
  epochs?: number
  /** Evaluated after every epoch. */
  validation?: TrainData
  /** Goes on from the checkpoint's file when it is there; default false. */
  resume?: boolean
  /** Stops after the step at hand, with a checkpoint. A later fit() goes on with the next batch. */
  signal?: AbortSignal
}

export interface FitResult {
  /** A line for every epoch, those of earlier runs included. */
  history: EpochResult[]
  /** Why it ended: all epochs are done, a metric stopped improving, or the signal. */
  stopped: 'epochs' | 'early' | 'signal'
}

/**
 * Trains a model. Forward, backward and step run on the stream; the event loop is never blocked. Batches are brought to the
 * device of the model's parameters.
 *
 * A checkpoint holds weights, buffers and masks, optimizer, schedule, scaler, averages, the state of manualSeed's stream, the
 * loader's order and position, early stopping and history: a run that goes on from it computes the same bits as one that was
 * never interrupted, as long as the target (`info().target`) is the same.
 *
 * @example
 * const trainer = new train.Trainer({ model, optimizer, loss: crossEntropy, metrics: { accuracy: train.accuracy } })
 * const { history } = await trainer.fit(batches, { epochs: 10, validation })
 */
export class Trainer {
  readonly #plan: Plan
  readonly #curve = new Curve()
  readonly #bar = new Bar()
  #history: EpochResult[] = []
  #step = 0
  /** The epoch that is under way, or null between epochs. */
  #running: Running | null = null
  /** Where the loader was after the last whole epoch. */
  #loader: LoaderState | null = null
  /** Whether that is from a file and not yet told to a loader. */
  #loaded = false
  #seeded = false
  #busy = false

  /** @throws ArgumentError for options that make no sense */
  constructor(options: TrainerOptions) {
    this.#plan = checkOptions(options)
  }

  /** A line for every epoch that is done. */
  get history(): readonly EpochResult[] {
    return this.#history
  }

  /** Epochs that are done. */
  get epoch(): number {
    return this.#history.length
  }

  /** Steps of the optimizer that are done, those that the scaler skipped included. */
  get step(): number {
    return this.#step
  }

  /**
   * Trains until `epochs` epochs are done. The model and all below it are in their own modes again afterwards.
   *
   * @throws ArgumentError for wrong options; FormatError for a checkpoint that is damaged; what model, data and loss throw
   */
  async fit(data: TrainData, options: FitOptions = {}): Promise<FitResult> {
    const op = 'fit'
    const { validation, signal, resume } = options
    const epochs = checkInteger(op, 'epochs', options.epochs ?? 1, 1)
    checkData(op, 'data', data)
    if (validation !== undefined) checkData(op, 'validation', validation)
    if (signal !== undefined && !(signal instanceof AbortSignal))
      throw new ArgumentError(`${op}: signal must be an AbortSignal, got ${show(signal)}`)
    if (this.#busy) throw new ArgumentError(`${op}: this trainer is at work already`)
    const { model, checkpoint, log, report, seed, onEpoch } = this.#plan
    if (resume && !checkpoint) throw new ArgumentError(`${op}: resume needs the trainer's checkpoint`)
    this.#busy = true
    try {
      if (resume && checkpoint && existsSync(localPath(checkpoint.path))) await this.load(checkpoint.path)
      else if (seed !== null && !this.#seeded) manualSeed(seed)
      this.#seeded = true
      const about = configuration(this.#plan, data, epochs)
      await log?.write({ event: 'start', epoch: this.epoch, step: this.#step, ...Object.fromEntries(about) })
      return await keepingModes([model], async () => {
        while (this.epoch < epochs && !this.#plan.early?.over) {
          if (!(await this.#runEpoch(op, data, validation, signal))) {
            if (checkpoint) await this.save(checkpoint.path)
            return this.#result('signal')
          }
          const last = this.#history.at(-1) as EpochResult
          await log?.write({ event: 'epoch', ...last }, true)
          await onEpoch?.(last)
          if (report) await runReport(report, about, this.#history, this.#curve)
          const due = this.epoch === epochs || this.#plan.early?.over || this.epoch % (checkpoint?.every ?? 1) === 0
          if (checkpoint && due) await this.save(checkpoint.path)
        }
        return this.#result(this.epoch < epochs ? 'early' : 'epochs')
      })
    } finally {
      this.#bar.stop()
      await log?.close()
      this.#busy = false
    }
  }

  /**
   * Loss and metrics over data, means over its samples, in evaluation mode and without gradients; of the averages when there
   * is an `ema`.
   *
   * @throws ArgumentError for no data, or no batch in it; what model, data and loss throw; the signal's reason
   */
  async evaluate(data: TrainData, options: { signal?: AbortSignal } = {}): Promise<Scores> {
    const op = 'evaluate'
    checkData(op, 'data', data)
    const { model, ema } = this.#plan
    return keepingModes([model], async () => {
      model.eval()
      const measure = () => this.#measure(op, data, options.signal)
      return ema ? ema.averaged(measure) : measure()
    })
  }

  async #measure(op: string, data: TrainData, signal: AbortSignal | undefined): Promise<Scores> {
    const means = this.#means()
    for await (const batch of data) {
      signal?.throwIfAborted()
      const { input, target, samples } = fieldsOf(op, batch)
      const values = noGrad(() => run(op, this.#plan, input, target, null))
      means.add((await values.data()) as Float32Array, samples)
      values.dispose()
    }
    if (means.rows === 0) throw new ArgumentError(`${op}: data was empty (an array or a loader, not a generator)`)
    return this.#scores(means)
  }

  /** Trains to the end of the epoch and evaluates; false when the signal came first. */
  async #runEpoch(op: string, data: TrainData, validation?: TrainData, signal?: AbortSignal): Promise<boolean> {
    const { schedule, scheduleEvery, optimizer, early } = this.#plan
    const start = performance.now()
    const running = this.#begin(data)
    const count = data instanceof Loader ? Math.ceil(data.length / this.#plan.accumulate) : 0
    await this.#bar.start(
      this.#plan.progress,
      `epoch ${this.epoch + 1}`,
      count,
      Math.ceil(running.batches / this.#plan.accumulate),
    )
    if (!(await this.#train(op, data, running, signal))) return false
    this.#bar.stop()
    if (running.means.rows === 0)
      throw new ArgumentError(`${op}: data was empty in epoch ${this.epoch} (an array or a loader, not a generator)`)
    const training = this.#scores(running.means)
    let scores: Scores | null = null
    try {
      scores = validation === undefined ? null : await this.evaluate(validation, { signal })
    } catch (error) {
      if (signal?.aborted && error === signal.reason) return false
      throw error
    }
    const judged = scores ?? training
    if (schedule instanceof ReduceLROnPlateau) schedule.step(judged.loss)
    else if (scheduleEvery === 'epoch') schedule?.step()
    early?.step(judged[early.metric] as number)
    this.#history.push({
      epoch: this.epoch,
      step: this.#step,
      lr: optimizer.paramGroups[0]?.lr ?? 0,
      training,
      validation: scores,
      seconds: (performance.now() - start) / 1000,
    })
    this.#running = null
    this.#loader = loaderState(data)
    return true
  }

  /** The epoch that was interrupted, or a new one; the loader is where it belongs. */
  #begin(data: TrainData): Running {
    const known = this.#running
    const state = known ? known.loader : this.#loaded ? this.#loader : null
    this.#loaded = false
    if (data instanceof Loader && state) data.loadStateDict(state)
    this.#running = known ?? { batches: 0, loader: loaderState(data), means: this.#means() }
    return this.#running
  }

  /** What is left of the epoch's batches; false when the signal came first. */
  async #train(op: string, data: TrainData, running: Running, signal: AbortSignal | undefined): Promise<boolean> {
    const { model, accumulate } = this.#plan
    const group = new Accumulation()
    let rows: { values: Float32Array; samples: number }[] = []
    let position = running.loader
    let skip = data instanceof Loader ? 0 : running.batches
    const finish = async () => {
      await this.#move(group, rows, running, position)
      rows = []
    }
    model.train()
    model.zeroGrad()
    for await (const batch of data) {
      if (skip > 0) {
        skip--
        continue
      }
      if (group.batches === 0 && signal?.aborted) return false
      position = loaderState(data) // after the last batch it is at the next epoch
      const { values, samples } = group.add(op, this.#plan, batch)
      rows.push({ values: (await values.data()) as Float32Array, samples })
      values.dispose()
      if (group.batches === accumulate) await finish()
    }
    if (group.batches > 0) await finish()
    return !signal?.aborted
  }

  /** A step of the optimizer, and all that is told of it. */
  async #move(
    group: Accumulation,
    rows: readonly { values: Float32Array; samples: number }[],
    running: Running,
    position: LoaderState | null,
  ): Promise<void> {
    const { schedule, scheduleEvery, checkpoint, log, optimizer, onStep } = this.#plan
    await group.step(this.#plan)
    this.#step++
    if (schedule && scheduleEvery === 'step' && !(schedule instanceof ReduceLROnPlateau)) schedule.step()
    const step = this.#means()
    for (const { values, samples } of rows) {
      step.add(values, samples)
      running.means.add(values, samples)
    }
    running.batches += rows.length
    running.loader = position
    const scores = this.#scores(step)
    this.#curve.add(this.#step, scores.loss)
    this.#bar.step(scores.loss)
    const lr = optimizer.paramGroups[0]?.lr ?? 0
    if (log && log.every > 0 && this.#step % log.every === 0)
      await log.write({ event: 'step', epoch: this.epoch, step: this.#step, lr, ...scores })
    await onStep?.({ epoch: this.epoch, step: this.#step, lr, scores })
    if (checkpoint && checkpoint.steps > 0 && this.#step % checkpoint.steps === 0) await this.save(checkpoint.path)
  }

  #means(): Means {
    return new Means(1 + this.#plan.metrics.length)
  }

  #scores(means: Means): Scores {
    const entries = ['loss', ...this.#plan.metrics.map(([name]) => name)].map((name, i) => [name, means.mean(i)])
    return Object.fromEntries(entries) as Scores
  }

  #result(stopped: FitResult['stopped']): FitResult {
    return { history: [...this.#history], stopped }
  }

  /** Writes a checkpoint, as the option `checkpoint` does. Between steps, that is, not while fit() runs. */
  async save(path: PathLike): Promise<void> {
    const { model, early } = this.#plan
    const running = this.#running && { ...this.#running, means: this.#running.means.stateDict() }
    const metrics = this.#plan.metrics.map(([name]) => name)
    const parts = Object.fromEntries(this.#stateful().map(([name, part]) => [name, part.stateDict()]))
    await saveCheckpoint(path, {
      ...{ model: model.stateDict(), ...parts, early: early?.stateDict() ?? null, random: randomState() },
      ...{
        history: this.#history,
        curve: this.#curve.stateDict(),
        step: this.#step,
        metrics,
        running,
        loader: this.#loader,
      },
    })
  }

  /**
   * Goes on from a checkpoint of a trainer with the same parts.
   *
   * @throws FormatError for a file that is damaged or no trainer's checkpoint; ArgumentError, ShapeError for one of other parts
   */
  async load(path: PathLike): Promise<void> {
    const op = 'load'
    const { model, early, metrics } = this.#plan
    const parts = this.#stateful()
    const [names, kinds] = [metrics.map(([name]) => name), parts.map(([name]) => name)]
    const state = checkState(op, path, await loadCheckpoint(path), kinds, names)
    model.loadStateDict(state.model)
    for (const [name, part] of parts) part.loadStateDict(state[name] as never)
    if (early && state.early) early.loadStateDict(state.early)
    setRandomState(state.random)
    this.#seeded = true
    this.#history = [...state.history]
    this.#curve.loadStateDict(state.curve)
    this.#step = state.step
    this.#loader = state.loader
    this.#loaded = true
    this.#running = state.running ? { ...state.running, means: Means.from(state.running.means) } : null
  }

  /** In the order in which they are loaded: a schedule writes into the optimizer. */
  #stateful(): [name: PartName, part: Stateful][] {
    const { optimizer, schedule, scaler, ema } = this.#plan
    const all = [
      ['optimizer', optimizer],
      ['schedule', schedule],
      ['scaler', scaler],
      ['ema', ema],
    ] as const
    return all.flatMap(([name, part]) => (part === null ? [] : [[name, part as Stateful]]))
  }
}

interface Stateful {
  stateDict(): object
  loadStateDict(state: never): void
}

function checkData(op: string, name: string, data: unknown): void {
  if (!isIterable(data)) throw new ArgumentError(`${op}: ${name} must be an iterable of batches, got ${show(data)}`)
}

const loaderState = (data: TrainData): LoaderState | null => (data instanceof Loader ? data.stateDict() : null)

const localPath = (path: PathLike) => (path instanceof URL ? fileURLToPath(path) : path)
