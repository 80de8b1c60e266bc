import type { FloatDType } from '../core/dtype'
import { checkInteger } from '../core/shape'
import type { ActivationName } from '../ops/epilogue'
import { linear } from '../ops/matmul'
import { empty, type Tensor } from '../tensor/tensor'
import { kaimingUniform, uniform } from './init'
import { Module } from './module'
import { own, type Parameter } from './parameter'

export interface LinearOptions {
  /** Adds a learned bias; default true. */
  bias?: boolean
  /** Of the parameters; default 'float32'. */
  dtype?: FloatDType
}

/**
 * y = x W^T + b, over the last axis of x.
 *
 * weight is [outFeatures, inFeatures] and bias [outFeatures]; both start uniform in +-1 / sqrt(inFeatures), PyTorch's
 * default.
 */
export class Linear extends Module {
  weight: Parameter
  bias: Parameter | null

  constructor(inFeatures: number, outFeatures: number, options: LinearOptions = {}) {
    super()
    checkInteger('Linear', 'inFeatures', inFeatures, 1)
    checkInteger('Linear', 'outFeatures', outFeatures, 1)
    const dtype = options.dtype ?? 'float32'
    this.weight = own(kaimingUniform(empty(dtype, [outFeatures, inFeatures]), { a: Math.sqrt(5) }))
    const bound = 1 / Math.sqrt(inFeatures)
    this.bias = (options.bias ?? true) ? own(uniform(empty(dtype, [outFeatures]), -bound, bound)) : null
  }

  // The sizes are the weight's own: pruning replaces it by a smaller one.
  get inFeatures(): number {
    return this.weight.shape[1] as number
  }

  get outFeatures(): number {
    return this.weight.shape[0] as number
  }

  /** @param input [..., inFeatures] */
  forward(input: Tensor): Tensor {
    return linear(input, this.weight, this.bias)
  }

  /** forward() and an activation in one pass. */
  forwardActivated(input: Tensor, activation: ActivationName): Tensor {
    return linear(input, this.weight, this.bias, { activation })
  }

  override describe(): string {
    return `inFeatures=${this.inFeatures}, outFeatures=${this.outFeatures}, bias=${this.bias !== null}`
  }
}
