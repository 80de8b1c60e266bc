/** Zeros in patterns that kernels can use: N of every M, and whole blocks. */
import { ArgumentError, show } from '../core/errors'
import type { Pauses } from '../core/pauses'
import { checkInteger } from '../core/shape'
import type { AnyModule } from '../nn/module'
import {
  checkOptions,
  checkPattern,
  checkScope,
  checkSparsity,
  type LayerOptions,
  prunable,
  prunableRows,
  pruneLayers,
  type SparsityOptions,
  type Work,
} from './layers'
import { keepLargest, type Part, scoresOf } from './select'
import { toSparsity } from './unstructured'

export interface SemiStructuredOptions extends LayerOptions {
  /** Weights kept of every m, at least 1 and less than m; default 2. */
  n?: number
  /** Neighbours along the input dimension, at least 2; default 4. */
  m?: number
}

/** Keeps the n largest scores of every m neighbours in each of the rows. */
export async function keepPattern(
  part: Part,
  inputs: number,
  { n, m }: { n: number; m: number },
  pauses: Pauses,
): Promise<void> {
  for (let row = 0; row < part.keep.length; row += inputs) {
    for (let j = 0; j < inputs; j += m) keepLargest(part, row + j, row + Math.min(j + m, inputs), n)
    if (pauses.due()) await pauses.take()
  }
}

/**
 * Keeps n of every m weights along the input dimension of a model's Linear layers, in place: those of largest magnitude,
 * which is the pattern of largest L1 norm. With the default, 2 of 4, it is the best of the six patterns that sparse tensor
 * cores take (Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021).
 *
 * Groups begin at inputs 0, m, 2 m, ...; where m does not divide the inputs, the last group is short and keeps n at most.
 * Of equal magnitudes the first are kept. What was pruned before stays pruned.
 *
 * @throws ArgumentError as `magnitude`; no mask has changed then
 */
export async function semiStructured(model: AnyModule, options: SemiStructuredOptions = {}): Promise<void> {
  const op = 'semiStructured'
  checkOptions(op, options)
  const pattern = checkPattern(op, options.n ?? 2, options.m ?? 4)
  await pruneLayers(op, prunableRows(op, model, options), async (work, pauses) => {
    for (const { values, keep, inputs } of work)
      await keepPattern({ scores: await scoresOf(values, pauses, Math.abs), keep }, inputs, pattern, pauses)
  })
}

export interface BlockOptions extends SparsityOptions {
  /** Outputs and inputs of a block, each at least 1: [1, 16] is 16 weights of one output. */
  block: readonly [rows: number, columns: number]
  /** What a block is worth: the mean of |w| ('l1', the default) or the root of the mean of w^2 ('l2'). */
  norm?: 'l1' | 'l2'
}

/** What the blocks of a weight are worth, row by row; a block is pruned when all its elements are. */
async function scoreBlocks(
  { values, keep, out, inputs }: Work,
  r: number,
  c: number,
  norm: 'l1' | 'l2',
  pauses: Pauses,
): Promise<Part> {
  const across = Math.ceil(inputs / c)
  const count = Math.ceil(out / r) * across
  const scores = new Float64Array(count)
  const kept = new Uint8Array(count)
  for (let row = 0; row < out; row++) {
    const first = Math.floor(row / r) * across
    for (let j = 0; j < inputs; j++) {
      const block = first + Math.floor(j / c)
      const w = values[row * inputs + j] as number
      scores[block] = (scores[block] as number) + (norm === 'l1' ? Math.abs(w) : w * w)
      if (keep[row * inputs + j] === 1) kept[block] = 1
    }
    if (pauses.due()) await pauses.take()
  }
  for (let block = 0; block < count; block++) {
    const height = Math.min(r, out - Math.floor(block / across) * r)
    const width = Math.min(c, inputs - (block % across) * c)
    const mean = (scores[block] as number) / (height * width)
    scores[block] = norm === 'l1' ? mean : Math.sqrt(mean)
  }
  return { scores, keep: kept }
}

/**
 * Prunes whole blocks of the weights of a model's Linear layers and convolutions, in place: those of least norm (Narang et al.,
 * "Block-Sparse Recurrent Neural Networks", 2017). Blocks lie side by side from the first weight on; where they do not
 * divide a weight, those at its end are smaller, and are compared by their mean. A convolution's weight counts as the matrix
 * [outChannels, everything after it], as `sparsify(reshape(weight, ...))` takes it for conv2d.
 *
 * Exactly round(sparsity * blocks) blocks are pruned, those pruned before included; of equal ones the first are kept.
 *
 * @throws ArgumentError as `magnitude`; no mask has changed then
 * @example await prune.block(model, { block: [1, 16], sparsity: 0.8 })
 */
export async function block(model: AnyModule, options: BlockOptions): Promise<void> {
  const op = 'block'
  checkOptions(op, options)
  const sparsity = checkSparsity(op, 'sparsity', options.sparsity)
  const scope = checkScope(op, options.scope)
  const { block: size, norm = 'l1' } = options
  if (!Array.isArray(size) || size.length !== 2)
    throw new ArgumentError(`${op}: block must be [rows, columns], got ${show(size)}`)
  const r = checkInteger(op, 'block[0]', size[0], 1)
  const c = checkInteger(op, 'block[1]', size[1], 1)
  if (norm !== 'l1' && norm !== 'l2') throw new ArgumentError(`${op}: norm must be 'l1' or 'l2', got ${show(norm)}`)
  await pruneLayers(op, prunable(op, model, options), async (work, pauses) => {
    const blocks: Part[] = []
    for (const one of work) blocks.push(await scoreBlocks(one, r, c, norm, pauses))
    await toSparsity(blocks, sparsity, scope, pauses)
    for (const [i, { keep, out, inputs }] of work.entries()) {
      const across = Math.ceil(inputs / c)
      const kept = (blocks[i] as Part).keep
      for (let row = 0; row < out; row++) {
        for (let j = 0; j < inputs; j++)
          if (kept[Math.floor(row / r) * across + Math.floor(j / c)] === 0) keep[row * inputs + j] = 0
        if (pauses.due()) await pauses.take()
      }
    }
  })
}
