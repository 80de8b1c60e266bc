/**
 * Convolutions (cross-correlations, as everywhere in deep learning). All of them, and their gradients for the input, are
 * one native op: a convolution whose input may have zeros between its elements (core/kernels.h, ConvShape).
 */
import { type DType, isFloat, type Promote, promote } from '../core/dtype'
import { ArgumentError, DTypeError, ShapeError, show } from '../core/errors'
import { checkInteger, MAX_ELEMENTS, showShape, sizeOf } from '../core/shape'
import { native } from '../native/call'
import { type ActivationName, activationCode, beforeActivation, biasRow, checkBias, needsInput } from './epilogue'
import { arg, converted, empty, gapless, needsGrad, type Tensor, taped } from './op'
import { sum } from './reduce'
import { flip, permute, reshape, squeeze, unsqueeze } from './shape'
import { gelu, silu } from './unary'

/** One number for rows and columns, or [rows, columns]. */
export type Pair = number | readonly [number, number]

export interface ConvOptions {
  /** Steps between output pixels; default 1. */
  stride?: Pair
  /** Zeros around the input, or 'same' (output as large as the input, stride 1 only; an odd one goes to the end), or 'valid' (none); default 0. */
  padding?: Pair | 'same' | 'valid'
  /** Steps between the kernel's taps; default 1. */
  dilation?: Pair
  /** Input and output channels are split into so many groups that do not meet; default 1. */
  groups?: number
  /** Applied after the bias, in float32. */
  activation?: ActivationName
}

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

type Two = readonly [number, number]

/** What core/kernels.h's ConvShape takes beside the sizes, for [rows, columns]. */
interface Geometry {
  stride: Two
  /** At the beginning; what lies beyond the end follows from the output's size. */
  pad: Two
  dilation: Two
  /** Input pixels are so far apart. */
  up: Two
  groups: number
}

const LIMIT = 2 ** 20

/** @internal A Pair option as [rows, columns]. */
export function pairOf(op: string, name: string, value: unknown, least: number): Two {
  const both = Array.isArray(value) ? value : [value, value]
  if (both.length !== 2)
    throw new ArgumentError(`${op}: ${name} must be a number or [rows, columns], got ${show(value)}`)
  return [checkInteger(op, name, both[0], least, LIMIT), checkInteger(op, name, both[1], least, LIMIT)]
}

/** The input's and the kernel's sizes give the output's, along one axis. */
function outSize(size: number, kernel: number, stride: number, padding: number, dilation: number): number {
  return Math.floor((size + padding - dilation * (kernel - 1) - 1) / stride) + 1
}

function run(out: Tensor, x: Tensor, w: Tensor, bias: Tensor | null, activation: number, g: Geometry): void {
  native.conv2d(
    out,
    x,
    w,
    bias,
    activation,
    g.groups,
    g.stride[0],
    g.stride[1],
    g.pad[0],
    g.pad[1],
    g.dilation[0],
    g.dilation[1],
    g.up[0],
    g.up[1],
  )
}

/** [O, C / groups, R, S] as the weights that take the outputs back to the inputs: [C, O / groups, R, S], taps turned round. */
function turned(w: Tensor, groups: number): Tensor {
  const [o, c, r, s] = w.shape as [number, number, number, number]
  const grouped = reshape(w, [groups, o / groups, c, r, s])
  return reshape(flip(permute(grouped, [0, 2, 1, 3, 4]), [3, 4]), [groups * c, o / groups, r, s])
}

/** The gradient for x: again a convolution, with strides and zeros between pixels exchanged. */
function gradOfInput(grad: Tensor, x: Tensor, w: Tensor, g: Geometry): Tensor {
  const [r, s] = w.shape.slice(2) as [number, number]
  const dx = empty(grad.dtype, x.shape)
  run(dx, grad, gapless(turned(w, g.groups), grad.dtype), null, 0, {
    stride: g.up,
    up: g.stride,
    pad: [(r - 1) * g.dilation[0] - g.pad[0], (s - 1) * g.dilation[1] - g.pad[1]],
    dilation: g.dilation,
    groups: g.groups,
  })
  return dx
}

