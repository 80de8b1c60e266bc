/** Maxima and averages over windows of images [n, channels, h, w], as in PyTorch. */
import { type DType, isFloat } from '../core/dtype'
import { ArgumentError, DTypeError, ShapeError, show } from '../core/errors'
import { checkPair, MAX_WINDOW, type Pair } from '../core/pair'
import { showShape } from '../core/shape'
import { native, type View } from '../native/call'
import { arg, empty, emptyLike, gapless, needsGrad, type Tensor, taped } from './op'

/** An image of a float dtype, or an error. */
export function checkImage<D extends DType>(op: string, x: Tensor<D>): Tensor<D> {
  const a = arg(op, 'x', x)
  if (a.rank !== 4)
    throw new ShapeError(`${op}: x must be [n, channels, height, width], its shape is ${showShape(a.shape)}`)
  if (!isFloat(a.dtype)) throw new DTypeError(`${op}: x must be a float tensor, got ${a.dtype}`)
  return a
}

/** A whole image read as [planes, height, width], for native calls. */
export function planesOf(a: Tensor): View {
  const [n, channels, h, w] = a.shape as [number, number, number, number]
  return { buffer: a.buffer, code: a.code, shape: [n * channels, h, w], strides: [h * w, w, 1], offset: a.offset }
}

interface Window {
  kernel: [number, number]
  stride: [number, number]
  padding: [number, number]
  dilation: [number, number]
}

export interface AvgPool2dOptions {
  /** Size of the window. */
  kernelSize: Pair
  /** From one window to the next; default kernelSize. */
  stride?: Pair
  /** Rows and columns around the image, at most half a window; default 0. */
  padding?: Pair
  /** Also a last window that the image does not fill; default false. */
  ceilMode?: boolean
  /** Whether padding counts in the averages, default true. What lies beyond the padding (ceilMode) never does. */
  countIncludePad?: boolean
}

export interface MaxPool2dOptions extends Omit<AvgPool2dOptions, 'countIncludePad'> {
  /** From one element of the window to the next, default 1. */
  dilation?: Pair
}

/** The options of a pooling with their defaults, or an error. */
export function checkWindow(op: string, options: MaxPool2dOptions): Window {
  if (typeof options !== 'object' || options === null)
    throw new ArgumentError(`${op}: options must be an object, got ${show(options)}`)
  const kernel = checkPair(op, 'kernelSize', options.kernelSize, 1)
  const stride = checkPair(op, 'stride', options.stride ?? kernel, 1)
  const padding = checkPair(op, 'padding', options.padding ?? 0, 0)
  const dilation = checkPair(op, 'dilation', options.dilation ?? 1, 1)
  if (kernel[0] * kernel[1] > MAX_WINDOW)
    throw new ArgumentError(`${op}: kernelSize ${show(kernel)} has more than the 2^24 elements that are possible`)
  for (const i of [0, 1] as const) {
    if (2 * padding[i] > kernel[i])
      throw new ArgumentError(
        `${op}: padding must be at most half of kernelSize, got ${show(padding)} for ${show(kernel)}`,
      )
    if ((kernel[i] - 1) * dilation[i] + 1 > MAX_WINDOW)
      throw new ArgumentError(`${op}: dilation ${show(dilation)} spreads a window over more than 2^24 elements`)
  }
  return { kernel, stride, padding, dilation }
}

function checkFlag(op: string, name: string, value: unknown): boolean {
  if (typeof value === 'boolean') return value
  throw new ArgumentError(`${op}: ${name} must be true or false, got ${show(value)}`)
}

/** [n, channels, h, w] of the windows. PyTorch's rule: with ceilMode, none that begins in the padding at the end. */
function pooledShape(op: string, a: Tensor, { kernel, stride, padding, dilation }: Window, ceil: boolean): number[] {
  const sizes = ([0, 1] as const).map((i) => {
    const size = a.shape[2 + i] as number
    const room = size + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1
    let out = Math.floor((room + (ceil ? stride[i] - 1 : 0)) / stride[i]) + 1
    if (ceil && (out - 1) * stride[i] >= size + padding[i]) out--
    if (size < 1 || out < 1)
      throw new ShapeError(
        `${op}: a window of ${show(kernel)}, padding ${show(padding)}, dilation ${show(dilation)} does not fit into ${showShape(a.shape)}`,
      )
    return out
  })
  return [...a.shape.slice(0, 2), ...sizes]
}

