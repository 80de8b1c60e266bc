/** quantizeModel: puts quantized layers in the place of a model's Linear and Conv2d layers. */
import { ArgumentError } from '../core/errors'
import { affineOf } from '../core/quantization'
import { atLayer, type CalibrationData, observe, type RunBatch, type Seen } from '../nn/calibrate'
import { Linear } from '../nn/linear'
import { replaceLayer } from '../nn/model'
import type { AnyModule } from '../nn/module'
import { div, mul } from '../ops/arithmetic'
import { tensor } from '../ops/create'
import { converted } from '../ops/op'
import { packInt4 } from '../ops/quantize'
import { noGrad, scope } from '../tensor/context'
import type { DeviceName } from '../tensor/device'
import { QuantizedTensor } from '../tensor/quantized'
import { copyTo, type Tensor } from '../tensor/tensor'
import { awqScales } from './awq'
import type { Range } from './calibration'
import { checkConfig, needsOf, type QuantConfig, type WeightOnly } from './config'
import { gptq } from './gptq'
import { configFor, type Quantizable, type Quantized, quantizableLayers, quantizedOf, type Skip } from './quantizable'
import { type QuantizeOptions, quantize } from './quantize'
import { smoothScales } from './smooth'
import type { WeightCodes } from './weights'

export interface QuantizeModelOptions {
  /** Batches of real inputs; what int8Static, SmoothQuant, GPTQ and AWQ learn from. A few hundred samples are enough. */
  calibrationData?: CalibrationData
  /** Layers to leave in float. */
  skip?: Skip
  /** Runs a batch of the calibration data; default model.forward(input). */
  run?: RunBatch
  /** Told before each layer that takes time. */
  progress?: (done: number, total: number, path: string) => void
}

const values = async (t: Tensor): Promise<Float32Array> => (await converted(t, 'float32').data()) as Float32Array

/** What GPTQ and AWQ make, as tensors on the device of the weights. */
function fromCodes(q: WeightCodes, granularity: WeightOnly['granularity'], device: DeviceName): QuantizedTensor {
  const shape = [q.out, q.inputs]
  const bytes = tensor(q.codes, { shape, dtype: 'int8', device })
  const scales = granularity.kind === 'group' ? [q.out, Math.ceil(q.inputs / q.groupSize)] : [q.out]
  return new QuantizedTensor({
    shape,
    dtype: q.bits === 8 ? 'int8' : 'int4',
    granularity,
    values: q.bits === 8 ? bytes : packInt4(bytes),
    scale: tensor(q.scale, { shape: scales, device }),
    zeroPoint: q.zeroPoint && tensor(q.zeroPoint, { shape: scales, dtype: 'int32', device }),
  })
}

/** The weights with input channels multiplied by s, and 1 / s for the inputs. */
function shifted(layer: Linear, s: Float32Array): { weight: Tensor; multiplier: Tensor<'float32'> } {
  const scales = tensor(s, { device: layer.weight.device })
  return { weight: mul(layer.weight, scales), multiplier: div(1, scales) as Tensor<'float32'> }
}

/** SmoothQuant's 1 / s for a layer's inputs, or null. */
async function smoothing(config: QuantConfig, layer: Linear, seen: Seen | undefined): Promise<Float32Array | null> {
  if (config.kind === 'weightOnly' || config.smoothQuant === null) return null
  const { outFeatures: out, inFeatures: inputs } = layer
  const w = await values(layer.weight)
  return smoothScales(seen?.channelMax as Float32Array, w, out, inputs, { alpha: config.smoothQuant })
}

async function weightOnlyLayer(config: WeightOnly, layer: Quantizable, seen: Seen | undefined): Promise<Quantized> {
  const { bits, granularity, symmetric } = config
  const format: QuantizeOptions = {
    dtype: bits === 8 ? 'int8' : 'int4',
    granularity,
    convention: symmetric ? undefined : 'affine',
  }
  const parts = { bias: biasOf(layer), input: 'float' } as const
  if (layer instanceof Linear && config.method !== 'nearest') {
    const { outFeatures: out, inFeatures: inputs } = layer
    const groupSize = granularity.kind === 'group' ? Math.min(granularity.size, inputs) : inputs
    const grid = { bits, groupSize, symmetric }
    const w = await values(layer.weight)
    const gram = seen?.gram as Float64Array
    if (config.method === 'gptq') {
      const { weights } = await gptq(w, out, inputs, gram, { ...grid, actOrder: config.actOrder })
      return quantizedOf(layer, { ...parts, weight: fromCodes(weights, granularity, layer.weight.device) })
    }
    const { scales } = await awqScales(w, out, inputs, seen?.channelMean as Float32Array, gram, grid)
    if (scales.some((s) => s !== 1)) {
      const { weight, multiplier } = shifted(layer, scales)
      return quantizedOf(layer, { ...parts, weight: quantize(weight, format), inputMultiplier: multiplier })
    }
  }
  return quantizedOf(layer, { ...parts, weight: quantize(layer.weight, format) })
}

const biasOf = (layer: Quantizable): Tensor | null => layer.bias && copyTo(layer.bias, layer.bias.dtype)

