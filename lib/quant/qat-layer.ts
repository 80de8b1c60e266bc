/** A layer under quantization-aware training: what QatLinear and QatConv2d have in common. */
import type { FloatDType } from '../core/dtype'
import { ArgumentError } from '../core/errors'
import { integerRange, type QuantDType } from '../core/quantization'
import { native } from '../native/call'
import { Module } from '../nn/module'
import { Parameter } from '../nn/parameter'
import type { QuantizedParts } from '../nn/quantized-layer'
import { add, mul, sub } from '../ops/arithmetic'
import { detach } from '../ops/clone'
import { converted, taped } from '../ops/op'
import { dequantize, dequantizeLinear, dynamicQuantizeLinear, fakeQuantize } from '../ops/quantize'
import type { InputQuantization } from '../ops/quantized-linear'
import { max, min } from '../ops/reduce'
import { unsqueeze } from '../ops/shape'
import { cast, exp, log } from '../ops/unary'
import { noGrad } from '../tensor/context'
import type { DeviceName } from '../tensor/device'
import { QuantizedTensor } from '../tensor/quantized'
import { copyTo, empty, type Tensor } from '../tensor/tensor'
import type { QuantConfig } from './config'
import { learnedQuantize } from './lsq'
import type { Quantizable, Quantized } from './quantizable'
import { quantize, quantizeBy, type Scales, scalesOf } from './quantize'

/** The gradient of `x` as if `value` were x. */
function straightThrough(x: Tensor, value: Tensor): Tensor {
  return taped('straightThrough', value, [x], (grad) => [grad])
}

export interface RangeOptions {
  ranges: 'observed' | 'learned'
  rate: number
}

/**
 * A layer under quantization-aware training. forward() gives exactly what the converted layer will give, computed by the same
 * integer kernel; gradients go straight through the rounding, and are 0 where a value was clipped. The weights are the float
 * layer's own Parameters, so an optimizer that has them goes on.
 */
export abstract class QatLayer<Q extends Quantized = Quantized> extends Module {
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

  /** @param config what it asks of this layer */
  constructor(
    layer: Quantizable,
    readonly config: QuantConfig,
    options: RangeOptions,
  ) {
    super()
    this.weight = layer.weight
    this.bias = layer.bias
    this.#learned = options.ranges === 'learned'
    this.#rate = options.rate
    const fixed = { fixed: true }
    const { device } = layer.weight
    const observed = config.kind === 'int8Static'
    const affine = this.#learned && observed && config.input === 'uint8'
    // NaN: not seen yet. A state that is saved says so too.
    this.registerBuffer('rangeMin', observed ? scalar('float32', Number.NaN, device) : null, fixed)
    this.registerBuffer('rangeMax', observed ? scalar('float32', Number.NaN, device) : null, fixed)
    this.registerBuffer('inputZeroPoint', affine ? scalar('int32', 0, device) : null, fixed)
    if (!this.#learned) return
    // Scales are parameters from the start, so that optimizers find them.
    const { scale } = noGrad(() => this.#weights())
    this.weightLogScale = new Parameter(log(scale))
    if (observed) this.inputLogScale = new Parameter(scalar('float32', 0, device))
  }

  /** The layer's op on floats. */
  protected abstract product(x: Tensor, w: Tensor, bias: Tensor | null): Tensor
  /** The same on integers. */
  protected abstract integers(
    x: Tensor,
    w: QuantizedTensor,
    bias: Tensor | null,
    quantizeInput: InputQuantization | undefined,
  ): Tensor
  protected abstract quantized(parts: QuantizedParts): Q

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

  forward(input: Tensor): Tensor {
    const { config } = this
    if (config.kind === 'int8Static' && input.size > 0) {
      if (this.training) noGrad(() => this.#observe(detach(input)))
      else if (!this.#hasRange())
        throw new ArgumentError(
          `${this.constructor.name}: no training batch has shown a range for the input yet: train first`,
        )
    }
    const q = noGrad(() => this.#weights())
    const value = noGrad(() => this.#compute(input, q))
    const w = this.weightLogScale
      ? learnedQuantize(this.weight, scaleOf(this.weightLogScale), null, {
          dtype: this.#weightDType,
          granularity: config.granularity,
        })
      : straightThroughWeights(this.weight, q)
    const out = this.product(this.#asQuantized(input), w, this.bias)
    // The gradient's rule is that of the float product; the value is the integer kernel's.
    native.copy(out, value)
    q.dispose()
    return out
  }

  #compute(input: Tensor, q: QuantizedTensor): Tensor {
    const { config } = this
    const x = detach(input)
    const bias = this.bias && detach(this.bias)
    const dynamic = config.kind === 'int8Dynamic' ? config.input : undefined
    return this.integers(x, q, bias, config.kind === 'int8Static' ? this.#input() : dynamic)
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
  convert(): Q {
    return noGrad(() => {
      const { config } = this
      const bias = this.bias && copyTo(this.bias, this.bias.dtype)
      const weight = this.#weights()
      if (config.kind === 'weightOnly') return this.quantized({ weight, bias, input: 'float' })
      if (config.kind === 'int8Dynamic') return this.quantized({ weight, bias, input: config.input })
      if (!this.#hasRange())
        throw new ArgumentError('convert: no training batch has shown a range for the input yet: train first')
      const { scale, zeroPoint, dtype } = this.#input()
      return this.quantized({
        weight,
        bias,
        input: dtype,
        inputScale: copyTo(scale, 'float32'),
        inputZeroPoint: zeroPoint && copyTo(zeroPoint, 'int32'),
      })
    })
  }

  /** For describe(). */
  protected get how(): string {
    return `${this.config.kind}${this.#learned ? ', learned ranges' : ''}`
  }
}

function scalar<D extends 'float32' | 'int32'>(dtype: D, value: number, device: DeviceName): Tensor<D> {
  const t = empty(dtype, [], device)
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
