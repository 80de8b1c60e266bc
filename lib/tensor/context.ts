/**
 * What applies to ops without being their argument: whether gradients are recorded, which scope() owns new tensors, and
 * which precision autocast asks for.
 * It follows async functions (AsyncLocalStorage) and costs nothing while no context is active.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import type { DType, FloatDType } from '../core/dtype'
import type { Tensor } from './tensor'

export interface Context {
  readonly grad: boolean
  /** Tensors made here are disposed when the scope ends. */
  readonly scope: Set<Tensor> | null
  /** The autocast region, as data: ops read it and know nothing of kerf/amp. */
  readonly autocast: Autocast | null
}

export interface Autocast {
  /** What the 'lower' ops compute in. */
  readonly dtype: FloatDType
  /** By name of the op; an op that is not listed computes in the promoted dtype of its inputs. */
  readonly precision: ReadonlyMap<string, 'lower' | 'float32'>
  /** Leaves (weights) that this region has cast already. */
  readonly casts: Map<Tensor, CachedCast>
  /** Told of every op that has run and of its result's dtype. */
  readonly observe: ((op: string, dtype: DType) => void) | null
}

export interface CachedCast {
  readonly cast: Tensor
  /** Of the leaf's bytes when they were cast. */
  readonly version: number
}

const base: Context = { grad: true, scope: null, autocast: null }
const storage = new AsyncLocalStorage<Context>()
/** How many runWith calls have not ended, and how many of them began an autocast region. */
let active = 0
let casting = 0

export function context(): Context {
  return active === 0 ? base : (storage.getStore() ?? base)
}

export function gradEnabled(): boolean {
  return active === 0 || context().grad
}

/** The autocast region that this code is in. Every op asks, so it costs a comparison while there is none anywhere. */
export function autocastRegion(): Autocast | null {
  return casting === 0 ? null : context().autocast
}

/** Runs `fn` (sync or async) with parts of the context replaced; `end` is called when it is over, failed or not. */
export function runWith<R>(change: Partial<Context>, fn: () => R, end?: (result: Awaited<R> | undefined) => void): R {
  const inner = { ...context(), ...change }
  const casts = change.autocast ? 1 : 0
  active++
  casting += casts
  const leave = (value: Awaited<R> | undefined) => {
    active--
    casting -= casts
    end?.(value)
  }
  let result: R
  try {
    result = storage.run(inner, fn)
  } catch (error) {
    leave(undefined)
    throw error
  }
  if (result instanceof Promise) {
    return result.then(
      (value) => {
        leave(value)
        return value
      },
      (error) => {
        leave(undefined)
        throw error
      },
    ) as R
  }
  leave(result as Awaited<R>)
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
