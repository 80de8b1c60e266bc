/** Wanda: pruning by weights and activations, without any update of the weights. */
import { ArgumentError, show } from '../core/errors'
import { atLayer, type CalibrationData, observe, type RunBatch } from '../nn/calibrate'
import type { AnyModule } from '../nn/module'
import {
  checkOptions,
  checkPattern,
  checkSparsity,
  type LayerOptions,
  prunableRows,
  pruneLayers,
  zerosOf,
} from './layers'
import { keepPattern } from './patterns'
import { pruneSmallest, scoresOf } from './select'

export interface CalibratedOptions extends LayerOptions {
  /** Batches of real inputs; a few hundred samples are enough. A tensor each, or an array that begins with one. */
  calibrationData: CalibrationData
  /** Runs a batch; default model.forward(input). */
  run?: RunBatch
  /** Part of the weights to be 0, from 0 to 1; either this or n and m. */
  sparsity?: number
  /** n of every m weights along the input dimension are kept, as in `semiStructured`. */
  n?: number
  m?: number
}

/** What is to be pruned: a part, or all but n of every m. */
export type Amount = { sparsity: number } | { n: number; m: number }

export function checkAmount(op: string, { sparsity, n, m }: CalibratedOptions): Amount {
  if (sparsity !== undefined && (n !== undefined || m !== undefined))
    throw new ArgumentError(`${op}: give sparsity or n and m, not both: got ${show(sparsity)}, ${show(n)}, ${show(m)}`)
  if (n === undefined && m === undefined) return { sparsity: checkSparsity(op, 'sparsity', sparsity) }
  return checkPattern(op, n, m)
}

/**
 * Prunes by |W_ij| * ||X_j||_2, a weight's magnitude times the norm of the input that it multiplies, compared among the
 * weights of one output (Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", 2023, eq. 1): what
 * is small but meets large inputs stays. Of every output exactly round(sparsity * inputs) weights are pruned, or all but n of
 * every m; of equal scores the first are kept. Inputs are those of the model as it is given; the paper's code lets those of
 * later layers pass through the pruned ones before. Only Linear layers have rows of inputs to judge by; convolutions are left alone. A weight that layers share is judged by the inputs of the first.
 *
 * @throws ArgumentError as `magnitude`, and, naming the layer, for calibration data that is missing, empty or not finite; no
 * mask has changed then
 * @example await prune.wanda(model, { calibrationData, sparsity: 0.5 })
 */
export async function wanda(model: AnyModule, options: CalibratedOptions): Promise<void> {
  const op = 'wanda'
  checkOptions(op, options)
  const amount = checkAmount(op, options)
  const weights = prunableRows(op, model, options)
  const wanted = new Map(weights.map(([path]) => [path, { squares: true }]))
  const seen = await observe(op, model, wanted, options.calibrationData, options.run)
  await pruneLayers(op, weights, async (work, pauses) => {
    for (const { path, values, keep, inputs } of work) {
      const squares = seen.get(path)?.channelSquares as Float64Array
      await atLayer(op, path, () => checkInputs(squares))
      const norms = squares.map(Math.sqrt)
      const scores = await scoresOf(values, pauses, (w, i) => Math.abs(w) * (norms[i % inputs] as number))
      if ('m' in amount) await keepPattern({ scores, keep }, inputs, amount, pauses)
      else {
        for (let i = 0; i < keep.length; i += inputs) {
          const row = { scores: scores.subarray(i, i + inputs), keep: keep.subarray(i, i + inputs) }
          await pruneSmallest([row], zerosOf(amount.sparsity, inputs), pauses)
        }
      }
    }
  })
}

/** Sums of squares of a layer's inputs, or an error that names the first that is not finite. */
export function checkInputs(squares: Float64Array): void {
  const bad = squares.findIndex((x) => !Number.isFinite(x))
  if (bad >= 0)
    throw new ArgumentError(
      `inputs in calibrationData must be finite, the sum of squares of input ${bad} is ${squares[bad]}`,
    )
}
