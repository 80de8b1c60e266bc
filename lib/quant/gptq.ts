import { checkArray, checkFinite } from '../core/checks'
import { checkDamp, inverseFactor } from '../core/cholesky'
import { ArgumentError, show } from '../core/errors'
import { ROWS, subtractRows } from '../core/loops'
import { Pauses } from '../core/pauses'
import { checkInteger } from '../core/shape'
import {
  checkWeights,
  codeRange,
  decode,
  emptyCodes,
  encode,
  groupsOf,
  setGrid,
  type WeightCodes,
  type WeightOptions,
} from './weights'

export interface GptqOptions extends WeightOptions {
  /** Added to the Hessian's diagonal, as a fraction of its mean over the columns with any input; default 0.01. */
  damp?: number
  /** Columns whose updates of later columns are applied together; changes the speed, no code or scale. Default 128. */
  blockSize?: number
  /**
   * Quantizes columns in the order of decreasing diag(H), so that what matters most is rounded while there is most left
   * to compensate. Groups stay groups of neighbours: their scales then come from the given weights, all at once
   * ("static groups"), not from those updated when a group is reached. Default false.
   */
  actOrder?: boolean
}

export interface GptqResult {
  weights: WeightCodes
  /** tr(D H D^T) of the difference D to the given weights, those of dead columns left out; H is the damped Hessian. */
  error: number
  /** The damping that was used: `damp`, or 10, 100 or 1000 times it. */
  damp: number
}

/** Larger blocks gain nothing, and a row of one is computed without a pause. */
const MAX_BLOCK = 1024

/**
 * GPTQ (Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022):
 * rounds one column at a time, and moves the columns not yet rounded so that the layer's output changes least.
 *
 * With H = sum x x^T + damping and U the upper Cholesky factor of its inverse, H^-1 = U^T U, for every column i:
 *
 *     e = (w_i - quantized(w_i)) / U_ii
 *     w_j -= e U_ij                       for all j > i
 *
 * A dead column, one without any input (H_ii = 0), gets weight 0. Weights are updated in float64. Pauses for the event
 * loop every few milliseconds; takes about inputs^2 (out / 2 + inputs / 3) multiply-adds and 8 inputs^2 bytes. `w` and
 * `hessian` must not change meanwhile.
 *
 * @param w Float32Array of [out, inputs], row-major
 * @param hessian Float64Array of [inputs, inputs], symmetric: the sum of x x^T over the calibration rows x. Any
 * positive factor, such as the paper's 2, leaves the codes as they are
 * @throws ArgumentError for sizes that do not match, numbers that are not finite, and a Hessian that is not positive
 * definite even with 1000 times the damping
 */
export async function gptq(
  w: Float32Array,
  out: number,
  inputs: number,
  hessian: Float64Array,
  options: GptqOptions,
): Promise<GptqResult> {
  checkWeights('gptq', w, out, inputs, options)
  const { damp = 0.01, blockSize = 128, actOrder = false } = options
  checkArray('gptq', 'hessian', hessian, Float64Array, inputs * inputs)
  checkDamp('gptq', damp)
  checkInteger('gptq', 'blockSize', blockSize, 1)
  if (typeof actOrder !== 'boolean')
    throw new ArgumentError(`gptq: actOrder must be true or false, got ${show(actOrder)}`)
  const pauses = new Pauses()
  await checkFinite('gptq', 'w', w, out, inputs, pauses)
  await checkFinite('gptq', 'hessian', hessian, inputs, inputs, pauses)

  const diagonal = Float64Array.from({ length: inputs }, (_, i) => hessian[i * inputs + i] as number)
  const order = Int32Array.from({ length: inputs }, (_, i) => i)
  if (actOrder) order.sort((a, b) => (diagonal[b] as number) - (diagonal[a] as number) || a - b)
  const weights = emptyCodes(out, inputs, options)
  const inverse = await inverseFactor('gptq', hessian, order, damp, pauses)
  const pass = { weights, order, factor: inverse.factor, block: Math.min(blockSize, MAX_BLOCK), staticGroups: actOrder }
  let error = 0
  for (let first = 0; first < out; first += ROWS) {
    const last = Math.min(first + ROWS, out)
    error += await quantizeRows(pass, w, diagonal, first, last, pauses)
    if (!Number.isFinite(error))
      throw new ArgumentError(
        `gptq: the updates of rows ${first} to ${last - 1} overflow: damp ${inverse.damp} is too little`,
      )
  }
  return { weights, error, damp: inverse.damp }
}

