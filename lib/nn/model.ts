/** What the functions on whole models share. */
import { ArgumentError, show } from '../core/errors'
import { type AnyModule, Module } from './module'

/** Throws unless it is a Module. */
export function checkModel(op: string, model: unknown): void {
  if (!(model instanceof Module)) throw new ArgumentError(`${op}: expected a Module, got ${show(model)}`)
}

/**
 * Puts a layer in all the places of another one, which may be shared, and in its mode.
 *
 * @returns the model; the new layer when the model is itself the old one
 */
export function replaceLayer<M extends AnyModule>(model: M, old: AnyModule, layer: AnyModule): M {
  layer.training = old.training
  if (model === (old as AnyModule)) return layer as M
  for (const module of model.modules())
    for (const [name, child] of module.namedChildren()) if (child === old) module.setChild(name, layer)
  return model
}
