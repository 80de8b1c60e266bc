// Recurrent layers and their gradients as loops over scalars in float64, each scalar with a bound on how far a computation that
// rounds as kerf says it does (docs/numerics.md) may be from it: running error analysis.
import { type Nd, nd } from './array'
import { ulp, unit } from './float'

type Float = 'float32' | 'float16' | 'bfloat16'

/** A value and the largest distance of what was computed instead. */
interface Num {
  v: number
  e: number
}
const U = unit('float32')
const exact = (v: number): Num => ({ v, e: 0 })
/** One float32 rounding more. */
const rounded = (v: number, e: number): Num => ({ v, e: e + U * (Math.abs(v) + e) })
const add = (a: Num, b: Num): Num => rounded(a.v + b.v, a.e + b.e)
const sub = (a: Num, b: Num): Num => rounded(a.v - b.v, a.e + b.e)
const mul = (a: Num, b: Num): Num => rounded(a.v * b.v, Math.abs(a.v) * b.e + Math.abs(b.v) * a.e + a.e * b.e)
const one = exact(1)
// Both functions are within 2 ulp (docs/numerics.md); their slopes are at most 1/4 and 1.
const within = (v: number, e: number): Num => ({ v, e: e + 2 * ulp('float32', Math.abs(v) + e) })
const sigmoid = (a: Num): Num => within(1 / (1 + Math.exp(-a.v)), a.e / 4)
const tanh = (a: Num): Num => within(Math.tanh(a.v), a.e)
const relu = (a: Num): Num => ({ v: Math.max(0, a.v), e: a.e })
const to = (dtype: Float, a: Num): Num => {
  if (dtype === 'float32') return a
  return { v: a.v, e: a.e + ulp(dtype, Math.abs(a.v) + a.e) / 2 }
}
/** k products added in float32 in any order. */
function dot(k: number, a: (i: number) => Num, b: (i: number) => Num): Num {
  let [v, e, size] = [0, 0, 0]
  for (let i = 0; i < k; i++) {
    const [x, y] = [a(i), b(i)]
    v += x.v * y.v
    e += Math.abs(x.v) * y.e + Math.abs(y.v) * x.e + x.e * y.e
    size += (Math.abs(x.v) + x.e) * (Math.abs(y.v) + y.e)
  }
  return { v, e: e + (k + 2) * U * size }
}

export interface Layer {
  kind: 'lstm' | 'gru' | 'rnn' | 'relu'
  dtype: Float
  /** [steps, batch, gates * hidden] */
  x: Nd
  /** How far x itself may be off; default 0. */
  xError?: Nd
  /** [gates * hidden, hidden] */
  w: Nd
  bias: Nd | null
  initial: readonly Nd[]
  reverse: boolean
}

export interface Estimate {
  want: Nd
  error: Nd
}

const estimate = (shape: readonly number[], nums: readonly Num[]): Estimate => ({
  want: nd(shape, (_, i) => (nums[i] as Num).v),
  error: nd(shape, (_, i) => (nums[i] as Num).e),
})

/** x [..., features] times the transpose of w [width, features], plus bias, in float32. */
export function projected(x: Estimate, w: Nd, bias: Nd): Estimate {
  const [width, features] = w.shape as [number, number]
  const rows = x.want.data.length / features
  const nums = Array.from({ length: rows * width }, (_, flat) => {
    const [row, g] = [Math.floor(flat / width), flat % width]
    const sum = dot(
      features,
      (i) => ({ v: x.want.data[row * features + i] as number, e: x.error.data[row * features + i] as number }),
      (i) => exact(w.data[g * features + i] as number),
    )
    return add(sum, exact(bias.data[g] as number))
  })
  return estimate([...x.want.shape.slice(0, -1), width], nums)
}

