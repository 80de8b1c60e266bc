// The triangular factors against their definitions, at sizes around the blocks that are worked on together.
import t from 'tap'
import { choleskyUpper, invertUpper } from '#lib/core/cholesky'
import { normal } from '../quant/data'

/** A symmetric positive definite matrix: B B^T + I. */
function positive(n: number): Float64Array {
  const next = normal(n)
  const b = Float64Array.from({ length: n * n }, next)
  return product(b, transpose(b, n), n).map((x, i) => (i % (n + 1) === 0 ? x + 1 : x))
}
function product(a: Float64Array, b: Float64Array, n: number): Float64Array {
  const c = new Float64Array(n * n)
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      let sum = 0
      for (let k = 0; k < n; k++) sum += (a[i * n + k] as number) * (b[k * n + j] as number)
      c[i * n + j] = sum
    }
  }
  return c
}
const transpose = (a: Float64Array, n: number) => a.map((_, i) => a[(i % n) * n + Math.floor(i / n)] as number)
const identity = (n: number) => new Float64Array(n * n).map((_, i) => (i % (n + 1) === 0 ? 1 : 0))
const largest = (a: Float64Array) => a.reduce((m, x) => Math.max(m, Math.abs(x)), 0)
const difference = (a: Float64Array, b: Float64Array) => largest(a.map((x, i) => x - (b[i] as number)))

for (const n of [1, 2, 3, 31, 32, 33, 70, 97]) {
  t.test(`n = ${n}`, async (t) => {
    const a = positive(n)
    const v = a.map((x, i) => (i % n < Math.floor(i / n) ? Number.NaN : x)) // the lower triangle is not read
    t.equal(await choleskyUpper(v, n), -1)
    t.ok(
      v.every((x, i) => i % n >= Math.floor(i / n) || x === 0),
      'zeros below the diagonal',
    )
    // Higham, section 10.1: |A - V V^T| <= (n + 1) u |V| |V^T|, and a row of V has norm sqrt(a_ii) <= sqrt(max A).
    const roundoff = (n + 1) * Number.EPSILON
    t.ok(difference(product(v, transpose(v, n), n), a) <= roundoff * largest(a), 'V V^T = A')
    const inverse = v.slice()
    await invertUpper(inverse, n)
    // Section 14.2: |V U - I| <= n u |V| |V^-1| elementwise.
    const bound = roundoff * largest(product(v.map(Math.abs), inverse.map(Math.abs), n))
    t.ok(difference(product(v, inverse, n), identity(n)) <= bound, 'V U = I')
    const whole = product(product(transpose(inverse, n), inverse, n), a, n)
    const condition = largest(a) * largest(product(transpose(inverse, n), inverse, n)) * n
    t.ok(difference(whole, identity(n)) <= 4 * n * roundoff * condition, 'U^T U A = I')
  })
}

t.test('a matrix that is not positive definite is told by the column of its pivot', async (t) => {
  for (const column of [0, 20, 69]) {
    const a = identity(70)
    a[column * 71] = -1
    t.equal(await choleskyUpper(a, 70), column)
  }
  t.equal(await choleskyUpper(Float64Array.of(1, 2, 2, 1), 2), 0, 'indefinite')
  t.equal(await choleskyUpper(Float64Array.of(Number.NaN), 1), 0)
  t.equal(await choleskyUpper(Float64Array.of(Number.POSITIVE_INFINITY), 1), 0)
  // x x^T with x = [0.1, 0.7] is singular; what its rounded products leave, 3e-18, is no pivot.
  t.equal(await choleskyUpper(Float64Array.of(0.1 * 0.1, 0.1 * 0.7, 0.1 * 0.7, 0.7 * 0.7), 2), 0)
})
