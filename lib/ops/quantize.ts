/** Between floats and small integers: ONNX's operators, fake quantization, and what a QuantizedTensor stands for. */
import { type FloatDType, isFloat } from '../core/dtype'
import { ArgumentError, DTypeError, ShapeError, show } from '../core/errors'
import { type Granularity, integerRange, type QuantDType, scaleShape } from '../core/quantization'
import { checkAxis, checkInteger, MAX_RANK, type Shape, sameShape, showShape } from '../core/shape'
import { native, type View } from '../native/call'
import { QuantizedTensor } from '../tensor/quantized'
import { copyTo } from '../tensor/tensor'
import { arg, checkDTypeOf, converted, empty, emptyLike, expandView, type Tensor, taped } from './op'

/** How scales lie along a tensor; a group is a block along the last axis. */
export type Spread = Granularity | { readonly kind: 'block'; readonly axis: number; readonly size: number }

interface Piece {
  /** The piece's part of a view of the whole tensor. */
  of(view: View): View
  /** Scales as a view of the part's shape. */
  along(scales: View): View
}

const withAxes = (v: View, shape: number[], strides: number[], offset = v.offset): View => ({
  buffer: v.buffer,
  code: v.code,
  shape,
  strides,
  offset,
})

/** The tensor in pieces on each of which scales broadcast: one, or two when the last block is shorter. */
function pieces(op: string, spread: Spread, shape: Shape): Piece[] {
  const rank = shape.length
  const last = rank - 1
  const repeated = (strides: (scales: View) => number[]): Piece => ({
    of: (view) => view,
    along: (scales) => withAxes(scales, [...shape], strides(scales)),
  })
  if (spread.kind === 'tensor') return [repeated(() => shape.map(() => 0))]
  if (spread.kind === 'token') return [repeated((s) => [...s.strides, 0])]
  if (spread.kind === 'channel') {
    const axis = checkAxis(op, spread.axis, rank)
    return [repeated((s) => shape.map((_, i) => (i === axis ? (s.strides[0] as number) : 0)))]
  }
  const axis = spread.kind === 'group' ? last : spread.axis
  const { size } = spread
  const whole = Math.floor((shape[axis] as number) / size)
  const rest = (shape[axis] as number) % size
  if (rank === MAX_RANK && whole > 0)
    throw new ShapeError(`${op}: groups need a tensor of at most ${MAX_RANK - 1} axes`)
  const split = (list: readonly number[], ...parts: number[]) => [
    ...list.slice(0, axis),
    ...parts,
    ...list.slice(axis + 1),
  ]
  const at = (view: View) => view.strides[axis] as number
  const found: Piece[] = []
  if (whole > 0) {
    const parts = split(shape, whole, size)
    found.push({
      of: (v) => withAxes(v, parts, split(v.strides, at(v) * size, at(v))),
      along: (s) => withAxes(s, parts, split(s.strides, at(s), 0)),
    })
  }
  if (rest > 0) {
    const parts = split(shape, rest)
    found.push({
      of: (v) => withAxes(v, parts, [...v.strides], v.offset + whole * size * at(v)),
      along: (s) => withAxes(s, parts, split(s.strides, 0), s.offset + whole * at(s)),
    })
  }
  return found
}

/** @internal Rounds to integers of a byte, clipped to [low, high]. */
export function roundTo<D extends 'int8' | 'uint8'>(
  op: string,
  x: Tensor,
  by: { scale: Tensor; zeroPoint: Tensor | null; spread: Spread },
  to: { dtype: D; low: number; high: number },
): Tensor<D> {
  const out = empty(to.dtype, x.shape, x.device)
  for (const piece of pieces(op, by.spread, x.shape)) {
    const zero = by.zeroPoint && piece.along(by.zeroPoint)
    native.quantize(piece.of(out), piece.of(x), piece.along(by.scale), zero, to.low, to.high)
  }
  return out
}

/** @internal What the integers stand for. */
export function expandFrom<D extends FloatDType>(
  op: string,
  values: Tensor,
  by: { scale: Tensor; zeroPoint: Tensor | null; spread: Spread },
  dtype: D,
): Tensor<D> {
  const out = empty(dtype, values.shape, values.device)
  for (const piece of pieces(op, by.spread, values.shape)) {
    native.dequantize(piece.of(out), piece.of(values), piece.along(by.scale), by.zeroPoint && piece.along(by.zeroPoint))
  }
  return out
}

/** @internal Four-bit values, a byte each, as two a byte along the last axis. */
export function packInt4(values: Tensor<'int8'> | Tensor<'uint8'>): Tensor<'uint8'> {
  const n = values.shape[values.rank - 1] as number
  const out = empty('uint8', [...values.shape.slice(0, -1), Math.ceil(n / 2)], values.device)
  native.packInt4(out, values.contiguous ? values : copyTo(values, values.dtype))
  return out
}

/** @internal The values of a quantized tensor, a byte each. */
export function bytesOf(q: QuantizedTensor): Tensor<'int8'> | Tensor<'uint8'> {
  if (q.bits === 8) return q.values
  const out = empty(q.dtype === 'int4' ? 'int8' : 'uint8', q.shape, q.values.device)
  native.unpackInt4(out, q.values)
  return out as Tensor<'int8'>
}

