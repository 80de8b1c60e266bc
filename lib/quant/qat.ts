/** Quantization-aware training: layers that compute as the quantized ones will, and learn as float ones do. */
import { ArgumentError, show } from '../core/errors'
import { Conv2d, describeConvolution } from '../nn/conv'
import type { Linear } from '../nn/linear'
import { checkModel, replaceLayer } from '../nn/model'
import type { AnyModule } from '../nn/module'
import { QuantizedConv2d } from '../nn/quantized-conv'
import type { QuantizedParts } from '../nn/quantized-layer'
import { QuantizedLinear } from '../nn/quantized-linear'
import { conv2d } from '../ops/conv'
import { linear } from '../ops/matmul'
import type { QuantizedConvOptions } from '../ops/quantized-conv'
import { type InputQuantization, quantizedLinear } from '../ops/quantized-linear'
import type { QuantizedTensor } from '../tensor/quantized'
import type { Tensor } from '../tensor/tensor'
import { checkConfig, type QuantConfig } from './config'
import { QatLayer, type RangeOptions } from './qat-layer'
import { configFor, type Quantized, quantizableLayers, type Skip } from './quantizable'

export interface QatOptions {
  skip?: Skip
  /**
   * 'observed' (default): the inputs' range is a moving average over training batches, the weights' their own.
   * 'learned': the logarithms of the scales are parameters, with LSQ's gradients, started from the weights and from what was
   * observed in the first batch.
   */
  ranges?: 'observed' | 'learned'
  /** Of the moving average; default 0.01. */
  rate?: number
}

/** A Linear layer under quantization-aware training, of inputs [..., inFeatures]: see QatLayer. */
export class QatLinear extends QatLayer<QuantizedLinear> {
  readonly inFeatures: number
  readonly outFeatures: number

  constructor(layer: Linear, config: QuantConfig, options: RangeOptions) {
    super(layer, config, options)
    this.inFeatures = layer.inFeatures
    this.outFeatures = layer.outFeatures
  }

  protected product(x: Tensor, w: Tensor, bias: Tensor | null): Tensor {
    return linear(x, w, bias)
  }

  protected integers(x: Tensor, w: QuantizedTensor, bias: Tensor | null, quantizeInput?: InputQuantization): Tensor {
    return quantizedLinear(x, w, bias, { quantizeInput })
  }

  protected quantized(parts: QuantizedParts): QuantizedLinear {
    return new QuantizedLinear(parts)
  }

  override describe(): string {
    return `inFeatures=${this.inFeatures}, outFeatures=${this.outFeatures}, bias=${this.bias !== null}, ${this.how}`
  }
}

/** A Conv2d layer under quantization-aware training: see QatLayer. Its weights have a scale for each output channel. */
export class QatConv2d extends QatLayer<QuantizedConv2d> {
  readonly inChannels: number
  readonly outChannels: number
  readonly options: Conv2d['options']

  constructor(layer: Conv2d, config: QuantConfig, options: RangeOptions) {
    super(layer, config, options)
    this.inChannels = layer.inChannels
    this.outChannels = layer.outChannels
    this.options = layer.options
  }

  get kernelSize(): readonly number[] {
    return this.weight.shape.slice(2)
  }

  protected product(x: Tensor, w: Tensor, bias: Tensor | null): Tensor {
    return conv2d(x, w, bias, this.options)
  }

  protected integers(x: Tensor, w: QuantizedTensor, bias: Tensor | null, quantizeInput?: InputQuantization): Tensor {
    const how = quantizeInput as QuantizedConvOptions['quantizeInput']
    return conv2d(x, w, bias, { ...this.options, quantizeInput: how })
  }

  protected quantized(parts: QuantizedParts): QuantizedConv2d {
    return new QuantizedConv2d({ ...parts, options: this.options })
  }

  override describe(): string {
    return `${describeConvolution(this)}, ${this.how}`
  }
}

/**
 * Prepares a model for quantization-aware training, in place: every Linear and Conv2d is replaced by a QatLinear or a
 * QatConv2d that computes as the quantized layer will. Train on as before (a tenth of the learning rate is usual), then call `convert`.
 *
 * @param config as for quantizeModel; `method`, `smoothQuant` and `calibration` do not apply
 */
export function prepareQat<M extends AnyModule>(model: M, config: QuantConfig, options: QatOptions = {}): M {
  const op = 'prepareQat'
  checkConfig(op, config)
  const { ranges = 'observed', rate = 0.01 } = options
  if (ranges !== 'observed' && ranges !== 'learned')
    throw new ArgumentError(`${op}: ranges must be 'observed' or 'learned', got ${show(ranges)}`)
  if (!(typeof rate === 'number' && rate > 0 && rate <= 1))
    throw new ArgumentError(`${op}: rate must be a number above 0 and at most 1, got ${show(rate)}`)
  if (config.kind !== 'weightOnly' && config.smoothQuant !== null)
    throw new ArgumentError(`${op}: smoothQuant is for trained models: call smoothQuant(model) first`)
  if (ranges === 'learned' && config.kind === 'weightOnly' && !config.symmetric)
    throw new ArgumentError(`${op}: learned ranges are symmetric`)
  const layers = quantizableLayers(op, model, options.skip)
  let result = model
  for (const [, layer] of layers) {
    const by = configFor(config, layer)
    const made =
      layer instanceof Conv2d ? new QatConv2d(layer, by, { ranges, rate }) : new QatLinear(layer, by, { ranges, rate })
    result = replaceLayer(result, layer, made)
  }
  return result
}

/** Replaces every QatLinear and QatConv2d of a model by the quantized layer that computes the same, in place. */
export function convert<M extends AnyModule>(model: M): M {
  checkModel('convert', model)
  const layers = model.modules().filter((layer) => layer instanceof QatLayer)
  const made = layers.map((layer) => layer.convert())
  let result = model
  for (const [i, layer] of layers.entries()) result = replaceLayer(result, layer, made[i] as Quantized)
  return result
}
