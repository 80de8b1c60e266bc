/** Modules that hold other modules. */
import { ArgumentError, show } from '../core/errors'
import type { Tensor } from '../tensor/tensor'
import { ReLU } from './activations'
import { Conv2d } from './conv'
import { Linear } from './linear'
import { type AnyModule, Module } from './module'

function checkModule(op: string, name: string, value: unknown): void {
  if (!(value instanceof Module)) throw new ArgumentError(`${op}: '${name}' must be a Module, got ${show(value)}`)
  if (name === '' || name.includes('.'))
    throw new ArgumentError(`${op}: a name must not be empty or hold a dot, got ${show(name)}`)
}

/** Of this very class, and its forward() not replaced by somebody who wants to see each call. */
function isItself<M extends Module>(layer: Module | undefined, type: new (...args: never[]) => M): layer is M {
  return layer?.constructor === type && !Object.hasOwn(layer, 'forward')
}

const takesActivation = (layer: Module): layer is Linear | Conv2d => isItself(layer, Linear) || isItself(layer, Conv2d)

/**
 * Modules one after the other: each takes what the one before it returned.
 *
 * @example new Sequential(new Linear(784, 300), new ReLU(), new Linear(300, 10)) // names '0', '1', '2'
 * @example new Sequential({ hidden: new Linear(784, 300), act: new ReLU() })
 */
export class Sequential extends Module {
  readonly #layers = new Map<string, Module>()

  constructor(...layers: Module[] | [layers: Readonly<Record<string, Module>>]) {
    super()
    const [first] = layers
    const named = layers.length === 1 && typeof first === 'object' && first !== null && !(first instanceof Module)
    const list = named
      ? Object.entries(first as Record<string, Module>)
      : layers.map((layer, i) => [String(i), layer] as const)
    for (const [name, layer] of list) {
      checkModule('Sequential', name, layer)
      this.#layers.set(name, layer as Module)
    }
  }

  /** A ReLU right after a Linear or Conv2d is computed with it: the same bits, but nothing is kept in between. */
  forward(input: Tensor): Tensor {
    const layers = [...this.#layers.values()]
    let x = input
    for (let i = 0; i < layers.length; i++) {
      const layer = layers[i] as Module
      if (takesActivation(layer) && isItself(layers[i + 1], ReLU)) {
        x = layer.forwardActivated(x, 'relu')
        i++
      } else x = layer.forward(x)
    }
    return x
  }

  get length(): number {
    return this.#layers.size
  }

  /** The layer at a position; negative ones count from the end. */
  at(position: number): Module {
    const layer = [...this.#layers.values()].at(position)
    if (layer === undefined) throw new ArgumentError(`Sequential: no layer ${show(position)} among ${this.length}`)
    return layer
  }

  /** Adds a layer at the end; returns the module. */
  append(layer: Module, name = String(this.length)): this {
    checkModule('Sequential', name, layer)
    if (this.#layers.has(name)) throw new ArgumentError(`Sequential: there is a layer '${name}' already`)
    this.#layers.set(name, layer)
    return this
  }

  [Symbol.iterator](): IterableIterator<Module> {
    return this.#layers.values()
  }

  override namedChildren(): [string, AnyModule][] {
    return [...this.#layers]
  }

  override setChild(name: string, module: AnyModule): void {
    checkModule('setChild', name, module)
    if (!this.#layers.has(name)) throw new ArgumentError(`setChild: Sequential has no module '${name}'`)
    this.#layers.set(name, module as Module)
  }
}

/** A list of modules that a model uses as it likes; it has no forward() of its own. */
export class ModuleList<M extends AnyModule = Module> extends Module<never[], never> {
  readonly #modules: M[] = []

  constructor(modules: Iterable<M> = []) {
    super()
    for (const module of modules) this.append(module)
  }

  forward(): never {
    throw new ArgumentError('ModuleList: it has no forward(): call its modules')
  }

  get length(): number {
    return this.#modules.length
  }

  /** The module at a position; negative ones count from the end. */
  at(position: number): M {
    const module = this.#modules.at(position)
    if (module === undefined) throw new ArgumentError(`ModuleList: no module ${show(position)} among ${this.length}`)
    return module
  }

  /** Adds a module at the end; returns the list. */
  append(module: M): this {
    checkModule('ModuleList', String(this.length), module)
    this.#modules.push(module)
    return this
  }

  [Symbol.iterator](): IterableIterator<M> {
    return this.#modules.values()
  }

  override namedChildren(): [string, AnyModule][] {
    return this.#modules.map((module, i) => [String(i), module])
  }

  override setChild(name: string, module: AnyModule): void {
    checkModule('setChild', name, module)
    const position = Number(name)
    if (!(position in this.#modules)) throw new ArgumentError(`setChild: ModuleList has no module '${name}'`)
    this.#modules[position] = module as M
  }
}
