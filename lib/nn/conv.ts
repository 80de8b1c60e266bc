/** Layers of convolutions. */
import type { FloatDType } from '../core/dtype'
import { ShapeError } from '../core/errors'
import { checkPair, type Pair } from '../core/pair'
import { checkInteger } from '../core/shape'
import {
  type Conv1dOptions,
  type ConvOptions,
  type ConvTransposeOptions,
  conv1d,
  conv2d,
  convTranspose2d,
} from '../ops/conv'
import type { ActivationName } from '../ops/epilogue'
import { empty, type Tensor } from '../tensor/tensor'
import { kaimingUniform, uniform } from './init'
import { Module } from './module'
import { own, type Parameter } from './parameter'

interface Parameters {
  /** Adds a learned bias; default true. */
  bias?: boolean
  /** Of the parameters; default 'float32'. */
  dtype?: FloatDType
}
export interface Conv1dLayerOptions extends Omit<Conv1dOptions, 'activation'>, Parameters {}
export interface Conv2dOptions extends Omit<ConvOptions, 'activation'>, Parameters {}
export interface ConvTranspose2dOptions extends ConvTransposeOptions, Parameters {}

/**
 * What the layers share: weight and bias, both uniform in +-1 / sqrt(inputs of one output) at the start, PyTorch's default.
 * `shape` is the weight's.
 */
export abstract class Convolution<Options extends Parameters & { groups?: number }> extends Module {
  weight: Parameter
  bias: Parameter | null
  /** Structured pruning replaces them where it takes groups away. */
  options: Readonly<Omit<Options, keyof Parameters>>

  constructor(shape: readonly number[], outChannels: number, options: Options) {
    super()
    const { bias = true, dtype = 'float32', ...rest } = options
    this.options = rest
    this.weight = own(kaimingUniform(empty(dtype, shape), { a: Math.sqrt(5) }))
    const bound = 1 / Math.sqrt(shape.slice(1).reduce((n, s) => n * s, 1))
    this.bias = bias ? own(uniform(empty(dtype, [outChannels]), -bound, bound)) : null
  }

  get groups(): number {
    return this.options.groups ?? 1
  }

  // The sizes are the weight's own: pruning replaces it by a smaller one.
  get inChannels(): number {
    return (this.weight.shape[1] as number) * this.groups
  }

  get outChannels(): number {
    return this.weight.shape[0] as number
  }

  get kernelSize(): readonly number[] {
    return this.weight.shape.slice(2)
  }

  override describe(): string {
    return describeConvolution(this)
  }
}

/** Sizes and options of a layer, for describe(). */
export function describeConvolution(layer: {
  inChannels: number
  outChannels: number
  kernelSize: readonly number[]
  options: object
  bias: Tensor | null
}): string {
  const given = Object.entries(layer.options).map(
    ([name, value]) => `, ${name}=${Array.isArray(value) ? `[${value}]` : value}`,
  )
  return `${layer.inChannels}, ${layer.outChannels}, kernelSize=[${layer.kernelSize}]${given.join('')}${layer.bias ? '' : ', bias=false'}`
}

/** Checked channels; what `split` groups leave of the first. */
function channels(op: string, inChannels: number, outChannels: number, groups: unknown): number {
  checkInteger(op, 'inChannels', inChannels, 1)
  checkInteger(op, 'outChannels', outChannels, 1)
  const g = checkInteger(op, 'groups', groups ?? 1, 1)
  if (inChannels % g !== 0 || outChannels % g !== 0)
    throw new ShapeError(`${op}: ${inChannels} input and ${outChannels} output channels do not split into ${g} groups`)
  return g
}

/**
 * A learned convolution over images, [images, inChannels, height, width] to [images, outChannels, ...]: see conv2d. weight is
 * [outChannels, inChannels / groups, kernel height, kernel width]; groups = inChannels makes it depthwise.
 */
export class Conv2d extends Convolution<Conv2dOptions> {
  constructor(inChannels: number, outChannels: number, kernelSize: Pair, options: Conv2dOptions = {}) {
    const groups = channels('Conv2d', inChannels, outChannels, options.groups)
    super([outChannels, inChannels / groups, ...checkPair('Conv2d', 'kernelSize', kernelSize, 1)], outChannels, options)
  }

  forward(input: Tensor): Tensor {
    return conv2d(input, this.weight, this.bias, this.options)
  }

  /** forward() and an activation in one pass. */
  forwardActivated(input: Tensor, activation: ActivationName): Tensor {
    return conv2d(input, this.weight, this.bias, { ...this.options, activation })
  }
}

/** The same along one axis, [images, inChannels, length]: see conv1d. */
export class Conv1d extends Convolution<Conv1dLayerOptions> {
  constructor(inChannels: number, outChannels: number, kernelSize: number, options: Conv1dLayerOptions = {}) {
    const groups = channels('Conv1d', inChannels, outChannels, options.groups)
    super([outChannels, inChannels / groups, checkInteger('Conv1d', 'kernelSize', kernelSize, 1)], outChannels, options)
  }

  forward(input: Tensor): Tensor {
    return conv1d(input, this.weight, this.bias, this.options)
  }
}

/**
 * A learned upsampling, the transpose of Conv2d: see convTranspose2d. weight is [inChannels, outChannels / groups, kernel height,
 * kernel width].
 */
export class ConvTranspose2d extends Convolution<ConvTranspose2dOptions> {
  constructor(inChannels: number, outChannels: number, kernelSize: Pair, options: ConvTranspose2dOptions = {}) {
    const groups = channels('ConvTranspose2d', inChannels, outChannels, options.groups)
    super(
      [inChannels, outChannels / groups, ...checkPair('ConvTranspose2d', 'kernelSize', kernelSize, 1)],
      outChannels,
      options,
    )
  }

  override get inChannels(): number {
    return this.weight.shape[0] as number
  }

  override get outChannels(): number {
    return (this.weight.shape[1] as number) * this.groups
  }

  forward(input: Tensor): Tensor {
    return convTranspose2d(input, this.weight, this.bias, this.options)
  }
}
