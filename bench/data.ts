/** The data of products, and how results are compared. */
/**
 * Fills an array with the whole numbers low, low + 1, ... of so many levels, in no order. Small ones are exact in every
 * dtype and so are their sums: every contender must give the same result.
 */
export function whole<A extends Float32Array | Int8Array | Uint8Array>(array: A, low: number, levels = 16): A {
  for (let i = 0, state = 1; i < array.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0
    array[i] = low + ((state >>> 28) % levels)
  }
  return array
}

/** The transpose of a row-major [rows, columns]. */
export function transposed(a: Int8Array, rows: number, columns: number): Int8Array {
  const out = new Int8Array(a.length)
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = a[i * columns + j] as number
  return out
}

/** Throws unless two results are the same, or nowhere further apart than `bound`. */
export function agree(what: string, ours: ArrayLike<number>, theirs: ArrayLike<number>, bound = 0): void {
  if (ours.length !== theirs.length) throw new Error(`${what}: ${ours.length} results and ${theirs.length}`)
  for (let i = 0; i < ours.length; i++) {
    // Not '>': a NaN differs from everything.
    if (!(Math.abs((ours[i] as number) - (theirs[i] as number)) <= bound))
      throw new Error(`${what}: results differ at ${i}: ${ours[i]} and ${theirs[i]}`)
  }
}
