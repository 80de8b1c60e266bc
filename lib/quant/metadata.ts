/** What a file of quantized tensors says about itself, as the string metadata of a safetensors file. */
import { FormatError, show } from '../core/errors'
import { checkGranularity, type Granularity, type QuantDType, scaleShape } from '../core/quantization'
import type { Conv2d } from '../nn/conv'
import {
  applyLayerMetadata,
  conv2dKind,
  type Fields,
  fromPlainTensors,
  type LayerKind,
  type LayerKinds,
  layerMetadata,
  linearKind,
  type TensorKind,
  toPlainTensors,
} from '../nn/layer-metadata'
import type { AnyModule } from '../nn/module'
import { checkConvWeights, QuantizedConv2d } from '../nn/quantized-conv'
import { blankInput, type InputEntry, readInput } from '../nn/quantized-input'
import type { QuantizedLayer } from '../nn/quantized-layer'
import { checkWeights, QuantizedLinear } from '../nn/quantized-linear'
import { zeros } from '../ops/create'
import { QuantizedTensor } from '../tensor/quantized'
import type { Tensor } from '../tensor/tensor'

const OF_CONV = ['weightZeroPoint', 'bias', 'inputScale', 'inputZeroPoint'] as const
const OF_LINEAR = [...OF_CONV, 'inputMultiplier'] as const

interface LayerEntry extends InputEntry<(typeof OF_LINEAR)[number]> {
  dtype: QuantDType
  granularity: Granularity
}

function isDType(value: unknown): value is QuantDType {
  return value === 'int8' || value === 'uint8' || value === 'int4' || value === 'uint4'
}

/** Tensors of the right shapes for a QuantizedTensor, zeroed. */
function blankWeight(op: string, shape: readonly number[], { dtype, granularity, has }: LayerEntry) {
  const four = dtype.endsWith('4')
  const stored = four || dtype === 'uint8' ? 'uint8' : 'int8'
  const last = shape[shape.length - 1] as number
  const values = zeros(four ? [...shape.slice(0, -1), Math.ceil(last / 2)] : shape, { dtype: stored })
  const scales = scaleShape(op, granularity, shape)
  return new QuantizedTensor({
    shape,
    dtype,
    granularity,
    values: values as Tensor<'int8'>,
    scale: zeros(scales) as Tensor<'float32'>,
    zeroPoint: has.includes('weightZeroPoint') ? (zeros(scales, { dtype: 'int32' }) as Tensor<'int32'>) : null,
  })
}

const describe = (layer: QuantizedLayer, has: LayerEntry['has']): LayerEntry => {
  const { weightDType: dtype, granularity, input } = layer
  return { dtype, granularity, input, has }
}

function readWeights(fields: Fields): QuantDType {
  const { dtype } = fields
  if (!isDType(dtype)) throw new FormatError(`dtype must be int8, uint8, int4 or uint4, got ${show(dtype)}`)
  return dtype
}

/** Parts that both kinds have, zeroed. */
function blankParts(op: string, entry: LayerEntry, { shape, dtype }: Tensor, inFeatures: number) {
  return {
    weight: blankWeight(op, shape, entry),
    bias: entry.has.includes('bias') ? zeros([shape[0] as number], { dtype }) : null,
    ...blankInput(entry, inFeatures),
  }
}

const ofLinear: LayerKind<QuantizedLinear, LayerEntry> = {
  type: QuantizedLinear,
  float: linearKind,
  shape: ({ outFeatures, inFeatures }) => [outFeatures, inFeatures],
  describe: (layer) =>
    describe(
      layer,
      OF_LINEAR.filter((name) => layer[name] !== null),
    ),
  read(op, fields) {
    const dtype = readWeights(fields)
    const granularity = checkGranularity(op, fields.granularity, 2)
    const entry = { dtype, granularity, ...readInput(op, fields, OF_LINEAR) }
    checkWeights(op, dtype, granularity, entry.input)
    return entry
  },
  blank: (op, entry, layer) => new QuantizedLinear(blankParts(op, entry, layer.weight, layer.inFeatures)),
}

