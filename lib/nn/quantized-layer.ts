/** A layer whose weights are integers: what QuantizedLinear and QuantizedConv2d have in common. */
import { ArgumentError, show } from '../core/errors'
import type { Granularity, QuantDType } from '../core/quantization'
import { QuantizedTensor } from '../tensor/quantized'
import type { Tensor } from '../tensor/tensor'
import { Module } from './module'
import { type InputMode, type InputParts, type QuantizedInput, registerInput } from './quantized-input'

export interface QuantizedParts extends InputParts {
  weight: QuantizedTensor
  bias: Tensor | null
}

/**
 * Its tensors are buffers, so that stateDict(), saving and loading work as for a float layer: `weight` (int8 or uint8, two 4-bit
 * codes a byte), `weightScale`, and where there are any `weightZeroPoint`, `bias`, `inputScale`, `inputZeroPoint`. Gradients
 * flow to the input, none to the weights.
 */
export abstract class QuantizedLayer extends Module implements QuantizedInput {
  readonly weightDType: QuantDType
  readonly granularity: Granularity
  readonly input: InputMode
  weight!: Tensor<'int8'> | Tensor<'uint8'>
  weightScale!: Tensor<'float32'>
  weightZeroPoint!: Tensor<'int32'> | null
  bias!: Tensor | null
  inputScale!: Tensor<'float32'> | null
  inputZeroPoint!: Tensor<'int32'> | null
  /** Of the weights that `weight` holds: int4 ones have another shape than their bytes. */
  protected readonly weightShape: readonly number[]
  #quantized: QuantizedTensor | null

  /**
   * @param axes of the weight, in words
   * @param columns whether the input's last axis meets the weight's, so that it may have an `inputMultiplier`
   */
  constructor(op: string, parts: QuantizedParts, axes: readonly string[], columns: boolean) {
    super()
    const { weight, input } = parts
    if (!(weight instanceof QuantizedTensor) || weight.rank !== axes.length)
      throw new ArgumentError(`${op}: weight must be a QuantizedTensor [${axes.join(', ')}], got ${show(weight)}`)
    this.weightShape = weight.shape
    this.weightDType = weight.dtype
    this.granularity = weight.granularity
    this.input = input
    const fixed = { fixed: true }
    this.registerBuffer('weight', weight.values, fixed)
    this.registerBuffer('weightScale', weight.scale, fixed)
    this.registerBuffer('weightZeroPoint', weight.zeroPoint, fixed)
    this.registerBuffer('bias', parts.bias)
    registerInput(op, this, parts, columns ? (weight.shape[1] as number) : null)
    this.#quantized = weight
  }

  /** The weights as one value; its tensors are this layer's buffers. */
  get quantizedWeight(): QuantizedTensor {
    // Made anew when a buffer was loaded or replaced: what was packed of the old one is out of date.
    const known = this.#quantized
    if (known?.values === this.weight && known.scale === this.weightScale && known.zeroPoint === this.weightZeroPoint)
      return known
    this.#quantized = new QuantizedTensor({
      shape: [...this.weightShape],
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
}
