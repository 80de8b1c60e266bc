/** Layers around one op each: embeddings, normalisation, dropout, softmax. */
import type { FloatDType } from '../core/dtype'
import { ArgumentError, ShapeError, show } from '../core/errors'
import { checkInteger, checkNumber, checkShape, showShape } from '../core/shape'
import { mul } from '../ops/arithmetic'
import { full } from '../ops/create'
import { dropout } from '../ops/dropout'
import { embedding } from '../ops/index'
import { layerNorm, rmsNorm } from '../ops/norm'
import { logSoftmax, softmax } from '../ops/softmax'
import { checkTensor, empty, type Tensor } from '../tensor/tensor'
import { normal, ones, zeros } from './init'
import { Module } from './module'
import { own, type Parameter } from './parameter'

export interface EmbeddingLayerOptions {
  /** A row that starts as zeros and never gets a gradient. */
  paddingIdx?: number
  /** Default 'float32'. */
  dtype?: FloatDType
}

/**
 * A table of vectors, looked up by index: int [...] in, [..., embeddingDim] out. weight is [numEmbeddings,
 * embeddingDim] and starts standard normal.
 */
export class Embedding extends Module {
  weight: Parameter
  readonly paddingIdx: number | null

  constructor(numEmbeddings: number, embeddingDim: number, options: EmbeddingLayerOptions = {}) {
    super()
    checkInteger('Embedding', 'numEmbeddings', numEmbeddings, 1)
    checkInteger('Embedding', 'embeddingDim', embeddingDim, 1)
    this.weight = own(normal(empty(options.dtype ?? 'float32', [numEmbeddings, embeddingDim])))
    this.paddingIdx = null
    if (options.paddingIdx !== undefined) {
      const row = checkInteger('Embedding', 'paddingIdx', options.paddingIdx, -numEmbeddings, numEmbeddings - 1)
      this.paddingIdx = row < 0 ? row + numEmbeddings : row
      const offset = this.weight.offset + this.paddingIdx * embeddingDim
      zeros(this.weight.view('Embedding', [embeddingDim], [1], offset)).dispose()
    }
  }

  // The sizes are the weight's own: pruning replaces it by a smaller one.
  get numEmbeddings(): number {
    return this.weight.shape[0] as number
  }

  get embeddingDim(): number {
    return this.weight.shape[1] as number
  }

  forward(index: Tensor): Tensor {
    return embedding(index, this.weight, this.paddingIdx === null ? {} : { paddingIdx: this.paddingIdx })
  }

  override describe(): string {
    return `${this.numEmbeddings}, ${this.embeddingDim}${this.paddingIdx === null ? '' : `, paddingIdx=${this.paddingIdx}`}`
  }
}

export interface LayerNormOptions {
  /** Added to the variance; default 1e-5. */
  eps?: number
  /** Learned weight (starts as ones) and bias (zeros); default true. */
  elementwiseAffine?: boolean
  /** False leaves only the weight; default true. */
  bias?: boolean
  /** Of the parameters; default 'float32'. */
  dtype?: FloatDType
}

/** (x - mean) / sqrt(variance + eps) * weight + bias over the last axes, whose sizes are `normalizedShape`. */
export class LayerNorm extends Module {
  weight: Parameter | null = null
  bias: Parameter | null = null
  readonly #shape: readonly number[]
  readonly eps: number

