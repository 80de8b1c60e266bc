// Quantized weights with the numbers that they stand for, and how far a weight-only product may be from the exact one.
import { type Granularity, integerRange, type QuantDType } from '#lib/core/quantization'
import { tensor } from '#lib/ops/create'
import type { ActivationName } from '#lib/ops/epilogue'
import { packInt4 } from '#lib/ops/quantize'
import { QuantizedTensor } from '#lib/tensor/quantized'
import type { Tensor } from '#lib/tensor/tensor'
import { random } from '../matrix'
import { at, type Nd, nd } from '../oracle/array'
import { erfc } from '../oracle/float'
import { whereOf } from '../oracle/quantize'

export interface Weights {
  q: QuantizedTensor
  /** (code - zero) * scale, exact in float64: 9 bits times 24. */
  values: Nd
  codes: Nd
  scale: Nd
  zero: Nd | null
}

/** [out, in] of random codes, scales of either sign and, if asked for, zero points all over the format. */
export function weights(
  dtype: QuantDType,
  shape: number[],
  granularity: Granularity,
  zeros: boolean,
  seed: number,
): Weights {
  const { qmin, qmax } = integerRange(dtype)
  const [out, inputs] = shape as [number, number]
  const own = {
    tensor: [],
    token: [out],
    channel: [granularity.kind === 'channel' && granularity.axis % 2 ? inputs : out],
  }
  const scales = granularity.kind === 'group' ? [out, Math.ceil(inputs / granularity.size)] : own[granularity.kind]
  const codes = random('int32', shape, seed, [qmin, qmax])
  const scale = random('float32', scales, seed + 1, [-0.02, 0.02])
  const zero = zeros ? random('int32', scales, seed + 2, [qmin, qmax]) : null
  const where = whereOf(granularity, 2)
  const values = nd(shape, (index, flat) => {
    const place = where(index)
    return ((codes.data[flat] as number) - (zero ? at(zero, place) : 0)) * at(scale, place)
  })
  const bytes = tensor(codes.data, { shape, dtype: dtype.startsWith('u') ? 'uint8' : 'int8' }) as Tensor<'int8'>
  const q = new QuantizedTensor({
    shape,
    dtype,
    granularity,
    values: dtype.endsWith('4') ? packInt4(bytes) : bytes,
    scale: tensor(scale.data, { shape: scales, dtype: 'float32' }),
    zeroPoint: zero && tensor(zero.data, { shape: scales, dtype: 'int32' }),
  })
  return { q, values, codes, scale, zero }
}

const U = 2 ** -24

/**
 * How far row i of x may be from what it is multiplied as, an element: it becomes an integer n near 32639 x / M, M the
 * largest of its chunk, by a float32 product of a float32 quotient (2 u of 32639, below 0.004) that is rounded (0.5); n
 * stands for n * float32(M / 32639). What is all below 1e-30 counts as 0.
 */
export function inputError(x: Nd, group: number): Nd {
  const [m, k] = x.shape as [number, number]
  const size = Math.min(group, Math.max(k, 1))
  // A chunk is a group, or equal parts of at most 256 of a longer one, in eights.
  const parts = Math.ceil(size / 256)
  const chunk = 8 * Math.ceil(Math.ceil(size / parts) / 8)
  const place = (p: number) => Math.floor(p / size) * parts + Math.floor((p % size) / chunk)
  const largest = Array.from({ length: m }, () => new Map<number, number>())
  nd([m, k], ([i, p], flat) => {
    const row = largest[i as number] as Map<number, number>
    const c = place(p as number)
    row.set(c, Math.max(row.get(c) ?? 0, Math.abs(x.data[flat] as number)))
    return 0
  })
  return nd([m, k], ([i, p]) => {
    const most = largest[i as number]?.get(place(p as number)) as number
    return most < 1e-30 ? most : most * (0.504 / 32639 + U)
  })
}

/** x W^T exactly, and a bound on the error of the float32 result before bias and activation. */
export function weightProduct(x: Nd, w: Nd, group: number): { exact: Nd; error: Nd } {
  const [m, k] = x.shape as [number, number]
  const n = w.shape[0] as number
  const off = inputError(x, group)
  const exact = new Float64Array(m * n)
  const error = new Float64Array(m * n)
  // A chunk's sum is an exact integer, rounded to float32, times a rounded product of scales, added with one rounding.
  const roundings = Math.ceil(k / Math.min(group, 256)) + Math.ceil(k / 256) + 4
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let [total, wrong, size] = [0, 0, 0]
      for (let p = 0; p < k; p++) {
        const [a, b, e] = [x.data[i * k + p] as number, w.data[j * k + p] as number, off.data[i * k + p] as number]
        total += a * b
        wrong += e * Math.abs(b)
        size += (Math.abs(a) + e) * Math.abs(b)
      }
      exact[i * n + j] = total
      error[i * n + j] = wrong + roundings * U * size
    }
  }
  return { exact: { shape: [m, n], data: exact }, error: { shape: [m, n], data: error } }
}

export const activations: Record<ActivationName, (x: number) => number> = {
  relu: (x) => Math.max(0, x),
  gelu: (x) => (x / 2) * erfc(-x / Math.SQRT2),
  silu: (x) => x / (1 + Math.exp(-x)),
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  tanh: Math.tanh,
}
export const activationNames = Object.keys(activations) as ActivationName[]

/** The error after an activation: slopes are at most 1.13 (gelu), the functions within a few ulp of values around 1. */
export const afterActivation = (error: number, before: number) => 1.2 * (error + 4 * U * Math.abs(before)) + 4 * U
