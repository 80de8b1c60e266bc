/**
 * What applies to ops without being their argument: whether gradients are recorded, and which scope() owns new tensors.
 * It follows async functions (AsyncLocalStorage) and costs nothing while no context is active.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import type { Tensor } from './tensor'

export interface Context {
  readonly grad: boolean
  /** Tensors made here are disposed when the scope ends. */
  readonly scope: Set<Tensor> | null
}

const base: Context = { grad: true, scope: null }
const storage = new AsyncLocalStorage<Context>()
/** How many runWith calls have not ended. */
let active = 0

export function context(): Context {
  return active === 0 ? base : (storage.getStore() ?? base)
}

export function gradEnabled(): boolean {
  return active === 0 || context().grad
}

/** Runs `fn` (sync or async) with parts of the context replaced; `end` is called when it is over, failed or not. */
export function runWith<R>(change: Partial<Context>, fn: () => R, end?: (result: Awaited<R> | undefined) => void): R {
  const inner = { ...context(), ...change }
  active++
  let result: R
  try {
    result = storage.run(inner, fn)
  } catch (error) {
    active--
    end?.(undefined)
    throw error
  }
  if (result instanceof Promise) {
    return result.then(
      (value) => {
        active--
        end?.(value)
        return value
      },
      (error) => {
        active--
        end?.(undefined)
        throw error
      },
    ) as R
  }
  active--
  end?.(result as Awaited<R>)
  return result
}

/** Ops inside `fn` (sync or async) record no gradients. */
export function noGrad<R>(fn: () => R): R {
  return runWith({ grad: false }, fn)
}

/** Ops inside `fn` record gradients again, within a noGrad. */
export function enableGrad<R>(fn: () => R): R {
  return runWith({ grad: true }, fn)
}

/**
 * Runs `fn` (sync or async) and disposes every tensor made in it that it does not return. Returned tensors are found in
 * arrays and plain objects too, and move to the enclosing scope. Parameters, their gradients and optimizer states are
 * never disposed by a scope.
 *
 * @returns what `fn` returned
 */
export function scope<R>(fn: () => R): R {
  const outer = context().scope
  const made = new Set<Tensor>()
  return runWith({ scope: made }, fn, (result) => {
    const kept = new Set<unknown>()
    collect(result, kept)
    for (const tensor of made) {
      if (!kept.has(tensor)) tensor.dispose()
      else outer?.add(tensor)
    }
  })
}

/** Finds the tensors in a returned value: arrays, plain objects, Maps. */
function collect(value: unknown, into: Set<unknown>): void {
  if (typeof value !== 'object' || value === null || into.has(value) || ArrayBuffer.isView(value)) return
  into.add(value)
  if (Array.isArray(value)) for (const item of value) collect(item, into)
  else if (value instanceof Map) for (const item of value.values()) collect(item, into)
  else if (Object.getPrototypeOf(value) === Object.prototype)
    for (const item of Object.values(value)) collect(item, into)
}
