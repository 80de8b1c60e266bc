/** Weighted means of rows of numbers that come one after the other, in float64. */
export class Means {
  #weight = 0
  #rows = 0
  readonly #sums: number[]

  /** @param columns how many numbers a row has */
  constructor(columns: number) {
    this.#sums = new Array<number>(columns).fill(0)
  }

  /** How many rows were added. */
  get rows(): number {
    return this.#rows
  }

  add(row: ArrayLike<number>, weight = 1): void {
    this.#rows++
    this.#weight += weight
    for (let i = 0; i < this.#sums.length; i++) this.#sums[i] = (this.#sums[i] as number) + weight * (row[i] as number)
  }

  /** NaN when nothing was added. */
  mean(column: number): number {
    return (this.#sums[column] as number) / this.#weight
  }

  /** As plain numbers, for going on later. */
  stateDict(): { rows: number; weight: number; sums: number[] } {
    return { rows: this.#rows, weight: this.#weight, sums: [...this.#sums] }
  }

  /** The means that stateDict() was asked of. */
  static from(state: { rows: number; weight: number; sums: readonly number[] }): Means {
    const means = new Means(state.sums.length)
    means.#rows = state.rows
    means.#weight = state.weight
    for (const [i, sum] of state.sums.entries()) means.#sums[i] = sum
    return means
  }
}
