/** What long loops on float64 rows share: two inner kernels. */

/** Rows that are worked on together: 32 rows of 4096 float64 are 1 MiB, about a level-2 cache. */
export const ROWS = 32

/** The sum of a[ai + k] * b[bi + k] over k < length. Four partial sums: one chain would wait for itself. */
export function dot(a: Float64Array, ai: number, b: Float64Array, bi: number, length: number): number {
  let s0 = 0
  let s1 = 0
  let s2 = 0
  let s3 = 0
  let k = 0
  for (; k + 4 <= length; k += 4) {
    s0 += (a[ai + k] as number) * (b[bi + k] as number)
    s1 += (a[ai + k + 1] as number) * (b[bi + k + 1] as number)
    s2 += (a[ai + k + 2] as number) * (b[bi + k + 2] as number)
    s3 += (a[ai + k + 3] as number) * (b[bi + k + 3] as number)
  }
  for (; k < length; k++) s0 += (a[ai + k] as number) * (b[bi + k] as number)
  return s0 + s1 + (s2 + s3)
}

/**
 * row -= sum over k in [first, last) of c[ci + k - first] * m[k][:], columns [from, n) only. `row` is the n numbers of
 * `x` from `xi` on, `m` has rows of n.
 *
 * Each element is one chain of subtractions in the order of k, so cutting [first, last) anywhere changes no bit.
 */
export function subtractRows(
  x: Float64Array,
  xi: number,
  c: Float64Array,
  ci: number,
  m: Float64Array,
  n: number,
  first: number,
  last: number,
  from: number,
): void {
  let k = first
  for (; k + 4 <= last; k += 4) {
    const c0 = c[ci + k - first] as number
    const c1 = c[ci + k - first + 1] as number
    const c2 = c[ci + k - first + 2] as number
    const c3 = c[ci + k - first + 3] as number
    const m0 = k * n
    const m1 = m0 + n
    const m2 = m1 + n
    const m3 = m2 + n
    for (let j = from; j < n; j++) {
      x[xi + j] =
        (x[xi + j] as number) -
        c0 * (m[m0 + j] as number) -
        c1 * (m[m1 + j] as number) -
        c2 * (m[m2 + j] as number) -
        c3 * (m[m3 + j] as number)
    }
  }
  for (; k < last; k++) {
    const ck = c[ci + k - first] as number
    for (let j = from; j < n; j++) x[xi + j] = (x[xi + j] as number) - ck * (m[k * n + j] as number)
  }
}
