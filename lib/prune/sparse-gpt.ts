/** SparseGPT: pruning with the weights that stay moved to make up for those that go. */
import { checkDamp, inverseFactor } from '../core/cholesky'
import { ArgumentError } from '../core/errors'
import { ROWS, subtractRows } from '../core/loops'
import { Pauses } from '../core/pauses'
import { checkInteger } from '../core/shape'
import { native } from '../native/call'
import { atLayer, observe } from '../nn/calibrate'
import type { AnyModule } from '../nn/module'
import { tensor } from '../ops/create'
import { scope } from '../tensor/context'
import { changed } from '../tensor/tensor'
import { checkOptions, prunableRows, readWork, Saved, setMask, type Work, zerosOf } from './layers'
import { keepLargest, type Part, pruneSmallest } from './select'
import { type Amount, type CalibratedOptions, checkAmount, checkInputs } from './wanda'

export interface SparseGptOptions extends CalibratedOptions {
  /** Added to the Hessian's diagonal, as a fraction of its mean over the inputs that are used; default 0.01. */
  damp?: number
  /** Inputs for which it is decided together which weights go; default 128, with n and m the next multiple of m below. */
  blockSize?: number
}

interface Settings {
  amount: Amount
  damp: number
  blockSize: number
}

/** The columns [start, end) of the weights, copied and put back. */
interface Block extends Part {
  start: number
  end: number
}

/**
 * Prunes one weight matrix. `keep` becomes the mask; the answer are the weights that stay, moved, and 0 for the others.
 *
 * @param hessian [inputs, inputs], finite: the sum of x x^T over the calibration rows x
 */
export async function sparseGptWeights(
  op: string,
  { values, keep, out, inputs }: Pick<Work, 'values' | 'keep' | 'out' | 'inputs'>,
  hessian: Float64Array,
  { amount, damp, blockSize }: Settings,
  pauses: Pauses,
): Promise<Float32Array> {
  const order = Int32Array.from({ length: inputs }, (_, i) => i)
  const { factor } = await inverseFactor(op, hessian, order, damp, pauses)
  // (w / U_jj)^2 = w^2 / (H^-1)_jj for the inverse of the Hessian of the inputs from j on. An unused input is worth nothing.
  const worth = Float64Array.from(order, (j) =>
    hessian[j * inputs + j] === 0 ? 0 : 1 / (factor[j * inputs + j] as number) ** 2,
  )
  const width = 'm' in amount ? Math.max(1, Math.floor(blockSize / amount.m)) * amount.m : blockSize
  const work = Float64Array.from(values)
  const errors = new Float64Array(out * Math.min(width, inputs))
  const budget = 'm' in amount ? null : new Budget(keep, zerosOf(amount.sparsity, keep.length))
  for (let start = 0; start < inputs; start += width) {
    const end = Math.min(start + width, inputs)
    const columns = end - start
    const block: Block = { start, end, scores: new Float64Array(out * columns), keep: new Uint8Array(out * columns) }
    for (let row = 0; row < out; row++) {
      for (let j = start; j < end; j++) {
        const at = row * columns + j - start
        block.keep[at] = keep[row * inputs + j] as number
        block.scores[at] = (work[row * inputs + j] as number) ** 2 * (worth[j] as number)
      }
    }
    if (budget) await pruneSmallest([block], budget.take(block.keep), pauses)
    const m = 'm' in amount ? amount.m : 0
    for (let row = 0; row < out; row++) {
      for (let j = start; j < end; j++) {
        const at = row * columns + j - start
        if ('m' in amount && (j - start) % m === 0) {
          // The weights of this group have moved since the block began.
          const last = Math.min(m, end - j)
          for (let k = 0; k < last; k++)
            block.scores[at + k] = (work[row * inputs + j + k] as number) ** 2 * (worth[j + k] as number)
          keepLargest(block, at, at + last, amount.n)
        }
        const w = row * inputs + j
        const u = j * inputs
        keep[w] = block.keep[at] as number
        const e = keep[w] === 1 ? 0 : (work[w] as number) / (factor[u + j] as number)
        errors[at] = e
        if (e !== 0)
          for (let k = j + 1; k < end; k++)
            work[row * inputs + k] = (work[row * inputs + k] as number) - e * (factor[u + k] as number)
      }
      if (pauses.due()) await pauses.take()
    }
    // The later columns learn of a whole block at once, ROWS rows of U at a time: they stay in the cache meanwhile.
    for (let first = start; first < end; first += ROWS) {
      const last = Math.min(first + ROWS, end)
      for (let row = 0; row < out; row++) {
        subtractRows(work, row * inputs, errors, row * columns + first - start, factor, inputs, first, last, end)
        if (pauses.due()) await pauses.take()
      }
    }
  }
  const result = Float32Array.from(work, (w, i) => (keep[i] === 1 ? w : 0))
  if (result.some((w) => !Number.isFinite(w)))
    throw new ArgumentError(`${op}: the updated weights overflow: damp ${damp} is too little`)
  return result
}