/**
 * The float tensor that a quantized one stands for: (value - zeroPoint) * scale.
 *
 * @returns q's shape, in `dtype` (default float32)
 */
export function dequantize<D extends FloatDType = 'float32'>(q: QuantizedTensor, dtype?: D): Tensor<D> {
  const op = 'dequantize'
  if (!(q instanceof QuantizedTensor)) throw new ArgumentError(`${op}: q must be a QuantizedTensor, got ${show(q)}`)
  q.checkLive(op)
  const to = checkFloat(op, dtype ?? 'float32')
  return expandFrom(op, bytesOf(q), { scale: q.scale, zeroPoint: q.zeroPoint, spread: q.granularity }, to as D)
}

function checkFloat(op: string, dtype: unknown): FloatDType {
  if (typeof dtype === 'string' && isFloat(dtype as FloatDType)) return dtype as FloatDType
  throw new DTypeError(`${op}: dtype must be a float dtype, got ${show(dtype)}`)
}

export interface AxisOptions {
  /** Of a one-dimensional scale, or of the blocks; default 1 (ONNX's). Negative axes count from the end. */
  axis?: number
  /** Neighbours along `axis` that share a scale; scale then has x's rank. Default 0: no blocks. */
  blockSize?: number
}

/** The spread that ONNX means by the shape of a scale, and scale and zero point checked for it. */
function onnxScales(op: string, x: Tensor, scale: Tensor, zeroPoint: Tensor | null | undefined, options: AxisOptions) {
  const s = arg(op, 'scale', scale)
  checkDTypeOf(op, 'scale', s, ['float32', 'float16', 'bfloat16'])
  const block = checkInteger(op, 'blockSize', options.blockSize ?? 0, 0)
  let spread: Spread
  let wanted: number[]
  if (block > 0) {
    const axis = checkAxis(op, options.axis ?? 1, x.rank)
    spread = { kind: 'block', axis, size: block }
    wanted = x.shape.map((n, i) => (i === axis ? Math.ceil(n / block) : n))
  } else if (s.rank === 0 || (s.rank === 1 && s.size === 1)) {
    spread = { kind: 'tensor' }
    wanted = [...s.shape]
  } else {
    const axis = checkAxis(op, options.axis ?? 1, x.rank)
    spread = { kind: 'channel', axis }
    wanted = [x.shape[axis] as number]
  }
  if (!sameShape(s.shape, wanted))
    throw new ShapeError(
      `${op}: scale must be ${showShape(wanted)} for x ${showShape(x.shape)}, it is ${showShape(s.shape)}`,
    )
  if (zeroPoint) {
    arg(op, 'zeroPoint', zeroPoint)
    checkDTypeOf(op, 'zeroPoint', zeroPoint, ['int8', 'uint8', 'int32'])
    if (!sameShape(zeroPoint.shape, s.shape))
      throw new ShapeError(
        `${op}: zeroPoint must be ${showShape(s.shape)} like scale, it is ${showShape(zeroPoint.shape)}`,
      )
  }
  return { scale: converted(s, 'float32'), zeroPoint: zeroPoint ? converted(zeroPoint, 'int32') : null, spread }
}

export interface QuantizeLinearOptions<D extends 'int8' | 'uint8' = 'int8' | 'uint8'> extends AxisOptions {
  /** Of the result; default the zero point's, and uint8 without one (ONNX's). */
  dtype?: D
}

/**
 * ONNX's QuantizeLinear: clip(rint(x / scale) + zeroPoint) with ties to even, into int8 [-128, 127] or uint8 [0, 255].
 * NaN becomes the lowest value.
 *
 * @param x float
 * @param scale one value; [x.shape[axis]]; or with `blockSize` x's shape with ceil(n / blockSize) on `axis`
 * @param zeroPoint of scale's shape, int8 or uint8; default 0
 */
export function quantizeLinear<D extends 'int8' | 'uint8' = 'uint8'>(
  x: Tensor,
  scale: Tensor,
  zeroPoint?: Tensor<D> | null,
  options: QuantizeLinearOptions<D> = {},
): Tensor<D> {
  const op = 'quantizeLinear'
  const a = arg(op, 'x', x)
  checkDTypeOf(op, 'x', a, ['float32', 'float16', 'bfloat16'])
  const by = onnxScales(op, a, scale, zeroPoint, options)
  const dtype = options.dtype ?? zeroPoint?.dtype ?? 'uint8'
  if (dtype !== 'int8' && dtype !== 'uint8')
    throw new DTypeError(`${op}: dtype must be int8 or uint8, got ${show(dtype)}`)
  const { qmin, qmax } = integerRange(dtype)
  return roundTo(op, a, by, { dtype: dtype as D, low: qmin, high: qmax })
}

/**
 * ONNX's DequantizeLinear: (x - zeroPoint) * scale.
 *
 * @param x int8, uint8 or int32
 * @returns x's shape in `dtype`, default float32
 */
