// What the tests of weight quantization share: random layers, and float64 oracles written from the definitions.
import { generator } from '../matrix'

/** Normal numbers (Box-Muller). */
export function normal(seed: number): () => number {
  const next = generator(seed)
  return () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next())
}

export function normalWeights(seed: number, out: number, inputs: number): Float32Array {
  const next = normal(seed)
  return Float32Array.from({ length: out * inputs }, next)
}

/**
 * Rows of inputs whose channels correlate, as a layer's do: each row is a walk along the channels, x_j = 0.9 x_(j-1) +
 * noise, then channels get magnitudes between 1/4 and 4.
 */
export function correlatedInputs(seed: number, rows: number, inputs: number): Float64Array {
  const next = normal(seed)
  const uniform = generator(seed + 1000)
  const magnitude = Array.from({ length: inputs }, () => 4 ** (2 * uniform() - 1))
  const x = new Float64Array(rows * inputs)
  for (let r = 0; r < rows; r++) {
    let walk = next()
    for (let j = 0; j < inputs; j++) {
      walk = 0.9 * walk + Math.sqrt(1 - 0.81) * next()
      x[r * inputs + j] = walk * (magnitude[j] as number)
    }
  }
  return x
}

/** X^T X. */
export function gramOf(x: Float64Array, inputs: number): Float64Array {
  const gram = new Float64Array(inputs * inputs)
  for (let r = 0; r < x.length; r += inputs) {
    for (let i = 0; i < inputs; i++) {
      for (let j = 0; j < inputs; j++) {
        gram[i * inputs + j] = (gram[i * inputs + j] as number) + (x[r + i] as number) * (x[r + j] as number)
      }
    }
  }
  return gram
}

/** ||(W - V) X^T||^2. */
export function outputError(w: ArrayLike<number>, v: ArrayLike<number>, x: Float64Array, inputs: number): number {
  let error = 0
  for (let o = 0; o < w.length; o += inputs) {
    for (let r = 0; r < x.length; r += inputs) {
      let y = 0
      for (let j = 0; j < inputs; j++) y += ((w[o + j] as number) - (v[o + j] as number)) * (x[r + j] as number)
      error += y * y
    }
  }
  return error
}

export function squaredError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += ((a[i] as number) - (b[i] as number)) ** 2
  return sum
}

export interface Grid {
  scale: number
  zero: number
  low: number
  high: number
}

/** The scale of a group from its definition; each float32 operation of the library is one fround here. */
export function oracleGrid(values: readonly number[], bits: 4 | 8, symmetric: boolean): Grid {
  const f = Math.fround
  const v = values.map(f)
  const half = 2 ** (bits - 1)
  const min = Math.min(0, ...v)
  const max = Math.max(0, ...v)
  const extreme = max > -min ? max : min
  const [low, high] = symmetric && bits === 8 ? [-127, 127] : [-half, half - 1]
  if (extreme === 0) return { scale: 1, zero: 0, low, high }
  if (symmetric) return { scale: bits === 4 ? f(extreme / -8) : f(Math.abs(extreme) / 127), zero: 0, low, high }
  const scale = f(f(max - min) / (2 ** bits - 1))
  const zero = Math.min(high, Math.max(low, rint(f(low - f(min / scale)))))
  return { scale, zero, low, high }
}

/** To the nearest integer, ties to even, by a way that is not the library's: float64 keeps no fraction beyond 2^52. */
export const rint = (x: number): number => (x < 0 ? x - 2 ** 52 + 2 ** 52 : x + 2 ** 52 - 2 ** 52)

export const oracleCode = (x: number, { scale, zero, low, high }: Grid): number =>
  Math.min(high, Math.max(low, rint(Math.fround(Math.fround(x) / scale)) + zero))

/** Every mode of WeightOptions but the group size. */
export const modes = [
  { bits: 4, symmetric: true },
  { bits: 4, symmetric: false },
  { bits: 8, symmetric: true },
  { bits: 8, symmetric: false },
] as const

/**
 * The longest time in ms between two turns of a timer while `run` goes on. A busy machine can stretch it, so the best
 * of three runs counts.
 */
export async function longestWait(run: () => Promise<unknown>): Promise<number> {
  let least = Number.POSITIVE_INFINITY
  for (let attempt = 0; attempt < 3 && least > 30; attempt++) {
    let longest = 0
    let last = performance.now()
    const turn = () => {
      longest = Math.max(longest, performance.now() - last)
      last = performance.now()
    }
    const timer = setInterval(turn, 1)
    await run()
    clearInterval(timer)
    turn()
    least = Math.min(least, longest)
  }
  return least
}
