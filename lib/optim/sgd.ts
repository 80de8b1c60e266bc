import { ArgumentError } from '../core/errors'
import { native } from '../native/call'
import type { Tensor } from '../tensor/tensor'
import { type Group, type GroupOptions, Optimizer, type Params, zerosBeside } from './optimizer'

export interface SGDOptions extends GroupOptions {
  momentum: number
  dampening: number
  nesterov: boolean
}

/**
 * Stochastic gradient descent with momentum, as in PyTorch: g += weightDecay * p; b = momentum * b + (1 - dampening) * g
 * (b = g at first); p -= lr * (nesterov ? g + momentum * b : b). Momentum is kept in float32 whatever the parameter's dtype.
 *
 * Defaults: lr 1e-3, momentum 0, dampening 0, weightDecay 0, nesterov false.
 */
export class SGD extends Optimizer<SGDOptions> {
  constructor(params: Params<SGDOptions>, options: Partial<SGDOptions> = {}) {
    super(params, { lr: 1e-3, momentum: 0, dampening: 0, weightDecay: 0, nesterov: false, ...options })
  }

  protected override check(options: SGDOptions): void {
    super.check(options)
    this.atLeast0(options, 'momentum')
    this.atLeast0(options, 'dampening')
    if (options.nesterov && (options.momentum === 0 || options.dampening !== 0)) {
      throw new ArgumentError('SGD: nesterov needs momentum > 0 and dampening 0')
    }
  }

  protected update(parameter: Tensor, grad: Tensor, group: Group<SGDOptions>, gradScale: number): void {
    const { lr, momentum, dampening, weightDecay, nesterov } = group
    let buffer: Tensor | null = null
    let first = 0
    if (momentum !== 0) {
      let state = this.states.get(parameter)
      if (!state) {
        state = { momentumBuffer: zerosBeside(parameter) }
        this.states.set(parameter, state)
        first = 1
      }
      buffer = state.momentumBuffer as Tensor
    }
    native.sgdStep(parameter, grad, buffer, lr, momentum, dampening, weightDecay, nesterov ? 1 : 0, first, gradScale)
  }
}