function gradOfWeight(grad: Tensor, x: Tensor, w: Tensor, g: Geometry): Tensor {
  const dw = empty('float32', w.shape)
  native.conv2dWeightGrad(
    dw,
    grad,
    x,
    g.groups,
    g.stride[0],
    g.stride[1],
    g.pad[0],
    g.pad[1],
    g.dilation[0],
    g.dilation[1],
    g.up[0],
    g.up[1],
  )
  return dw
}

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
  if (sizeOf(shape) > MAX_ELEMENTS)
    throw new ShapeError(`${op}: the result would be ${showShape(shape)}, which is too large`)
  const x = gapless(a, dtype)
  const w = gapless(weight, dtype)
  const inputs = [a, weight, ...(bias ? [bias] : [])]
  // gelu and silu need the value before them for their gradient: apart, so that it is there
  const apart = needsGrad(inputs) && needsInput(activation)
  const out = empty(dtype, shape)
  run(out, x, w, bias && biasRow(bias), apart ? 0 : code, geometry)
  const fused = apart ? undefined : activation
  taped(op, out, inputs, (grad) => {
    const g = gapless(beforeActivation(grad, out, fused), dtype)
    const gradients: (Tensor | null)[] = [
      a.requiresGrad ? converted(gradOfInput(g, x, w, geometry), a.dtype) : null,
      weight.requiresGrad ? converted(gradOfWeight(g, x, w, geometry), weight.dtype) : null,
    ]
    if (bias) {
      // In the wider dtype: a float16 sum over the batch could leave float16's range.
      const wide = promote(dtype, bias.dtype)
      gradients.push(bias.requiresGrad ? converted(sum(converted(g, wide), [0, 2, 3]), bias.dtype) : null)
    }
    return gradients
  })
  return apart ? (activation === 'gelu' ? gelu(out) : silu(out)) : out
}

/** Checked operands: the input with a batch axis, and whether it was given one. */
function operands(op: string, x: Tensor, weight: Tensor, axes: number): { a: Tensor; w: Tensor; single: boolean } {
  const given = arg(op, 'x', x)
  const w = arg(op, 'weight', weight)
  for (const [name, t] of [['x', given] as const, ['weight', w] as const]) {
    if (!isFloat(t.dtype)) throw new DTypeError(`${op}: ${name} must be a float tensor, it is ${t.dtype}`)
  }
  const form = axes === 1 ? 'channels, length' : 'channels, rows, columns'
  if (given.rank !== axes + 2 && given.rank !== axes + 1)
    throw new ShapeError(`${op}: x must be [images, ${form}] or [${form}], it is ${showShape(given.shape)}`)
  if (w.rank !== axes + 2) throw new ShapeError(`${op}: weight must have ${axes + 2} axes, it is ${showShape(w.shape)}`)
  if (w.shape.slice(2).includes(0)) throw new ShapeError(`${op}: weight ${showShape(w.shape)} has an empty kernel`)
  const single = given.rank === axes + 1
  return { a: single ? unsqueeze(given, 0) : given, w, single }
}

function misfit(op: string, a: Tensor, w: Tensor, groups: number): ShapeError {
  const split = groups === 1 ? '' : ` in ${groups} groups`
  return new ShapeError(
    `${op}: weight ${showShape(w.shape)}${split} does not fit the channels of x ${showShape(a.shape)}`,
  )
}

/**
 * out[n, o, y, x] = activation(bias[o] + sum over c, r, s of weight[o, c, r, s] * x[n, c, y * stride + r * dilation - padding, ...]),
 * zero outside the input. Sums are float32. As PyTorch's conv2d.
 *
 * @param x [images, channels, rows, columns], or without images
 * @param weight [outChannels, channels / groups, kernel rows, kernel columns]
 * @param bias [outChannels]
 * @returns [images, outChannels, rows, columns] in the promoted dtype; rows = floor((rows + 2 padding - dilation (kernel - 1) - 1) / stride) + 1
 * @throws ShapeError where sizes do not go together or the kernel is larger than the padded input
 */
