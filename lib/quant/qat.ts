/** Quantization-aware training: layers that compute as the quantized ones will, and learn as float ones do. */
import type { FloatDType } from '../core/dtype'
import { ArgumentError, show } from '../core/errors'
import { integerRange, type QuantDType } from '../core/quantization'
import { native } from '../native/call'
import type { Linear } from '../nn/linear'
import { linearLayers, type Skip } from '../nn/linear-layers'
import { checkModel, replaceLayer } from '../nn/model'
import { type AnyModule, Module } from '../nn/module'
import { Parameter } from '../nn/parameter'
import { QuantizedLinear } from '../nn/quantized-linear'
import { add, mul, sub } from '../ops/arithmetic'
import { detach } from '../ops/clone'
import { linear } from '../ops/matmul'
import { converted, taped } from '../ops/op'
import { dequantize, dequantizeLinear, dynamicQuantizeLinear, fakeQuantize } from '../ops/quantize'
import { quantizedLinear } from '../ops/quantized-linear'
import { max, min } from '../ops/reduce'
import { unsqueeze } from '../ops/shape'
import { cast, exp, log } from '../ops/unary'
import { noGrad } from '../tensor/context'
import { QuantizedTensor } from '../tensor/quantized'
import { copyTo, empty, type Tensor } from '../tensor/tensor'
import { checkConfig, type QuantConfig } from './config'
import { learnedQuantize } from './lsq'
import { quantize, quantizeBy, type Scales, scalesOf } from './quantize'

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

/** The gradient of `x` as if `value` were x. */
function straightThrough(x: Tensor, value: Tensor): Tensor {
  return taped('straightThrough', value, [x], (grad) => [grad])
}

/**
 * A Linear layer under quantization-aware training. forward() gives exactly what the converted layer will give, computed by
 * the same integer kernel; gradients go straight through the rounding, and are 0 where a value was clipped. The weights are
 * the float layer's own Parameters, so an optimizer that has them goes on.
 */
export class QatLinear extends Module {
  readonly inFeatures: number
  readonly outFeatures: number
  weight: Parameter
  bias: Parameter | null
  /**
   * With learned ranges: the logarithms of one scale an output (or a group), and of one for the input. An optimizer's step
   * is about as long for every parameter: what suits weights would take a scale, a hundredth of them, below 0.
   */
  weightLogScale: Parameter | null = null
  inputLogScale: Parameter | null = null
  /** With observed ranges of the input: float32 []. */
  rangeMin!: Tensor<'float32'>
  rangeMax!: Tensor<'float32'>
  inputZeroPoint!: Tensor<'int32'> | null
  readonly #learned: boolean
  readonly #rate: number
  /** Whether a training batch has shown a range; undefined: the buffers know. */
  #started: boolean | undefined = false

  constructor(
    layer: Linear,
    readonly config: QuantConfig,
    options: { ranges: 'observed' | 'learned'; rate: number },
  ) {
    super()
    this.inFeatures = layer.inFeatures
    this.outFeatures = layer.outFeatures
    this.weight = layer.weight
    this.bias = layer.bias
    this.#learned = options.ranges === 'learned'
    this.#rate = options.rate
    const fixed = { fixed: true }
    const observed = config.kind === 'int8Static'
    const affine = this.#learned && observed && config.input === 'uint8'
    // NaN: not seen yet. A state that is saved says so too.
    this.registerBuffer('rangeMin', observed ? scalar('float32', Number.NaN) : null, fixed)
    this.registerBuffer('rangeMax', observed ? scalar('float32', Number.NaN) : null, fixed)
    this.registerBuffer('inputZeroPoint', affine ? scalar('int32', 0) : null, fixed)
    if (!this.#learned) return
    // Scales are parameters from the start, so that optimizers find them.
    const { scale } = noGrad(() => this.#weights())
    this.weightLogScale = new Parameter(log(scale))
    if (observed) this.inputLogScale = new Parameter(scalar('float32', 0))
  }

  protected override stateLoaded(): void {
    this.#started = undefined
  }

  /** Waits in place for the answer once after loading. */
  #hasRange(): boolean {
    this.#started ??= !Number.isNaN(this.rangeMin.item())
    return this.#started
  }

  get #weightDType(): QuantDType {
    return this.config.kind === 'weightOnly' && this.config.bits === 4 ? 'int4' : 'int8'
  }

