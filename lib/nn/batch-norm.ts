/** Normalisation of channels over a batch, with running statistics for evaluation. */
import type { FloatDType } from '../core/dtype'
import { ArgumentError, ShapeError, show } from '../core/errors'
import { checkInteger, checkNumber, showShape } from '../core/shape'
import { native } from '../native/call'
import { add } from '../ops/arithmetic'
import { batchNorm } from '../ops/batch-norm'
import { full } from '../ops/create'
import { scope } from '../tensor/context'
import { checkTensor, empty, type Tensor } from '../tensor/tensor'
import { ones, zeros } from './init'
import { Module } from './module'
import { own, type Parameter } from './parameter'

export interface BatchNormLayerOptions {
  /** Added to the variance; default 1e-5. */
  eps?: number
  /**
   * How far the running statistics go towards a batch's, default 0.1; null averages all batches evenly, for which forward()
   * waits for the count of batches.
   */
  momentum?: number | null
  /** Learned weight (starts as ones) and bias (zeros); default true. */
  affine?: boolean
  /** False normalises by the batch's own statistics in eval() too; default true. */
  trackRunningStats?: boolean
  /** Of the parameters; default 'float32'. The statistics are float32 in any case, and stay so in to(). */
  dtype?: FloatDType
}

/** What the layers share; they differ in the inputs they take. */
abstract class BatchNorm extends Module {
  weight: Parameter | null = null
  bias: Parameter | null = null
  /** float32 [numFeatures], zeros at first; null without trackRunningStats. */
  declare runningMean: Tensor | null
  /** float32 [numFeatures], ones at first. */
  declare runningVar: Tensor | null
  /** int64, the batches seen while training. */
  declare numBatchesTracked: Tensor | null
  readonly #features: number
  readonly eps: number
  readonly momentum: number | null

  constructor(name: string, numFeatures: number, options: BatchNormLayerOptions) {
    super()
    this.#features = checkInteger(name, 'numFeatures', numFeatures, 1)
    this.eps = checkNumber(name, 'eps', options.eps ?? 1e-5)
    this.momentum = options.momentum === null ? null : checkNumber(name, 'momentum', options.momentum ?? 0.1)
    const shape = [numFeatures]
    if (options.affine ?? true) {
      const dtype = options.dtype ?? 'float32'
      this.weight = own(ones(empty(dtype, shape)))
      this.bias = own(zeros(empty(dtype, shape)))
    }
    const tracks = options.trackRunningStats ?? true
    if (typeof tracks !== 'boolean')
      throw new ArgumentError(`${name}: trackRunningStats must be true or false, got ${show(tracks)}`)
    const fixed = { fixed: true }
    this.registerBuffer('runningMean', tracks ? zeros(empty('float32', shape)) : null, fixed)
    this.registerBuffer('runningVar', tracks ? ones(empty('float32', shape)) : null, fixed)
    this.registerBuffer('numBatchesTracked', tracks ? full([], 0, { dtype: 'int64' }) : null)
  }

  /** The statistics' or the weight's own size where there is one: pruning replaces them by smaller ones. */
  get numFeatures(): number {
    return (this.runningMean ?? this.weight)?.shape[0] ?? this.#features
  }

  protected abstract checkInput(input: Tensor): void

  forward(input: Tensor): Tensor {
    this.checkInput(input)
    const { weight, bias, runningMean, runningVar, eps, numBatchesTracked } = this
    const training = this.training || runningMean === null
    if (!this.training || numBatchesTracked === null)
      return batchNorm(input, { weight, bias, runningMean, runningVar, eps, training })
    const momentum = this.momentum ?? 1 / (Number(numBatchesTracked.item()) + 1)
    const out = batchNorm(input, { weight, bias, runningMean, runningVar, eps, training, momentum })
    scope(() => native.copy(numBatchesTracked, add(numBatchesTracked, 1)))
    return out
  }

  override describe(): string {
    const { numFeatures, eps, momentum } = this
    return `${numFeatures}, eps=${eps}, momentum=${momentum}, affine=${this.weight !== null}, trackRunningStats=${this.runningMean !== null}`
  }
}

/**
 * (x - mean) / sqrt(variance + eps) * weight + bias for each channel of [n, numFeatures] or [n, numFeatures, length]. While
 * training by the batch's statistics, which move runningMean and runningVar (the unbiased variance) as
 * (1 - momentum) * running + momentum * batch; in eval() by those. As PyTorch's BatchNorm1d, names of its checkpoints
 * included.
 */
export class BatchNorm1d extends BatchNorm {
  constructor(numFeatures: number, options: BatchNormLayerOptions = {}) {
    super('BatchNorm1d', numFeatures, options)
  }

  protected override checkInput(input: Tensor): void {
    const { rank, shape } = checkTensor('BatchNorm1d', 'input', input)
    if (rank !== 2 && rank !== 3)
      throw new ShapeError(`BatchNorm1d: input must be [n, channels] or [n, channels, length], got ${showShape(shape)}`)
  }
}

/** BatchNorm1d for images [n, numFeatures, height, width]. */
export class BatchNorm2d extends BatchNorm {
  constructor(numFeatures: number, options: BatchNormLayerOptions = {}) {
    super('BatchNorm2d', numFeatures, options)
  }

  protected override checkInput(input: Tensor): void {
    const { rank, shape } = checkTensor('BatchNorm2d', 'input', input)
    if (rank !== 4)
      throw new ShapeError(`BatchNorm2d: input must be [n, channels, height, width], got ${showShape(shape)}`)
  }
}
