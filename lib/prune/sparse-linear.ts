/** A fully connected layer whose weights are sparse. It is made by convert, and is a Module like any other. */
import { ArgumentError, KerfError, show } from '../core/errors'
import { checkShape } from '../core/shape'
import { showPercent } from '../core/text-table'
import { countZeros } from '../nn/model'
import { Module } from '../nn/module'
import { checkBias } from '../ops/epilogue'
import { sparseLinear } from '../ops/spmatmul'
import { checkFormat, type SparseFormat, type SparseParts, SparseTensor, showFormat } from '../tensor/sparse'
import { checkTensor, copyTo, type Tensor } from '../tensor/tensor'
import { fromParts, type PartName, sparseParts } from './sparse-parts'

export interface SparseLinearParts {
  /**
   * [out, in]. Parts that are no SparseTensor yet are made one when the layer first computes, and checked then: so values
   * may be loaded after the layer is made.
   */
  weight: SparseTensor | SparseParts
  /** float [out]; default none. */
  bias?: Tensor | null
}

/**
 * y = x W^T + b with a SparseTensor W. Its tensors are buffers, so that stateDict(), saving and loading work as for a dense
 * layer: `weight` (the values that are stored), those that the format has of `weightPointers`, `weightColumns` and
 * `weightMetadata`, and `bias`. Gradients flow to the input, none to the weights. to() converts values and bias.
 */
export class SparseLinear extends Module {
  readonly inFeatures: number
  readonly outFeatures: number
  readonly format: SparseFormat
  weight!: Tensor
  weightPointers!: Tensor<'int32'> | null
  weightColumns!: Tensor<'int32'> | null
  weightMetadata!: Tensor<'uint8'> | null
  bias!: Tensor | null
  #sparse: SparseTensor | null
  #zeros: { of: Tensor; count: number } | null = null

  /** @throws ArgumentError, ShapeError or DTypeError for weights that are no [out, in] matrix or a bias that is not [out] */
  constructor(parts: SparseLinearParts) {
    super()
    const op = 'SparseLinear'
    const weight = parts?.weight
    if (typeof weight !== 'object' || weight === null)
      throw new ArgumentError(`${op}: weight must be a SparseTensor [out, in], got ${show(weight)}`)
    const shape = checkShape(op, weight.shape)
    if (shape.length !== 2) throw new ArgumentError(`${op}: weight must be [out, in], got ${show(shape)}`)
    ;[this.outFeatures, this.inFeatures] = shape as [number, number]
    this.format = checkFormat(op, weight.format)
    checkTensor(op, 'values', weight.values)
    for (const { name, buffer } of sparseParts)
      this.registerBuffer(buffer, weight[name] ?? null, { fixed: name !== 'values' })
    if (parts.bias) checkBias(op, parts.bias, this.outFeatures)
    this.registerBuffer('bias', parts.bias ?? null)
    this.#sparse = weight instanceof SparseTensor ? weight : null
  }

  /**
   * The weights as one value; its tensors are this layer's buffers.
   *
   * @throws ArgumentError, ShapeError or DTypeError when they do not fit together
   */
  get sparseWeight(): SparseTensor {
    // Made anew when a buffer was loaded or replaced: what was packed of the old one is out of date.
    const known = this.#sparse
    if (known && sparseParts.every(({ name, buffer }) => known[name] === this[buffer])) return known
    try {
      this.#sparse = this.#of((name) => this.#own(name))
    } catch (cause) {
      if (!(cause instanceof ArgumentError)) throw cause
      throw new ArgumentError(`SparseLinear: its weights are damaged or not yet loaded: ${cause.message}`, { cause })
    }
    return this.#sparse
  }

  /** How many of the weights are 0. Waits in place for the values, when they have changed. */
  get zeros(): number {
    if (this.#zeros?.of !== this.weight) {
      const stored = this.weight.size - countZeros(this.weight)
      this.#zeros = { of: this.weight, count: this.outFeatures * this.inFeatures - stored }
    }
    return this.#zeros.count
  }

  #own(name: PartName): Tensor | null {
    return this[(sparseParts.find((part) => part.name === name) as (typeof sparseParts)[number]).buffer]
  }

  #of(part: (name: PartName) => Tensor | null): SparseTensor {
    return fromParts([this.outFeatures, this.inFeatures], this.format, part)
  }

  /** Indices that were damaged in a file are found here, and not when the layer first computes. */
  protected override checkState(path: string, given: (name: string) => Tensor | undefined): void {
    const indices = sparseParts.filter(({ name }) => name !== 'values')
    if (!indices.some(({ buffer }) => given(buffer))) return
    // Copies, since a SparseTensor takes over what it is made of.
    const copies = new Map<PartName, Tensor>()
    for (const { name, buffer } of indices) {
      const from = given(buffer)
      const own = this[buffer]
      if (from && own) copies.set(name, copyTo(from, own.dtype))
    }
    try {
      this.#of((name) => copies.get(name) ?? this.#own(name))
    } catch (error) {
      if (!(error instanceof KerfError)) throw error
      throw new ArgumentError(`loadStateDict: layer '${path}': ${error.message}`, { cause: error })
    } finally {
      for (const copy of copies.values()) copy.dispose()
    }
  }

  protected override stateLoaded(): void {
    this.#sparse = null
    this.#zeros = null
  }

  /** @param input float [..., inFeatures] */
  forward(input: Tensor): Tensor {
    return sparseLinear(input, this.sparseWeight, this.bias)
  }

  override describe(): string {
    const zeros = showPercent(this.zeros / (this.outFeatures * this.inFeatures))
    return `inFeatures=${this.inFeatures}, outFeatures=${this.outFeatures}, bias=${this.bias !== null}, ${showFormat(this.format)}, ${zeros} zeros`
  }
}
