import { ArgumentError, DTypeError, show } from '../core/errors'
import { checkInteger, showShape } from '../core/shape'
import { native } from '../native/call'
import { maximum, mul, neg } from '../ops/arithmetic'
import { expandView } from '../ops/op'
import { max, min } from '../ops/reduce'
import { cast } from '../ops/unary'
import { checkGrad, type GroupOptions, Optimizer } from '../optim/optimizer'
import { noGrad, scope } from '../tensor/context'
import { checkTensor, empty, keep, type Tensor } from '../tensor/tensor'

export interface GradScalerOptions {
  /** The factor at first; default 65536. */
  initScale?: number
  /** What the factor is multiplied by after growthInterval clean updates; default 2. */
  growthFactor?: number
  /** What it is multiplied by after an update with an infinity or a NaN; default 0.5. */
  backoffFactor?: number
  /** Clean updates in a row before it grows; default 2000. */
  growthInterval?: number
  /** False makes every method pass its work through, so that one loop serves all precisions; default true. */
  enabled?: boolean
}

/** What a checkpoint needs of a scaler. */
export interface GradScalerState {
  scale: number
  growthFactor: number
  backoffFactor: number
  growthInterval: number
  /** Clean updates since the factor changed. */
  growthTracker: number
}

type AnyOptimizer = Optimizer<GroupOptions>

/** What one optimizer has been through since the last update(). */
interface Progress {
  /** The largest magnitude among the unscaled gradients, on the stream: NaN or infinite if one of them is. */
  largest: Tensor<'float32'> | null
  /** Once it is known. */
  overflow: boolean | null
  /** step() has been called, though it may still be waiting. */
  stepped: boolean
}

/** The largest finite float32, beyond which a factor could not multiply a float32 loss. */
const MAX_FLOAT32 = (2 - 2 ** -23) * 2 ** 127

/**
 * Keeps float16 gradients in range (Micikevicius et al. 2018): the loss is multiplied by a factor, so that small gradients
 * are not flushed to zero on their way, and the gradients of the parameters are multiplied by its reciprocal before the
 * step. A step whose gradients hold an infinity or a NaN is skipped, parameters and optimizer state stay as they are bit for bit, and the
 * factor shrinks; after growthInterval clean updates it grows. bfloat16 has float32's range and needs no scaler.
 *
 * @example
 * const loss = amp.autocast('float16', () => crossEntropy(model.forward(x), y))
 * optimizer.zeroGrad()
 * scaler.scale(loss).backward()
 * await scaler.step(optimizer)
 * scaler.update()
 */
export class GradScaler {
  readonly enabled: boolean
  #state: GradScalerState
  readonly #progress = new Map<AnyOptimizer, Progress>()

