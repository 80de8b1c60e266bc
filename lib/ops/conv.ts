/**
 * Convolutions (cross-correlations, as everywhere in deep learning). All of them, and their gradients for the input, are
 * one native op: a convolution whose input may have zeros between its elements (core/kernels.h, ConvShape).
 */
import { type DType, isFloat, type Promote, promote } from '../core/dtype'
import { ArgumentError, DTypeError, ShapeError, show } from '../core/errors'
import { checkPair, MAX_WINDOW, type Pair } from '../core/pair'
import { checkInteger, showShape } from '../core/shape'
import { QuantizedTensor } from '../tensor/quantized'
import { SparseTensor } from '../tensor/sparse'
import {
  type ConvOptions,
  checkSize,
  type Geometry,
  geometryOf,
  gradOfInput,
  gradOfWeight,
  misfit,
  run,
  type Two,
  turned,
} from './convolve'
import {
  type ActivationName,
  activatedApart,
  activationCode,
  beforeActivation,
  biasRow,
  checkBias,
  needsInput,
} from './epilogue'
import { arg, converted, empty, gapless, live, needsGrad, type Tensor, taped } from './op'
import { gradOfBias } from './product-with-weights'
import { dequantize } from './quantize'
import { type QuantizedConvOptions, quantizedConv2d } from './quantized-conv'
import { squeeze, unsqueeze } from './shape'
import { type SparseConvOptions, sparseConv2d } from './sparse-conv'

export interface ConvTransposeOptions {
  /** Steps between input pixels in the output; default 1. */
  stride?: Pair
  /** Pixels of the full result that are cut off at every side; default 0. */
  padding?: Pair
  /** Pixels added at the end of each axis; less than stride or dilation; default 0. */
  outputPadding?: Pair
  dilation?: Pair
  groups?: number
}

export type { ConvOptions }

/** x [N, C, H, W] by w [O, C / groups, R, S] to [N, O, ...size]: the one place that calls the addon. */
function convolve(
  op: string,
  a: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  geometry: Geometry,
  size: Two,
  activation: ActivationName | undefined,
): Tensor {
  const code = activationCode(op, activation)
  const dtype = promote(a.dtype, weight.dtype)
  const shape = [a.shape[0] as number, weight.shape[0] as number, size[0], size[1]]
  checkSize(op, shape)
  const x = gapless(a, dtype)
  const w = gapless(weight, dtype)
  const inputs = [a, weight, ...(bias ? [bias] : [])]
  // gelu and silu need the value before them for their gradient: apart, so that it is there
  const apart = needsGrad(inputs) && needsInput(activation)
  const out = empty(dtype, shape, a.device)
  run(out, x, w, bias && biasRow(bias), apart ? 0 : code, geometry)
  const fused = apart ? undefined : activation
  taped(op, out, inputs, (grad) => {
    const g = gapless(beforeActivation(grad, out, fused), dtype)
    return [
      a.requiresGrad ? converted(gradOfInput(g, x, w, geometry), a.dtype) : null,
      weight.requiresGrad ? converted(gradOfWeight(g, x, w, geometry), weight.dtype) : null,
      ...(bias ? [gradOfBias(g, bias, 1)] : []),
    ]
  })
  return apart ? activatedApart(out, activation) : out
}

/** Checked operands: the input with a batch axis, and whether it was given one. */
function operands(op: string, x: Tensor, weight: Tensor, axes: number): { a: Tensor; w: Tensor; single: boolean } {
  const given = arg(op, 'x', x)
  const w = arg(op, 'weight', weight)
  for (const [name, t] of [['x', given] as const, ['weight', w] as const]) {
    if (!isFloat(t.dtype)) throw new DTypeError(`${op}: ${name} must be a float tensor, it is ${t.dtype}`)
  }
  const form = axes === 1 ? 'channels, length' : 'channels, height, width'
  if (given.rank !== axes + 2 && given.rank !== axes + 1)
    throw new ShapeError(`${op}: x must be [images, ${form}] or [${form}], it is ${showShape(given.shape)}`)
  if (w.rank !== axes + 2) throw new ShapeError(`${op}: weight must have ${axes + 2} axes, it is ${showShape(w.shape)}`)
  if (w.shape.slice(2).includes(0)) throw new ShapeError(`${op}: weight ${showShape(w.shape)} has an empty kernel`)
  const single = given.rank === axes + 1
  return { a: single ? unsqueeze(given, 0) : given, w, single }
}

/**
 * out[n, o, y, x] = activation(bias[o] + sum over c, r, s of weight[o, c, r, s] * x[n, c, y * stride + r * dilation - padding, ...]),
 * zero outside the input. Sums are float32. As PyTorch's conv2d.
 *
 * @param x [images, channels, height, width], or without images
 * @param weight [outChannels, channels / groups, kernel height, kernel width], or a quantized one (int8 or uint8, per tensor or per
 * channel(0)): with `quantizeInput` bytes meet bytes, exactly, else its float values serve, in x's dtype
 * @param weight or a SparseTensor [outChannels, channels * kernel height * kernel width] (with `kernelSize`, in one group): runs of 8
 * neighbouring taps that are zero cost nothing, so blocks whose width is a multiple of 8 pay; no gradient flows to it
 * @param bias [outChannels]
 * @returns [images, outChannels, height, width] in the promoted dtype; height = floor((height + 2 padding - dilation (kernel - 1) - 1) / stride) + 1
 * @throws ShapeError where sizes do not go together or the kernel is larger than the padded input
 */
