/** What of a model is pruned, and masks' end. */
import { showShape } from '../core/shape'
import { showPercent, textTable } from '../core/text-table'
import { checkModel, countZeros } from '../nn/model'
import type { AnyModule } from '../nn/module'
import { layerWeights } from './layers'

export interface LayerReport {
  path: string
  /** [out, in], or a convolution's [out, in / groups, ...kernel]. */
  shape: readonly number[]
  /** Weights, and those of them that are 0, masked or not. */
  weights: number
  zeros: number
  /** zeros / weights. */
  sparsity: number
  /** Of the weights as they are stored, zeros included. */
  denseBytes: number
  /** Whether it has a mask, which optimizers honour. */
  masked: boolean
}

export interface PruneReport {
  /** The Linear layers and convolutions, in order; a weight that several share is in the first. */
  layers: LayerReport[]
  total: { weights: number; zeros: number; sparsity: number; denseBytes: number }
  /** The table as text. */
  toString(): string
}

/**
 * Zeros of the weights of a model's Linear layers and convolutions, as data and, by toString(), as a table. Biases are not counted. Reads the
 * weights, so it waits in place for what is under way.
 *
 * @throws ArgumentError when the model is no Module
 * @example console.log(String(prune.report(model)))
 */
export function report(model: AnyModule): PruneReport {
  const layers = layerWeights('report', model).map(([path, weight]): LayerReport => {
    const zeros = countZeros(weight)
    const { shape, size: weights, bytes: denseBytes } = weight
    return { path, shape, weights, zeros, sparsity: zeros / weights, denseBytes, masked: weight.mask !== null }
  })
  const add = (value: (layer: LayerReport) => number) => layers.reduce((sum, layer) => sum + value(layer), 0)
  const weights = add((l) => l.weights)
  const zeros = add((l) => l.zeros)
  const total = { weights, zeros, sparsity: weights === 0 ? 0 : zeros / weights, denseBytes: add((l) => l.denseBytes) }
  return { layers, total, toString: () => table(layers, total) }
}

function table(layers: readonly LayerReport[], total: PruneReport['total']): string {
  const counts = (x: PruneReport['total']) => [
    x.weights.toLocaleString('en'),
    x.zeros.toLocaleString('en'),
    showPercent(x.sparsity),
    x.denseBytes.toLocaleString('en'),
  ]
  return textTable(
    [
      ['layer', 'shape', 'mask', 'weights', 'zeros', 'sparsity', 'bytes dense'],
      ...layers.map((l) => [l.path || '(model)', showShape(l.shape), l.masked ? 'yes' : 'no', ...counts(l)]),
      ['total', '', '', ...counts(total)],
    ],
    3,
  )
}

/**
 * Takes the masks of all parameters away. The zeros stay, but the next step of an optimizer may change them.
 *
 * @throws ArgumentError when the model is no Module
 */
export function removeMasks(model: AnyModule): void {
  checkModel('removeMasks', model)
  for (const parameter of model.parameters()) parameter.mask = null
}
