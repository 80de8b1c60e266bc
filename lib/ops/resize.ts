/** Images of another size. */
import type { DType } from '../core/dtype'
import { ArgumentError, ShapeError, show } from '../core/errors'
import { checkPair, type Pair } from '../core/pair'
import { checkShape, showShape } from '../core/shape'
import { native } from '../native/call'
import { empty, emptyLike, gapless, type Tensor, taped } from './op'
import { checkImage, planesOf } from './pooling'

export interface ResizeOptions {
  /** [h, w] of the result, or one number for both. */
  size?: Pair
  /** Or what both sizes, or [h, w], are multiplied by, rounded down. */
  scale?: number | readonly [number, number]
  /** Default 'nearest'. */
  mode?: 'nearest' | 'bilinear'
  /** Bilinear: the corner pixels' centres stay where they are, instead of the image's edges; default false. */
  alignCorners?: boolean
}

/** The codes of core/kernels.h. */
const modes = { nearest: 0, bilinear: 1, corners: 2 }

interface Axis {
  out: number
  /** Input lines for an output line: num / den. */
  num: number
  den: number
}

function checkScale(scale: unknown): [number, number] {
  const pair = typeof scale === 'number' ? [scale, scale] : scale
  if (Array.isArray(pair) && pair.length === 2 && pair.every((s) => typeof s === 'number' && s > 0 && s < 2 ** 24))
    return pair as [number, number]
  throw new ArgumentError(`resize: scale must be a number above 0 or [height, width], got ${show(scale)}`)
}

function axesOf(a: Tensor, { size, scale }: ResizeOptions): [Axis, Axis] {
  const inputs = a.shape.slice(2) as [number, number]
  if ((size === undefined) === (scale === undefined))
    throw new ArgumentError(`resize: either size or scale must be given, got ${show(size)} and ${show(scale)}`)
  if (size !== undefined) {
    const [h, w] = checkPair('resize', 'size', size, 1)
    return [
      { out: h, num: inputs[0], den: h },
      { out: w, num: inputs[1], den: w },
    ]
  }
  const [down, right] = checkScale(scale)
  return [
    { out: Math.floor(inputs[0] * down), num: 1, den: down },
    { out: Math.floor(inputs[1] * right), num: 1, den: right },
  ]
}

/**
 * The image in another size, as PyTorch's interpolate. Output line o lies at input line o * in / out ('nearest', rounded
 * down), at (o + 0.5) * in / out - 0.5 ('bilinear'), or at o * (in - 1) / (out - 1) (with alignCorners); where `scale` is
 * given, 1 / scale stands for in / out. Bilinear means the weighted mean of the four pixels around; nothing is smoothed
 * when an image shrinks.
 *
 * @param x [n, channels, h, w] of a float dtype
 * @throws ArgumentError unless exactly one of size and scale is given, or for alignCorners without 'bilinear'
 * @throws ShapeError when x is no image, has no pixels, or none would be left
 */
export function resize<D extends DType>(x: Tensor<D>, options: ResizeOptions): Tensor<D> {
  const a = checkImage('resize', x)
  if (typeof options !== 'object' || options === null)
    throw new ArgumentError(`resize: options must be an object, got ${show(options)}`)
  const { mode = 'nearest', alignCorners = false } = options
  if (mode !== 'nearest' && mode !== 'bilinear')
    throw new ArgumentError(`resize: mode must be 'nearest' or 'bilinear', got ${show(mode)}`)
  if (typeof alignCorners !== 'boolean' || (alignCorners && mode === 'nearest'))
    throw new ArgumentError(`resize: alignCorners must be true (bilinear only) or false, got ${show(alignCorners)}`)
  const axes = axesOf(a, options)
  const shape = checkShape('resize', [...a.shape.slice(0, 2), axes[0].out, axes[1].out])
  if (a.shape[2] === 0 || a.shape[3] === 0 || axes[0].out < 1 || axes[1].out < 1)
    throw new ShapeError(`resize: cannot make ${showShape(shape)} of ${showShape(a.shape)}`)
  const ratios = axes.flatMap(({ out, num, den }, i) =>
    alignCorners ? [out > 1 ? (a.shape[2 + i] as number) - 1 : 0, Math.max(out - 1, 1)] : [num, den],
  ) as [number, number, number, number]
  const code = alignCorners ? modes.corners : modes[mode]
  const out = empty(a.dtype, shape, a.device)
  native.resize(planesOf(out), planesOf(gapless(a, a.dtype)), code, ...ratios)
  return taped('resize', out, [a], (grad) => {
    const da = emptyLike(a, a.dtype)
    native.resizeGrad(planesOf(da), planesOf(gapless(grad, a.dtype)), code, ...ratios)
    return [da]
  })
}
