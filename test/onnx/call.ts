// A node with its inputs, as the adapters read it.
import type { Tensor } from '#lib/tensor/tensor'
import type { Nd } from '../oracle/array'
import { type Attribute, type OnnxNode, type OnnxTensor, readAttribute, toNd, toTensor } from './model'

export class Call {
  readonly #tensors: readonly (Tensor | null)[]

  /**
   * @param given one a name in node.inputs; null where that is ''
   * @param opset the version of the node's domain
   */
  constructor(
    readonly node: OnnxNode,
    readonly given: readonly (OnnxTensor | null)[],
    readonly opset: number,
  ) {
    this.#tensors = given.map((value) => value && toTensor(value))
  }

  has(i: number): boolean {
    return Boolean(this.given[i])
  }

  /** Inputs from `start` on, all of which must be there. */
  inputs(start = 0): Tensor[] {
    return this.given.slice(start).map((_, i) => this.input(start + i))
  }

  input(i: number): Tensor {
    const tensor = this.#tensors[i]
    if (!tensor) throw new Error(`${this.node.opType} has no input ${i}`)
    return tensor
  }

  /** An input's values in float64, for bounds. */
  values(i: number): Nd {
    const given = this.given[i]
    if (!given) throw new Error(`${this.node.opType} has no input ${i}`)
    return toNd(given)
  }

  /** The elements of an input of sizes, axes or the like; undefined when it is left out. */
  integers(i: number): number[] | undefined {
    return this.has(i) ? Array.from(this.values(i).data) : undefined
  }

  /** The value of an input of one element. */
  scalar(i: number): number
  scalar<T>(i: number, fallback: T): number | T
  scalar<T>(i: number, fallback?: T): number | T {
    if (!this.has(i) && fallback !== undefined) return fallback
    const { data } = this.values(i)
    if (data.length !== 1) throw new Error(`input ${i} of ${this.node.opType} has ${data.length} elements, not one`)
    return data[0] as number
  }

  number(name: string, fallback: number): number {
    return this.#attribute(name, (value) => typeof value === 'number') ?? fallback
  }

  flag(name: string, fallback = false): boolean {
    return this.number(name, Number(fallback)) !== 0
  }

  text(name: string, fallback: string): string {
    return this.#attribute(name, (value) => typeof value === 'string') ?? fallback
  }

  numbers(name: string): number[] | undefined {
    return this.#attribute(name, (value): value is number[] => Array.isArray(value) && typeof value[0] !== 'string')
  }

  tensor(name: string): OnnxTensor | undefined {
    return this.#attribute(name, (value): value is OnnxTensor => typeof value === 'object' && !Array.isArray(value))
  }

  /** What older opsets have as an attribute and newer ones as an input. */
  list(name: string, input: number): number[] | undefined {
    return this.numbers(name) ?? this.integers(input)
  }

  #attribute<T extends Attribute>(name: string, is: (value: Attribute) => value is T): T | undefined {
    const message = this.node.attributes.get(name)
    if (message === undefined) return undefined
    const value = readAttribute(message)
    if (!is(value)) throw new Error(`attribute ${name} of ${this.node.opType} is of another type`)
    return value
  }
}
