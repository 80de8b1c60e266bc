/** A model at a glance. */
import { ArgumentError, show } from './core/errors'
import { showPercent, textTable } from './core/text-table'
import { countZeros } from './nn/model'
import { type AnyModule, Module } from './nn/module'
import { QuantizedLayer } from './nn/quantized-layer'
import { dequantize } from './ops/quantize'
import { SparseLinear } from './prune/sparse-linear'
import { noGrad, scope } from './tensor/context'
import type { Tensor } from './tensor/tensor'

export interface LayerSummary {
  /** Where it is in the model: '' for the model itself. */
  path: string
  type: string
  /** Its options, as in toString(). */
  options: string
  /** Of its own parameters and buffers, in order, each once. */
  dtypes: string[]
  parameters: number
  /** Of parameters and buffers, as stored. */
  bytes: number
  /** Part of its parameters that is 0. */
  sparsity: number
}

export interface ModelSummary {
  /** Modules with parameters or buffers of their own, or with nothing below them. */
  layers: LayerSummary[]
  /** Over all layers; tied parameters count once. The weights of quantized and sparse layers count, though none can be trained. */
  parameters: number
  trainable: number
  bytes: number
  sparsity: number
  /** The table that summary() prints. */
  toString(): string
}

/**
 * Layers, dtypes, parameters, sparsity and bytes of a model; printed as a table unless `print` is false. Reads the
 * parameters to count zeros, so it waits for what is under way.
 */
export function summary(model: AnyModule, options: { print?: boolean } = {}): ModelSummary {
  if (!(model instanceof Module)) throw new ArgumentError(`summary: expected a Module, got ${show(model)}`)
  const seen = new Set<Tensor>()
  const total = { parameters: 0, trainable: 0, bytes: 0, zeros: 0 }
  const layers: LayerSummary[] = []
  for (const [path, module] of model.namedModules()) {
    const own = (name: string) => !name.includes('.')
    const parameters = module.namedParameters().flatMap(([name, p]) => (own(name) && !seen.has(p) ? [p] : []))
    const buffers = module.namedBuffers().flatMap(([name, b]) => (own(name) && !seen.has(b) ? [b] : []))
    for (const tensor of [...parameters, ...buffers]) seen.add(tensor)
    if (parameters.length + buffers.length === 0 && module.namedChildren().length > 0) continue
    const { count, zeros } = weightsOf(module, parameters)
    const bytes = add([...parameters, ...buffers], (t) => t.bytes)
    layers.push({
      path,
      type: module.constructor.name,
      options: module.describe(),
      dtypes: [...new Set([...parameters, ...buffers].map((t) => t.dtype))],
      parameters: count,
      bytes,
      sparsity: count === 0 ? 0 : zeros / count,
    })
    total.parameters += count
    total.trainable += add(parameters, (p) => (p.requiresGrad ? p.size : 0))
    total.bytes += bytes
    total.zeros += zeros
  }
  const result: ModelSummary = {
    layers,
    parameters: total.parameters,
    trainable: total.trainable,
    bytes: total.bytes,
    sparsity: total.parameters === 0 ? 0 : total.zeros / total.parameters,
    toString: () => table(result),
  }
  if (options.print ?? true) console.log(table(result))
  return result
}

function add(tensors: readonly Tensor[], value: (tensor: Tensor) => number): number {
  return tensors.reduce((total, tensor) => total + value(tensor), 0)
}

function weights(parameters: readonly Tensor[]): { count: number; zeros: number } {
  return { count: add(parameters, (p) => p.size), zeros: add(parameters, countZeros) }
}

function weightsOf(module: AnyModule, parameters: readonly Tensor[]): { count: number; zeros: number } {
  if (module instanceof QuantizedLayer) return quantizedWeights(module)
  if (module instanceof SparseLinear) return sparseWeights(module)
  return weights(parameters)
}

/** As many as the dense layer had, also those that are not stored because they are 0. */
function sparseWeights(layer: SparseLinear): { count: number; zeros: number } {
  const bias = weights(layer.bias ? [layer.bias] : [])
  return { count: layer.outFeatures * layer.inFeatures + bias.count, zeros: layer.zeros + bias.zeros }
}

/** Its weights are buffers of packed integers: as many as the float layer had, 0 where they stand for 0. */
function quantizedWeights(layer: QuantizedLayer): { count: number; zeros: number } {
  return scope(() => {
    const dequantized = noGrad(() => dequantize(layer.quantizedWeight))
    return weights(layer.bias ? [dequantized, layer.bias] : [dequantized])
  })
}

function table({ layers, parameters, trainable, bytes, sparsity }: ModelSummary): string {
  const row = (l: LayerSummary) => [
    l.path === '' ? l.type : `${l.path}: ${l.type}`,
    l.options,
    l.dtypes.join(' '),
    l.parameters.toLocaleString('en'),
    showPercent(l.sparsity),
    l.bytes.toLocaleString('en'),
  ]
  const rows = [['layer', 'options', 'dtype', 'parameters', 'zero', 'bytes'], ...layers.map(row)]
  const sums = `${parameters.toLocaleString('en')} parameters (${trainable.toLocaleString('en')} trainable)`
  return `${textTable(rows, 3)}\n${sums}, ${showPercent(sparsity)} zero, ${bytes.toLocaleString('en')} bytes`
}
