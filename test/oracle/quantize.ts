// Affine quantization from its definitions, an element at a time. A float32 operation is one Math.fround: the double
// quotient, product or sum of two float32 numbers rounds to the same float32 as the exact one (53 >= 2 * 24 + 2 bits).
import type { Granularity } from '#lib/core/quantization'
import { at, type Nd, nd } from './array'
import { halfToEven } from './float'

export const f = Math.fround
export const scalar = (x: number): Nd => ({ shape: [], data: Float64Array.of(x) })
export const line = (values: ArrayLike<number>): Nd => ({ shape: [values.length], data: Float64Array.from(values) })

/** Which element of the scales an element of the tensor has, by their indices. */
export type Where = (index: readonly number[]) => number[]

export function whereOf(spread: Granularity | { kind: 'block'; axis: number; size: number }, rank: number): Where {
  switch (spread.kind) {
    case 'tensor':
      return () => []
    case 'token':
      return (index) => index.slice(0, -1)
    case 'channel':
      return (index) => [index[spread.axis < 0 ? spread.axis + rank : spread.axis] as number]
    default: {
      const axis = spread.kind === 'group' ? rank - 1 : spread.axis
      return (index) => index.map((m, i) => (i === axis ? Math.floor(m / spread.size) : m))
    }
  }
}

/** clip(rint(x / scale) + zero, low, high), NaN to `low`. */
export function code(x: number, scale: number, zero: number, low: number, high: number): number {
  const q = halfToEven(f(x / scale)) + zero
  return Number.isNaN(q) ? low : Math.min(high, Math.max(low, q))
}

export interface Scaled {
  scale: Nd
  zero: Nd | null
  where: Where
}

const scaleAt = ({ scale, zero, where }: Scaled, index: readonly number[]) => {
  const own = where(index)
  return { scale: at(scale, own), zero: zero ? at(zero, own) : 0 }
}

export function quantize(x: Nd, by: Scaled, low: number, high: number): Nd {
  return nd(x.shape, (index, flat) => {
    const own = scaleAt(by, index)
    return code(x.data[flat] as number, own.scale, own.zero, low, high)
  })
}

/** float32((q - zero) * scale), q and zero integers. */
export function dequantize(q: Nd, by: Scaled): Nd {
  return nd(q.shape, (index, flat) => {
    const { scale, zero } = scaleAt(by, index)
    return f(f((q.data[flat] as number) - zero) * scale)
  })
}

/** Scale and zero point of DynamicQuantizeLinear for some values. */
export function dynamicScale(values: Iterable<number>): { scale: number; zero: number } {
  let min = 0
  let max = 0
  let finite = true
  for (const x of values) {
    finite &&= Number.isFinite(x)
    min = Math.min(min, x)
    max = Math.max(max, x)
  }
  const width = f(max - min)
  if (!finite || width === Infinity) return { scale: Number.NaN, zero: 0 }
  const scale = f((max === min ? 1 : width) / 255) || 2 ** -149
  return { scale, zero: halfToEven(Math.min(255, Math.max(0, f(0 - f(min / scale))))) }
}

/** The exact product of (a - za) and (b - zb), matrices of integers: float64 holds sums of 255 * 255 * k up to k = 10^11. */
export function integerProduct(
  a: Nd,
  b: Nd,
  za: (i: number) => number = () => 0,
  zb: (j: number) => number = () => 0,
): Nd {
  const [m, k] = a.shape as [number, number]
  const n = b.shape[1] as number
  const data = new Float64Array(m * n)
  const column = new Float64Array(k)
  for (let j = 0; j < n; j++) {
    for (let p = 0; p < k; p++) column[p] = (b.data[p * n + j] as number) - zb(j)
    for (let i = 0; i < m; i++) {
      const zero = za(i)
      let total = 0
      for (let p = 0; p < k; p++) total += ((a.data[i * k + p] as number) - zero) * (column[p] as number)
      data[i * n + j] = total
    }
  }
  return { shape: [m, n], data }
}

export function transposed(a: Nd): Nd {
  const [m, n] = a.shape as [number, number]
  return nd([n, m], ([i, j]) => a.data[(j as number) * n + (i as number)] as number)
}

/** clip(rint(sum * factor + zero)), a float32 operation at a time; NaN is `low`. */
export function requantized(sum: number, factor: number, zero: number, low: number, high: number): number {
  const x = f(f(f(sum) * factor) + zero)
  return halfToEven(Math.min(high, Number.isNaN(x) || x < low ? low : x))
}
