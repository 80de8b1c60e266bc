/** What is measured of a model's answers, beside the loss. */
import { ArgumentError, ShapeError, show } from '../core/errors'
import { checkInteger, showShape } from '../core/shape'
import { eq, gt, le } from '../ops/arithmetic'
import { gather } from '../ops/index'
import { mean, sum } from '../ops/reduce'
import { unsqueeze } from '../ops/shape'
import { argmax } from '../ops/statistics'
import { cast } from '../ops/unary'
import { checkTensor, type Tensor } from '../tensor/tensor'

/** The mean of something over the samples of a batch, a tensor of one element. It is called without gradients. */
export type Metric = (output: Tensor, target: Tensor) => Tensor

function checkClasses(op: string, output: Tensor, target: Tensor): void {
  checkTensor(op, 'output', output)
  checkTensor(op, 'target', target)
  if (output.rank !== 2 || target.rank !== 1 || output.shape[0] !== target.shape[0])
    throw new ShapeError(
      `${op}: output must be [n, classes] and target [n], got ${showShape(output.shape)} and ${showShape(target.shape)}`,
    )
}

/** The share of samples whose largest output [n, classes] is that of their label [n]. */
export function accuracy(output: Tensor, target: Tensor): Tensor<'float32'> {
  checkClasses('accuracy', output, target)
  return mean(cast(eq(argmax(output, 1), target), 'float32')) as Tensor<'float32'>
}

/**
 * The share of samples whose label [n] is among the k largest outputs [n, classes]; outputs that equal the label's count as
 * smaller.
 *
 * @example metrics: { accuracy: train.accuracy, top5: train.topK(5) }
 */
export function topK(k: number): Metric {
  checkInteger('topK', 'k', k, 1)
  return (output, target) => {
    checkClasses('topK', output, target)
    const own = gather(output, 1, unsqueeze(cast(target, 'int64'), 1))
    const above = sum(cast(gt(output, own), 'float32'), 1)
    return mean(cast(le(above, k - 1), 'float32'))
  }
}

/** Named metrics, or an error that names the one that is none. */
export function checkMetrics(op: string, given: unknown): [name: string, metric: Metric][] {
  if (given === undefined) return []
  if (typeof given !== 'object' || given === null)
    throw new ArgumentError(`${op}: metrics must be an object of functions, got ${show(given)}`)
  return Object.entries(given).map(([name, metric]) => {
    if (typeof metric !== 'function')
      throw new ArgumentError(`${op}: metrics.${name} must be a function, got ${show(metric)}`)
    if (name === 'loss') throw new ArgumentError(`${op}: metrics.loss: this name is the loss's own`)
    return [name, metric as Metric]
  })
}
