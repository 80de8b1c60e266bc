/** What a file of quantized tensors says about itself, as the string metadata of a safetensors file. */
import { ArgumentError, FormatError, show } from '../core/errors'
import { checkGranularity, type Granularity, type QuantDType, scaleShape } from '../core/quantization'
import { Linear } from '../nn/linear'
import { checkModel, replaceLayer } from '../nn/model'
import type { AnyModule } from '../nn/module'
import { zeros } from '../ops/create'
import { QuantizedTensor } from '../tensor/quantized'
import type { Tensor } from '../tensor/tensor'
import { checkFormat, type InputMode, QuantizedLinear } from './layers'

const MODEL_KEY = 'kerf.quantized_layers'
const TENSORS_KEY = 'kerf.quantized_tensors'

interface LayerEntry {
  shape: [number, number]
  dtype: QuantDType
  granularity: Granularity
  input: InputMode
  /** Which optional buffers there are. */
  has: string[]
}

const OPTIONAL = ['weightZeroPoint', 'bias', 'inputScale', 'inputZeroPoint', 'inputMultiplier'] as const

/**
 * The quantized layers of a model as metadata for saveSafetensors: with it a float model of the same architecture can
 * be turned into one that the saved stateDict fits.
 *
 * @example await io.saveSafetensors(file, model.stateDict(), { metadata: quant.metadata(model) })
 */
export function metadata(model: AnyModule): Record<string, string> {
  checkModel('metadata', model)
  const layers = model.namedModules().flatMap(([path, layer]): [string, LayerEntry][] => {
    if (!(layer instanceof QuantizedLinear)) return []
    const has = OPTIONAL.filter((name) => layer[name] !== null)
    const { outFeatures, inFeatures, weightDType: dtype, granularity, input } = layer
    return [[path, { shape: [outFeatures, inFeatures], dtype, granularity, input, has }]]
  })
  return { [MODEL_KEY]: JSON.stringify(Object.fromEntries(layers)) }
}

function parse(op: string, text: string | undefined, key: string): Record<string, unknown> {
  if (typeof text !== 'string') throw new FormatError(`${op}: the metadata has no ${show(key)}`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new FormatError(`${op}: metadata ${show(key)} is not JSON`, { cause })
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new FormatError(`${op}: metadata ${show(key)} must be an object, got ${show(value)}`)
  return value as Record<string, unknown>
}

function isDType(value: unknown): value is QuantDType {
  return value === 'int8' || value === 'uint8' || value === 'int4' || value === 'uint4'
}

function readEntry(op: string, path: string, value: unknown): LayerEntry {
  const fail = (why: string): never => {
    throw new FormatError(`${op}: layer '${path}': ${why}`)
  }
  const { shape, dtype, granularity, input, has } = (value ?? {}) as Partial<LayerEntry>
  const sizes = Array.isArray(shape) && shape.length === 2 && shape.every((n) => Number.isSafeInteger(n) && n >= 1)
  if (!sizes) fail(`shape must be two sizes, got ${show(shape)}`)
  if (!isDType(dtype)) return fail(`dtype must be int8, uint8, int4 or uint4, got ${show(dtype)}`)
  if (!Array.isArray(has) || has.some((name) => !OPTIONAL.includes(name as (typeof OPTIONAL)[number])))
    return fail(`has must be a list of ${OPTIONAL.join(' ')}, got ${show(has)}`)
  try {
    checkFormat(op, dtype, checkGranularity(op, granularity, 2), input as InputMode)
  } catch (error) {
    fail((error as Error).message)
  }
  if ((input === 'uint8' || input === 'int8') && !has.includes('inputScale')) fail(`input '${input}' needs inputScale`)
  return { shape, dtype, granularity, input, has } as LayerEntry
}

/** Tensors of the right shapes for a QuantizedTensor, zeroed. */
function blank(op: string, shape: readonly number[], dtype: QuantDType, granularity: Granularity, zeroPoint: boolean) {
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
    zeroPoint: zeroPoint ? (zeros(scales, { dtype: 'int32' }) as Tensor<'int32'>) : null,
  })
}

/**
 * Puts empty quantized layers where `metadata(model)` had them, so that loadStateDict() can fill them. The model is a
 * float one of the same architecture; it is changed in place.
 *
 * @example
 * const { metadata, tensors } = await io.parseSafetensors(bytes)
 * const model = quant.applyMetadata(new Net(), metadata)
 * model.loadStateDict(tensors)
 * @returns the model (a new layer when the model is itself a Linear)
 * @throws FormatError for metadata that is damaged or does not fit the model; nothing has been changed then
 */
