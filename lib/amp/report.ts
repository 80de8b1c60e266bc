import type { DType } from '../core/dtype'
import { textTable } from '../core/text-table'

export interface PrecisionCount {
  op: string
  /** Of the result. */
  dtype: DType
  /** How often it ran. */
  runs: number
}

/** Views compute nothing. */
const views = new Set(['reshape', 'permute', 'transpose', 'squeeze', 'unsqueeze', 'expand', 'slice', 'detach'])

/**
 * What ran in which precision inside autocast regions: give it to `autocast` as `report`, print it afterwards.
 * It counts forward ops with a float result, those that other ops are made of too; backward is not counted.
 */
export class PrecisionReport {
  readonly #counts = new Map<string, PrecisionCount>()

  /** @internal */
  add(op: string, dtype: DType): void {
    if (views.has(op)) return
    const key = `${op} ${dtype}`
    const known = this.#counts.get(key)
    if (known) known.runs++
    else this.#counts.set(key, { op, dtype, runs: 1 })
  }

  /** Copies of the counts, in the order in which they first ran. */
  get ops(): PrecisionCount[] {
    return [...this.#counts.values()].map((count) => ({ ...count }))
  }

  /** How often an op ran with a result of this dtype; of any dtype without one. */
  runs(op: string, dtype?: DType): number {
    return this.ops
      .filter((count) => count.op === op && (dtype === undefined || count.dtype === dtype))
      .reduce((total, count) => total + count.runs, 0)
  }

  /** A table: op, dtype, runs. */
  toString(): string {
    const rows = this.ops.map(({ op, dtype, runs }) => [op, dtype, String(runs)])
    return textTable([['op', 'dtype', 'runs'], ...rows], 2)
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString()
  }
}
