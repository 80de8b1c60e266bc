/** quantize: a float tensor as a QuantizedTensor, by the range of its values. */
import { ArgumentError, ShapeError, show } from '../core/errors'
import {
  type Convention,
  checkGranularity,
  conventions,
  type Granularity,
  integerRange,
  LARGEST_FLOAT32,
  perTensor,
  type QuantDType,
  SMALLEST_FLOAT32,
  scaleShape,
} from '../core/quantization'
import { checkAxis } from '../core/shape'
import { abs, clamp, div, eq, gt, le, maximum, minimum, neg, sub, where } from '../ops/arithmetic'
import { zeros } from '../ops/create'
import { pad } from '../ops/join'
import { arg, checkDTypeOf, converted } from '../ops/op'
import { packInt4, roundTo } from '../ops/quantize'
import { max, min } from '../ops/reduce'
import { reshape } from '../ops/shape'
import { round } from '../ops/unary'
import { noGrad, scope } from '../tensor/context'
import { QuantizedTensor } from '../tensor/quantized'
import type { Tensor } from '../tensor/tensor'

export interface QuantizeOptions {
  /** Default 'int8'. */
  dtype?: QuantDType
  /** Which elements share a scale; default perTensor. */
  granularity?: Granularity
  /** Default 'narrow' for int8, 'extreme' for int4, 'affine' for unsigned formats. */
  convention?: Convention
}

export interface Scales {
  scale: Tensor<'float32'>
  zeroPoint: Tensor<'int32'> | null
  qmin: number
  qmax: number
}

/** The convention that a format has unless another is asked for. */
export function conventionOf(op: string, dtype: QuantDType, wanted?: Convention): Convention {
  const convention = wanted ?? (dtype.startsWith('u') ? 'affine' : dtype === 'int4' ? 'extreme' : 'narrow')
  if (!conventions.includes(convention))
    throw new ArgumentError(`${op}: convention must be ${conventions.join(' ')}, got ${show(wanted)}`)
  if (dtype.startsWith('u') && convention !== 'affine')
    throw new ArgumentError(`${op}: the convention '${convention}' needs a signed format, got ${dtype}`)
  return convention
}

/** The least and largest value of everything that shares a scale: two tensors of the scales' shape. */
function ranges(op: string, x: Tensor<'float32'>, g: Granularity): [Tensor<'float32'>, Tensor<'float32'>] {
  const both = (t: Tensor<'float32'>, axes: number[] | null): [Tensor<'float32'>, Tensor<'float32'>] => [
    min(t, axes),
    max(t, axes),
  ]
  if (x.size === 0) {
    const none = zeros(scaleShape(op, g, x.shape), { device: x.device })
    return [none, none]
  }
  switch (g.kind) {
    case 'tensor':
      return both(x, null)
    case 'token':
      return both(x, [x.rank - 1])
    case 'channel': {
      const axis = checkAxis(op, g.axis, x.rank)
      return both(
        x,
        x.shape.map((_, i) => i).filter((i) => i !== axis),
      )
    }
    case 'group': {
      const n = x.shape[x.rank - 1] as number
      const groups = Math.ceil(n / g.size)
      // A shorter last group is filled up with zeros, which lie in every range that is used.
      const rest = groups * g.size - n
      const whole = rest === 0 ? x : pad(x, [0, rest])
      const [low, high] = both(reshape(whole, [x.size / n, groups, g.size]), [2])
      const own = scaleShape(op, g, x.shape)
      return [reshape(low, own), reshape(high, own)]
    }
  }
}

/** Scale and zero point of each range, by a convention, in float32 (core/quantization.ts has the formulas). */
export function scalesOf(
  low: Tensor<'float32'>,
  high: Tensor<'float32'>,
  dtype: QuantDType,
  convention: Convention,
): Scales {
  const { qmin, qmax } = integerRange(dtype)
  if (convention === 'affine') {
    const from = minimum(low, 0)
    const to = maximum(high, 0)
    const width = sub(to, from)
    const scale = usable(div(width, qmax - qmin), width)
    const zero = round(clamp(sub(qmin, div(from, scale)), qmin, qmax))
    return { scale, zeroPoint: converted(zero, 'int32'), qmin, qmax }
  }
  const amax = maximum(neg(low), high)
  const limits = { qmin: convention === 'narrow' ? -qmax : qmin, qmax }
  const scale =
    convention === 'extreme'
      ? div(where(gt(high, neg(low)), high, low), qmin)
      : convention === 'noClip'
        ? maximum(div(low, qmin), div(high, qmax))
        : div(amax, convention === 'narrow' ? qmax : qmax + 0.5)
  return { scale: usable(scale, amax), zeroPoint: null, ...limits }
}

/** 1 for zeros only, the smallest float32 for a few subnormals, NaN where the range is not finite. */
function usable(scale: Tensor, width: Tensor): Tensor<'float32'> {
  const positive = where(eq(scale, 0), where(eq(width, 0), 1, SMALLEST_FLOAT32), scale)
  return where(le(abs(positive), LARGEST_FLOAT32), positive, Number.NaN) as Tensor<'float32'>
}

/**
 * Quantizes a tensor by the range of its own values. Nothing is waited for: the work is enqueued like any op's.
 *
 * A scale of zeros only, or of no elements, is 1. A NaN, an infinity or a range too wide for a float32 scale makes what
 * shares the scale NaN.
 *
 * @param x float
 */
export function quantize(x: Tensor, options: QuantizeOptions = {}): QuantizedTensor {
  const op = 'quantize'
  const a = arg(op, 'x', x)
  checkDTypeOf(op, 'x', a, ['float32', 'float16', 'bfloat16'])
  const dtype = options.dtype ?? 'int8'
  if (!['int8', 'uint8', 'int4', 'uint4'].includes(dtype))
    throw new ArgumentError(`${op}: dtype must be int8, uint8, int4 or uint4, got ${show(dtype)}`)
  const granularity = checkGranularity(op, options.granularity ?? perTensor, a.rank)
  const convention = conventionOf(op, dtype, options.convention)
  if (dtype.endsWith('4') && a.rank === 0) throw new ShapeError(`${op}: ${dtype} needs at least one axis`)
  const parts = noGrad(() =>
    scope(() => {
      const [low, high] = ranges(op, converted(a, 'float32'), granularity)
      return quantizeBy(op, a, scalesOf(low, high, dtype, convention), dtype, granularity)
    }),
  )
  return new QuantizedTensor(parts)
}

/** A tensor by scales that are known: the parts of a QuantizedTensor. */
export function quantizeBy(op: string, x: Tensor, by: Scales, dtype: QuantDType, granularity: Granularity) {
  const four = dtype.endsWith('4')
  const stored = dtype.startsWith('u') ? 'uint8' : 'int8'
  const { scale, zeroPoint, qmin, qmax } = by
  const bytes = roundTo(op, x, { scale, zeroPoint, spread: granularity }, { dtype: stored, low: qmin, high: qmax })
  const values = (four ? packInt4(bytes as Tensor<'int8'>) : bytes) as Tensor<'int8'>
  return { shape: x.shape, dtype, granularity, values, scale, zeroPoint }
}