export function applyMetadata<M extends AnyModule>(model: M, metadata: Readonly<Record<string, string>>): M {
  const op = 'applyMetadata'
  checkModel(op, model)
  if (typeof metadata !== 'object' || metadata === null)
    throw new ArgumentError(`${op}: metadata must be an object of strings, got ${show(metadata)}`)
  const entries = Object.entries(parse(op, metadata[MODEL_KEY], MODEL_KEY)).map(([path, value]) => {
    const entry = readEntry(op, path, value)
    let layer: AnyModule
    try {
      layer = model.getModule(path)
    } catch (cause) {
      throw new FormatError(`${op}: ${(cause as Error).message}`, { cause })
    }
    const [out, size] = entry.shape
    if (!(layer instanceof Linear) || layer.outFeatures !== out || layer.inFeatures !== size) {
      const found =
        layer instanceof Linear ? `Linear(${layer.inFeatures}, ${layer.outFeatures})` : layer.constructor.name
      throw new FormatError(`${op}: layer '${path}' must be Linear(${size}, ${out}), it is ${found}`)
    }
    return { entry, layer }
  })
  let result = model
  for (const { entry, layer } of entries) {
    const [out, size] = entry.shape
    const has = (name: (typeof OPTIONAL)[number]) => entry.has.includes(name)
    const made = new QuantizedLinear({
      weight: blank(op, entry.shape, entry.dtype, entry.granularity, has('weightZeroPoint')),
      bias: has('bias') ? zeros([out], { dtype: layer.weight.dtype }) : null,
      input: entry.input,
      inputScale: has('inputScale') ? (zeros([]) as Tensor<'float32'>) : null,
      inputZeroPoint: has('inputZeroPoint') ? (zeros([], { dtype: 'int32' }) as Tensor<'int32'>) : null,
      inputMultiplier: has('inputMultiplier') ? (zeros([size]) as Tensor<'float32'>) : null,
    })
    result = replaceLayer(result, layer, made)
  }
  return result
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
  const tensors: [string, Tensor][] = []
  const about: [string, unknown][] = []
  for (const [name, q] of Object.entries(quantized)) {
    if (!(q instanceof QuantizedTensor))
      throw new ArgumentError(`toTensors: '${name}' must be a QuantizedTensor, got ${show(q)}`)
    q.checkLive('toTensors')
    for (const part of [`${name}.scale`, `${name}.zeroPoint`])
      if (Object.hasOwn(quantized, part))
        throw new ArgumentError(`toTensors: '${part}' is the name of a part of '${name}'`)
    tensors.push([name, q.values], [`${name}.scale`, q.scale])
    if (q.zeroPoint) tensors.push([`${name}.zeroPoint`, q.zeroPoint])
    about.push([name, { shape: q.shape, dtype: q.dtype, granularity: q.granularity }])
  }
  return {
    tensors: Object.fromEntries(tensors),
    metadata: { [TENSORS_KEY]: JSON.stringify(Object.fromEntries(about)) },
  }
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
  const op = 'fromTensors'
  for (const [name, value] of Object.entries({ tensors, metadata }))
    if (typeof value !== 'object' || value === null)
      throw new ArgumentError(`${op}: ${name} must be an object, got ${show(value)}`)
  const found: [string, QuantizedTensor][] = []
  for (const [name, value] of Object.entries(parse(op, metadata[TENSORS_KEY], TENSORS_KEY))) {
    const { shape, dtype, granularity } = (value ?? {}) as { shape?: unknown; dtype?: unknown; granularity?: unknown }
    const fail = (why: string): never => {
      throw new FormatError(`${op}: tensor '${name}': ${why}`)
    }
    if (!Array.isArray(shape) || !shape.every((n) => Number.isSafeInteger(n) && n >= 0))
      return fail(`bad shape ${show(shape)}`)
    if (!isDType(dtype)) return fail(`bad dtype ${show(dtype)}`)
    const values = Object.hasOwn(tensors, name) ? tensors[name] : undefined
    const scale = Object.hasOwn(tensors, `${name}.scale`) ? tensors[`${name}.scale`] : undefined
    if (!values || !scale) return fail('its values or its scale are missing')
    const zeroPoint = Object.hasOwn(tensors, `${name}.zeroPoint`)
      ? (tensors[`${name}.zeroPoint`] as Tensor<'int32'>)
      : null
    try {
      found.push([
        name,
        new QuantizedTensor({
          shape,
          dtype,
          granularity: granularity as Granularity,
          values: values as Tensor<'int8'>,
          scale: scale as Tensor<'float32'>,
          zeroPoint,
        }),
      ])
    } catch (error) {
      fail((error as Error).message)
    }
  }
  return Object.fromEntries(found)
}
