/**
 * Weights as small integers with a scale a group: the arithmetic that round-to-nearest, GPTQ and AWQ share. Scales,
 * quotients and products are float32, as in the kernels.
 */

import { checkArray, checkFiniteRow } from '../core/checks'
import { ArgumentError, show } from '../core/errors'
import { type Affine, affineOf, integerRange, roundHalfEven } from '../core/quantization'
import { checkInteger } from '../core/shape'

export interface WeightOptions {
  bits: 4 | 8
  /** Neighbours along the inputs that share a scale; the last group may be shorter. `inputs`: one scale an output. */
  groupSize: number
  /** No zero points; false: an affine range from min(0, least) to max(0, largest). */
  symmetric: boolean
}

/**
 * A quantized [out, inputs] matrix: w is (code - zeroPoint) * scale, in float32.
 *
 * Codes are signed and one a byte in every mode, affine ones and their zero points too: [-8, 7] or [-128, 127]; add 8
 * or 128 to both for a format of unsigned ones. Symmetric codes of 8 bits are in [-127, 127].
 */
export interface WeightCodes {
  readonly out: number
  readonly inputs: number
  readonly bits: 4 | 8
  readonly groupSize: number
  /** [out, inputs]. */
  readonly codes: Int8Array
  /** [out, ceil(inputs / groupSize)]. Negative in some groups when symmetric with 4 bits. */
  readonly scale: Float32Array
  /** [out, ceil(inputs / groupSize)]; null when symmetric. */
  readonly zeroPoint: Int32Array | null
}

/**
 * Rounds weights to the nearest code.
 *
 * - symmetric, 8 bits: scale = amax / 127
 * - symmetric, 4 bits: scale = extreme / -8, extreme being the weight of largest magnitude with its sign, as
 *   llama.cpp's Q4_0 does. It uses all 16 codes: the mean squared error is 0.77 of amax / 7's on normal, 0.91 on
 *   uniform weights. The price is that a weight near -extreme, beyond 7.5 steps, is clipped: off by at most one step
 *   instead of half of one
 * - affine: scale = (max - min) / (2^bits - 1), and 0 is a code exactly
 *
 * A group of zeros has scale 1 and codes 0. Clipping aside, |w - dequantized| <= |scale| / 2 up to float32 rounding.
 * Takes some 30 ns a weight, without a pause.
 *
 * @param w Float32Array of [out, inputs], row-major
 * @throws ArgumentError for sizes that do not match, a weight that is not finite, or a group wider than float32 holds
 */
export function quantizeWeights(w: Float32Array, out: number, inputs: number, options: WeightOptions): WeightCodes {
  checkWeights('quantizeWeights', w, out, inputs, options)
  const q = emptyCodes(out, inputs, options)
  const groups = groupsOf(q)
  for (let row = 0; row < out; row++) {
    checkFiniteRow('quantizeWeights', 'w', w, row, inputs)
    for (let group = 0; group < groups; group++) {
      const from = row * inputs + group * q.groupSize
      const to = Math.min(from + q.groupSize, (row + 1) * inputs)
      const { scale, zeroPoint, qmin, qmax } = setGrid('quantizeWeights', q, row, group, w, from, to)
      for (let i = from; i < to; i++) q.codes[i] = encode(w[i] as number, scale, zeroPoint, qmin, qmax)
    }
  }
  return q
}

/** The weights that codes stand for: Float32Array of [out, inputs]. */
export function dequantizeWeights(q: WeightCodes): Float32Array {
  const op = 'dequantizeWeights'
  const size = checkInteger(op, 'out', q?.out, 1) * checkInteger(op, 'inputs', q.inputs, 1)
  checkInteger(op, 'groupSize', q.groupSize, 1)
  const groups = groupsOf(q)
  checkArray(op, 'codes', q.codes, Int8Array, size)
  checkArray(op, 'scale', q.scale, Float32Array, q.out * groups)
  if (q.zeroPoint !== null) checkArray(op, 'zeroPoint', q.zeroPoint, Int32Array, q.out * groups)
  const w = new Float32Array(size)
  for (let row = 0; row < q.out; row++) {
    for (let group = 0; group < groups; group++) {
      const from = row * q.inputs + group * q.groupSize
      const to = Math.min(from + q.groupSize, (row + 1) * q.inputs)
      const scale = q.scale[row * groups + group] as number
      const zeroPoint = q.zeroPoint?.[row * groups + group] ?? 0
      for (let i = from; i < to; i++) w[i] = decode(q.codes[i] as number, scale, zeroPoint)
    }
  }
  return w
}