export function conv2d<A extends DType, B extends DType>(
  x: Tensor<A>,
  weight: Tensor<B>,
  bias?: Tensor | null,
  options: ConvOptions = {},
): Tensor<Promote<A, B>> {
  const { a, w, single } = operands('conv2d', x, weight, 2)
  const out = convolution('conv2d', a, w, bias ?? null, options)
  return (single ? squeeze(out, 0) : out) as Tensor<Promote<A, B>>
}

function convolution(op: string, a: Tensor, w: Tensor, bias: Tensor | null, options: ConvOptions): Tensor {
  const groups = checkInteger(op, 'groups', options.groups ?? 1, 1, LIMIT)
  if (a.shape[1] !== (w.shape[1] as number) * groups || (w.shape[0] as number) % groups !== 0)
    throw misfit(op, a, w, groups)
  if (bias) checkBias(op, bias, w.shape[0] as number)
  const stride = pairOf(op, 'stride', options.stride ?? 1, 1)
  const dilation = pairOf(op, 'dilation', options.dilation ?? 1, 1)
  const kernel = w.shape.slice(2) as unknown as Two
  const size = a.shape.slice(2) as unknown as Two
  const spans = [dilation[0] * (kernel[0] - 1), dilation[1] * (kernel[1] - 1)] as const
  let pad: Two
  let around: Two
  if (options.padding === 'same') {
    if (stride[0] !== 1 || stride[1] !== 1)
      throw new ArgumentError(`${op}: padding 'same' needs stride 1, got ${show(options.stride)}`)
    pad = [Math.floor(spans[0] / 2), Math.floor(spans[1] / 2)]
    around = spans
  } else {
    pad = options.padding === 'valid' ? [0, 0] : pairOf(op, 'padding', options.padding ?? 0, 0)
    around = [2 * pad[0], 2 * pad[1]]
  }
  const out: Two = [
    outSize(size[0], kernel[0], stride[0], around[0], dilation[0]),
    outSize(size[1], kernel[1], stride[1], around[1], dilation[1]),
  ]
  if (out[0] < 1 || out[1] < 1)
    throw new ShapeError(
      `${op}: a kernel of ${showShape(kernel)} is larger than the padded input ${showShape(a.shape)}`,
    )
  return convolve(op, a, w, bias, { stride, pad, dilation, up: [1, 1], groups }, out, options.activation)
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
    value === undefined ? otherwise : [otherwise, checkInteger(op, name, value, least, LIMIT)]
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
 * @param x [images, channels, rows, columns], or without images
 * @param weight [channels, outChannels / groups, kernel rows, kernel columns]
 * @param bias [outChannels]
 * @returns rows = (rows - 1) stride - 2 padding + dilation (kernel - 1) + outputPadding + 1, and so for columns
 */
export function convTranspose2d<A extends DType, B extends DType>(
  x: Tensor<A>,
  weight: Tensor<B>,
  bias?: Tensor | null,
  options: ConvTransposeOptions = {},
): Tensor<Promote<A, B>> {
  const op = 'convTranspose2d'
  const { a, w, single } = operands(op, x, weight, 2)
  const groups = checkInteger(op, 'groups', options.groups ?? 1, 1, LIMIT)
  const outChannels = (w.shape[1] as number) * groups
  if (a.shape[1] !== w.shape[0] || (w.shape[0] as number) % groups !== 0) throw misfit(op, a, w, groups)
  if (bias) checkBias(op, bias, outChannels)
  const stride = pairOf(op, 'stride', options.stride ?? 1, 1)
  const padding = pairOf(op, 'padding', options.padding ?? 0, 0)
  const dilation = pairOf(op, 'dilation', options.dilation ?? 1, 1)
  const extra = pairOf(op, 'outputPadding', options.outputPadding ?? 0, 0)
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