  /** @throws ArgumentError for options that make no sense */
  constructor(options: GradScalerOptions = {}) {
    const { initScale = 65536, growthFactor = 2, backoffFactor = 0.5, growthInterval = 2000, enabled = true } = options
    if (typeof enabled !== 'boolean')
      throw new ArgumentError(`GradScaler: enabled must be true or false, got ${show(enabled)}`)
    this.enabled = enabled
    this.#state = checkState('GradScaler', {
      scale: initScale,
      growthFactor,
      backoffFactor,
      growthInterval,
      growthTracker: 0,
    })
  }

  /** The factor; 1 when not enabled. */
  getScale(): number {
    return this.enabled ? this.#state.scale : 1
  }

  /** The loss times the factor, in float32: call backward() on it. When not enabled, the loss itself. */
  scale(loss: Tensor): Tensor {
    checkTensor('scale', 'loss', loss)
    if (!this.enabled) return loss
    return mul(loss.dtype === 'float32' ? loss : cast(loss, 'float32'), this.#state.scale)
  }

  /**
   * Divides the gradients of an optimizer's parameters by the factor, in place, and looks for infinities and NaN; step() does
   * it otherwise. Call it before what needs the true gradients: `optim.clipGradNorm`, say. It does not wait.
   *
   * @throws ArgumentError when it was called for this optimizer since the last update(), or when no parameter has a gradient;
   *   DTypeError for float16 gradients, whose parameters should be float32
   */
  unscale(optimizer: AnyOptimizer): void {
    checkOptimizer('unscale', optimizer)
    if (!this.enabled) return
    const progress = this.#of(optimizer)
    if (progress.stepped) throw new ArgumentError('unscale: call it before step(), which does it otherwise')
    if (progress.largest) throw new ArgumentError('unscale: already called for this optimizer since the last update()')
    progress.largest = unscaled(optimizer, 1 / this.#state.scale)
  }

  /**
   * Steps the optimizer unless a gradient is infinite or NaN. Whether one is is found out on the stream: this waits for
   * it without blocking the event loop. Do not touch parameters or gradients until the promise is settled.
   *
   * @returns true when the optimizer stepped, false when the step was skipped
   * @throws ArgumentError when it was called for this optimizer since the last update(); and as unscale()
   */
  async step(optimizer: AnyOptimizer): Promise<boolean> {
    const progress = this.#begin('step', optimizer)
    if (progress) await settle(progress)
    return finish(optimizer, progress)
  }

  /** step(), waiting in place. */
  stepSync(optimizer: AnyOptimizer): boolean {
    const progress = this.#begin('stepSync', optimizer)
    if (progress) settleSync(progress)
    return finish(optimizer, progress)
  }

  /**
   * Adapts the factor to what the steps since the last update() found; once an iteration, after all steps.
   *
   * @param newScale sets the factor instead
   * @throws ArgumentError when there was nothing to learn from, or a step() is still waiting
   */
  update(newScale?: number): void {
    if (newScale !== undefined) checkFactor('update', 'newScale', newScale)
    if (!this.enabled) return
    const all = [...this.#progress.values()]
    if (newScale === undefined && all.length === 0)
      throw new ArgumentError('update: no optimizer was stepped since the last update()')
    if (all.some((p) => p.stepped && p.overflow === null)) throw new ArgumentError('update: await step() first')
    for (const progress of all) settleSync(progress)
    this.#state =
      newScale === undefined
        ? after(
            this.#state,
            all.some((p) => p.overflow),
          )
        : { ...this.#state, scale: newScale }
    this.#progress.clear()
  }

  /** The factor and the rules of its change, as plain numbers. */
  stateDict(): GradScalerState {
    return { ...this.#state }
  }

  /** Takes over what stateDict() returned. @throws ArgumentError for anything else; nothing has changed then */
  loadStateDict(state: GradScalerState): void {
    if (typeof state !== 'object' || state === null)
      throw new ArgumentError(`GradScaler: loadStateDict: expected what stateDict() returns, got ${show(state)}`)
    this.#state = checkState('GradScaler: loadStateDict', state)
  }

  #of(optimizer: AnyOptimizer): Progress {
    let progress = this.#progress.get(optimizer)
    if (!progress) {
      progress = { largest: null, overflow: null, stepped: false }
      this.#progress.set(optimizer, progress)
    }
    return progress
  }

  /** Up to where the answer is under way; null when there is nothing to ask. */
  #begin(op: string, optimizer: AnyOptimizer): Progress | null {
    checkOptimizer(op, optimizer)
    if (!this.enabled) return null
    const known = this.#progress.get(optimizer)
    if (known?.stepped) throw new ArgumentError(`${op}: already called for this optimizer since the last update()`)
    if (!known?.largest) this.unscale(optimizer)
    const progress = this.#of(optimizer)
    progress.stepped = true
    return progress
  }
}

/** The state after an update. A factor that would leave float32 stays. */
function after(state: GradScalerState, overflow: boolean): GradScalerState {
  if (overflow) return { ...state, scale: state.scale * state.backoffFactor, growthTracker: 0 }
  const growthTracker = state.growthTracker + 1
  if (growthTracker < state.growthInterval) return { ...state, growthTracker }
  const grown = state.scale * state.growthFactor
  return { ...state, scale: grown <= MAX_FLOAT32 ? grown : state.scale, growthTracker: 0 }
}

/** Multiplies the gradients by the reciprocal, computed in float64; answers their largest magnitude. */
function unscaled(optimizer: AnyOptimizer, reciprocal: number): Tensor<'float32'> {
  const parameters = optimizer.paramGroups.flatMap((group) => group.params).filter((p) => p.grad !== null)
  if (parameters.length === 0) throw new ArgumentError('unscale: no parameter has a gradient: call backward() first')
  const grads = parameters.map((parameter) => {
    if (parameter.dtype === 'float16')
      throw new DTypeError(
        `unscale: a parameter of shape ${showShape(parameter.shape)} is float16: keep parameters in float32, autocast casts them`,
      )
    return checkGrad('unscale', parameter, parameter.grad as Tensor)
  })
  const found = noGrad(() =>
    scope(() => {
      const { device } = grads[0] as Tensor
      const factor = empty('float32', [], device)
      native.fill(factor, reciprocal)
      let largest: Tensor<'float32'> = empty('float32', [], device)
      native.fill(largest, 0)
      for (const grad of grads) {
        if (grad.size === 0) continue
        native.mul(grad, grad, expandView(grad.dtype === 'float32' ? factor : cast(factor, grad.dtype), grad.shape))
        // NaN wins in max, min and maximum.
        largest = maximum(largest, cast(maximum(max(grad), neg(min(grad))), 'float32'))
      }
      return largest
    }),
  )
  return keep(found)
}

const infinite = (largest: number | undefined) => !Number.isFinite(largest)

async function settle(progress: Progress): Promise<void> {
  if (progress.largest) progress.overflow = infinite((await progress.largest.data())[0])
}

function settleSync(progress: Progress): void {
  if (progress.largest && progress.overflow === null) progress.overflow = infinite(progress.largest.dataSync()[0])
}

function finish(optimizer: AnyOptimizer, progress: Progress | null): boolean {
  progress?.largest?.dispose()
  if (progress?.overflow) return false
  optimizer.step()
  return true
}

function checkOptimizer(op: string, optimizer: unknown): void {
  if (!(optimizer instanceof Optimizer))
    throw new ArgumentError(`${op}: expected an optimizer of kerf/optim, got ${show(optimizer)}`)
}

function checkFactor(op: string, name: string, value: unknown): number {
  if (typeof value !== 'number' || !(value > 0 && value <= MAX_FLOAT32))
    throw new ArgumentError(`${op}: ${name} must be a number > 0 that float32 can hold, got ${show(value)}`)
  return value
}

function checkState(op: string, state: GradScalerState): GradScalerState {
  const growthFactor = checkFactor(op, 'growthFactor', state.growthFactor)
  const backoffFactor = checkFactor(op, 'backoffFactor', state.backoffFactor)
  if (!(growthFactor > 1)) throw new ArgumentError(`${op}: growthFactor must be above 1, got ${growthFactor}`)
  if (!(backoffFactor < 1)) throw new ArgumentError(`${op}: backoffFactor must be below 1, got ${backoffFactor}`)
  return {
    scale: checkFactor(op, op === 'GradScaler' ? 'initScale' : 'scale', state.scale),
    growthFactor,
    backoffFactor,
    growthInterval: checkInteger(op, 'growthInterval', state.growthInterval, 1),
    growthTracker: checkInteger(op, 'growthTracker', state.growthTracker, 0),
  }
}
