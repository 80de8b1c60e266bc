// Softmax and the normalisations.
import {
  add,
  batchNorm,
  clone,
  div,
  layerNorm,
  logSoftmax,
  mean,
  mul,
  reshape,
  rsqrt,
  softmax,
  sqrt,
  std,
  sub,
  type Tensor,
  variance,
} from 'kerf'
import * as oracle from '../../oracle/array'
import { type Nd, nd } from '../../oracle/array'
import { type Adapter, type Adapters, axesFrom, type Bound, NUMPY_ULPS, positive, U, within } from '../adapter'
import type { Call } from '../call'
import { Skip } from '../skip'

function lineAxis(call: Call): number {
  if (call.opset < 13) throw new Skip('before opset 13 the axes from `axis` on are one line')
  return positive(call.number('axis', -1), call.input(0).rank)
}

/**
 * The roundings in e^(x - max) / sum: of the difference, which e turns into a relative error of |x - max| units; of e;
 * of a sum of n terms; of the quotient. Once for each side.
 */
function exponentials(call: Call, axis: number): Nd {
  return oracle.along(call.values(0), axis, (line) => {
    const top = Math.max(...line)
    return line.map((x) => 2 * (top - x + line.length + 2 * NUMPY_ULPS + 2))
  })
}

const softmaxBound: Bound = (call, want) => {
  const { data } = exponentials(call, lineAxis(call))
  return (flat) => U * (data[flat] as number) * (want.data[flat] as number)
}

/** The relative error of the sum becomes absolute under the logarithm; then the result's own rounding. */
const logSoftmaxBound: Bound = (call, want) => {
  const { data } = exponentials(call, lineAxis(call))
  return (flat) => U * ((data[flat] as number) + 2 * NUMPY_ULPS * Math.abs(want.data[flat] as number))
}

const onAxis =
  (f: (a: Tensor, axis: number) => Tensor) =>
  (call: Call): Tensor =>
    f(call.input(0), lineAxis(call))

interface Statistics {
  axes: number[]
  eps: number
}

interface Moments {
  /** Largest |x|, 1 / sqrt(variance + eps), and n: of the elements that share statistics; shapes keep the axes as 1. */
  largest: Nd
  rstd: Nd
  n: number
}

function moments(call: Call, { axes, eps }: Statistics): Moments {
  const x = call.values(0)
  return {
    largest: oracle.fold(x, axes, (line) => Math.max(...line.map(Math.abs))),
    rstd: oracle.fold(x, axes, (line) => 1 / Math.sqrt(oracle.variance(line, 0) + eps)),
    n: oracle.size(axes.map((i) => x.shape[i] as number)),
  }
}

/**
 * (x - mean) * rstd with float32 statistics of n elements. The mean is off by at most n units of the largest |x|, which
 * counts rstd times; the relative error of rstd is n units from the sum of squares and 2 * largest * rstd from rounding
 * each difference, and counts |x - mean| * rstd <= 2 * largest * rstd times. Once for each side.
 */
function normalizedError({ largest, rstd, n }: Moments, index: readonly number[]): number {
  const amplitude = oracle.at(largest, index) * oracle.at(rstd, index)
  return 2 * U * amplitude * (n + 2 + 2 * (n + 4 + 2 * amplitude))
}

/** Weight and bias, broadcast to an element; the product and the sum round once each. */
function normBound(statistics: (call: Call) => Statistics, affine: (call: Call) => { weight: Nd; bias: Nd }): Bound {
  return (call, want) => {
    const m = moments(call, statistics(call))
    const { weight, bias } = affine(call)
    const { data } = nd(want.shape, (index, flat) => {
      const scale = Math.abs(oracle.at(weight, index))
      const shift = Math.abs(oracle.at(bias, index))
      return scale * normalizedError(m, index) + 4 * U * (Math.abs(want.data[flat] as number) + shift)
    })
    return (flat) => data[flat] as number
  }
}

function layerStatistics(call: Call): Statistics {
  const { shape } = call.values(0)
  return {
    axes: axesFrom(positive(call.number('axis', -1), shape.length), shape.length),
    eps: call.number('epsilon', 1e-5),
  }
}

const layerAffine = (call: Call) => ({
  weight: call.values(1),
  bias: call.has(2) ? call.values(2) : { shape: [], data: Float64Array.of(0) },
})

/** y, then the mean and 1 / standard deviation, which kerf's layerNorm keeps to itself: made by its reductions. */
const layerNormalization: Adapter = within(
  (call, want, output) => {
    if (output === 0) return normBound(layerStatistics, layerAffine)(call, want, output)
    const m = moments(call, layerStatistics(call))
    if (output === 1) return (flat) => 2 * (m.n + 2) * U * (m.largest.data[flat] as number)
    return (flat) => {
      const rstd = m.rstd.data[flat] as number
      return 2 * U * rstd * (m.n + 4 + 2 * (m.largest.data[flat] as number) * rstd)
    }
  },
  (call) => {
    const x = call.input(0)
    const { axes, eps } = layerStatistics(call)
    const lines = axes.map((i) => x.shape[i] as number)
    const spread = variance(x, axes, { keepdim: true, correction: 0 })
    return [
      layerNorm(x, lines, call.input(1), call.has(2) ? call.input(2) : null, eps),
      mean(x, axes, { keepdim: true }),
      rsqrt(add(spread, eps)),
    ]
  },
)