/** Groups in a row. */
export function groupsOf(q: { readonly inputs: number; readonly groupSize: number }): number {
  return Math.ceil(q.inputs / q.groupSize)
}

/** Checks types, sizes and options; finite weights are checkFiniteRow's. */
export function checkWeights(op: string, w: Float32Array, out: number, inputs: number, options: WeightOptions): void {
  checkInteger(op, 'out', out, 1)
  checkInteger(op, 'inputs', inputs, 1)
  checkArray(op, 'w', w, Float32Array, out * inputs)
  if (typeof options !== 'object' || options === null)
    throw new ArgumentError(`${op}: options must be an object, got ${show(options)}`)
  const { bits, groupSize, symmetric } = options
  if (bits !== 4 && bits !== 8) throw new ArgumentError(`${op}: bits must be 4 or 8, got ${show(bits)}`)
  checkInteger(op, 'groupSize', groupSize, 1)
  if (typeof symmetric !== 'boolean')
    throw new ArgumentError(`${op}: symmetric must be true or false, got ${show(symmetric)}`)
}

/** Room for the codes of a matrix. */
export function emptyCodes(out: number, inputs: number, { bits, groupSize, symmetric }: WeightOptions): WeightCodes {
  const scales = out * groupsOf({ inputs, groupSize })
  return {
    out,
    inputs,
    bits,
    groupSize,
    codes: new Int8Array(out * inputs),
    scale: new Float32Array(scales),
    zeroPoint: symmetric ? null : new Int32Array(scales),
  }
}

/** Derives the grid of one group from its weights, values[from, to), and stores scale and zero point. */
export function setGrid(
  op: string,
  q: WeightCodes,
  row: number,
  group: number,
  values: Float32Array | Float64Array,
  from: number,
  to: number,
): Affine {
  const grid = gridOf(values, from, to, q.bits, q.zeroPoint === null)
  if (grid === null)
    throw new ArgumentError(`${op}: w: the range of row ${row}, group ${group} is more than float32 holds`)
  const at = row * groupsOf(q) + group
  q.scale[at] = grid.scale
  if (q.zeroPoint !== null) q.zeroPoint[at] = grid.zeroPoint
  return grid
}

/** Scale, zero point and codes' range for values[from, to). null: the range overflows float32. */
export function gridOf(
  values: Float32Array | Float64Array,
  from: number,
  to: number,
  bits: 4 | 8,
  symmetric: boolean,
): Affine | null {
  // From 0: the affine range holds it, and the symmetric ones take magnitudes.
  let low = 0
  let high = 0
  for (let i = from; i < to; i++) {
    const x = values[i] as number
    if (x < low) low = x
    if (x > high) high = x
  }
  low = Math.fround(low)
  high = Math.fround(high)
  if (!Number.isFinite(Math.fround(high - low))) return null
  const range = codeRange(bits, symmetric)
  // Zeros, or too small for a scale and as good as zeros.
  if (Math.fround((high - low) / 255) === 0) return { scale: 1, zeroPoint: 0, ...range }
  return affineOf(low, high, dtypeOf(bits), symmetric ? (bits === 4 ? 'extreme' : 'narrow') : 'affine')
}

/** The least and largest code. */
export function codeRange(bits: 4 | 8, symmetric: boolean): { qmin: number; qmax: number } {
  const { qmin, qmax } = integerRange(dtypeOf(bits))
  return { qmin: symmetric && bits === 8 ? -qmax : qmin, qmax }
}

const dtypeOf = (bits: 4 | 8) => (bits === 8 ? 'int8' : 'int4')

/** The code nearest to x. */
export function encode(x: number, scale: number, zeroPoint: number, qmin: number, qmax: number): number {
  const code = roundHalfEven(Math.fround(Math.fround(x) / scale)) + zeroPoint
  return Math.min(qmax, Math.max(qmin, code))
}

/** What a code stands for. */
export function decode(code: number, scale: number, zeroPoint: number): number {
  return Math.fround((code - zeroPoint) * scale)
}
