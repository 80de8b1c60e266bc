import { checkActivations, checkArray, checkFiniteRow } from '../core/checks'
import { ArgumentError } from '../core/errors'
import { dot, ROWS } from '../core/loops'
import { Pauses } from '../core/pauses'
import { checkWeights, decode, encode, gridOf, type WeightOptions } from './weights'

export interface AwqScales {
  /** The exponent that was best, a multiple of 0.05. */
  ratio: number
  /** s, [inputs]: multiply the weights' columns by it before they are quantized, and divide the inputs. */
  scales: Float32Array
  /** ||(Q(W * s) / s - W) X^T||^2 with these scales. */
  error: number
  /** The same without scales: round-to-nearest. */
  plainError: number
}

/** Exponents 0, 0.05 ... 0.95. */
const GRID = 20
/** A channel that is hardly used is not scaled down below this before the scales are normalised. */
const MIN_SCALE = 1e-4
/** How many steps of 1 / GRID clipping goes down, as in the paper's code. */
const CLIP_STEPS = 10

/**
 * The activation-aware scales of AWQ (Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and
 * Acceleration", 2023): input channels with large activations get a finer grid. s_j = mean|x_j|^ratio, at least 1e-4,
 * then divided by sqrt(max s * min s); the ratio is the one of 0, 0.05 ... 0.95 that changes the layer's output least:
 *
 *     ||(Q(W * s) / s - W) X^T||^2 = tr(D G D^T),  G = X^T X
 *
 * in float64, so no inputs are needed but their Gram matrix. Ratio 0 is round-to-nearest: on the calibration data the
 * result is never worse. Pauses for the event loop; up to 10 out inputs^2 multiply-adds.
 *
 * @param w Float32Array of [out, inputs], row-major. Layers that read the same input share their scales: stack their
 * rows
 * @param actMean mean|x_j| over the calibration data, [inputs]
 * @param gram Float64Array of [inputs, inputs]: the sum of x x^T over the calibration rows x
 * @throws ArgumentError for sizes that do not match and numbers that are not finite
 */
export async function awqScales(
  w: Float32Array,
  out: number,
  inputs: number,
  actMean: Float32Array,
  gram: Float64Array,
  options: WeightOptions,
): Promise<AwqScales> {
  const layer = { w, out, inputs, gram, options, pauses: new Pauses() }
  await check('awqScales', layer)
  checkActivations('awqScales', 'actMean', actMean, inputs)
  const ones = new Float32Array(inputs).fill(1)
  const plainError = await scaledError(layer, ones, Number.POSITIVE_INFINITY)
  if (!Number.isFinite(plainError)) throw new ArgumentError('awqScales: w or gram is too large, the error overflows')
  let best: Omit<AwqScales, 'plainError'> = { ratio: 0, scales: ones, error: plainError }
  for (let step = 1; step < GRID; step++) {
    const scales = scalesAt(actMean, step / GRID)
    const error = await scaledError(layer, scales, best.error)
    if (error < best.error) best = { ratio: step / GRID, scales, error }
  }
  return { ...best, plainError }
}

/**
 * AWQ's other half, clipping: a copy of the weights with each group cut to [-m, m]. Of 1, 0.95 ... 0.55 times the
 * group's largest magnitude, m is the one whose rounded weights change the group's part of the output least, d G d^T
 * over the group's block of G; the groups do not know of each other, as in the reference code. Pauses for the event
 * loop; about 5 out inputs groupSize multiply-adds.
 *
 * @param w [out, inputs]; when scales are used, already multiplied by them
 * @param gram as for awqScales; when scales are used, that of the inputs divided by them: G_ij / (s_i s_j)
 */
export async function awqClip(
  w: Float32Array,
  out: number,
  inputs: number,
  gram: Float64Array,
  options: WeightOptions,
): Promise<Float32Array> {
  const pauses = new Pauses()
  await check('awqClip', { w, out, inputs, gram, options, pauses })
  const clipped = w.slice()
  for (let first = 0; first < inputs; first += options.groupSize) {
    const n = Math.min(options.groupSize, inputs - first)
    const cut = new Float32Array(n)
    const d = new Float64Array(n)
    for (let row = 0; row < out; row++) {
      const group = w.subarray(row * inputs + first, row * inputs + first + n)
      const largest = group.reduce((m, x) => Math.max(m, Math.abs(x)), 0)
      let least = Number.POSITIVE_INFINITY
      for (let step = 0; step < CLIP_STEPS; step++) {
        const m = largest * (1 - step / GRID)
        for (let i = 0; i < n; i++) cut[i] = Math.min(m, Math.max(-m, group[i] as number))
        if (!roundWeights(cut, 0, n, options, d, 0)) continue
        for (let i = 0; i < n; i++) d[i] = (d[i] as number) - (group[i] as number)
        let error = 0
        for (let i = 0; i < n; i++) error += formTerm(gram, (first + i) * inputs + first, d, 0, i)
        if (error < least) {
          least = error
          clipped.set(cut, row * inputs + first)
        }
        if (pauses.due()) await pauses.take()
      }
    }
  }
  return clipped
}