export function conv2d<A extends DType, B extends DType>(
  x: Tensor<A>,
  weight: Tensor<B>,
  bias?: Tensor | null,
  options?: ConvOptions,
): Tensor<Promote<A, B>>
export function conv2d<A extends DType>(
  x: Tensor<A>,
  weight: QuantizedTensor,
  bias?: Tensor | null,
  options?: QuantizedConvOptions,
): Tensor<A>
export function conv2d<A extends DType>(
  x: Tensor<A>,
  weight: SparseTensor,
  bias: Tensor | null | undefined,
  options: SparseConvOptions,
): Tensor<A>
export function conv2d(
  x: Tensor,
  weight: Tensor | QuantizedTensor | SparseTensor,
  bias: Tensor | null = null,
  options: QuantizedConvOptions | SparseConvOptions = {},
): Tensor {
  if (weight instanceof SparseTensor)
    return sparseConv2d(live('conv2d', 'x', x), weight, bias, options as SparseConvOptions)
  if (weight instanceof QuantizedTensor) {
    const a = live('conv2d', 'x', x)
    if ('quantizeInput' in options && options.quantizeInput) return quantizedConv2d(a, weight, bias, options)
    return conv2d(a, dequantize(weight, isFloat(a.dtype) ? a.dtype : 'float32'), bias, options)
  }
  const { a, w, single } = operands('conv2d', x, weight, 2)
  const out = convolution('conv2d', a, w, bias, options)
  return single ? squeeze(out, 0) : out
}

function convolution(op: string, a: Tensor, w: Tensor, bias: Tensor | null, options: ConvOptions): Tensor {
  const { geometry, size } = geometryOf(op, a.shape, w.shape, options)
  if (bias) checkBias(op, bias, w.shape[0] as number)
  return convolve(op, a, w, bias, geometry, size, options.activation)
}

export interface Conv1dOptions {
  stride?: number
  padding?: number | 'same' | 'valid'
  dilation?: number
  groups?: number
  activation?: ActivationName
}

/** conv2d along one axis: x [images, channels, length] or [channels, length], weight [outChannels, channels / groups, kernel]. */
export function conv1d<A extends DType, B extends DType>(
  x: Tensor<A>,
  weight: Tensor<B>,
  bias?: Tensor | null,
  options: Conv1dOptions = {},
): Tensor<Promote<A, B>> {
  const op = 'conv1d'
  const { a, w, single } = operands(op, x, weight, 1)
  const rows = (name: string, value: unknown, least: number, otherwise: number): Pair =>
    value === undefined ? otherwise : [otherwise, checkInteger(op, name, value, least, MAX_WINDOW)]
  const { padding, groups, activation } = options
  const out = convolution(op, unsqueeze(a, 2), unsqueeze(w, 2), bias ?? null, {
    stride: rows('stride', options.stride, 1, 1),
    dilation: rows('dilation', options.dilation, 1, 1),
    padding: padding === 'same' || padding === 'valid' ? padding : rows('padding', padding, 0, 0),
    ...(groups === undefined ? {} : { groups }),
    ...(activation === undefined ? {} : { activation }),
  })
  const flat = squeeze(out, 2)
  return (single ? squeeze(flat, 0) : flat) as Tensor<Promote<A, B>>
}

/**
 * The transpose of conv2d's matrix: every input pixel adds its value times the kernel to the output, `stride` apart. As
 * PyTorch's conv_transpose2d.
 *
 * @param x [images, channels, height, width], or without images
 * @param weight [channels, outChannels / groups, kernel height, kernel width]
 * @param bias [outChannels]
 * @returns height = (height - 1) stride - 2 padding + dilation (kernel - 1) + outputPadding + 1, and so for the width
 */
export function convTranspose2d<A extends DType, B extends DType>(
  x: Tensor<A>,
  weight: Tensor<B>,
  bias?: Tensor | null,
  options: ConvTransposeOptions = {},
): Tensor<Promote<A, B>> {
  const op = 'convTranspose2d'
  const { a, w, single } = operands(op, x, weight, 2)
  const groups = checkInteger(op, 'groups', options.groups ?? 1, 1, MAX_WINDOW)
  const outChannels = (w.shape[1] as number) * groups
  if (a.shape[1] !== w.shape[0] || (w.shape[0] as number) % groups !== 0) throw misfit(op, a.shape, w.shape, groups)
  if (bias) checkBias(op, bias, outChannels)
  const stride = checkPair(op, 'stride', options.stride ?? 1, 1)
  const padding = checkPair(op, 'padding', options.padding ?? 0, 0)
  const dilation = checkPair(op, 'dilation', options.dilation ?? 1, 1)
  const extra = checkPair(op, 'outputPadding', options.outputPadding ?? 0, 0)
  const size = (i: 0 | 1): number => {
    if ((extra[i] as number) >= Math.max(stride[i], dilation[i]))
      throw new ArgumentError(`${op}: outputPadding ${extra[i]} must be less than stride or dilation`)
    const full = ((a.shape[2 + i] as number) - 1) * stride[i] + dilation[i] * ((w.shape[2 + i] as number) - 1) + 1
    return full - 2 * padding[i] + extra[i]
  }
  const out: Two = [size(0), size(1)]
  if (out[0] < 1 || out[1] < 1)
    throw new ShapeError(`${op}: padding ${show(options.padding)} leaves nothing of ${showShape(a.shape)}`)
  const pad: Two = [
    dilation[0] * ((w.shape[2] as number) - 1) - padding[0],
    dilation[1] * ((w.shape[3] as number) - 1) - padding[1],
  ]
  const geometry: Geometry = { stride: [1, 1], pad, dilation, up: stride, groups }
  const result = convolve(op, a, turned(w, groups), bias ?? null, geometry, out, undefined)
  return (single ? squeeze(result, 0) : result) as Tensor<Promote<A, B>>
}