/** The quantized layer that stands for a float one. `s` are SmoothQuant's scales. */
async function quantizeLayer(
  config: QuantConfig,
  layer: Quantizable,
  seen: Seen | undefined,
  s: Float32Array | null,
): Promise<Quantized> {
  return scope(() =>
    noGrad(async () => {
      if (config.kind === 'weightOnly') return weightOnlyLayer(config, layer, seen)
      const { weight, multiplier } = s ? shifted(layer as Linear, s) : { weight: layer.weight, multiplier: null }
      const parts = {
        weight: quantize(weight, { dtype: 'int8', granularity: config.granularity }),
        bias: biasOf(layer),
        inputMultiplier: multiplier,
      }
      if (config.kind === 'int8Dynamic') return quantizedOf(layer, { ...parts, input: config.input })
      const { device } = layer.weight
      const { min, max } = (seen as Seen).range as Range
      const { scale, zeroPoint } = affineOf(min, max, config.input, config.input === 'uint8' ? 'affine' : 'narrow')
      return quantizedOf(layer, {
        ...parts,
        input: config.input,
        inputScale: tensor(scale, { device }),
        inputZeroPoint: zeroPoint === 0 ? null : tensor(zeroPoint, { dtype: 'int32', device }),
      })
    }),
  )
}

interface Studied {
  seen?: Seen
  s: Float32Array | null
}

/** Looks at the inputs of the layers as a config needs it: channels first where they decide what the range is of. */
async function study(
  op: string,
  model: AnyModule,
  layers: readonly [string, Quantizable][],
  config: QuantConfig,
  options: QuantizeModelOptions,
): Promise<Map<string, Studied>> {
  const result = new Map<string, Studied>(layers.map(([path]) => [path, { s: null }]))
  const { calibrationData, run } = options
  const asking = (what: (needs: ReturnType<typeof needsOf>) => boolean) =>
    layers.filter(([, layer]) => what(needsOf(configFor(config, layer))))
  const columns = asking((needs) => needs.channels || needs.gram)
  if (columns.length > 0) {
    const { channels, gram } = needsOf(config)
    const wanted = new Map(columns.map(([path]) => [path, { channels, gram }]))
    for (const [path, seen] of await observe(op, model, wanted, calibrationData, run)) {
      const layer = model.getModule(path) as Linear
      const s = await atLayer(op, path, () => smoothing(config, layer, seen))
      result.set(path, { seen, s })
    }
  }
  const ranged = asking((needs) => needs.range)
  if (ranged.length > 0 && config.kind === 'int8Static') {
    const wanted = new Map(
      ranged.map(([path]) => {
        const s = result.get(path)?.s
        const { device } = (model.getModule(path) as Linear).weight
        const multiplier = s ? (div(1, tensor(s, { device })) as Tensor) : null
        return [path, { observer: config.observer(), multiplier }]
      }),
    )
    for (const [path, seen] of await observe(op, model, wanted, calibrationData, run))
      result.set(path, { seen, s: result.get(path)?.s ?? null })
  }
  return result
}

/** Quantizes these layers in place; answers the model, or the new layer when the model is itself the layer. */
export async function convertLayers<M extends AnyModule>(
  op: string,
  model: M,
  layers: readonly [string, Quantizable][],
  config: QuantConfig,
  options: QuantizeModelOptions,
): Promise<M> {
  const needs = needsOf(config)
  if ((needs.range || needs.channels || needs.gram) && options.calibrationData === undefined)
    throw new ArgumentError(`${op}: ${config.kind} with these options needs calibrationData`)
  const make = async (i: number, found: ReadonlyMap<string, Studied>): Promise<Quantized> => {
    const [path, layer] = layers[i] as [string, Quantizable]
    options.progress?.(i, layers.length, path)
    const { seen, s } = found.get(path) as Studied
    return atLayer(op, path, () => quantizeLayer(configFor(config, layer), layer, seen, s))
  }
  let result = model
  if (config.kind === 'weightOnly' && config.method === 'gptq') {
    for (const [i, entry] of layers.entries())
      result = replaceLayer(result, entry[1], await make(i, await study(op, model, [entry], config, options)))
    return result
  }
  const found = await study(op, model, layers, config, options)
  const made: Quantized[] = []
  for (let i = 0; i < layers.length; i++) made.push(await make(i, found))
  for (const [i, layer] of made.entries()) result = replaceLayer(result, (layers[i] as [string, Quantizable])[1], layer)
  return result
}

/**
 * Quantizes a model's Linear and Conv2d layers, in place: each is replaced by a QuantizedLinear or a QuantizedConv2d.
 *
 * - `int8Dynamic()`: int8 weights, inputs quantized by the range of each row as they come. Needs no data.
 * - `int8Static({ calibration })`: int8 weights, inputs quantized by ranges that calibration data showed. Fastest.
 * - `weightOnly({ bits, granularity, method })`: 8- or 4-bit weights, float inputs. GPTQ works layer by layer, each on the
 *   inputs that the already quantized layers before it give.
 *
 * Convolutions have weights of 8 bits per channel or per tensor, whatever `bits`, `granularity` in groups, `method` and
 * `smoothQuant` ask of Linear layers; int8Dynamic has one range for the batch; and with groups their inputs stay float. Fold
 * batch norms before: nn.foldBatchNorm.
 *
 * @returns the model (a new layer when the model is itself a Linear or a Conv2d)
 * @throws ArgumentError naming the layer, when calibration data is missing, empty or not finite; no layer has been
 * replaced then, but by GPTQ those before it
 */
export async function quantizeModel<M extends AnyModule>(
  model: M,
  config: QuantConfig,
  options: QuantizeModelOptions = {},
): Promise<M> {
  const op = 'quantizeModel'
  checkConfig(op, config)
  return convertLayers(op, model, quantizableLayers(op, model, options.skip), config, options)
}
