/** Movement pruning: what training moves towards 0 goes, whatever its size. */
import { ArgumentError, show } from '../core/errors'
import { native } from '../native/call'
import type { WeightLayer } from '../nn/linear-layers'
import type { AnyModule } from '../nn/module'
import type { Parameter } from '../nn/parameter'
import { mul } from '../ops/arithmetic'
import { zeros } from '../ops/create'
import { converted } from '../ops/op'
import { noGrad, scope } from '../tensor/context'
import { keep, type Tensor } from '../tensor/tensor'
import { checkOptions, type LayerOptions, prunable, type SparsityOptions } from './layers'
import { pruneByScore } from './unstructured'

/**
 * Sums -gradient * weight of every weight over the steps of a training: positive where the step goes away from 0.
 *
 * @example
 * const scores = new prune.MovementScores(model)
 * // in the loop: loss.backward(); scores.accumulate(); optimizer.step()
 * await prune.movement(model, { scores, sparsity: 0.9 })
 */
export class MovementScores {
  readonly #sums = new Map<Parameter, Tensor<'float32'>>()

  /**
   * @param options the layers to watch; default all Linear layers and convolutions
   * @throws ArgumentError for a model without such layers
   */
  constructor(model: AnyModule, options: LayerOptions<WeightLayer> = {}) {
    checkOptions('MovementScores', options)
    for (const [, weight] of prunable('MovementScores', model, options))
      this.#sums.set(weight, keep(zeros(weight.shape, { device: weight.device }) as Tensor<'float32'>))
  }

  /** How often accumulate() was called. */
  steps = 0

  /**
   * Adds the gradients that the weights have now, in float32; to be called after backward() and before the optimizer's step.
   *
   * @throws ArgumentError when no weight has a gradient
   */
  accumulate(): void {
    const moving = [...this.#sums].filter(([weight]) => weight.grad !== null)
    if (moving.length === 0) throw new ArgumentError('accumulate: no weight has a gradient: call backward() first')
    scope(() =>
      noGrad(() => {
        for (const [weight, sum] of moving) {
          const product = mul(converted(weight as Tensor, 'float32'), converted(weight.grad as Tensor, 'float32'))
          native.sub(sum, sum, product)
        }
      }),
    )
    this.steps++
  }

  /** Float32 sums of a weight's shape; undefined for a weight that is not watched. */
  of(weight: Parameter): Tensor<'float32'> | undefined {
    return this.#sums.get(weight)
  }
}

export interface MovementOptions extends SparsityOptions {
  /** Summed over at least one step, for all layers that are pruned. */
  scores: MovementScores
}

/**
 * Prunes the weights with the least sum of -gradient * weight, those that training has moved towards 0 most (Sanh, Wolf and
 * Rush, "Movement Pruning: Adaptive Sparsity by Fine-Tuning", 2020, eq. 4, without its learning rate). It suits
 * fine-tuning, where weights keep the size that pretraining gave them. Counts are exact as in `magnitude`.
 *
 * @throws ArgumentError as `magnitude`, for scores that have seen no step or not a layer, and for sums that are not finite;
 * no mask has changed then
 */
export async function movement(model: AnyModule, options: MovementOptions): Promise<void> {
  const op = 'movement'
  checkOptions(op, options)
  const { scores } = options
  if (!(scores instanceof MovementScores))
    throw new ArgumentError(`${op}: scores must be MovementScores, got ${show(scores)}`)
  if (scores.steps === 0) throw new ArgumentError(`${op}: scores have seen no step: call accumulate() after backward()`)
  await pruneByScore(op, model, options, async ({ path, weight }) => {
    const sums = scores.of(weight)
    if (sums === undefined) throw new ArgumentError(`${op}: scores do not watch the weight of layer '${path}'`)
    const values = await sums.data()
    const bad = values.findIndex((x) => !Number.isFinite(x))
    if (bad >= 0)
      throw new ArgumentError(
        `${op}: layer '${path}': scores must be finite, got ${values[bad]} at weight ${bad}: its gradient was not`,
      )
    return Float64Array.from(values)
  })
}
