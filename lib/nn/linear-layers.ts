/** Which layers of a model a function on whole models works on. */
import { ArgumentError, show } from '../core/errors'
import { Linear } from './linear'
import { checkModel } from './model'
import type { AnyModule } from './module'

/** Names layers: their paths, paths of modules above them, regular expressions, or a function that says so. */
export type LayerFilter = readonly (string | RegExp)[] | ((path: string, layer: Linear) => boolean)

/** Layers to leave alone. */
export type Skip = LayerFilter

function matcher(
  op: string,
  name: string,
  filter: LayerFilter,
  layers: readonly [string, Linear][],
): (path: string, layer: Linear) => boolean {
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
        `${op}: ${name}: no Linear layer is at ${show(rule)}; there are ${layers.map(([path]) => `'${path}'`).join(', ') || 'none'}`,
      )
  }
  return (path) => filter.some((rule) => matches(rule, path))
}

/**
 * The Linear layers of a model, each once, in order; not those that compute something else.
 *
 * @param options.include only these; default all
 * @param options.skip not these, even if included; default none
 */
export function linearLayers(
  op: string,
  model: AnyModule,
  options: { include?: LayerFilter; skip?: LayerFilter } = {},
): [string, Linear][] {
  checkModel(op, model)
  const all = model
    .namedModules()
    .filter((entry): entry is [string, Linear] => entry[1] instanceof Linear)
    .filter(([, layer]) => layer.forward === Linear.prototype.forward)
  const { include, skip } = options
  const included = include === undefined ? () => true : matcher(op, 'include', include, all)
  const skipped = skip === undefined ? () => false : matcher(op, 'skip', skip, all)
  return all.filter(([path, layer]) => included(path, layer) && !skipped(path, layer))
}