/** Strides, padding, dilation and groups are the architecture's, which the float model has. */
const ofConv2d: LayerKind<QuantizedConv2d, LayerEntry, Conv2d> = {
  type: QuantizedConv2d,
  float: conv2dKind,
  shape: ({ weight }) => weight.shape,
  describe: (layer) =>
    describe(
      layer,
      OF_CONV.filter((name) => layer[name] !== null),
    ),
  read(op, fields) {
    const dtype = readWeights(fields)
    const granularity = checkGranularity(op, fields.granularity, 4)
    const entry = { dtype, granularity, ...readInput(op, fields, OF_CONV) }
    checkConvWeights(op, dtype, granularity, entry.input)
    return entry
  },
  blank: (op, entry, layer) =>
    new QuantizedConv2d({ ...blankParts(op, entry, layer.weight, layer.inChannels), options: layer.options }),
}

const quantizedLayers: LayerKinds = { key: 'kerf.quantized_layers', kinds: [ofLinear, ofConv2d] }

/**
 * The quantized layers of a model as metadata for saveSafetensors: with it a float model of the same architecture can
 * be turned into one that the saved stateDict fits. A model that has sparse layers too is saved with both:
 * `{ ...quant.metadata(model), ...prune.metadata(model) }`.
 *
 * @example await io.saveSafetensors(file, model.stateDict(), { metadata: quant.metadata(model) })
 */
export function metadata(model: AnyModule): Record<string, string> {
  return layerMetadata(model, quantizedLayers)
}

/**
 * Puts empty quantized layers where `metadata(model)` had them, so that loadStateDict() can fill them. The model is a
 * float one of the same architecture; it is changed in place.
 *
 * @example
 * const { metadata, tensors } = await io.parseSafetensors(bytes)
 * const model = quant.applyMetadata(new Net(), metadata)
 * model.loadStateDict(tensors)
 * @returns the model (a new layer when the model is itself a Linear or a Conv2d)
 * @throws FormatError for metadata that is damaged or does not fit the model; nothing has been changed then
 */
export function applyMetadata<M extends AnyModule>(model: M, metadata: Readonly<Record<string, string>>): M {
  return applyLayerMetadata(model, metadata, quantizedLayers)
}

const quantizedTensors: TensorKind<QuantizedTensor> = {
  key: 'kerf.quantized_tensors',
  type: QuantizedTensor,
  parts: ['scale', 'zeroPoint'],
  part: (q, name) => q[name as 'scale' | 'zeroPoint'],
  describe: ({ shape, dtype, granularity }) => ({ shape, dtype, granularity }),
  make({ shape, dtype, granularity }, values, part) {
    if (!isDType(dtype)) throw new FormatError(`bad dtype ${show(dtype)}`)
    const scale = part('scale')
    if (!values || !scale) throw new FormatError('its values or its scale are missing')
    return new QuantizedTensor({
      shape: shape as number[],
      dtype,
      granularity: granularity as Granularity,
      values: values as Tensor<'int8'>,
      scale: scale as Tensor<'float32'>,
      zeroPoint: part('zeroPoint') as Tensor<'int32'> | null,
    })
  },
}

/**
 * Quantized tensors as plain ones for saveSafetensors: `name`, `name.scale`, `name.zeroPoint`, and the rest as metadata.
 *
 * @example
 * const { tensors, metadata } = quant.toTensors({ w: quant.quantize(w) })
 * await io.saveSafetensors(file, tensors, { metadata })
 */
export function toTensors(quantized: Readonly<Record<string, QuantizedTensor>>): {
  tensors: Record<string, Tensor>
  metadata: Record<string, string>
} {
  return toPlainTensors(quantized, quantizedTensors)
}

/**
 * The quantized tensors that toTensors took apart.
 *
 * @throws FormatError for metadata that is damaged or does not fit the tensors
 */
export function fromTensors(
  tensors: Readonly<Record<string, Tensor>>,
  metadata: Readonly<Record<string, string>>,
): Record<string, QuantizedTensor> {
  return fromPlainTensors(tensors, metadata, quantizedTensors)
}
