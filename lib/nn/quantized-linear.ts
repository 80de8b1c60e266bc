/** A fully connected layer whose weights are integers. It is made by kerf/quant, and is a Module like any other. */
import { ArgumentError, show } from '../core/errors'
import type { Granularity, QuantDType } from '../core/quantization'
import { showGranularity } from '../core/quantization'
import { quantizedLinear } from '../ops/quantized-linear'
import { QuantizedTensor } from '../tensor/quantized'
import type { Tensor } from '../tensor/tensor'
import { Module } from './module'
import {
  type InputMode,
  type InputParts,
  multiplyInput,
  type QuantizedInput,
  registerInput,
  showInput,
} from './quantized-input'

export interface QuantizedLinearParts extends InputParts {
  weight: QuantizedTensor
  bias: Tensor | null
}

/** Throws unless the kernels multiply such inputs by such weights. */
export function checkWeights(op: string, dtype: QuantDType, granularity: Granularity, input: InputMode): void {
  const weights = `${dtype} ${showGranularity(granularity)}`
  if (granularity.kind === 'channel' && granularity.axis !== 0 && granularity.axis !== -2)
    throw new ArgumentError(`${op}: weights must be quantized along their inputs, they are ${weights}`)
  if (input !== 'float' && (dtype.endsWith('4') || granularity.kind === 'group')) {
    throw new ArgumentError(
      `${op}: input '${input}' needs int8 or uint8 weights per tensor or per channel(0), they are ${weights}`,
    )
  }
}

/**
 * y = x W^T + b with W of 8 or 4 bits. Its tensors are buffers, so that stateDict(), saving and loading work as for a
 * float layer: `weight` (int8 or uint8, two 4-bit codes a byte), `weightScale`, and where there are any `weightZeroPoint`,
 * `bias`, `inputScale`, `inputZeroPoint`, `inputMultiplier`. Gradients flow to the input, none to the weights.
 */
export class QuantizedLinear extends Module implements QuantizedInput {
  readonly inFeatures: number
  readonly outFeatures: number
  readonly weightDType: QuantDType
  readonly granularity: Granularity
  readonly input: InputMode
  weight!: Tensor<'int8'> | Tensor<'uint8'>
  weightScale!: Tensor<'float32'>
  weightZeroPoint!: Tensor<'int32'> | null
  bias!: Tensor | null
  inputScale!: Tensor<'float32'> | null
  inputZeroPoint!: Tensor<'int32'> | null
  inputMultiplier!: Tensor<'float32'> | null
  #quantized: QuantizedTensor | null = null

  constructor(parts: QuantizedLinearParts) {
    super()
    const op = 'QuantizedLinear'
    const { weight, input } = parts
    if (!(weight instanceof QuantizedTensor) || weight.rank !== 2)
      throw new ArgumentError(`${op}: weight must be a QuantizedTensor [out, in], got ${show(weight)}`)
    ;[this.outFeatures, this.inFeatures] = weight.shape as [number, number]
    this.weightDType = weight.dtype
    this.granularity = weight.granularity
    this.input = input
    const fixed = { fixed: true }
    this.registerBuffer('weight', weight.values, fixed)
    this.registerBuffer('weightScale', weight.scale, fixed)
    this.registerBuffer('weightZeroPoint', weight.zeroPoint, fixed)
    this.registerBuffer('bias', parts.bias)
    registerInput(op, this, parts)
    checkWeights(op, weight.dtype, weight.granularity, input)
    this.#quantized = weight
  }

  /** The weights as one value; its tensors are this layer's buffers. */
  get quantizedWeight(): QuantizedTensor {
    // Made anew when a buffer was loaded or replaced: what was packed of the old one is out of date.
    const known = this.#quantized
    if (known?.values === this.weight && known.scale === this.weightScale && known.zeroPoint === this.weightZeroPoint)
      return known
    this.#quantized = new QuantizedTensor({
      shape: [this.outFeatures, this.inFeatures],
      dtype: this.weightDType,
      granularity: this.granularity,
      values: this.weight,
      scale: this.weightScale,
      zeroPoint: this.weightZeroPoint,
    })
    return this.#quantized
  }

  protected override stateLoaded(): void {
    this.#quantized = null
  }

  /** @param input float [..., inFeatures] */
  forward(input: Tensor): Tensor {
    return multiplyInput(this, input, (x, options) => quantizedLinear(x, this.quantizedWeight, this.bias, options))
  }

  override describe(): string {
    const weights = `${this.weightDType} ${showGranularity(this.granularity)}`
    return `inFeatures=${this.inFeatures}, outFeatures=${this.outFeatures}, bias=${this.bias !== null}, ${weights}, ${showInput(this)}`
  }
}
