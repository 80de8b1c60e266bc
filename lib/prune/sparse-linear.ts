/** A fully connected layer whose weights are sparse. It is made by convert, and is a Module like any other. */
import { ArgumentError, KerfError, show } from '../core/errors'
import { showGranularity } from '../core/quantization'
import { checkShape } from '../core/shape'
import { showPercent } from '../core/text-table'
import { countZeros } from '../nn/model'
import { Module } from '../nn/module'
import {
  type InputMode,
  type InputParts,
  inputBuffers,
  multiplyInput,
  type QuantizedColumns,
  registerInput,
  showInput,
} from '../nn/quantized-input'
import { checkBias } from '../ops/epilogue'
import { sparseLinear } from '../ops/spmatmul'
import { checkFormat, type SparseFormat, type SparseParts, SparseTensor, showFormat } from '../tensor/sparse'
import { checkTensor, copyTo, type Tensor } from '../tensor/tensor'
import { fromParts, granularityOf, type PartName, sparseParts } from './sparse-parts'

export interface SparseLinearParts extends Omit<InputParts, 'input'> {
  /**
   * [out, in]. Parts that are no SparseTensor yet are made one when the layer first computes, and checked then: so values
   * may be loaded after the layer is made.
   */
  weight: SparseTensor | SparseParts
  /** float [out]; default none. */
  bias?: Tensor | null
  /** With int8 weights, as in a quantized layer; default 'float'. */
  input?: InputMode
}

/**
 * y = x W^T + b with a SparseTensor W, of floats or int8. Its tensors are buffers, so that stateDict(), saving and loading
 * work as for a dense layer: `weight` (the values that are stored), `weightScale` of int8 ones, those that the format has of
 * `weightPointers`, `weightColumns` and `weightMetadata`, `bias`, and `inputScale`, `inputZeroPoint`, `inputMultiplier` as
 * in a quantized layer. Gradients flow to the input, none to the weights. to() converts float values and bias.
 */
export class SparseLinear extends Module implements QuantizedColumns {
  readonly inFeatures: number
  readonly outFeatures: number
  readonly format: SparseFormat
  readonly input: InputMode
  weight!: Tensor
  weightScale!: Tensor<'float32'> | null
  weightPointers!: Tensor<'int32'> | null
  weightColumns!: Tensor<'int32'> | null
  weightMetadata!: Tensor<'uint8'> | null
  bias!: Tensor | null
  inputScale!: Tensor<'float32'> | null
  inputZeroPoint!: Tensor<'int32'> | null
  inputMultiplier!: Tensor<'float32'> | null
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
    const { dtype } = checkTensor(op, 'values', weight.values)
    this.input = parts.input ?? 'float'
    for (const name of ['input', ...inputBuffers] as const)
      if (dtype !== 'int8' && parts[name] != null && parts[name] !== 'float')
        throw new ArgumentError(`${op}: ${name} needs int8 weights, they are ${dtype}`)
    for (const { name, buffer } of sparseParts)
      this.registerBuffer(buffer, weight[name] ?? null, { fixed: name !== 'values' })
    if (parts.bias) checkBias(op, parts.bias, this.outFeatures)
    this.registerBuffer('bias', parts.bias ?? null)
    registerInput(op, this, { ...parts, input: this.input }, this.inFeatures)
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
    const indices = sparseParts.filter(({ name }) => name !== 'values' && name !== 'scale')
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
    return multiplyInput(this, input, (x, options) => sparseLinear(x, this.sparseWeight, this.bias, options))
  }

  override describe(): string {
    const zeros = showPercent(this.zeros / (this.outFeatures * this.inFeatures))
    const scale = this.weightScale
    const integers = scale ? `, int8 ${showGranularity(granularityOf(scale))}, ${showInput(this)}` : ''
    return `inFeatures=${this.inFeatures}, outFeatures=${this.outFeatures}, bias=${this.bias !== null}, ${showFormat(this.format)}, ${zeros} zeros${integers}`
  }
}
