/** Which sparse formats are worth a try for a weight, and which of what was tried is taken. */
import type { Pauses } from '../core/pauses'
import { isBlocks, type SparseFormat } from '../tensor/sparse'

/** A stored weight costs at least 1.4 times a dense one where there are few zeros (README, 65 %), so below it none can win. */
const LEAST_ZEROS = 0.3
/** Blocks are worth their place when they store at most so many values for each weight that is not 0. */
const MOST_FILL = 1.25
const BLOCK = Object.freeze({ block: Object.freeze([1, 16]) as readonly [number, number] })

/** Time that smaller weights, or weights that can go on learning, are worth. */
const TIE = 1.05

export interface Zeros {
  zeros: number
  /** At most two weights that are not 0 in every four. */
  twoOfFour: boolean
  /** Values that blocks of [1, 16] would store. */
  inBlocks: number
}

/** What decides the candidates, of weights [out, inputs]. */
export async function lookAt(values: ArrayLike<number>, out: number, inputs: number, pauses: Pauses): Promise<Zeros> {
  const found = { zeros: 0, twoOfFour: inputs % 4 === 0, inBlocks: 0 }
  const width = BLOCK.block[1]
  for (let row = 0; row < out; row++) {
    let four = 0
    let block = 0
    for (let j = 0; j < inputs; j++) {
      if (j % 4 === 0) four = 0
      if (j % width === 0) block = 0
      if (values[row * inputs + j] === 0) {
        found.zeros++
        continue
      }
      if (++four > 2) found.twoOfFour = false
      if (block++ === 0) found.inBlocks += width
    }
    if (pauses.due()) await pauses.take()
  }
  return found
}

/** The formats that are worth being timed; none for weights with few zeros. */
export function candidatesOf({ zeros, twoOfFour, inBlocks }: Zeros, size: number): SparseFormat[] {
  if (zeros < LEAST_ZEROS * size) return []
  const formats: SparseFormat[] = ['csr']
  if (twoOfFour) formats.push('2:4')
  if (inBlocks <= MOST_FILL * (size - zeros)) formats.push(BLOCK)
  return formats
}

export interface Timed {
  format: SparseFormat | 'dense'
  us: number
  bytes: number
}

/**
 * Dense unless a sparse format is clearly faster; of formats that are as good as the fastest the one of fewest bytes. So the
 * choice is within 1.06 times of the fastest, and errors of measurement have the rest of 10 %.
 */
export function chooseFormat<T extends Timed>(tried: readonly T[]): T {
  const dense = tried.find(({ format }) => format === 'dense') as T
  const sparse = tried.filter((t) => t !== dense)
  const fastest = Math.min(...sparse.map(({ us }) => us))
  if (!(fastest * TIE < dense.us)) return dense
  return sparse.filter(({ us }) => us <= fastest * TIE).reduce((a, b) => (b.bytes < a.bytes ? b : a))
}

/** A key for a column of a table: formats are compared by what they are. */
export const formatKey = (format: SparseFormat | 'dense'): string =>
  typeof format !== 'string' && isBlocks(format) ? format.block.join('x') : String(format)
