/** A fully connected layer whose weights are integers. It is made by kerf/quant, and is a Module like any other. */
import { ArgumentError } from '../core/errors'
import type { Granularity, QuantDType } from '../core/quantization'
import { showGranularity } from '../core/quantization'
import { quantizedLinear } from '../ops/quantized-linear'
import type { Tensor } from '../tensor/tensor'
import { type InputMode, multiplyInput, type QuantizedColumns, showInput } from './quantized-input'
import { QuantizedLayer, type QuantizedParts } from './quantized-layer'

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
 * y = x W^T + b with W of 8 or 4 bits. Its tensors are buffers (see QuantizedLayer), `inputMultiplier` where there is one too.
 */
export class QuantizedLinear extends QuantizedLayer implements QuantizedColumns {
  declare inputMultiplier: Tensor<'float32'> | null

  constructor(parts: QuantizedParts) {
    const op = 'QuantizedLinear'
    super(op, parts, ['out', 'in'], true)
    checkWeights(op, this.weightDType, this.granularity, this.input)
  }

  get inFeatures(): number {
    return this.weightShape[1] as number
  }

  get outFeatures(): number {
    return this.weightShape[0] as number
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
