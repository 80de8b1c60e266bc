const at = (a: ArrayLike<number>, i: number) => a[i] as number

/** The inverse of a square matrix, by Gauss-Jordan elimination without pivots. */
export function inverseOf(matrix: number[][]): number[][] {
  const n = matrix.length
  const a = matrix.map((row, i) => [...row, ...row.map((_, j) => (i === j ? 1 : 0))])
  for (let k = 0; k < n; k++) {
    const row = a[k] as number[]
    const pivot = at(row, k)
    for (let j = 0; j < 2 * n; j++) row[j] = at(row, j) / pivot
    for (const other of a) {
      const factor = at(other, k)
      if (other !== row) for (let j = 0; j < 2 * n; j++) other[j] = at(other, j) - factor * at(row, j)
    }
  }
  return a.map((row) => row.slice(n))
}
