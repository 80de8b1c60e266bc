/** Neurons: positions along axes that stand or fall together, and which of them no one may take away. */

/** The neuron at every position along an axis; or why none of them may go. */
export type Axis = Int32Array | string

/** A disjoint-set forest of positions: those tied to each other are one neuron. */
export class Neurons {
  readonly #parent: number[] = []
  /** Of a root: why it must stay. */
  readonly #reason: (string | null)[] = []

  /** New neurons for an axis of a parameter; `reason` says why they must stay. */
  make(size: number, reason: string | null = null): Int32Array {
    return Int32Array.from({ length: size }, () => {
      this.#reason.push(reason)
      return this.#parent.push(this.#parent.length) - 1
    })
  }

  /** One number for all positions that are tied together. */
  find(neuron: number): number {
    let root = neuron
    while (this.#parent[root] !== root) root = this.#parent[root] as number
    for (let at = neuron; at !== root; ) {
      const next = this.#parent[at] as number
      this.#parent[at] = root
      at = next
    }
    return root
  }

  /** Why the neuron must stay; null when it may go. */
  reason(neuron: number): string | null {
    return this.#reason[this.find(neuron)] as string | null
  }

  /** Whether no position along the axis may go. */
  fixed(axis: Axis): boolean {
    return typeof axis === 'string' || axis.every((neuron) => this.reason(neuron) !== null)
  }

  fix(axis: Axis, reason: string): void {
    if (typeof axis === 'string') return
    for (const neuron of axis) this.#reason[this.find(neuron)] ??= reason
  }

  /** Axes of one size of which position i of one belongs to position i of the other. */
  tie(a: Axis, b: Axis): void {
    if (typeof a === 'string') this.fix(b, a)
    else if (typeof b === 'string') this.fix(a, b)
    else for (let i = 0; i < a.length; i++) this.#union(a[i] as number, b[i] as number)
  }

  /** Positions `first` to before `last` become one neuron. */
  merge(axis: Int32Array, first: number, last: number): void {
    for (let i = first + 1; i < last; i++) this.#union(axis[first] as number, axis[i] as number)
  }

  #union(a: number, b: number): void {
    const [x, y] = [this.find(a), this.find(b)]
    if (x === y) return
    const [root, child] = x < y ? [x, y] : [y, x]
    this.#parent[child] = root
    this.#reason[root] ??= this.#reason[child] as string | null
  }
}