  get #symmetric(): boolean {
    return this.config.kind !== 'weightOnly' || this.config.symmetric
  }

  /** The weights as integers, now. */
  #weights(): QuantizedTensor {
    const dtype = this.#weightDType
    const { granularity } = this.config
    const weight = detach(this.weight)
    if (!this.weightLogScale) {
      // Learned scales are positive, so that int4's default, whose sign is that of the extreme, is none for them.
      const convention = !this.#symmetric ? 'affine' : this.#learned ? 'narrow' : undefined
      return quantize(weight, { dtype, granularity, convention })
    }
    const by: Scales = {
      scale: copyTo(scaleOf(detach(this.weightLogScale)), 'float32'),
      zeroPoint: null,
      ...integerRange(dtype),
    }
    return new QuantizedTensor(quantizeBy('qat', weight, by, dtype, granularity))
  }

  /** Scale and zero point of the input, now. */
  #input(): { scale: Tensor<'float32'>; zeroPoint: Tensor<'int32'> | null; dtype: 'uint8' | 'int8' } {
    const dtype = this.config.kind === 'int8Static' ? this.config.input : 'uint8'
    if (this.inputLogScale)
      return { scale: scaleOf(detach(this.inputLogScale)) as Tensor<'float32'>, zeroPoint: this.inputZeroPoint, dtype }
    const { scale, zeroPoint } = scalesOf(this.rangeMin, this.rangeMax, dtype, dtype === 'uint8' ? 'affine' : 'narrow')
    return { scale, zeroPoint, dtype }
  }

  #observe(x: Tensor): void {
    const low = converted(min(x, null), 'float32')
    const high = converted(max(x, null), 'float32')
    if (this.#hasRange()) {
      if (this.inputLogScale) return
      native.copy(this.rangeMin, add(this.rangeMin, mul(sub(low, this.rangeMin), this.#rate)))
      native.copy(this.rangeMax, add(this.rangeMax, mul(sub(high, this.rangeMax), this.#rate)))
      return
    }
    this.#started = true
    native.copy(this.rangeMin, low)
    native.copy(this.rangeMax, high)
    if (!this.inputLogScale) return
    const dtype = this.config.kind === 'int8Static' ? this.config.input : 'uint8'
    const { scale, zeroPoint } = scalesOf(low, high, dtype, dtype === 'uint8' ? 'affine' : 'narrow')
    native.copy(this.inputLogScale, log(scale))
    if (this.inputZeroPoint && zeroPoint) native.copy(this.inputZeroPoint, zeroPoint)
  }

  /** @param input float [..., inFeatures] */
  forward(input: Tensor): Tensor {
    const { config } = this
    if (config.kind === 'int8Static' && input.size > 0) {
      if (this.training) noGrad(() => this.#observe(detach(input)))
      else if (!this.#hasRange())
        throw new ArgumentError('QatLinear: no training batch has shown a range for the input yet: train first')
    }
    const q = noGrad(() => this.#weights())
    const value = noGrad(() => this.#compute(input, q))
    const w = this.weightLogScale
      ? learnedQuantize(this.weight, scaleOf(this.weightLogScale), null, {
          dtype: this.#weightDType,
          granularity: config.granularity,
        })
      : straightThroughWeights(this.weight, q)
    const out = linear(this.#asQuantized(input), w, this.bias)
    // The gradient's rule is that of the float product; the value is the integer kernel's.
    native.copy(out, value)
    q.dispose()
    return out
  }

  #compute(input: Tensor, q: QuantizedTensor): Tensor {
    const { config } = this
    const x = detach(input)
    const bias = this.bias && detach(this.bias)
    if (config.kind === 'weightOnly') return quantizedLinear(x, q, bias)
    return quantizedLinear(x, q, bias, { quantizeInput: config.kind === 'int8Dynamic' ? config.input : this.#input() })
  }

  /** The input as float numbers that bytes can hold, with its straight-through gradient. */
  #asQuantized(input: Tensor): Tensor {
    const { config } = this
    if (config.kind === 'weightOnly') return input
    if (config.kind === 'int8Dynamic') {
      return straightThrough(
        input,
        noGrad(() => dynamicValue(detach(input), config.input === 'token')),
      )
    }
    const { scale, zeroPoint, dtype } = noGrad(() => this.#input())
    if (this.inputLogScale) return learnedQuantize(input, scaleOf(this.inputLogScale), zeroPoint, { dtype })
    return fakeQuantize(input as Tensor<FloatDType>, scale, zeroPoint, { dtype })
  }

  /** The layer that computes the same without float weights. */
  convert(): QuantizedLinear {
    return noGrad(() => {
      const { config } = this
      const bias = this.bias && copyTo(this.bias, this.bias.dtype)
      const weight = this.#weights()
      if (config.kind === 'weightOnly') return new QuantizedLinear({ weight, bias, input: 'float' })
      if (config.kind === 'int8Dynamic') return new QuantizedLinear({ weight, bias, input: config.input })
      if (!this.#hasRange())
        throw new ArgumentError('convert: no training batch has shown a range for the input yet: train first')
      const { scale, zeroPoint, dtype } = this.#input()
      return new QuantizedLinear({
        weight,
        bias,
        input: dtype,
        inputScale: copyTo(scale, 'float32'),
        inputZeroPoint: zeroPoint && copyTo(zeroPoint, 'int32'),
      })
    })
  }

  override describe(): string {
    return `inFeatures=${this.inFeatures}, outFeatures=${this.outFeatures}, bias=${this.bias !== null}, ${this.config.kind}${this.#learned ? ', learned ranges' : ''}`
  }
}

function scalar<D extends 'float32' | 'int32'>(dtype: D, value: number): Tensor<D> {
  const t = empty(dtype, [])
  native.fill(t, value)
  return t
}

/** A learned scale. */
const scaleOf = (logScale: Tensor): Tensor => exp(cast(logScale, 'float32'))

/** Weights as their integers stand for them; every weight passes its gradient on, since ranges are the weights' own. */
function straightThroughWeights(weight: Tensor, q: QuantizedTensor): Tensor {
  return straightThrough(
    weight,
    noGrad(() => dequantize(q, weight.dtype as FloatDType)),
  )
}

function dynamicValue(x: Tensor, perToken: boolean): Tensor {
  const { values, scale, zeroPoint } = dynamicQuantizeLinear(x, { perToken })
  if (!perToken) return dequantizeLinear(values, scale, zeroPoint, { dtype: x.dtype as FloatDType })
  const centred = sub(converted(values, 'float32'), unsqueeze(converted(zeroPoint, 'float32'), -1))
  return converted(mul(centred, unsqueeze(scale, -1)), x.dtype)
}

/**
 * Prepares a model for quantization-aware training, in place: every Linear is replaced by a QatLinear that computes as the
 * quantized layer will. Train on as before (a tenth of the learning rate is usual), then call `convert`.
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
  const layers = linearLayers(op, model, { skip: options.skip })
  let result = model
  for (const [, layer] of layers) result = replaceLayer(result, layer, new QatLinear(layer, config, { ranges, rate }))
  return result
}

/** Replaces every QatLinear of a model by the QuantizedLinear that computes the same, in place. */
export function convert<M extends AnyModule>(model: M): M {
  checkModel('convert', model)
  const layers = model.modules().filter((layer) => layer instanceof QatLinear)
  const made = layers.map((layer) => layer.convert())
  let result = model
  for (const [i, layer] of layers.entries()) result = replaceLayer(result, layer, made[i] as QuantizedLinear)
  return result
}
