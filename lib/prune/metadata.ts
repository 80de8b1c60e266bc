/** What a file of sparse tensors says about itself, as the string metadata of a safetensors file. */
import type { DType } from '../core/dtype'
import { FormatError, show } from '../core/errors'
import { checkGranularity, type Granularity, showGranularity } from '../core/quantization'
import { checkInteger } from '../core/shape'
import {
  applyLayerMetadata,
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
import { blankInput, type InputEntry, inputBuffers, readInput } from '../nn/quantized-input'
import { zeros } from '../ops/create'
import { hasSparseScale } from '../ops/sparse'
import { checkFormat, type SparseFormat, SparseTensor } from '../tensor/sparse'
import type { Tensor } from '../tensor/tensor'
import { SparseLinear } from './sparse-linear'
import { fromParts, granularityOf, isValuesDType, mostStored, type PartName, sparseParts } from './sparse-parts'

interface LayerEntry {
  format: SparseFormat
  /** Of the values. */
  dtype: DType
  /** Stored values, or blocks; 0 for '2:4', whose shape says it. */
  count: number
  bias: boolean
  /** With int8 values, else absent. */
  quantized?: InputEntry & { granularity: Granularity }
}

const sparseLinear: LayerKind<SparseLinear, LayerEntry> = {
  type: SparseLinear,
  float: linearKind,
  shape: ({ outFeatures, inFeatures }) => [outFeatures, inFeatures],
  describe(layer) {
    const { format, weight, weightScale: scale, weightColumns, bias, input } = layer
    const entry = { format, dtype: weight.dtype, count: weightColumns?.size ?? 0, bias: bias !== null }
    if (!scale) return entry
    const has = inputBuffers.filter((name) => layer[name] !== null)
    return { ...entry, quantized: { granularity: granularityOf(scale), input, has } }
  },
  read(op, { format: given, dtype, count, bias, quantized }, sizes) {
    const shape = sizes as [number, number]
    const format = checkFormat(op, given)
    if (format === '2:4' && shape[1] % 4 !== 0)
      throw new FormatError(`2:4 needs a multiple of 4 inputs, there are ${shape[1]}`)
    if (!isValuesDType(dtype)) throw new FormatError(`dtype must be a float dtype or int8, got ${show(dtype)}`)
    checkInteger(op, 'count', count, 0, format === '2:4' ? 0 : mostStored(shape, format))
    if (typeof bias !== 'boolean') throw new FormatError(`bias must be true or false, got ${show(bias)}`)
    const entry = { format, dtype, count: count as number, bias }
    if (dtype === 'int8') return { ...entry, quantized: readQuantized(op, quantized) }
    if (quantized !== undefined) throw new FormatError(`quantized needs int8 values, they are ${dtype}`)
    return entry
  },
  blank(_op, { format, dtype, count, bias, quantized }, { outFeatures, inFeatures, weight }) {
    const layout = { shape: [outFeatures, inFeatures], format, dtype, count, ...quantized } as const
    const parts = sparseParts.map((part) => {
      const shape = part.shape(layout)
      return [part.name, shape && zeros(shape, { dtype: part.dtype(layout) })]
    })
    // No SparseTensor yet: indices that are all 0 are none.
    return new SparseLinear({
      weight: { shape: layout.shape, format, ...Object.fromEntries(parts) },
      bias: bias ? zeros([outFeatures], { dtype: weight.dtype }) : null,
      ...(quantized && blankInput(quantized, inFeatures)),
    })
  },
}

const sparseLayers: LayerKinds = { key: 'kerf.sparse_layers', kinds: [sparseLinear] }

function readQuantized(op: string, given: unknown): InputEntry & { granularity: Granularity } {
  if (typeof given !== 'object' || given === null)
    throw new FormatError(`int8 values need quantized, an object, got ${show(given)}`)
  const fields = given as Fields
  const granularity = checkGranularity(op, fields.granularity, 2)
  if (!hasSparseScale(granularity))
    throw new FormatError(`granularity must be per tensor or per channel(0), it is ${showGranularity(granularity)}`)
  return { granularity, ...readInput(op, fields, inputBuffers) }
}

/**
 * The sparse layers of a model as metadata for saveSafetensors: with it a dense model of the same architecture can be
 * turned into one that the saved stateDict fits. A model that has quantized layers too is saved with both:
 * `{ ...quant.metadata(model), ...prune.metadata(model) }`.
 *
 * @example await io.saveSafetensors(file, model.stateDict(), { metadata: prune.metadata(model) })
 */
export function metadata(model: AnyModule): Record<string, string> {
  return layerMetadata(model, sparseLayers)
}

/**
 * Puts empty sparse layers where `metadata(model)` had them, so that loadStateDict() can fill them; until then they compute
 * nothing. The model is a dense one of the same architecture; it is changed in place. loadStateDict() refuses indices that
 * are damaged.
 *
 * @example
 * const { metadata, tensors } = await io.parseSafetensors(bytes)
 * const model = prune.applyMetadata(new Net(), metadata)
 * model.loadStateDict(tensors)
 * @returns the model (a new layer when the model is itself a Linear)
 * @throws FormatError for metadata that is damaged or does not fit the model; nothing has been changed then
 */
export function applyMetadata<M extends AnyModule>(model: M, metadata: Readonly<Record<string, string>>): M {
  return applyLayerMetadata(model, metadata, sparseLayers)
}

const sparseTensors: TensorKind<SparseTensor> = {
  key: 'kerf.sparse_tensors',
  type: SparseTensor,
  parts: sparseParts.map(({ name }) => name).filter((name) => name !== 'values'),
  part: (s, name) => s[name as PartName],
  describe: ({ shape, format }) => ({ shape, format }),
  make({ shape, format: given }, values, part) {
    if (!values) throw new FormatError('its values are missing')
    const format = checkFormat('SparseTensor', given)
    const size = shape as [number, number]
    // What a format has no use for is another tensor's.
    const has = new Set(
      sparseParts.flatMap((p) => (p.shape({ shape: size, format, dtype: values.dtype, count: 0 }) ? [p.name] : [])),
    )
    return fromParts(size, format, (name) => (name === 'values' ? values : has.has(name) ? part(name) : null))
  },
}

/**
 * Sparse tensors as plain ones for saveSafetensors: `name` has the values, `name.scale` the scale of int8 ones,
 * `name.pointers`, `name.columns`, `name.metadata` the indices that the format has; the rest is metadata.
 *
 * @example
 * const { tensors, metadata } = prune.toTensors({ w: prune.sparsify(w, 'csr') })
 * await io.saveSafetensors(file, tensors, { metadata })
 */
export function toTensors(sparse: Readonly<Record<string, SparseTensor>>): {
  tensors: Record<string, Tensor>
  metadata: Record<string, string>
} {
  return toPlainTensors(sparse, sparseTensors)
}

/**
 * The sparse tensors that toTensors took apart. Waits in place for the indices and checks every one.
 *
 * @throws FormatError for metadata that is damaged or does not fit the tensors
 */
export function fromTensors(
  tensors: Readonly<Record<string, Tensor>>,
  metadata: Readonly<Record<string, string>>,
): Record<string, SparseTensor> {
  return fromPlainTensors(tensors, metadata, sparseTensors)
}
