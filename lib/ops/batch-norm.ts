/** Normalisation of every channel over a batch. Statistics are float32 whatever the dtype. */
import { type DType, type FloatOf, floatOf } from '../core/dtype'
import { ArgumentError, DTypeError, ShapeError, show } from '../core/errors'
import { checkNumber, sameShape, showShape, sizeOf } from '../core/shape'
import { native, type View } from '../native/call'
import { changed } from '../tensor/tensor'
import { arg, converted, empty, emptyLike, gapless, live, type Tensor, taped } from './op'

export interface BatchNormOptions {
  /** [channels], multiplies; default 1. */
  weight?: Tensor | null
  /** [channels], is added; default 0. */
  bias?: Tensor | null
  /** float32 [channels]. What is normalised by unless training, and what training moves towards the batch's. */
  runningMean?: Tensor | null
  /** float32 [channels], given with runningMean. */
  runningVar?: Tensor | null
  /** Normalise by the batch's own mean and variance, and update the running ones; default false. */
  training?: boolean
  /** How far the running statistics go towards the batch's in one call, default 0.1. */
  momentum?: number
  /** Added to the variance, default 1e-5. */
  eps?: number
}

function checkChannels(name: string, t: Tensor, channels: number): Tensor {
  if (!sameShape(t.shape, [channels]))
    throw new ShapeError(`batchNorm: ${name} must have shape ${showShape([channels])}, got ${showShape(t.shape)}`)
  return t
}

/** Weight or bias, which may be absent. */
function affine(name: string, value: Tensor | null | undefined, channels: number): Tensor | null {
  return value === null || value === undefined ? null : checkChannels(name, arg('batchNorm', name, value), channels)
}

/** A running statistic, which a kernel may change in place. */
function running(name: string, value: Tensor | null | undefined, channels: number): Tensor | null {
  if (value === null || value === undefined) return null
  const t = checkChannels(name, live('batchNorm', name, value), channels)
  if (t.dtype !== 'float32') throw new DTypeError(`batchNorm: ${name} must be float32, got ${t.dtype}`)
  if (!t.contiguous) throw new ArgumentError(`batchNorm: ${name} must be contiguous, it is changed in place`)
  if (t.requiresGrad) throw new ArgumentError(`batchNorm: ${name} must not ask for a gradient`)
  return t
}

/** A whole tensor read as [n, channels, elements of a plane], for native calls. */
function planes(a: Tensor): View {
  const [n, channels] = a.shape as [number, number]
  const s = sizeOf(a.shape.slice(2))
  return { buffer: a.buffer, code: a.code, shape: [n, channels, s], strides: [channels * s, s, 1], offset: a.offset }
}

/**
 * (x - mean) / sqrt(variance + eps) * weight + bias, where each channel (axis 1) has its mean and its variance over all
 * other axes (Ioffe and Szegedy 2015). As PyTorch's batch_norm: with `training` the statistics are the batch's own, the
 * variance the biased one, and gradients flow through them; the running ones, if given, become
 * (1 - momentum) * running + momentum * batch, in place, the variance being the unbiased one there. Without `training` the
 * running ones are constants to normalise by.
 *
 * @param x [n, channels] or [n, channels, ...]; integers are computed as float32
 * @throws ShapeError for fewer than two axes, other shapes than [channels], or when training has one value a channel
 * @throws ArgumentError when the running statistics are missing and training is false, or only one of them is given
 * @throws DTypeError when the running statistics are not float32
 */
export function batchNorm<D extends DType>(x: Tensor<D>, options: BatchNormOptions = {}): Tensor<FloatOf<D>> {
  const a = arg('batchNorm', 'x', x)
  if (typeof options !== 'object' || options === null)
    throw new ArgumentError(`batchNorm: options must be an object, got ${show(options)}`)
  const training = options.training ?? false
  if (typeof training !== 'boolean')
    throw new ArgumentError(`batchNorm: training must be true or false, got ${show(training)}`)
  const momentum = checkNumber('batchNorm', 'momentum', options.momentum ?? 0.1)
  const eps = checkNumber('batchNorm', 'eps', options.eps ?? 1e-5)
  if (a.rank < 2) throw new ShapeError(`batchNorm: x must be [n, channels, ...], its shape is ${showShape(a.shape)}`)
  const channels = a.shape[1] as number
  const weight = affine('weight', options.weight, channels)
  const bias = affine('bias', options.bias, channels)
  const runningMean = running('runningMean', options.runningMean, channels)
  const runningVar = running('runningVar', options.runningVar, channels)
  if ((runningMean === null) !== (runningVar === null))
    throw new ArgumentError('batchNorm: runningMean and runningVar must be given together')
  if (!training && runningMean === null)
    throw new ArgumentError('batchNorm: runningMean and runningVar are needed unless training is true')
  if (training && a.size <= channels)
    throw new ShapeError(`batchNorm: training needs more than one value a channel, x has shape ${showShape(a.shape)}`)

  const dtype = floatOf(a.dtype)
  const source = gapless(a, dtype)
  const kernel = (t: Tensor | null) => t && gapless(t, 'float32')
  const scale = kernel(weight)
  const out = emptyLike(a, dtype)
  const mean = empty('float32', [channels], a.device)
  const rstd = empty('float32', [channels], a.device)
  native.batchNorm(
    ...([planes(out), mean, rstd, planes(source), scale, kernel(bias), runningMean, runningVar] as const),
    ...([momentum, eps, Number(training)] as const),
  )
  if (training && runningMean && runningVar) {
    changed(runningMean)
    changed(runningVar)
  }
  const inputs = [a, ...(weight ? [weight] : []), ...(bias ? [bias] : [])]
  return taped('batchNorm', out, inputs, (grad) => {
    const da = emptyLike(a, dtype)
    const like = (t: Tensor | null) => (t?.requiresGrad ? empty('float32', t.shape, a.device) : null)
    const [dweight, dbias] = [like(weight), like(bias)]
    const g = gapless(grad, dtype)
    native.batchNormGrad(planes(da), dweight, dbias, planes(g), planes(source), mean, rstd, scale, Number(training))
    const grads: (Tensor | null)[] = [a.requiresGrad ? da : null]
    if (weight) grads.push(dweight && converted(dweight, weight.dtype))
    if (bias) grads.push(dbias && converted(dbias, bias.dtype))
    return grads
  }) as Tensor<FloatOf<D>>
}