interface Pass {
  weights: WeightCodes
  /** The column that is quantized as the t-th. */
  order: Int32Array
  /** U: row t says how the t-th error moves the later columns. */
  factor: Float64Array
  block: number
  staticGroups: boolean
}

/** Quantizes rows [first, last), which do not depend on any other; gives their error. */
async function quantizeRows(
  pass: Pass,
  w: Float32Array,
  diagonal: Float64Array,
  first: number,
  last: number,
  pauses: Pauses,
): Promise<number> {
  const { weights, order, factor, block, staticGroups } = pass
  const { inputs, groupSize } = weights
  const work = new Float64Array((last - first) * inputs)
  const errors = new Float64Array((last - first) * block)
  const given = new Float32Array(inputs)
  for (let row = first; row < last; row++) {
    for (let c = 0; c < inputs; c++) given[c] = diagonal[c] === 0 ? 0 : (w[row * inputs + c] as number)
    for (let t = 0; t < inputs; t++) work[(row - first) * inputs + t] = given[order[t] as number] as number
    if (staticGroups) {
      for (let group = 0; group < groupsOf(weights); group++)
        setGrid('gptq', weights, row, group, given, group * groupSize, Math.min((group + 1) * groupSize, inputs))
    }
    if (pauses.due()) await pauses.take()
  }
  let error = 0
  for (let start = 0, end = 0; start < inputs; start = end) {
    end = Math.min(start + block, inputs)
    // A group that starts in this block but ends in a later one starts the next block instead: its scale needs all
    // its weights up to date.
    const groupStart = end - (end % groupSize)
    if (!staticGroups && end < inputs && groupStart > start) end = groupStart
    for (let row = first; row < last; row++) {
      const at = row - first
      error += quantizeBlock(pass, row, work, at * inputs, errors, at * block, start, end)
      if (pauses.due()) await pauses.take()
    }
    // The lazy batch update, ROWS rows of U at a time: they stay in the cache while all rows of weights pass by.
    for (let t = start; t < end; t += ROWS) {
      for (let at = 0; at < last - first; at++) {
        const tEnd = Math.min(t + ROWS, end)
        subtractRows(work, at * inputs, errors, at * block + t - start, factor, inputs, t, tEnd, end)
        if (pauses.due()) await pauses.take()
      }
    }
  }
  return error
}

/** Quantizes columns [start, end) of one row, updating those columns only; leaves their errors e and gives sum e^2. */
function quantizeBlock(
  pass: Pass,
  row: number,
  work: Float64Array,
  wi: number,
  errors: Float64Array,
  ei: number,
  start: number,
  end: number,
): number {
  const { weights, order, factor, staticGroups } = pass
  const { inputs, groupSize, codes, scale, zeroPoint } = weights
  const groups = groupsOf(weights)
  const { qmin, qmax } = codeRange(weights.bits, zeroPoint === null)
  let sum = 0
  for (let t = start; t < end; t++) {
    const column = order[t] as number
    const group = Math.floor(column / groupSize)
    if (!staticGroups && column % groupSize === 0)
      setGrid('gptq', weights, row, group, work, wi + t, wi + Math.min(t + groupSize, inputs))
    const s = scale[row * groups + group] as number
    const z = zeroPoint === null ? 0 : (zeroPoint[row * groups + group] as number)
    const x = work[wi + t] as number
    const code = encode(x, s, z, qmin, qmax)
    codes[row * inputs + column] = code
    const u = t * inputs
    const e = (x - decode(code, s, z)) / (factor[u + t] as number)
    errors[ei + t - start] = e
    sum += e * e
    for (let j = t + 1; j < end; j++) work[wi + j] = (work[wi + j] as number) - e * (factor[u + j] as number)
  }
  return sum
}