  constructor(normalizedShape: number | readonly number[], options: LayerNormOptions = {}) {
    super()
    this.#shape = checkShape('LayerNorm', normalizedShape)
    this.eps = checkNumber('LayerNorm', 'eps', options.eps ?? 1e-5)
    if (!(options.elementwiseAffine ?? true)) return
    const dtype = options.dtype ?? 'float32'
    this.weight = own(ones(empty(dtype, this.#shape)))
    if (options.bias ?? true) this.bias = own(zeros(empty(dtype, this.#shape)))
  }

  /** The weight's own shape where there is one: pruning replaces it by a smaller one. */
  get normalizedShape(): readonly number[] {
    return this.weight?.shape ?? this.#shape
  }

  forward(input: Tensor): Tensor {
    return layerNorm(input, this.normalizedShape, this.weight, this.bias, this.eps)
  }

  override describe(): string {
    return `${showShape(this.normalizedShape)}, eps=${this.eps}, elementwiseAffine=${this.weight !== null}`
  }
}

export interface RMSNormOptions {
  /** Added to the mean square; default: the machine epsilon of the input's dtype, as in PyTorch. */
  eps?: number | null
  /** A learned weight, ones at first; default true. */
  elementwiseAffine?: boolean
  /** Of the parameters; default 'float32'. */
  dtype?: FloatDType
}

/** x / sqrt(mean(x^2) + eps) * weight over the last axes, whose sizes are `normalizedShape` (Zhang and Sennrich 2019). */
export class RMSNorm extends Module {
  weight: Parameter | null = null
  readonly #shape: readonly number[]
  readonly eps: number | null

  constructor(normalizedShape: number | readonly number[], options: RMSNormOptions = {}) {
    super()
    this.#shape = checkShape('RMSNorm', normalizedShape)
    const { eps } = options
    this.eps = eps === undefined || eps === null ? null : checkNumber('RMSNorm', 'eps', eps)
    if (options.elementwiseAffine ?? true) this.weight = own(ones(empty(options.dtype ?? 'float32', this.#shape)))
  }

  /** The weight's own shape where there is one: pruning replaces it by a smaller one. */
  get normalizedShape(): readonly number[] {
    return this.weight?.shape ?? this.#shape
  }

  forward(input: Tensor): Tensor {
    return rmsNorm(input, this.normalizedShape, this.weight, this.eps)
  }

  override describe(): string {
    return `${showShape(this.normalizedShape)}, eps=${this.eps ?? 'auto'}, elementwiseAffine=${this.weight !== null}`
  }
}

/** While training, sets elements to 0 with probability p and divides the others by 1 - p; in eval() nothing. */
export class Dropout extends Module {
  constructor(readonly p = 0.5) {
    super()
    if (!(checkNumber('Dropout', 'p', p) >= 0 && p <= 1))
      throw new ArgumentError(`Dropout: p must be in [0, 1], got ${show(p)}`)
  }

  forward(input: Tensor): Tensor {
    return dropout(input, this.p, { training: this.training })
  }

  override describe(): string {
    return `p=${this.p}`
  }
}

/** While training, sets whole channels of [n, channels, ...] to 0 with probability p and divides the others by 1 - p. */
export class Dropout2d extends Dropout {
  override forward(input: Tensor): Tensor {
    const { dtype, rank, shape, device } = checkTensor('Dropout2d', 'input', input)
    if (rank < 2) throw new ShapeError(`Dropout2d: input must be [n, channels, ...], its shape is ${showShape(shape)}`)
    if (!this.training || this.p === 0) return input
    const ofChannels = shape.map((size, axis) => (axis < 2 ? size : 1))
    return mul(input, dropout(full(ofChannels, 1, { dtype, device }), this.p))
  }
}

/** e^x / sum(e^x) along an axis, the last by default. */
export class Softmax extends Module {
  constructor(readonly axis = -1) {
    super()
    checkInteger('Softmax', 'axis', axis)
  }

  forward(input: Tensor): Tensor {
    return softmax(input, this.axis)
  }

  override describe(): string {
    return `axis=${this.axis}`
  }
}

/** log(softmax(x)) along an axis, the last by default. */
export class LogSoftmax extends Module {
  constructor(readonly axis = -1) {
    super()
    checkInteger('LogSoftmax', 'axis', axis)
  }

  forward(input: Tensor): Tensor {
    return logSoftmax(input, this.axis)
  }

  override describe(): string {
    return `axis=${this.axis}`
  }
}