/** Channels are axis 1: [c] as [c, 1, 1, ...]. */
function channels(a: Tensor, rank: number): Tensor {
  return reshape(a, [a.size, ...axesFrom(2, rank).map(() => 1)])
}

function channelNd(a: Nd, rank: number): Nd {
  return { shape: [a.data.length, ...axesFrom(2, rank).map(() => 1)], data: a.data }
}

function centred(x: Tensor, m: Tensor, v: Tensor, eps: number): Tensor {
  return div(sub(x, m), sqrt(add(v, eps)))
}

const instanceStatistics = (call: Call): Statistics => ({
  axes: axesFrom(2, call.values(0).shape.length),
  eps: call.number('epsilon', 1e-5),
})

const channelAffine = (call: Call) => {
  const rank = call.values(0).shape.length
  return { weight: channelNd(call.values(1), rank), bias: channelNd(call.values(2), rank) }
}

/** With given statistics every element stands for itself: six roundings a side. */
const batchBound: Bound = (call, want) => {
  const x = call.values(0)
  const channel = (i: number) => channelNd(call.values(i), x.shape.length)
  const [weight, bias, m, v] = [channel(1), channel(2), channel(3), channel(4)] as const
  const eps = call.number('epsilon', 1e-5)
  const { data } = nd(want.shape, (index, flat) => {
    const scale = Math.abs(oracle.at(weight, index)) / Math.sqrt(oracle.at(v, index) + eps)
    return scale * (Math.abs(x.data[flat] as number) + Math.abs(oracle.at(m, index))) + Math.abs(oracle.at(bias, index))
  })
  return (flat) => 2 * 6 * U * (data[flat] as number)
}

const batchStatistics = (call: Call): Statistics => ({
  axes: [0, ...axesFrom(2, call.values(0).shape.length)],
  eps: call.number('epsilon', 1e-5),
})

/**
 * y; while training also the running statistics. ONNX moves its variance by the biased one of the batch, kerf (as PyTorch)
 * by the unbiased one: what was moved is taken times (n - 1) / n here.
 */
const batchNormalization: Adapter = within(
  (call, want, output) => {
    if (!call.flag('training_mode')) return batchBound(call, want, output)
    if (output === 0) return normBound(batchStatistics, channelAffine)(call, want, output)
    const { largest, n } = moments(call, batchStatistics(call))
    const before = call.values(2 + output).data
    return (flat) => {
      // Squares of deviations are at most (2 largest)^2; the sum has n terms, and a few roundings follow.
      const size = output === 1 ? (largest.data[flat] as number) : 4 * (largest.data[flat] as number) ** 2
      return 2 * U * (n + 8) * (size + Math.abs(before[flat] as number))
    }
  },
  (call) => {
    const x = call.input(0)
    const [runningMean, before] = [call.input(3), call.input(4)]
    const runningVar = clone(before)
    const training = call.flag('training_mode')
    const kept = call.number('momentum', 0.9)
    const options = { weight: call.input(1), bias: call.input(2), runningMean, runningVar, training }
    const y = batchNorm(x, { ...options, momentum: 1 - kept, eps: call.number('epsilon', 1e-5) })
    if (!training) return y
    const n = x.size / (x.shape[1] as number)
    const rest = mul(before, kept)
    return [y, runningMean, add(mul(sub(runningVar, rest), (n - 1) / n), rest)]
  },
)

export const rows: Adapters = {
  Softmax: within(softmaxBound, onAxis(softmax)),
  LogSoftmax: within(logSoftmaxBound, onAxis(logSoftmax)),
  LayerNormalization: layerNormalization,

  InstanceNormalization: within(normBound(instanceStatistics, channelAffine), (call) => {
    const x = call.input(0)
    const { axes, eps } = instanceStatistics(call)
    const m = mean(x, axes, { keepdim: true })
    const v = variance(x, axes, { keepdim: true, correction: 0 })
    return add(mul(centred(x, m, v, eps), channels(call.input(1), x.rank)), channels(call.input(2), x.rank))
  }),

  BatchNormalization: batchNormalization,

  // numpy's variance is E[x^2] - E[x]^2: off by n units of the largest square, of which half goes into the root
  MeanVarianceNormalization: within(
    (call, want) => {
      const statistics = { axes: call.numbers('axes') ?? [0, 2, 3], eps: 0 }
      const m = moments(call, statistics)
      const { data } = nd(want.shape, (index, flat) => {
        const amplitude = oracle.at(m.largest, index) * oracle.at(m.rstd, index)
        return normalizedError(m, index) + U * (m.n + 4) * amplitude ** 2 * Math.abs(want.data[flat] as number)
      })
      return (flat) => data[flat] as number
    },
    (call) => {
      const x = call.input(0)
      const axes = call.numbers('axes') ?? [0, 2, 3]
      const spread = std(x, axes, { keepdim: true, correction: 0 })
      return div(sub(x, mean(x, axes, { keepdim: true })), add(spread, 1e-9))
    },
  ),
}