interface Layer {
  w: Float32Array
  out: number
  inputs: number
  gram: Float64Array
  options: WeightOptions
  pauses: Pauses
}

async function check(op: string, { w, out, inputs, gram, options, pauses }: Layer): Promise<void> {
  checkWeights(op, w, out, inputs, options)
  checkArray(op, 'gram', gram, Float64Array, inputs * inputs)
  for (let row = 0; row < Math.max(out, inputs); row++) {
    if (row < out) checkFiniteRow(op, 'w', w, row, inputs)
    if (row < inputs) checkFiniteRow(op, 'gram', gram, row, inputs)
    if (pauses.due()) await pauses.take()
  }
}

function scalesAt(actMean: Float32Array, ratio: number): Float32Array {
  const scales = Float64Array.from(actMean, (x) => Math.max(MIN_SCALE, x ** ratio))
  let least = Number.POSITIVE_INFINITY
  let largest = 0
  for (const s of scales) {
    least = Math.min(least, s)
    largest = Math.max(largest, s)
  }
  return Float32Array.from(scales, (s) => s / Math.sqrt(least * largest))
}

/** tr(D G D^T) with D = Q(W * s) / s - W; once that is `limit` or more, any number from `limit` on. */
async function scaledError(layer: Layer, scales: Float32Array, limit: number): Promise<number> {
  const { w, out, inputs, gram, options, pauses } = layer
  const d = new Float64Array(Math.min(ROWS, out) * inputs)
  const scaled = new Float32Array(inputs)
  let error = 0
  // No row takes anything from the error: one that is too large already stays so.
  for (let first = 0; first < out && error < limit; first += ROWS) {
    const rows = Math.min(ROWS, out - first)
    for (let r = 0; r < rows; r++) {
      const given = (first + r) * inputs
      for (let j = 0; j < inputs; j++) scaled[j] = (w[given + j] as number) * (scales[j] as number)
      for (let j = 0; j < inputs; j += options.groupSize) {
        const end = Math.min(j + options.groupSize, inputs)
        if (!roundWeights(scaled, j, end, options, d, r * inputs)) return Number.POSITIVE_INFINITY
      }
      for (let j = 0; j < inputs; j++) {
        d[r * inputs + j] = (d[r * inputs + j] as number) / (scales[j] as number) - (w[given + j] as number)
      }
      if (pauses.due()) await pauses.take()
    }
    // Each row of G serves all rows of D while it is in the cache.
    for (let i = 0; i < inputs; i++) {
      for (let r = 0; r < rows; r++) error += formTerm(gram, i * inputs, d, r * inputs, i)
      if (pauses.due()) await pauses.take()
    }
  }
  return error
}

/** Writes what values[from, to), one group, become in codes into `rounded`; false: their range overflows float32. */
function roundWeights(
  values: Float32Array,
  from: number,
  to: number,
  { bits, symmetric }: WeightOptions,
  rounded: Float64Array,
  at: number,
): boolean {
  const grid = gridOf(values, from, to, bits, symmetric)
  if (grid === null) return false
  const { scale, zeroPoint, qmin, qmax } = grid
  for (let i = from; i < to; i++) {
    const code = encode(values[i] as number, scale, zeroPoint, qmin, qmax)
    rounded[at + i] = decode(code, scale, zeroPoint)
  }
  return true
}

/**
 * The i-th part of d G d^T, d_i (G_ii d_i + 2 sum over j < i of G_ij d_j): half the work of the full product. d is at
 * `di` and the row of G at `gi`.
 */
function formTerm(gram: Float64Array, gi: number, d: Float64Array, di: number, i: number): number {
  const x = d[di + i] as number
  return x * ((gram[gi + i] as number) * x + 2 * dot(gram, gi, d, di, i))
}
