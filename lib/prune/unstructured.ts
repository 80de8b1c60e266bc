/** Criteria that prune single weights wherever they are. */
import type { Pauses } from '../core/pauses'
import { uniformGenerator } from '../core/rng'
import { seedOr } from '../data/dataset'
import type { AnyModule } from '../nn/module'
import {
  checkOptions,
  checkScope,
  checkSparsity,
  prunable,
  pruneLayers,
  type SparsityOptions,
  type Work,
  zerosOf,
} from './layers'
import { type Part, pruneSmallest, scoresOf } from './select'

/** Prunes parts to a sparsity, together or each. */
export async function toSparsity(
  parts: readonly Part[],
  sparsity: number,
  scope: 'global' | 'layer',
  pauses: Pauses,
): Promise<void> {
  for (const group of scope === 'global' ? [parts] : parts.map((part) => [part])) {
    const count = group.reduce((n, { keep }) => n + keep.length, 0)
    await pruneSmallest(group, zerosOf(sparsity, count), pauses)
  }
}

/** Prunes the weights whose scores are the least. */
export async function pruneByScore(
  op: string,
  model: AnyModule,
  options: SparsityOptions,
  scores: (work: Work, pauses: Pauses) => Promise<Float64Array>,
): Promise<void> {
  const sparsity = checkSparsity(op, 'sparsity', options.sparsity)
  const scope = checkScope(op, options.scope)
  await pruneLayers(op, prunable(op, model, options), async (work, pauses) => {
    const parts: Part[] = []
    for (const one of work) parts.push({ scores: await scores(one, pauses), keep: one.keep })
    await toSparsity(parts, sparsity, scope, pauses)
  })
}

/**
 * Prunes the weights of least magnitude |w| of a model's Linear layers and convolutions, in place (Han et al., "Learning both Weights and
 * Connections for Efficient Neural Networks", 2015). Biases are left.
 *
 * Weights get masks, which optimizers honour: train on, and prune further with a larger sparsity. What is pruned stays so.
 * Exactly round(sparsity * count) weights are pruned; of equal magnitudes the first are kept.
 *
 * @param model float32, float16 or bfloat16 weights
 * @throws ArgumentError for options out of range, for a model without such layers, and, naming the layer, for weights
 * that are not finite; no mask has changed then
 * @example await prune.magnitude(model, { sparsity: 0.9, scope: 'global' })
 */
export async function magnitude(model: AnyModule, options: SparsityOptions): Promise<void> {
  checkOptions('magnitude', options)
  await pruneByScore('magnitude', model, options, ({ values }, pauses) => scoresOf(values, pauses, Math.abs))
}

export interface RandomOptions extends SparsityOptions {
  /** Makes the choice reproducible, a whole number >= 0; else it follows manualSeed. */
  seed?: number
}

/**
 * Prunes weights at random: what other criteria must be better than. Counts and errors are those of `magnitude`; with
 * scope 'global' layers share the zeros by chance.
 */
export async function random(model: AnyModule, options: RandomOptions): Promise<void> {
  checkOptions('random', options)
  const next = uniformGenerator(seedOr('random', options.seed))
  await pruneByScore('random', model, options, ({ values }, pauses) => scoresOf(values, pauses, next))
}
