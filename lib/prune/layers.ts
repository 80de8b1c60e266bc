/** What every way of pruning does the same: finding weights, reading them, checking options, setting masks. */
import { checkFinite } from '../core/checks'
import { ArgumentError, show } from '../core/errors'
import { Pauses } from '../core/pauses'
import { checkInteger } from '../core/shape'
import { native } from '../native/call'
import { atLayer } from '../nn/calibrate'
import type { Linear } from '../nn/linear'
import { type LayerFilter, linearLayers, WEIGHT_LAYERS, type WeightLayer, weightLayers } from '../nn/linear-layers'
import type { AnyModule } from '../nn/module'
import type { Parameter } from '../nn/parameter'
import { tensor } from '../ops/create'
import { converted } from '../ops/op'
import { noGrad, scope } from '../tensor/context'
import { changed, copyTo, keep, type Tensor } from '../tensor/tensor'

export interface LayerOptions<L = Linear> {
  /**
   * The layers to work on: their paths, paths of modules above them, regular expressions, or a function
   * `(path, layer) => boolean`. Default all.
   */
  include?: LayerFilter<L>
  /** Layers to leave alone, included or not; default none. */
  skip?: LayerFilter<L>
}

/** Whether layers share one budget of zeros or have one each. */
export type Scope = 'global' | 'layer'

export interface SparsityOptions<L = WeightLayer> extends LayerOptions<L> {
  /** Part of the weights to be 0, from 0 to 1; those pruned before count. Exactly round(sparsity * count) are pruned. */
  sparsity: number
  /** 'global' (default): the least of all layers together go; 'layer': each layer gets the sparsity. */
  scope?: Scope
}

/** A weight while it is decided what stays of it. */
export interface Work {
  path: string
  weight: Parameter
  out: number
  inputs: number
  /** [out, inputs], finite; of a convolution's weight everything after the first axis is one. */
  values: Float32Array
  /** 1 for kept elements, 0 for pruned ones; begins as the mask that the weight has. */
  keep: Uint8Array
}

/** An options object, or an error that shows what it is. */
export function checkOptions(op: string, options: unknown): void {
  if (typeof options !== 'object' || options === null)
    throw new ArgumentError(`${op}: options must be an object, got ${show(options)}`)
}

export function checkSparsity(op: string, name: string, value: unknown): number {
  if (typeof value === 'number' && value >= 0 && value <= 1) return value
  throw new ArgumentError(`${op}: ${name} must be a number from 0 to 1, got ${show(value)}`)
}

export function checkScope(op: string, value: unknown): Scope {
  if (value === undefined) return 'global'
  if (value === 'global' || value === 'layer') return value
  throw new ArgumentError(`${op}: scope must be 'global' or 'layer', got ${show(value)}`)
}

/** `n` of every `m`. */
export function checkPattern(op: string, n: unknown, m: unknown): { n: number; m: number } {
  const size = checkInteger(op, 'm', m, 2)
  return { n: checkInteger(op, 'n', n, 1, size - 1), m: size }
}

/** Zeros among `count` elements: what "exactly" means. */
export const zerosOf = (sparsity: number, count: number): number => Math.round(sparsity * count)

/** Weights of layers, each once, with the first of the layers that share it. */
function eachOnce(layers: readonly [string, WeightLayer][]): [path: string, weight: Parameter][] {
  const seen = new Set<Parameter>()
  return layers.flatMap(([path, { weight }]): [string, Parameter][] => {
    if (seen.has(weight)) return []
    seen.add(weight)
    return [[path, weight]]
  })
}

/** The weights of Linear layers and convolutions. */
export const layerWeights = (op: string, model: AnyModule, options?: LayerOptions<WeightLayer>) =>
  eachOnce(weightLayers(op, model, options))

function some<T>(op: string, what: string, weights: T[]): T[] {
  if (weights.length === 0) throw new ArgumentError(`${op}: the model has no ${what} layer to prune`)
  return weights
}

/** The weights that are to be pruned by a criterion that judges single weights wherever they are. */
export const prunable = (op: string, model: AnyModule, options: LayerOptions<WeightLayer>) =>
  some(op, WEIGHT_LAYERS, layerWeights(op, model, options))

/** The weights that are to be pruned by what needs rows of inputs: Linear layers' only. */
export const prunableRows = (op: string, model: AnyModule, options: LayerOptions) =>
  some(op, 'Linear', eachOnce(linearLayers(op, model, options)))

/** Reads a weight and its mask. */
export async function readWork(op: string, path: string, weight: Parameter, pauses: Pauses): Promise<Work> {
  const out = weight.shape[0] as number
  const inputs = weight.size / out
  const values = await scope(() =>
    noGrad(async () => (await converted(weight as Tensor, 'float32').data()) as Float32Array),
  )
  await atLayer(op, path, () => checkFinite('weight', 'its values', values, out, inputs, pauses))
  const mask = await weight.mask?.data()
  return { path, weight, out, inputs, values, keep: mask ?? new Uint8Array(values.length).fill(1) }
}

/**
 * Reads all weights that are to be pruned, by their paths, lets `decide` prune elements of them, and only then sets all masks: when
 * anything throws, no mask has changed.
 */
export async function pruneLayers(
  op: string,
  weights: readonly [path: string, weight: Parameter][],
  decide: (work: Work[], pauses: Pauses) => void | Promise<void>,
): Promise<void> {
  const pauses = new Pauses()
  const work: Work[] = []
  for (const [path, weight] of weights) work.push(await readWork(op, path, weight, pauses))
  await decide(work, pauses)
  for (const one of work) setMask(one)
}

/** Gives a weight the mask that was decided on. */
export function setMask({ weight, keep: kept }: Work): void {
  scope(() => {
    weight.mask = tensor(kept, { shape: weight.shape, dtype: 'bool', device: weight.device })
  })
}

/** A weight and its mask as they are now, to be put back bit for bit. */
export class Saved {
  readonly #copy: Tensor
  readonly #mask: Tensor<'bool'> | null

  constructor(readonly weight: Parameter) {
    this.#copy = keep(copyTo(weight, weight.dtype))
    this.#mask = weight.mask
  }

  restore(): void {
    this.weight.mask = this.#mask
    native.copy(this.weight, this.#copy)
    changed(this.weight)
  }

  dispose(): void {
    this.#copy.dispose()
  }
}