/**
 * The largest element of every window. NaN where a window has one; padding never wins. The gradient goes to the first of
 * equal elements.
 *
 * @param x [n, channels, h, w] of a float dtype
 * @returns [n, channels, floor((h + 2 padding - dilation (kernel - 1) - 1) / stride) + 1, ...], rounded up with ceilMode
 * @throws ArgumentError for options out of range, such as padding of more than half a window
 * @throws ShapeError when x is no image or the window does not fit into it
 */
export function maxPool2d<D extends DType>(x: Tensor<D>, options: MaxPool2dOptions): Tensor<D> {
  const a = checkImage('maxPool2d', x)
  const window = checkWindow('maxPool2d', options)
  const shape = pooledShape('maxPool2d', a, window, checkFlag('maxPool2d', 'ceilMode', options.ceilMode ?? false))
  const { kernel, stride, padding, dilation } = window
  const numbers = [...kernel, ...stride, ...padding, ...dilation] as const
  const out = empty(a.dtype, shape, a.device)
  const taps = needsGrad([a]) ? empty('int32', shape, a.device) : null
  native.maxPool2d(planesOf(out), taps && planesOf(taps), planesOf(gapless(a, a.dtype)), ...numbers)
  return taped('maxPool2d', out, [a], (grad) => {
    const da = emptyLike(a, a.dtype)
    native.maxPool2dGrad(planesOf(da), planesOf(gapless(grad, a.dtype)), planesOf(taps as Tensor), ...numbers)
    return [da]
  })
}

/**
 * The average of every window.
 *
 * @param x [n, channels, h, w] of a float dtype
 * @returns [n, channels, floor((h + 2 padding - kernel) / stride) + 1, ...], rounded up with ceilMode
 * @throws ArgumentError for options out of range, such as padding of more than half a window
 * @throws ShapeError when x is no image or the window does not fit into it
 */
export function avgPool2d<D extends DType>(x: Tensor<D>, options: AvgPool2dOptions): Tensor<D> {
  const a = checkImage('avgPool2d', x)
  const window = checkWindow('avgPool2d', options && { ...options, dilation: 1 })
  const shape = pooledShape('avgPool2d', a, window, checkFlag('avgPool2d', 'ceilMode', options.ceilMode ?? false))
  const pads = Number(checkFlag('avgPool2d', 'countIncludePad', options.countIncludePad ?? true))
  const numbers = [...window.kernel, ...window.stride, ...window.padding, pads] as const
  const out = empty(a.dtype, shape, a.device)
  native.avgPool2d(planesOf(out), planesOf(gapless(a, a.dtype)), ...numbers)
  return taped('avgPool2d', out, [a], (grad) => {
    const da = emptyLike(a, a.dtype)
    native.avgPool2dGrad(planesOf(da), planesOf(gapless(grad, a.dtype)), ...numbers)
    return [da]
  })
}

/**
 * Averages over as many windows as asked for: output o of an axis of `in` elements and `out` outputs is the mean of elements
 * floor(o * in / out) to ceil((o + 1) * in / out) - 1, so windows may overlap by one.
 *
 * @param x [n, channels, h, w] of a float dtype
 * @param outputSize [h, w] of the result, or one number for both
 * @throws ShapeError when x is no image or has no elements to average
 */
export function adaptiveAvgPool2d<D extends DType>(x: Tensor<D>, outputSize: Pair): Tensor<D> {
  const a = checkImage('adaptiveAvgPool2d', x)
  const [h, w] = checkPair('adaptiveAvgPool2d', 'outputSize', outputSize, 1)
  if (a.shape[2] === 0 || a.shape[3] === 0)
    throw new ShapeError(`adaptiveAvgPool2d: nothing to average in ${showShape(a.shape)}`)
  const out = empty(a.dtype, [...a.shape.slice(0, 2), h, w], a.device)
  native.adaptiveAvgPool2d(planesOf(out), planesOf(gapless(a, a.dtype)))
  return taped('adaptiveAvgPool2d', out, [a], (grad) => {
    const da = emptyLike(a, a.dtype)
    native.adaptiveAvgPool2dGrad(planesOf(da), planesOf(gapless(grad, a.dtype)))
    return [da]
  })
}
