/** linear() and matmul() whose weights are a QuantizedTensor. */
import type { DType } from '../core/dtype'
import { ArgumentError, DTypeError, ShapeError, show } from '../core/errors'
import { perChannel, perTensor, showGranularity } from '../core/quantization'
import { showShape } from '../core/shape'
import { native } from '../native/call'
import { wpackedBytesCuda } from '../native/cuda'
import { addon } from '../native/load'
import { QuantizedTensor } from '../tensor/quantized'
import { copyTo } from '../tensor/tensor'
import type { ActivationName } from './epilogue'
import { checkDTypeOf, empty, live, type Tensor, transposedView } from './op'
import { productWithWeights } from './product-with-weights'
import {
  type ByteDType,
  type BytesProduct,
  checkInner,
  checkScale,
  checkZero,
  expandedTo,
  multiply,
  noKernel,
  packBytes,
  packedOnce,
  packedZero,
} from './qmatmul'
import { bytesOf, dequantize, packInt4 } from './quantize'
import { reshape } from './shape'

/** How the input of an int8 layer becomes bytes. */
export type InputQuantization =
  | 'tensor'
  | 'token'
  | {
      /** One element. */
      scale: Tensor
      /** One element; default 0. */
      zeroPoint?: Tensor | null
      /** Default uint8. */
      dtype?: ByteDType
    }

export interface QuantizedLinearOptions<O extends DType = DType> {
  /** Applied after the bias, in float32. */
  activation?: ActivationName
  /** The result's dtype: x's (default) or float32. */
  dtype?: O
  /**
   * Multiplies bytes by bytes: x is quantized on the way, by the range of all of it ('tensor') or of each row ('token') to
   * uint8, or by a given scale (infinities are clipped then, NaN is the lowest value). Default: x stays float, at 16 bits
   * (see docs/numerics.md), and only weights are integers.
   */
  quantizeInput?: InputQuantization
  /** float32 [in]: column p of x is multiplied by it before it is quantized (SmoothQuant's 1 / s). With `quantizeInput`. */
  multiplier?: Tensor | null
}

const floats: readonly DType[] = ['float32', 'float16', 'bfloat16']

function packForBytes(op: string, w: QuantizedTensor) {
  const rows = w.granularity.kind === 'tensor' || w.granularity.kind === 'token' || isChannel0(w)
  if (w.bits !== 8 || !rows) {
    throw new DTypeError(
      `${op}: quantizeInput needs int8 or uint8 weights per tensor or per channel(0), they are ${w.dtype} ${showGranularity(w.granularity)}`,
    )
  }
  return { packed: packBytes(op, transposedView(w.values), w.device), zero: packedZero(w.values, w.zeroPoint) }
}

const isChannel0 = (w: QuantizedTensor) =>
  w.granularity.kind === 'channel' && (w.granularity.axis === 0 || w.granularity.axis === -2)

/** Group size along the inputs, and scales (or zero points) as [out, groups]. */
function groupsOf(op: string, w: QuantizedTensor): { size: number; of: <D extends DType>(t: Tensor<D>) => Tensor<D> } {
  const [out, inputs] = w.shape as [number, number]
  const whole = Math.max(inputs, 1)
  switch (w.granularity.kind) {
    case 'group':
      return { size: Math.min(w.granularity.size, whole), of: (t) => t }
    case 'tensor':
      return { size: whole, of: (t) => copyTo(expandedTo(t, [out, 1]), t.dtype) as typeof t }
    case 'token':
      return { size: whole, of: (t) => reshape(t, [out, 1]) }
    default:
      if (isChannel0(w)) return { size: whole, of: (t) => reshape(t, [out, 1]) }
      throw new DTypeError(`${op}: weights must be quantized along their inputs, not ${showGranularity(w.granularity)}`)
  }
}

function packForWeights(op: string, w: QuantizedTensor) {
  const [out, inputs] = w.shape as [number, number]
  const groups = groupsOf(op, w)
  const zeros = w.zeroPoint ? 1 : 0
  const signed = w.dtype.startsWith('u') ? 0 : 1
  const size =
    w.device === 'cpu'
      ? addon.wpackedBytes(inputs, out, w.bits, groups.size, signed, zeros)
      : wpackedBytesCuda(inputs, out, w.bits, groups.size, zeros === 1 || signed === 0)
  if (size < 0) noKernel(op)
  const packed = empty('uint8', [size], w.values.device)
  const zero = w.zeroPoint && groups.of(w.zeroPoint)
  if (inputs > 0) native.wpack(packed, w.values, groups.of(w.scale), zero, inputs, w.bits, groups.size, signed)
  return { packed, zero: null }
}

/**
 * linear() with quantized weights: x times the transpose of what `w` stands for, plus bias.
 *
 * @param x float [..., in]
 * @param w [out, in]: int8, uint8, int4 or uint4 per tensor, per channel(0) or per group; with `quantizeInput` int8 or uint8
 * per tensor or per channel(0)
 * @param bias float [out]
 * @returns [..., out]; gradients flow to x and bias, straight through the quantization of x
 */
export function quantizedLinear<A extends DType, O extends DType = A>(
  x: Tensor<A>,
  w: QuantizedTensor,
  bias?: Tensor | null,
  options: QuantizedLinearOptions<O> = {},
): Tensor<O> {
  const op = 'linear'
  const a = live(op, 'x', x)
  if (!(w instanceof QuantizedTensor)) throw new ArgumentError(`${op}: w must be a QuantizedTensor, got ${show(w)}`)
  w.checkLive(op)
  if (w.rank !== 2) throw new ShapeError(`${op}: w must be [out, in], it is ${showShape(w.shape)}`)
  checkDTypeOf(op, 'x', a, floats)
  if (a.rank === 0 || a.shape[a.rank - 1] !== w.shape[1])
    throw new ShapeError(
      `${op}: x ${showShape(a.shape)} does not end in the ${w.shape[1]} inputs of w ${showShape(w.shape)}`,
    )
  return product(op, a, w, bias, options)
}