export function dequantizeLinear<D extends FloatDType = 'float32'>(
  x: Tensor,
  scale: Tensor,
  zeroPoint?: Tensor | null,
  options: AxisOptions & { dtype?: D } = {},
): Tensor<D> {
  const op = 'dequantizeLinear'
  const a = arg(op, 'x', x)
  checkDTypeOf(op, 'x', a, ['int8', 'uint8', 'int32'])
  const by = onnxScales(op, a, scale, zeroPoint, options)
  return expandFrom(op, a, by, checkFloat(op, options.dtype ?? 'float32') as D)
}

export interface DynamicQuantized {
  /** uint8, x's shape. */
  values: Tensor<'uint8'>
  /** float32 [], or x's shape without the last axis with `perToken`. */
  scale: Tensor<'float32'>
  /** uint8, scale's shape. */
  zeroPoint: Tensor<'uint8'>
}

/**
 * ONNX's DynamicQuantizeLinear: uint8 by the range of the values, widened to hold 0:
 * scale = (max - min) / 255, zeroPoint = rint(clip(-min / scale, 0, 255)). Zeros only: scale 1 / 255. A NaN, an infinity
 * or a width beyond float32 makes the scale NaN.
 *
 * @param options.perToken a range for every row (all axes but the last) instead of one for the tensor
 */
export function dynamicQuantizeLinear(x: Tensor, options: { perToken?: boolean } = {}): DynamicQuantized {
  const op = 'dynamicQuantizeLinear'
  const a = arg(op, 'x', x)
  checkDTypeOf(op, 'x', a, ['float32', 'float16', 'bfloat16'])
  const perToken = options.perToken ?? false
  if (perToken && a.rank === 0) throw new ShapeError(`${op}: perToken needs at least one axis`)
  const shape = perToken ? a.shape.slice(0, -1) : []
  const values = empty('uint8', a.shape, a.device)
  const scale = empty('float32', shape, a.device)
  const zero = empty('int32', shape, a.device)
  if (a.size === 0) {
    native.fill(scale, 1 / 255)
    native.fill(zero, 0)
  } else {
    const flat = a.contiguous ? a : copyTo(a, a.dtype)
    const line = (t: Tensor): View => (a.rank > 0 ? t : expandView(t, [1]))
    native.dynamicQuantize(line(values), scale, zero, line(flat))
  }
  return { values, scale, zeroPoint: copyTo(zero, 'uint8') }
}

/**
 * Rounds to the integers of a quantized format and back: the forward pass of quantization-aware training. The gradient
 * is straight through: 1 where rint(x / scale) + zeroPoint lies within [qmin, qmax], 0 where it was clipped; none flows
 * to scale and zero point.
 *
 * @param x float
 * @param scale of the shape that `granularity` says, float32
 * @param zeroPoint int32, of scale's shape; null for 0
 * @param options.dtype the integers' format, default int8; `qmin` and `qmax` narrow it
 */
export function fakeQuantize<D extends FloatDType>(
  x: Tensor<D>,
  scale: Tensor,
  zeroPoint: Tensor | null = null,
  options: { granularity?: Granularity; dtype?: QuantDType; qmin?: number; qmax?: number } = {},
): Tensor<D> {
  const op = 'fakeQuantize'
  const a = arg(op, 'x', x)
  checkDTypeOf(op, 'x', a, ['float32', 'float16', 'bfloat16'])
  const granularity = options.granularity ?? { kind: 'tensor' }
  const wanted = scaleShape(op, granularity, a.shape)
  const s = arg(op, 'scale', scale)
  if (s.dtype !== 'float32' || !sameShape(s.shape, wanted))
    throw new ShapeError(`${op}: scale must be float32 ${showShape(wanted)}, it is ${s.dtype} ${showShape(s.shape)}`)
  if (zeroPoint && (arg(op, 'zeroPoint', zeroPoint).dtype !== 'int32' || !sameShape(zeroPoint.shape, wanted)))
    throw new ShapeError(
      `${op}: zeroPoint must be int32 ${showShape(wanted)}, it is ${zeroPoint.dtype} ${showShape(zeroPoint.shape)}`,
    )
  const range = integerRange(options.dtype ?? 'int8')
  const low = options.qmin ?? range.qmin
  const high = options.qmax ?? range.qmax
  if (!(Number.isInteger(low) && Number.isInteger(high) && range.qmin <= low && low <= high && high <= range.qmax))
    throw new ArgumentError(
      `${op}: qmin and qmax must be integers in [${range.qmin}, ${range.qmax}], qmin first, got [${show(low)}, ${show(high)}]`,
    )
  const out = emptyLike(a, a.dtype)
  const parts = pieces(op, granularity, a.shape)
  for (const p of parts) native.fakeQuantize(p.of(out), p.of(a), p.along(s), zeroPoint && p.along(zeroPoint), low, high)
  return taped(op, out, [a], (grad) => {
    const back = emptyLike(a, a.dtype)
    for (const p of parts)
      native.fakeQuantizeGrad(p.of(back), p.of(grad), p.of(a), p.along(s), zeroPoint && p.along(zeroPoint), low, high)
    return [back]
  })
}