/** The states [states, steps + 1, batch, hidden] as lib/ops/recurrent.ts lays them, and the gradients of everything by them. */
export function recurrent(l: Layer): { states: Estimate; back(grad: Nd): Estimate[] } {
  const [steps, batch, width] = l.x.shape as [number, number, number]
  const n = l.w.shape[1] as number
  const count = l.initial.length
  const state: Num[] = new Array(count * (steps + 1) * batch * n)
  const at = (s: number, slot: number, row: number, j: number) => ((s * (steps + 1) + slot) * batch + row) * n + j
  const get = (s: number, slot: number, row: number, j: number) => state[at(s, slot, row, j)] as Num
  const put = (s: number, slot: number, row: number, j: number, a: Num) => {
    state[at(s, slot, row, j)] = to(l.dtype, a)
  }
  const [late, early] = l.reverse ? [0, 1] : [1, 0]
  const start = l.reverse ? steps : 0
  const order = Array.from({ length: steps }, (_, i) => (l.reverse ? steps - 1 - i : i))
  const weight = (gate: number, j: number, k: number) => exact(l.w.data[(gate * n + j) * n + k] as number)
  const inputAt = (time: number, row: number, gate: number, j: number) => (time * batch + row) * width + gate * n + j
  /** Per step, row and unit: what the gradient needs. */
  const kept = new Map<number, Num[]>()

  for (let s = 0; s < count; s++)
    for (let row = 0; row < batch; row++)
      for (let j = 0; j < n; j++) put(s, start, row, j, exact((l.initial[s] as Nd).data[row * n + j] as number))

  for (const time of order)
    for (let row = 0; row < batch; row++)
      for (let j = 0; j < n; j++) {
        const product = (gate: number): Num => {
          const sum = dot(
            n,
            (k) => weight(gate, j, k),
            (k) => get(0, time + early, row, k),
          )
          return l.bias ? add(sum, exact(l.bias.data[gate * n + j] as number)) : sum
        }
        const input = (gate: number): Num => {
          const i = inputAt(time, row, gate, j)
          return { v: l.x.data[i] as number, e: l.xError?.data[i] ?? 0 }
        }
        const total = (gate: number) => add(input(gate), product(gate))
        let values: Num[]
        if (l.kind === 'lstm') {
          const [i, f, g, o] = [sigmoid(total(0)), sigmoid(total(1)), tanh(total(2)), sigmoid(total(3))]
          const c = add(mul(f, get(1, time + early, row, j)), mul(i, g))
          put(1, time + late, row, j, c)
          put(0, time + late, row, j, mul(o, tanh(c)))
          values = [i, f, g, o]
        } else if (l.kind === 'gru') {
          const [r, z, inner] = [sigmoid(total(0)), sigmoid(total(1)), product(2)]
          const fresh = tanh(add(input(2), mul(r, inner)))
          put(0, time + late, row, j, add(fresh, mul(z, sub(get(0, time + early, row, j), fresh))))
          values = [r, z, fresh, inner]
        } else {
          const y = l.kind === 'rnn' ? tanh(total(0)) : relu(total(0))
          put(0, time + late, row, j, y)
          values = [y]
        }
        kept.set((time * batch + row) * n + j, values)
      }

  const back = (grad: Nd): Estimate[] => {
    const gradOf = (s: number, slot: number, row: number, j: number) => exact(grad.data[at(s, slot, row, j)] as number)
    const dx: Num[] = new Array(steps * batch * width)
    const dp: Num[] = new Array(steps * batch * width)
    let product: Num[] = Array.from({ length: batch * n }, () => exact(0))
    const carried: Num[] = Array.from({ length: batch * n }, () => exact(0))
    const sigmoidBack = (g: Num, y: Num) => mul(g, mul(y, sub(one, y)))
    const tanhBack = (g: Num, y: Num) => mul(g, sub(one, mul(y, y)))
    for (const time of [...order].reverse()) {
      for (let row = 0; row < batch; row++)
        for (let j = 0; j < n; j++) {
          const flat = row * n + j
          const values = kept.get((time * batch + row) * n + j) as Num[]
          const set = (into: Num[], gate: number, a: Num) => {
            into[inputAt(time, row, gate, j)] = to(l.dtype, a)
          }
          const both = (gate: number, a: Num) => {
            set(dx, gate, a)
            set(dp, gate, a)
          }
          let dh = add(gradOf(0, time + late, row, j), product[flat] as Num)
          if (l.kind === 'lstm') {
            const [i, f, g, o] = values as [Num, Num, Num, Num]
            const y = tanh(get(1, time + late, row, j))
            const dc = add(add(gradOf(1, time + late, row, j), carried[flat] as Num), tanhBack(mul(dh, o), y))
            both(0, sigmoidBack(mul(dc, g), i))
            both(1, sigmoidBack(mul(dc, get(1, time + early, row, j)), f))
            both(2, tanhBack(mul(dc, i), g))
            both(3, sigmoidBack(mul(dh, y), o))
            carried[flat] = mul(dc, f)
          } else if (l.kind === 'gru') {
            const [r, z, fresh, inner] = values as [Num, Num, Num, Num]
            dh = add(dh, carried[flat] as Num)
            const dn = tanhBack(mul(dh, sub(one, z)), fresh)
            both(0, sigmoidBack(mul(dn, inner), r))
            both(1, sigmoidBack(mul(dh, sub(get(0, time + early, row, j), fresh)), z))
            set(dx, 2, dn)
            set(dp, 2, mul(dn, r))
            carried[flat] = mul(dh, z)
          } else {
            const y = (values as [Num])[0]
            both(0, l.kind === 'rnn' ? tanhBack(dh, y) : y.v > 0 ? dh : exact(0))
          }
        }
      product = Array.from({ length: batch * n }, (_, flat) => {
        const [row, j] = [Math.floor(flat / n), flat % n]
        return dot(
          width,
          (k) => dp[inputAt(time, row, 0, k)] as Num,
          (k) => weight(0, k, j),
        )
      })
    }
    const rows = steps * batch
    const slotOf = (i: number) => Math.floor(i / batch) + early
    const dw = Array.from({ length: width * n }, (_, flat) => {
      const [gate, j] = [Math.floor(flat / n), flat % n]
      const sum = dot(
        rows,
        (i) => dp[i * width + gate] as Num,
        (i) => get(0, slotOf(i), i % batch, j),
      )
      return to(l.dtype, sum)
    })
    const db = Array.from({ length: width }, (_, gate) =>
      to(
        l.dtype,
        dot(
          rows,
          (i) => dp[i * width + gate] as Num,
          () => one,
        ),
      ),
    )
    const firsts = Array.from({ length: count }, (_, s) =>
      Array.from({ length: batch * n }, (_, flat) => {
        const own = gradOf(s, start, Math.floor(flat / n), flat % n)
        const [a, b] = [product[flat] as Num, carried[flat] as Num]
        return to(l.dtype, add(own, count === 2 ? (s === 0 ? a : b) : add(a, b)))
      }),
    )
    return [
      estimate(l.x.shape, dx),
      estimate(l.w.shape, dw),
      ...(l.bias ? [estimate(l.bias.shape, db)] : []),
      ...firsts.map((f, s) => estimate((l.initial[s] as Nd).shape, f)),
    ]
  }
  return { states: estimate([count, steps + 1, batch, n], state), back }
}