/** x [..., in] by w [out, in]; `op` is who asks. */
function product<O extends DType>(
  op: string,
  a: Tensor,
  w: QuantizedTensor,
  bias: Tensor | null | undefined,
  options: QuantizedLinearOptions<O>,
): Tensor<O> {
  const [out, inputs] = w.shape as [number, number]
  const { activation, quantizeInput, multiplier = null } = options
  if (multiplier && quantizeInput === undefined) throw new ArgumentError(`${op}: multiplier needs quantizeInput`)
  return productWithWeights({
    ...{ op, kind: 'quantized', x: a, outFeatures: out, bias: bias ?? null, activation, dtype: options.dtype },
    ...{ multiplier, dense: () => dequantize(w) },
    run(result, flat, bias32, code) {
      if (quantizeInput === undefined) {
        const { packed } = packedOnce(w, 'weights', () => packForWeights(op, w))
        const size = groupsOf(op, w).size
        const signed = w.dtype.startsWith('u') ? 0 : 1
        native.wmatmul(result, flat, packed, bias32, code, w.bits, size, signed, w.zeroPoint ? 1 : 0)
        return
      }
      const { packed, zero } = packedOnce(w, 'bytes', () => packForBytes(op, w))
      checkInner(op, inputs, zero !== null)
      const bScale = w.scale.rank > 0 && out === 1 ? reshape(w.scale, []) : w.scale
      multiply(result, {
        a: flat,
        ...inputBytes(op, quantizeInput),
        multiplier: multiplier && checkMultiplier(op, multiplier, inputs),
        packed,
        bScale,
        bZero: zero && zero.size === 1 ? reshape(zero, []) : zero,
        bias: bias32,
        activation: code,
      })
    },
  }) as Tensor as Tensor<O>
}

/** @internal */
export function checkMultiplier(op: string, multiplier: Tensor, inputs: number): Tensor<'float32'> {
  const t = live(op, 'multiplier', multiplier)
  if (t.dtype !== 'float32' || t.rank !== 1 || t.shape[0] !== inputs)
    throw new ShapeError(`${op}: multiplier must be float32 [${inputs}], it is ${t.dtype} ${showShape(t.shape)}`)
  return (t.contiguous ? t : copyTo(t, 'float32')) as Tensor<'float32'>
}

/** @internal */
export function inputBytes(op: string, how: InputQuantization): Pick<BytesProduct, 'quantize' | 'aScale' | 'aZero'> {
  if (how === 'tensor' || how === 'token') return { quantize: how }
  if (typeof how !== 'object' || how === null)
    throw new ArgumentError(
      `${op}: quantizeInput must be 'tensor', 'token' or { scale, zeroPoint, dtype }, got ${show(how)}`,
    )
  const dtype = how.dtype ?? 'uint8'
  if (dtype !== 'uint8' && dtype !== 'int8')
    throw new DTypeError(`${op}: quantizeInput.dtype must be int8 or uint8, got ${show(dtype)}`)
  return {
    quantize: dtype,
    aScale: checkScale(op, 'quantizeInput.scale', how.scale, 1),
    aZero: checkZero(op, 'quantizeInput.zeroPoint', how.zeroPoint, 1),
  }
}

/**
 * matmul() with a quantized matrix on the right: a times what `b` stands for.
 *
 * @param b [k, n], quantized per tensor or per channel(1)
 */
export function matmulQuantized(
  op: string,
  a: Tensor,
  b: QuantizedTensor,
  options: { bias?: Tensor | null; activation?: ActivationName; dtype?: DType },
): Tensor {
  b.checkLive(op)
  if (b.rank !== 2) throw new ShapeError(`${op}: a quantized b must be [k, n], it is ${showShape(b.shape)}`)
  checkDTypeOf(op, 'a', a, floats)
  if (a.rank === 0 || a.shape[a.rank - 1] !== b.shape[0])
    throw new ShapeError(`${op}: inner sizes differ: a is ${showShape(a.shape)}, b is ${showShape(b.shape)}`)
  return product(op, a, transposedOf(op, b), options.bias, options)
}

/** The transpose as linear()'s weights, made once. */
function transposedOf(op: string, b: QuantizedTensor): QuantizedTensor {
  if (b.made.transposed) return b.made.transposed
  const { granularity: g } = b
  const columns = g.kind === 'channel' && (g.axis === 1 || g.axis === -1)
  if (g.kind !== 'tensor' && !columns)
    throw new DTypeError(
      `${op}: a quantized b must be quantized per tensor or per channel(1), not ${showGranularity(g)}; linear() takes weights [out, in] in groups`,
    )
  const bytes = bytesOf(b)
  const shape = [b.shape[1] as number, b.shape[0] as number]
  const turned = empty(bytes.dtype as 'int8', shape, bytes.device)
  native.copy(turned, transposedView(bytes))
  const made = new QuantizedTensor({
    shape,
    dtype: b.dtype,
    granularity: columns ? perChannel(0) : perTensor,
    values: b.bits === 4 ? packInt4(turned) : turned,
    scale: copyTo(b.scale, 'float32'),
    zeroPoint: b.zeroPoint && copyTo(b.zeroPoint, 'int32'),
  })
  b.made.transposed = made
  return made
}
