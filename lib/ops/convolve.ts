/** What convolutions are made of: the sizes that their options ask for, and the native op with its gradients. */
import { ArgumentError, ShapeError, show } from '../core/errors'
import { checkPair, MAX_WINDOW, type Pair } from '../core/pair'
import { checkInteger, MAX_ELEMENTS, type Shape, showShape, sizeOf } from '../core/shape'
import { native } from '../native/call'
import type { ActivationName } from './epilogue'
import { empty, gapless, type Tensor } from './op'
import { flip, permute, reshape, unsqueeze } from './shape'

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

export type Two = readonly [number, number]

/** What core/kernels.h's ConvShape takes beside the sizes, for [height, width]. */
export interface Geometry {
  stride: Two
  /** At the beginning; what lies beyond the end follows from the output's size. */
  pad: Two
  dilation: Two
  /** Input pixels are so far apart. */
  up: Two
  groups: number
}

/** The input's and the kernel's sizes give the output's, along one axis. */
function outSize(size: number, kernel: number, stride: number, padding: number, dilation: number): number {
  return Math.floor((size + padding - dilation * (kernel - 1) - 1) / stride) + 1
}

export function misfit(op: string, a: Shape, w: Shape, groups: number): ShapeError {
  const split = groups === 1 ? '' : ` in ${groups} groups`
  return new ShapeError(`${op}: weight ${showShape(w)}${split} does not fit the channels of x ${showShape(a)}`)
}

/** Throws where a result would have more elements than a tensor may. */
export function checkSize(op: string, shape: Shape): void {
  if (sizeOf(shape) > MAX_ELEMENTS)
    throw new ShapeError(`${op}: the result would be ${showShape(shape)}, which is too large`)
}

/** Throws for weights that only do one group. */
export function oneGroup(op: string, what: string, options: ConvOptions): void {
  if ((options.groups ?? 1) !== 1)
    throw new ArgumentError(`${op}: ${what} are convolved in one group, got ${show(options.groups)}`)
}

/** An image of rank 4, or of rank 3 as one of them. */
export function images(op: string, x: Tensor): Tensor {
  if (x.rank === 4) return x
  if (x.rank === 3) return unsqueeze(x, 0)
  throw new ShapeError(
    `${op}: x must be [images, channels, height, width] or without images, it is ${showShape(x.shape)}`,
  )
}

/** The geometry of x [N, C, H, W] by w [O, C / groups, R, S], and [height, width] of the result. */
export function geometryOf(op: string, x: Shape, w: Shape, options: ConvOptions): { geometry: Geometry; size: Two } {
  const groups = checkInteger(op, 'groups', options.groups ?? 1, 1, MAX_WINDOW)
  if (x[1] !== (w[1] as number) * groups || (w[0] as number) % groups !== 0) throw misfit(op, x, w, groups)
  const stride = checkPair(op, 'stride', options.stride ?? 1, 1)
  const dilation = checkPair(op, 'dilation', options.dilation ?? 1, 1)
  const kernel = w.slice(2) as unknown as Two
  const spans = [dilation[0] * (kernel[0] - 1), dilation[1] * (kernel[1] - 1)] as const
  let pad: Two
  let around: Two
  if (options.padding === 'same') {
    if (stride[0] !== 1 || stride[1] !== 1)
      throw new ArgumentError(`${op}: padding 'same' needs stride 1, got ${show(options.stride)}`)
    pad = [Math.floor(spans[0] / 2), Math.floor(spans[1] / 2)]
    around = spans
  } else {
    pad = options.padding === 'valid' ? [0, 0] : checkPair(op, 'padding', options.padding ?? 0, 0)
    around = [2 * pad[0], 2 * pad[1]]
  }
  const size: Two = [
    outSize(x[2] as number, kernel[0], stride[0], around[0], dilation[0]),
    outSize(x[3] as number, kernel[1], stride[1], around[1], dilation[1]),
  ]
  if (size[0] < 1 || size[1] < 1)
    throw new ShapeError(`${op}: a kernel of ${showShape(kernel)} is larger than the padded input ${showShape(x)}`)
  return { geometry: { stride, pad, dilation, up: [1, 1], groups }, size }
}

/** As ops.def lists them. */
const stepsOf = ({ groups, stride, pad, dilation, up }: Geometry) =>
  [groups, ...stride, ...pad, ...dilation, ...up] as const

/** x by w to out, all contiguous and of one dtype; bias is float32. */
export function run(out: Tensor, x: Tensor, w: Tensor, bias: Tensor | null, activation: number, g: Geometry): void {
  native.conv2d(out, x, w, bias, activation, ...stepsOf(g))
}

/** [O, C / groups, R, S] as the weights that take the outputs back to the inputs: [C, O / groups, R, S], taps turned round. */
export function turned(w: Tensor, groups: number): Tensor {
  const [o, c, r, s] = w.shape as [number, number, number, number]
  const grouped = reshape(w, [groups, o / groups, c, r, s])
  return reshape(flip(permute(grouped, [0, 2, 1, 3, 4]), [3, 4]), [groups * c, o / groups, r, s])
}

/** The gradient for x: again a convolution, with strides and zeros between pixels exchanged. */
export function gradOfInput(grad: Tensor, x: Tensor, w: Tensor, g: Geometry): Tensor {
  const [r, s] = w.shape.slice(2) as [number, number]
  const dx = empty(grad.dtype, x.shape, x.device)
  run(dx, grad, gapless(turned(w, g.groups), grad.dtype), null, 0, {
    stride: g.up,
    up: g.stride,
    pad: [(r - 1) * g.dilation[0] - g.pad[0], (s - 1) * g.dilation[1] - g.pad[1]],
    dilation: g.dilation,
    groups: g.groups,
  })
  return dx
}

/** The gradient for w, float32. */
export function gradOfWeight(grad: Tensor, x: Tensor, w: Tensor, g: Geometry): Tensor {
  const dw = empty('float32', w.shape, x.device)
  native.conv2dWeightGrad(dw, grad, x, ...stepsOf(g))
  return dw
}