/** Hands out what is to be pruned over blocks of columns by how many weights each still has, exactly in sum. */
class Budget {
  readonly #total: number
  readonly #kept: number
  #seen = 0

  constructor(keep: Uint8Array, count: number) {
    this.#kept = keep.reduce((n, k) => n + k, 0)
    this.#total = Math.max(0, count - (keep.length - this.#kept))
  }

  /** How many weights of the next block are to be pruned, those that are already included. */
  take(keep: Uint8Array): number {
    const kept = keep.reduce((n, k) => n + k, 0)
    const share = (n: number) => (n === 0 ? 0 : Math.round((this.#total * n) / this.#kept))
    const more = share(this.#seen + kept) - share(this.#seen)
    this.#seen += kept
    return keep.length - kept + more
  }
}

/**
 * Prunes with SparseGPT (Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
 * 2023): goes through the inputs of a layer in blocks, prunes the weights of least w^2 / (H^-1)_jj, and moves those of later
 * inputs so that the layer's output on the calibration data changes least (optimal brain surgeon). With H = sum x x^T + damping
 * and U the upper Cholesky factor of H^-1, for every pruned w_j: e = w_j / U_jj, and w_k -= e U_jk for all k > j.
 *
 * Layers are pruned in order, each on the inputs that the pruned ones before it give. Exactly round(sparsity * count) weights
 * of each are pruned, the same part of every block; or all but n of every m. What was pruned before stays pruned. Weights of
 * inputs that are always 0 go first. Kept in float64 meanwhile; about inputs^2 (out / 2 + inputs / 3) multiply-adds a layer.
 *
 * @throws ArgumentError as `wanda`; weights and masks are as before then
 * @example await prune.sparseGpt(model, { calibrationData, n: 2, m: 4 })
 */
export async function sparseGpt(model: AnyModule, options: SparseGptOptions): Promise<void> {
  const op = 'sparseGpt'
  checkOptions(op, options)
  const { damp = 0.01, blockSize = 128 } = options
  checkDamp(op, damp)
  const settings = { amount: checkAmount(op, options), damp, blockSize: checkInteger(op, 'blockSize', blockSize, 1) }
  const pauses = new Pauses()
  const layers = prunableRows(op, model, options)
  const saved: Saved[] = []
  try {
    for (const [path, weight] of layers) {
      const seen = await observe(op, model, new Map([[path, { gram: true }]]), options.calibrationData, options.run)
      const work = await readWork(op, path, weight, pauses)
      const gram = seen.get(path)?.gram as Float64Array
      const values = await atLayer(op, path, () => {
        checkInputs(gram.filter((_, i) => i % (work.inputs + 1) === 0))
        return sparseGptWeights(op, work, gram, settings, pauses)
      })
      saved.push(new Saved(weight))
      scope(() => native.copy(weight, tensor(values, { shape: weight.shape, device: weight.device })))
      changed(weight)
      setMask(work)
    }
  } catch (error) {
    for (const one of saved) one.restore()
    throw error
  } finally {
    for (const one of saved) one.dispose()
  }
}
