/** An average of a model's weights over the steps of its training. */
import { ArgumentError, show } from '../core/errors'
import { checkInteger, checkNumber, sameShape, showShape } from '../core/shape'
import { native } from '../native/call'
import { checkModel } from '../nn/model'
import type { Module } from '../nn/module'
import { expandView } from '../ops/op'
import type { DeviceName } from '../tensor/device'
import { applyMask } from '../tensor/mask'
import { assignFrom, changed, checkTensor, copyTo, empty, keep, type Tensor } from '../tensor/tensor'

export interface EmaOptions {
  /** Share of the old average in the new one, from 0 to below 1; default 0.999. */
  decay?: number
  /** Begins with a smaller decay, so that the random weights at the start are soon forgotten; default false. */
  warmup?: boolean
}

export interface EmaState {
  /** How often update() was called. */
  updates: number
  /** float32, by the parameters' names. */
  averages: Record<string, Tensor>
}

/**
 * An exponential moving average of a model's parameters (Polyak averaging with forgetting), in float32:
 * average = d * average + (1 - d) * parameter after every step, beginning with the parameters at construction. d is `decay`;
 * with `warmup` it is min(decay, (1 + t) / (10 + t)) at update t = 1, 2, ..., as TensorFlow's ExponentialMovingAverage has it.
 * Buffers are not averaged. Masks hold.
 *
 * @example
 * const ema = new train.Ema(model, { decay: 0.999 })
 * optimizer.step()
 * ema.update()
 * await ema.averaged(() => evaluate(model))
 */
export class Ema {
  readonly model: Module
  readonly decay: number
  readonly warmup: boolean
  #updates = 0
  readonly #averages: ReadonlyMap<string, { parameter: Tensor; average: Tensor<'float32'> }>
  #inside = false

  /** @throws ArgumentError for options that make no sense */
  constructor(model: Module, options: EmaOptions = {}) {
    checkModel('Ema', model)
    const { decay = 0.999, warmup = false } = options
    if (!(checkNumber('Ema', 'decay', decay) >= 0 && decay < 1))
      throw new ArgumentError(`Ema: decay must be in [0, 1), got ${decay}`)
    if (typeof warmup !== 'boolean') throw new ArgumentError(`Ema: warmup must be true or false, got ${show(warmup)}`)
    this.model = model
    this.decay = decay
    this.warmup = warmup
    this.#averages = new Map(
      model
        .namedParameters()
        .map(([name, parameter]) => [name, { parameter, average: keep(copyTo(parameter, 'float32')) }]),
    )
  }

  /** How often update() was called. */
  get updates(): number {
    return this.#updates
  }

  /** Takes the parameters of this moment into the average. Call it after the optimizer's step. */
  update(): void {
    this.#check('update')
    this.#updates++
    const t = this.#updates
    const decay = this.warmup ? Math.min(this.decay, (1 + t) / (10 + t)) : this.decay
    const rests = new Map<DeviceName, Tensor>() // 1 - d, on each device that has parameters
    for (const { parameter, average } of this.#averages.values()) {
      if (average.size === 0) continue
      let rest = rests.get(average.device)
      if (!rest) {
        rest = empty('float32', [], average.device)
        native.fill(rest, 1 - decay)
        rests.set(average.device, rest)
      }
      // average + (1 - d) * (parameter - average): one rounding of the average less than the sum of two products.
      const step = copyTo(parameter, 'float32')
      native.sub(step, step, average)
      native.mul(step, step, expandView(rest, step.shape))
      native.add(average, average, step)
      step.dispose()
    }
    for (const rest of rests.values()) rest.dispose()
  }

  /**
   * Writes the averages into the model, or into another one with parameters of the same names and shapes; its buffers stay.
   *
   * @throws ArgumentError, ShapeError when a parameter is missing or has another shape; nothing has changed then
   */
  copyTo(model: Module = this.model): void {
    this.#check('copyTo')
    checkModel('copyTo', model)
    const targets = new Map(model.namedParameters())
    for (const [name, { average }] of this.#averages) checkAverage('copyTo', name, targets.get(name), average)
    for (const [name, { average }] of this.#averages) write(targets.get(name) as Tensor, average)
  }

  /**
   * Runs `fn` (sync or async) with the averages in the model; its own weights are back afterwards, also when it throws.
   *
   * @returns what `fn` returned
   */
  async averaged<R>(fn: () => R | Promise<R>): Promise<R> {
    this.#check('averaged')
    const weights = [...this.#averages.values()].map(({ parameter }) => keep(copyTo(parameter, parameter.dtype)))
    this.copyTo()
    this.#inside = true
    try {
      return await fn()
    } finally {
      this.#inside = false
      for (const [i, { parameter }] of [...this.#averages.values()].entries()) {
        write(parameter, weights[i] as Tensor)
        weights[i]?.dispose()
      }
    }
  }

  /** What a checkpoint needs; the averages themselves, not copies. */
  stateDict(): EmaState {
    return {
      updates: this.#updates,
      averages: Object.fromEntries([...this.#averages].map(([name, { average }]) => [name, average])),
    }
  }

  /** Takes over copies of what stateDict() returned. @throws ArgumentError, ShapeError; nothing has changed then */
  loadStateDict(state: EmaState): void {
    const op = 'Ema: loadStateDict'
    if (typeof state?.averages !== 'object' || state.averages === null)
      throw new ArgumentError(`${op}: expected what stateDict() returns, got ${show(state)}`)
    const updates = checkInteger(op, 'updates', state.updates, 0)
    const given = new Map(Object.entries(state.averages))
    for (const [name, { average }] of this.#averages) checkAverage(op, name, given.get(name), average)
    for (const name of given.keys())
      if (!this.#averages.has(name)) throw new ArgumentError(`${op}: the model has no parameter '${name}'`)
    for (const [name, { average }] of this.#averages) assignFrom(average, given.get(name) as Tensor)
    this.#updates = updates
  }

  /** Inside averaged() the parameters are the averages, and what is known of them would be wrong. */
  #check(op: string): void {
    if (this.#inside) throw new ArgumentError(`${op}: not while averaged() runs: the model holds the averages`)
  }
}

function checkAverage(op: string, name: string, given: Tensor | undefined, average: Tensor): void {
  if (given === undefined) throw new ArgumentError(`${op}: there is no '${name}'`)
  checkTensor(op, `'${name}'`, given)
  if (!sameShape(given.shape, average.shape))
    throw new ArgumentError(
      `${op}: '${name}' has shape ${showShape(given.shape)}, its average ${showShape(average.shape)}`,
    )
}

function write(parameter: Tensor, values: Tensor): void {
  assignFrom(parameter, values)
  changed(parameter)
  applyMask(parameter)
}
