/**
 * Triangular factors of symmetric positive definite float64 matrices, row-major [n, n]. All functions pause for the event loop: at n = 4096 each is some 10^10 multiply-adds.
 *
 * choleskyUpper and invertUpper work in place. Together they give the upper Cholesky factor U of the inverse, A^-1 = U^T U, without forming the inverse: with
 * A = V V^T it is U = V^-1. That is half the work of inverting and factoring again, and loses less to rounding.
 */
import { ArgumentError, show } from './errors'
import { dot, ROWS, subtractRows } from './loops'
import { Pauses } from './pauses'

/**
 * A = V V^T with V upper triangular: Cholesky's method from the last row upwards. Reads the upper triangle of `a` only;
 * leaves V in it and zeros below.
 *
 * @returns -1, or the column whose pivot is not positive beyond rounding: `a` is then not positive definite, and partly
 * overwritten
 */
export async function choleskyUpper(a: Float64Array, n: number, pauses = new Pauses()): Promise<number> {
  for (let top = n; top > 0; top -= ROWS) {
    const first = Math.max(0, top - ROWS)
    // Rows [first, top) together: each finished row j is read once for all of them.
    for (let j = n - 1; j >= first; j--) {
      for (let i = Math.min(top - 1, j); i >= first; i--) {
        const before = a[i * n + j] as number
        const rest = before - dot(a, i * n + j + 1, a, j * n + j + 1, n - j - 1)
        if (i < j) {
          a[i * n + j] = rest / (a[j * n + j] as number)
        } else {
          // Else what is left is lost in the rounding of the n products, or negative, or not a finite number.
          if (!(rest > n * Number.EPSILON * before)) return j
          a[i * n + j] = Math.sqrt(rest)
        }
      }
      if (pauses.due()) await pauses.take()
    }
    for (let i = first; i < top; i++) a.fill(0, i * n, i * n + i)
  }
  return -1
}

/** V^-1 of an upper triangular V with zeros below its diagonal, none on it. */
export async function invertUpper(v: Float64Array, n: number, pauses = new Pauses()): Promise<void> {
  // Row i of U V = V U = I, with the rows below it known: U[i] = (e_i - sum over k > i of V[i][k] U[k]) / V[i][i].
  const sums = new Float64Array(Math.min(ROWS, n) * n)
  for (let top = n; top > 0; top -= ROWS) {
    const first = Math.max(0, top - ROWS)
    sums.fill(0)
    for (let k = top; k < n; k += ROWS) {
      for (let i = first; i < top; i++) {
        subtractRows(sums, (i - first) * n, v, i * n + k, v, n, k, Math.min(k + ROWS, n), k)
        if (pauses.due()) await pauses.take()
      }
    }
    for (let i = top - 1; i >= first; i--) {
      const row = (i - first) * n
      subtractRows(sums, row, v, i * n + i + 1, v, n, i + 1, top, i + 1)
      const pivot = v[i * n + i] as number
      v[i * n + i] = 1 / pivot
      for (let j = i + 1; j < n; j++) v[i * n + j] = (sums[row + j] as number) / pivot
    }
  }
}

/** How often damping is increased. */
const RETRIES = 3

/** The damping of a Hessian, or an error that shows it. */
export function checkDamp(op: string, damp: unknown): void {
  if (typeof damp !== 'number' || !(damp >= 0 && damp < Number.POSITIVE_INFINITY))
    throw new ArgumentError(`${op}: damp must be a finite number >= 0, got ${show(damp)}`)
}

/**
 * U of a damped Hessian H, (H + damp * mean(diagonal) * I)^-1 = U^T U, with its rows and columns in the given order: what
 * GPTQ and SparseGPT compensate errors by. A column without any input, H_ii = 0, is kept apart from the others.
 *
 * @param hessian [n, n], symmetric; not changed
 * @returns `damp` is the one that was used: the given one, or 10, 100 or 1000 times it where that was too little
 * @throws ArgumentError when even that does not make it positive definite
 */
export async function inverseFactor(
  op: string,
  hessian: Float64Array,
  order: Int32Array,
  damp: number,
  pauses: Pauses,
): Promise<{ factor: Float64Array; damp: number }> {
  const n = order.length
  const diagonal = Float64Array.from(order, (i) => hessian[i * n + i] as number)
  const live = diagonal.filter((x) => x !== 0)
  const mean = live.length === 0 ? 1 : live.reduce((sum, x) => sum + x, 0) / live.length
  const factor = new Float64Array(n * n)
  let used = damp
  for (let tries = 0; ; tries++) {
    for (let t = 0; t < n; t++) {
      const row = (order[t] as number) * n
      for (let s = t; s < n; s++) factor[t * n + s] = hessian[row + (order[s] as number)] as number
      // A dead column is 0 beside the diagonal as well: any positive number there keeps it apart from the others.
      factor[t * n + t] = ((factor[t * n + t] as number) || mean) + used * mean
      if (pauses.due()) await pauses.take()
    }
    const column = await choleskyUpper(factor, n, pauses)
    if (column < 0) break
    if (tries === RETRIES || used === 0)
      throw new ArgumentError(
        `${op}: hessian must be positive definite: the pivot of column ${order[column]} is not, even with damp ${used}`,
      )
    used *= 10
  }
  await invertUpper(factor, n, pauses)
  return { factor, damp: used }
}
