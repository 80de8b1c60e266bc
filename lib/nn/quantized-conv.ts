/** A convolution whose weights are integers. It is made by kerf/quant, and is a Module like any other. */
import { ArgumentError } from '../core/errors'
import { type Granularity, type QuantDType, showGranularity } from '../core/quantization'
import { checkInteger } from '../core/shape'
import { conv2d } from '../ops/conv'
import type { QuantizedConvOptions } from '../ops/quantized-conv'
import type { Tensor } from '../tensor/tensor'
import { type Conv2dOptions, describeConvolution } from './conv'
import { type InputMode, inputQuantization, showInput } from './quantized-input'
import { QuantizedLayer, type QuantizedParts } from './quantized-layer'

/** Of a Conv2d, without what makes its parameters. */
type Options = Readonly<Omit<Conv2dOptions, 'bias' | 'dtype'>>

export interface QuantizedConv2dParts extends QuantizedParts {
  /** int8 or uint8 [outChannels, inChannels / groups, kernel height, kernel width], per tensor or per channel(0). */
  weight: QuantizedParts['weight']
  /** Those of the float layer; default none. */
  options?: Options
}

/** Throws unless such weights can be those of a convolution of such inputs. */
export function checkConvWeights(op: string, dtype: QuantDType, granularity: Granularity, input: InputMode): void {
  const rows = granularity.kind === 'channel' && (granularity.axis === 0 || granularity.axis === -4)
  if (dtype.endsWith('4') || !(rows || granularity.kind === 'tensor'))
    throw new ArgumentError(
      `${op}: weights must be int8 or uint8 per tensor or per channel(0), they are ${dtype} ${showGranularity(granularity)}`,
    )
  if (input === 'token')
    throw new ArgumentError(`${op}: input must be float tensor uint8 int8: images have no tokens, got "token"`)
}

/**
 * conv2d() with weights of 8 bits, its tensors buffers (see QuantizedLayer). With input 'float' the float values of the weights
 * serve, in x's dtype: bytes are saved, not time. Other inputs are bytes that meet bytes, in one group.
 */
export class QuantizedConv2d extends QuantizedLayer {
  readonly options: Options

  /** @throws ArgumentError for parts that do not go together, among them groups with an input that is not 'float' */
  constructor(parts: QuantizedConv2dParts) {
    const op = 'QuantizedConv2d'
    super(op, parts, ['outChannels', 'inChannels / groups', 'kernel height', 'kernel width'], false)
    checkConvWeights(op, this.weightDType, this.granularity, this.input)
    this.options = { ...parts.options }
    const groups = checkInteger(op, 'groups', this.groups, 1)
    if (this.outChannels % groups !== 0)
      throw new ArgumentError(`${op}: ${this.outChannels} output channels do not split into ${groups} groups`)
    if (groups !== 1 && this.input !== 'float')
      throw new ArgumentError(`${op}: bytes are convolved in one group: input '${this.input}' with ${groups} groups`)
  }

  get groups(): number {
    return this.options.groups ?? 1
  }

  get inChannels(): number {
    return (this.weightShape[1] as number) * this.groups
  }

  get outChannels(): number {
    return this.weightShape[0] as number
  }

  get kernelSize(): readonly number[] {
    return this.weightShape.slice(2)
  }

  /** @param input float [images, inChannels, height, width] */
  forward(input: Tensor): Tensor {
    const quantizeInput = inputQuantization(this) as QuantizedConvOptions['quantizeInput']
    return conv2d(input, this.quantizedWeight, this.bias, { ...this.options, quantizeInput })
  }

  override describe(): string {
    return `${describeConvolution(this)}, ${this.weightDType} ${showGranularity(this.granularity)}, ${showInput(this)}`
  }
}
