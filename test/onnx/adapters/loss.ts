// Losses of class labels. ONNX weights classes, which kerf does not: the weights multiply the losses one by one.
import {
  crossEntropy,
  div,
  eq,
  indexSelect,
  logSoftmax,
  mul,
  nllLoss,
  type Reduction,
  reshape,
  sum,
  type Tensor,
  where,
} from 'kerf'
import * as oracle from '../../oracle/array'
import { type Adapter, type Adapters, type Bound, NUMPY_ULPS, U, within } from '../adapter'
import type { Call } from '../call'

type Loss = typeof nllLoss

function loss(call: Call, f: Loss): Tensor {
  const [scores, labels] = [call.input(0), call.input(1)]
  const reduction = call.text('reduction', 'mean') as Reduction
  const ignored = call.node.attributes.has('ignore_index') ? { ignoreIndex: call.number('ignore_index', 0) } : {}
  if (!call.has(2)) return f(scores, labels, { reduction, ...ignored })

  const each = f(scores, labels, { reduction: 'none', ...ignored })
  const weight = weightOf(call.input(2), labels, ignored.ignoreIndex)
  const weighted = mul(each, weight)
  if (reduction === 'none') return weighted
  return reduction === 'sum' ? sum(weighted) : div(sum(weighted), sum(weight))
}

/** Every label's weight; 0 for those that count nothing, whose label need not be a class. */
function weightOf(weight: Tensor, labels: Tensor, ignoreIndex: number | undefined): Tensor {
  const of = (index: Tensor) => reshape(indexSelect(weight, 0, reshape(index, [-1])), labels.shape)
  if (ignoreIndex === undefined) return of(labels)
  const skipped = eq(labels, ignoreIndex)
  return where(skipped, 0, of(where(skipped, 0, labels)))
}

/** Additions that an element passes in numpy's sum: runs of 128 in eight lanes, then a tree (pairwise summation). */
function depth(n: number): number {
  return Math.min(n, 128 / 8 + 3 + Math.ceil(Math.log2(Math.max(1, n / 128))))
}

interface Scale {
  /** The largest loss of one label, before its weight. */
  largest: number
  /** Roundings of it, both sides together. */
  error: number
}

/** Picked scores are exact. */
function pickedScale(call: Call): Scale {
  return { largest: Math.max(...Array.from(call.values(0).data, Math.abs)), error: 0 }
}

/** max - x + log(sum of e^(x - max)) over c classes: see the bound of LogSoftmax. */
function softmaxScale(call: Call): Scale {
  const x = call.values(0)
  const lines = oracle.fold(x, [1], (line) => Math.max(...line) - Math.min(...line))
  const range = Math.max(...lines.data)
  const classes = x.shape[1] as number
  const largest = range + Math.log(classes)
  return { largest, error: 2 * (range + classes + 2 * NUMPY_ULPS + 2) + 2 * NUMPY_ULPS * largest }
}

function lossBound(scale: (call: Call) => Scale): Bound {
  return (call, _want, output) => {
    const { largest, error } = scale(call)
    if (output === 1) return () => U * error // log probabilities
    const n = call.values(1).data.length
    const weight = call.has(2) ? Math.max(...call.values(2).data) : 1
    const one = error + 2 * largest
    const reduction = call.text('reduction', 'mean')
    if (reduction === 'none') return () => U * weight * one
    const summed = one + depth(n) * largest
    // A mean lies between the losses whatever their weights; the sum of the weights rounds like that of the losses.
    return reduction === 'sum' ? () => U * n * weight * summed : () => U * (summed + (depth(n) + 1) * largest)
  }
}

const adapter = (scale: (call: Call) => Scale, f: Loss, more: (call: Call) => Tensor[] = () => []): Adapter =>
  within(lossBound(scale), (call) => [loss(call, f), ...more(call)])

export const losses: Adapters = {
  NegativeLogLikelihoodLoss: adapter(pickedScale, nllLoss),
  SoftmaxCrossEntropyLoss: adapter(softmaxScale, crossEntropy, (call) => [logSoftmax(call.input(0), 1)]),
}
