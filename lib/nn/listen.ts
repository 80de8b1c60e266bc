/** Sees what modules take and answer while a model runs as it is. */
import type { Tensor } from '../tensor/tensor'
import type { AnyModule, Module } from './module'

/** Told after each forward() of a module. */
export type Listener = (output: unknown, input: unknown) => void

/** A module that is listened to. */
interface Hooked {
  readonly listeners: Set<Listener>
  readonly hook: Module['forward']
  /** The forward that the module had of its own, over its class's. */
  readonly own: Module['forward'] | null
}

/** One hook a module, so that several may listen and leave in any order. */
const hooked = new WeakMap<AnyModule, Hooked>()

/**
 * Tells the listener of every forward() of the module, wherever in a model it is called.
 *
 * @returns stops it; calling it twice is fine
 */
export function listen(module: AnyModule, listener: Listener): () => void {
  const known = hooked.get(module)
  if (known) known.listeners.add(listener)
  else hook(module, listener)
  return () => leave(module, listener)
}

function hook(module: AnyModule, listener: Listener): void {
  const listeners = new Set([listener])
  const layer = module as unknown as Module
  const forward = layer.forward
  // In the layer itself: a model may call it from several places, or look into it.
  const hook = (...inputs: [Tensor]) => {
    const output = forward.apply(layer, inputs)
    for (const each of listeners) each(output, inputs[0])
    return output
  }
  hooked.set(module, { listeners, hook, own: Object.hasOwn(layer, 'forward') ? forward : null })
  layer.forward = hook
}

function leave(module: AnyModule, listener: Listener): void {
  const known = hooked.get(module)
  if (!known) return
  const { listeners, hook, own } = known
  listeners.delete(listener)
  const layer = module as unknown as Module
  // Somebody has put a forward of his own over the hook: it stays below, and tells nobody.
  if (listeners.size > 0 || layer.forward !== hook) return
  if (own) layer.forward = own
  else delete (layer as Partial<Module>).forward
  hooked.delete(module)
}
