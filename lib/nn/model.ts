/** What the functions on whole models share. */
import { ArgumentError, show } from '../core/errors'
import { native } from '../native/call'
import { eq } from '../ops/arithmetic'
import { sum } from '../ops/reduce'
import { toDevice } from '../ops/transfer'
import { noGrad, scope } from '../tensor/context'
import { changed, type Tensor } from '../tensor/tensor'
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

/** Tensors on the device of a model's parameters (of its buffers, where it has none): those that are there, and copies of others. */
export function besideModel<T extends readonly Tensor[]>(model: AnyModule, ...tensors: T): T {
  const [first = Object.values(model.stateDict())[0]] = model.parameters() as Tensor[]
  return first ? (tensors.map((x) => toDevice(x, first.device)) as readonly Tensor[] as T) : tensors
}

/** parameter = value, in place. */
export function assign(parameter: Tensor, value: Tensor): void {
  native.copy(parameter, value)
  changed(parameter)
}

/** How many elements are 0. Waits in place for the answer. */
export function countZeros(tensor: Tensor): number {
  return Number(noGrad(() => scope(() => sum(eq(tensor, 0)).item())))
}

/** Runs `fn`; every module below these is in its own mode afterwards, also when it throws. */
export async function keepingModes<R>(models: readonly AnyModule[], fn: () => Promise<R>): Promise<R> {
  const modes = models.flatMap((model) => model.modules()).map((module) => [module, module.training] as const)
  try {
    return await fn()
  } finally {
    for (const [module, mode] of modes) module.training = mode
  }
}

/** Says whether a layer or a parameter of it is in several places: what is changed in it changes elsewhere too. */
export function sharing(model: AnyModule): (layer: AnyModule) => boolean {
  const places = new Map<unknown, number>()
  const count = (what: unknown) => places.set(what, (places.get(what) ?? 0) + 1)
  for (const module of model.modules()) {
    for (const [, child] of module.namedChildren()) count(child)
    for (const [name, parameter] of module.namedParameters()) if (!name.includes('.')) count(parameter)
  }
  const several = (what: unknown) => (places.get(what) ?? 0) > 1
  return (layer) => several(layer) || layer.parameters().some(several)
}
