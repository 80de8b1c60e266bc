/** Layers whose weights are integers. They are made by quantizeModel and convert, and are Modules like any other. */
import { ArgumentError, show } from '../core/errors'
import type { Granularity, QuantDType } from '../core/quantization'
import { showGranularity } from '../core/quantization'
import { Module } from '../nn/module'
import { mul } from '../ops/arithmetic'
import { type InputQuantization, quantizedLinear } from '../ops/quantized-linear'
import { cast } from '../ops/unary'
import { QuantizedTensor } from '../tensor/quantized'
import type { Tensor } from '../tensor/tensor'

/** How a QuantizedLinear takes its input: float, bytes by a range found on the way, or bytes by a fixed scale. */
export const inputModes = ['float', 'tensor', 'token', 'uint8', 'int8'] as const
export type InputMode = (typeof inputModes)[number]

export interface QuantizedLinearParts {
  weight: QuantizedTensor
  bias: Tensor | null
  input: InputMode
  /** With input 'uint8' or 'int8': one element each. */
  inputScale?: Tensor<'float32'> | null
  inputZeroPoint?: Tensor<'int32'> | null
  /** [in]: columns of the input are multiplied by it first (SmoothQuant, AWQ). */
  inputMultiplier?: Tensor<'float32'> | null
}

/** Throws unless the kernels multiply such inputs by such weights. */
export function checkFormat(op: string, dtype: QuantDType, granularity: Granularity, input: InputMode): void {
  if (!inputModes.includes(input))
    throw new ArgumentError(`${op}: input must be ${inputModes.join(' ')}, got ${show(input)}`)
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
export class QuantizedLinear extends Module {
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
    const { weight, input } = parts
    if (!(weight instanceof QuantizedTensor) || weight.rank !== 2)
      throw new ArgumentError(`QuantizedLinear: weight must be a QuantizedTensor [out, in], got ${show(weight)}`)
    checkFormat('QuantizedLinear', weight.dtype, weight.granularity, input)
    if ((input === 'uint8' || input === 'int8') && !parts.inputScale)
      throw new ArgumentError(`QuantizedLinear: input '${input}' needs inputScale`)
    ;[this.outFeatures, this.inFeatures] = weight.shape as [number, number]
    this.weightDType = weight.dtype
    this.granularity = weight.granularity
    this.input = input
    const fixed = { fixed: true }
    this.registerBuffer('weight', weight.values, fixed)
    this.registerBuffer('weightScale', weight.scale, fixed)
    this.registerBuffer('weightZeroPoint', weight.zeroPoint, fixed)
    this.registerBuffer('bias', parts.bias)
    this.registerBuffer('inputScale', parts.inputScale ?? null, fixed)
    this.registerBuffer('inputZeroPoint', parts.inputZeroPoint ?? null, fixed)
    this.registerBuffer('inputMultiplier', parts.inputMultiplier ?? null, fixed)
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
    if (this.input === 'float') {
      const x = this.inputMultiplier ? cast(mul(input, this.inputMultiplier), input.dtype) : input
      return quantizedLinear(x, this.quantizedWeight, this.bias)
    }
    return quantizedLinear(input, this.quantizedWeight, this.bias, {
      quantizeInput: this.#inputQuantization(),
      multiplier: this.inputMultiplier,
    })
  }

  #inputQuantization(): InputQuantization {
    const mode = this.input
    if (mode === 'tensor' || mode === 'token') return mode
    return { scale: this.inputScale as Tensor, zeroPoint: this.inputZeroPoint, dtype: mode as 'uint8' | 'int8' }
  }

  override describe(): string {
    const weights = `${this.weightDType} ${showGranularity(this.granularity)}`
    return `inFeatures=${this.inFeatures}, outFeatures=${this.outFeatures}, bias=${this.bias !== null}, ${weights}, input ${this.input}`
  }
}
