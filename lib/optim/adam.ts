import { ArgumentError, show } from '../core/errors'
import { native } from '../native/call'
import type { Tensor } from '../tensor/tensor'
import { type Group, type GroupOptions, Optimizer, type Params, zerosBeside } from './optimizer'

export interface AdamOptions extends GroupOptions {
  /** Decay of the running means of the gradient and of its square. */
  betas: readonly [beta1: number, beta2: number]
  /** Added to the root of the second mean. */
  eps: number
}

abstract class AdamBase extends Optimizer<AdamOptions> {
  protected abstract readonly decoupled: 0 | 1

  protected override check(options: AdamOptions): void {
    super.check(options)
    this.atLeast0(options, 'eps')
    const { betas } = options
    const valid =
      Array.isArray(betas) && betas.length === 2 && betas.every((b) => typeof b === 'number' && b >= 0 && b < 1)
    if (!valid) throw new ArgumentError(`${this.name}: betas must be two numbers in [0, 1), got ${show(betas)}`)
  }

  protected update(parameter: Tensor, grad: Tensor, group: Group<AdamOptions>, gradScale: number): void {
    let state = this.states.get(parameter)
    if (!state) {
      state = { step: 0, expAvg: zerosBeside(parameter), expAvgSq: zerosBeside(parameter) }
      this.states.set(parameter, state)
    }
    const step = (state.step as number) + 1
    state.step = step
    const { lr, eps, weightDecay } = group
    const [beta1, beta2] = group.betas
    native.adamStep(
      parameter,
      grad,
      state.expAvg as Tensor,
      state.expAvgSq as Tensor,
      lr,
      beta1,
      beta2,
      eps,
      weightDecay,
      this.decoupled,
      1 - beta1 ** step,
      1 - beta2 ** step,
      gradScale,
    )
  }
}

/**
 * Adam (Kingma and Ba 2015): m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, and
 * p -= lr * m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps). weightDecay adds weightDecay * p to the gradient.
 * States are float32 whatever the parameter's dtype.
 *
 * Defaults: lr 1e-3, betas [0.9, 0.999], eps 1e-8, weightDecay 0.
 */
export class Adam extends AdamBase {
  protected readonly decoupled = 0

  constructor(params: Params<AdamOptions>, options: Partial<AdamOptions> = {}) {
    super(params, { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, ...options })
  }
}

/**
 * Adam with decoupled weight decay (Loshchilov and Hutter 2019): p *= 1 - lr * weightDecay before the step, so decay
 * does not pass through the running means.
 *
 * Defaults: lr 1e-3, betas [0.9, 0.999], eps 1e-8, weightDecay 0.01.
 */
export class AdamW extends AdamBase {
  protected readonly decoupled = 1

  constructor(params: Params<AdamOptions>, options: Partial<AdamOptions> = {}) {
    super(params, { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, ...options })
  }
}
