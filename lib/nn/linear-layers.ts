/** Which layers of a model a function on whole models works on. */
import { ArgumentError, show } from '../core/errors'
import { Conv1d, Conv2d, ConvTranspose2d } from './conv'
import { Linear } from './linear'
import { checkModel } from './model'
import type { AnyModule } from './module'

/** Names layers: their paths, paths of modules above them, regular expressions, or a function that says so. */
export type LayerFilter<L = Linear> = readonly (string | RegExp)[] | ((path: string, layer: L) => boolean)

function matcher<L>(
  op: string,
  name: string,
  filter: LayerFilter<L>,
  layers: readonly [string, L][],
  what: string,
): (path: string, layer: L) => boolean {
  if (typeof filter === 'function') return filter
  if (!Array.isArray(filter))
    throw new ArgumentError(`${op}: ${name} must be an array of paths or a function, got ${show(filter)}`)
  const matches = (rule: string | RegExp, path: string) =>
    typeof rule === 'string' ? path === rule || path.startsWith(`${rule}.`) : path.search(rule) >= 0
  for (const rule of filter) {
    if (typeof rule !== 'string' && !(rule instanceof RegExp))
      throw new ArgumentError(`${op}: ${name} must hold paths or regular expressions, got ${show(rule)}`)
    if (!layers.some(([path]) => matches(rule, path)))
      throw new ArgumentError(
        `${op}: ${name}: no ${what} layer is at ${show(rule)}; there are ${layers.map(([path]) => `'${path}'`).join(', ') || 'none'}`,
      )
  }
  return (path) => filter.some((rule) => matches(rule, path))
}

interface Choice<L> {
  include?: LayerFilter<L>
  skip?: LayerFilter<L>
}

/**
 * The layers of some kinds in a model, each once, in order; not those that compute something else.
 *
 * @param options.include only these; default all
 * @param options.skip not these, even if included; default none
 * @param what they are called in errors; default the names of the kinds
 */
export function layersOf<L extends AnyModule>(
  op: string,
  model: AnyModule,
  kinds: readonly (new (...args: never[]) => L)[],
  options: Choice<L> = {},
  what = kinds.map(({ name }) => name).join(' or '),
): [string, L][] {
  checkModel(op, model)
  const { include, skip } = options
  const plain = (layer: AnyModule) =>
    kinds.some((kind) => layer instanceof kind && layer.forward === kind.prototype.forward)
  const all = model.namedModules().filter((entry): entry is [string, L] => plain(entry[1]))
  const included = include === undefined ? () => true : matcher(op, 'include', include, all, what)
  const skipped = skip === undefined ? () => false : matcher(op, 'skip', skip, all, what)
  return all.filter(([path, layer]) => included(path, layer) && !skipped(path, layer))
}

/** The Linear layers of a model. */
export const linearLayers = (op: string, model: AnyModule, options?: Choice<Linear>): [string, Linear][] =>
  layersOf(op, model, [Linear], options)

/** Layers of one dense weight: Linear ones and convolutions. */
export type WeightLayer = Linear | Conv1d | Conv2d | ConvTranspose2d

export const WEIGHT_LAYERS = 'Linear or convolution'

export const weightLayers = (op: string, model: AnyModule, options?: Choice<WeightLayer>): [string, WeightLayer][] =>
  layersOf<WeightLayer>(op, model, [Linear, Conv1d, Conv2d, ConvTranspose2d], options, WEIGHT_LAYERS)
