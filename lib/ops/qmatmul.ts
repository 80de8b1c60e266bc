/** Products of small integers: exact int32 sums, ONNX's operators, and layers whose weights are a QuantizedTensor. */
import { checkDType, type DType } from '../core/dtype'
import { ArgumentError, DTypeError, ShapeError, show } from '../core/errors'
import { perChannel, perTensor, showGranularity } from '../core/quantization'
import { broadcastShapes, type Shape, showShape, sizeOf } from '../core/shape'
import { native, type View } from '../native/call'
import { addon, targetName } from '../native/load'
import { QuantizedTensor } from '../tensor/quantized'
import { copyTo } from '../tensor/tensor'
import { type ActivationName, activationCode, beforeActivation, biasRow, checkBias, needsInput } from './epilogue'
import { arg, checkDTypeOf, converted, empty, expandView, needsGrad, type Tensor, taped } from './op'
import { bytesOf, dequantize, packInt4 } from './quantize'
import { sum } from './reduce'
import { reshape, transpose } from './shape'
import { gelu, silu } from './unary'

export type ByteDType = 'int8' | 'uint8'
export const isByte = (dtype: DType): dtype is ByteDType => dtype === 'int8' || dtype === 'uint8'

/** Sums stay below 2^31 up to these inner sizes: 255 * 128 * k, and with a zero point of B 255 * 255 * k. */
const MAX_INNER = 65_793
const MAX_INNER_WITH_ZERO = 33_025

function checkInner(op: string, k: number, withZero: boolean): void {
  const most = withZero ? MAX_INNER_WITH_ZERO : MAX_INNER
  if (k > most)
    throw new ShapeError(
      `${op}: the inner size ${k} could overflow int32: at most ${most}${withZero ? ' with a zero point of b' : ''}`,
    )
}

/** How the kernel gets bytes out of a (native/core/kernels.h: Quantize). */
const quantizeCode = { none: 0, uint8: 1, int8: 2, tensor: 3, token: 4 } as const

interface BytesProduct {
  /** [m, k]. */
  a: View
  quantize?: keyof typeof quantizeCode
  aScale?: View | null
  aZero?: View | null
  multiplier?: View | null
  packed: Tensor
  bScale?: View | null
  /** Of what is packed: 128 less for uint8. */
  bZero?: View | null
  outScale?: View | null
  outZero?: View | null
  bias?: View | null
  activation?: number
}

/** The one place that calls the addon. */
function multiply(out: View, p: BytesProduct): void {
  const code = quantizeCode[p.quantize ?? 'none']
  // biome-ignore format: the parameters of ops.def
  native.qmatmul(
    out, p.a, code, p.aScale ?? null, p.aZero ?? null, p.multiplier ?? null, p.packed,
    p.bScale ?? null, p.bZero ?? null, p.outScale ?? null, p.outZero ?? null, p.bias ?? null, p.activation ?? 0,
  )
}

function noKernel(op: string): never {
  throw new DTypeError(`${op}: no int8 kernel on ${targetName()}`)
}

/** B [k, n] reordered for the kernel. */
function packBytes(op: string, b: View): Tensor<'uint8'> {
  const size = addon.qpackedBytes(b.shape[0] as number, b.shape[1] as number)
  if (size < 0) noKernel(op)
  const packed = empty('uint8', [size])
  native.qpack(packed, b)
  return packed
}

/** The zero point of the packed int8 values: uint8 is packed as int8, 128 less. */
function packedZero(dtype: DType, zeroPoint: Tensor | null): Tensor<'int32'> | null {
  if (dtype === 'int8') return zeroPoint && converted(zeroPoint, 'int32')
  const shifted = empty('int32', zeroPoint?.shape ?? [])
  const shift = empty('int32', [])
  native.fill(shift, zeroPoint ? 128 : -128)
  if (!zeroPoint) return shift
  native.sub(shifted, converted(zeroPoint, 'int32'), expandView(shift, shifted.shape))
  return shifted
}

/** The matrices of a batch, one after the other. */
function* matrices(view: View, batch: Shape): Generator<View> {
  const rank = view.shape.length
  const [rows, cols] = view.shape.slice(-2) as [number, number]
  const strides = view.strides.slice(-2)
  for (let i = 0; i < sizeOf(batch); i++) {
    let rest = i
    let offset = view.offset
    for (let axis = rank - 3; axis >= 0; axis--) {
      const n = batch[axis] as number
      offset += (rest % n) * (view.strides[axis] as number)
      rest = Math.floor(rest / n)
    }
    yield { buffer: view.buffer, code: view.code, shape: [rows, cols], strides, offset }
  }
}

function checkZero(op: string, name: string, zero: Tensor | null | undefined, n: number): Tensor<'int32'> | null {
  if (!zero) return null
  checkDTypeOf(op, name, arg(op, name, zero), ['int8', 'uint8', 'int32'])
  if (zero.size !== 1 && !(zero.rank === 1 && zero.shape[0] === n))
    throw new ShapeError(`${op}: ${name} must have one element or be [${n}], it is ${showShape(zero.shape)}`)
  const whole = converted(zero, 'int32')
  const flat = whole.contiguous ? whole : copyTo(whole, 'int32')
  return zero.size === 1 ? (reshape(flat, []) as Tensor<'int32'>) : flat
}

function checkScale(op: string, name: string, scale: Tensor, n: number): Tensor<'float32'> {
  checkDTypeOf(op, name, arg(op, name, scale), ['float32', 'float16', 'bfloat16'])
  if (scale.size !== 1 && !(scale.rank === 1 && scale.shape[0] === n))
    throw new ShapeError(`${op}: ${name} must have one element or be [${n}], it is ${showShape(scale.shape)}`)
  const whole = converted(scale, 'float32')
  const flat = whole.contiguous ? whole : copyTo(whole, 'float32')
  return scale.size === 1 ? (reshape(flat, []) as Tensor<'float32'>) : flat
}

interface Sides {
  aZero: Tensor<'int32'> | null
  bZero: Tensor<'int32'> | null
  /** What to make of the sums; none for int32. */
  finish?: {
    aScale: Tensor<'float32'>
    bScale: Tensor<'float32'>
    outScale: Tensor<'float32'>
    outZero: Tensor<'int32'> | null
  }
}

/** a [..., m, k] by b [..., k, n], batches broadcast. */
function batched<D extends DType>(op: string, a: Tensor, b: Tensor, sides: Sides, dtype: D): Tensor<D> {
  const [m, k] = a.shape.slice(-2) as [number, number]
  const n = b.shape[b.rank - 1] as number
  if (b.shape[b.rank - 2] !== k)
    throw new ShapeError(`${op}: inner sizes differ: a is ${showShape(a.shape)}, b is ${showShape(b.shape)}`)
  checkInner(op, k, sides.bZero !== null || b.dtype === 'uint8')
  const bZero = packedZero(b.dtype, sides.bZero)
  const { finish } = sides
  const rest = {
    aZero: sides.aZero,
    bZero,
    aScale: finish?.aScale ?? null,
    bScale: finish?.bScale ?? null,
    outScale: finish?.outScale ?? null,
    outZero: finish?.outZero ?? null,
  }
  const perRow = (sides.aZero?.rank ?? 0) > 0 || (finish?.aScale.rank ?? 0) > 0
  if (b.rank === 2 && a.rank > 2 && !perRow) {
    // Batches over one matrix are more rows of it.
    const rows = sizeOf(a.shape.slice(0, -1))
    const out = empty(dtype, [rows, n])
    multiply(out, { a: reshape(a, [rows, k]), packed: packBytes(op, b), ...rest })
    return reshape(out, [...a.shape.slice(0, -1), n])
  }
  const batch = broadcastShapes(op, a.shape.slice(0, -2), b.shape.slice(0, -2))
  const out = empty(dtype, [...batch, m, n])
  const left = matrices(expandView(a, [...batch, m, k]), batch)
  const right = matrices(expandView(b, [...batch, k, n]), batch)
  let packed: Tensor | null = b.rank === 2 ? packBytes(op, b) : null
  for (const target of matrices(out, batch)) {
    const y = right.next().value as View
    if (b.rank > 2) {
      packed?.dispose()
      packed = packBytes(op, y)
    }
    multiply(target, { a: left.next().value as View, packed: packed as Tensor, ...rest })
  }
  return out
}

function checkOperand(op: string, name: string, x: Tensor): Tensor {
  const t = arg(op, name, x)
  checkDTypeOf(op, name, t, ['int8', 'uint8'])
  if (t.rank === 0) throw new ShapeError(`${op}: ${name} needs at least one axis`)
  return t
}

/** Vectors as matrices: one on the left is a row, on the right a column; those axes are dropped from the result. */
function withVectors<D extends DType>(a: Tensor, b: Tensor, product: (a: Tensor, b: Tensor) => Tensor<D>): Tensor<D> {
  const left = a.rank === 1 ? reshape(a, [1, a.size]) : a
  const right = b.rank === 1 ? reshape(b, [b.size, 1]) : b
  const out = product(left, right)
  if (a.rank > 1 && b.rank > 1) return out
  const shape = [...out.shape]
  if (b.rank === 1) shape.pop()
  if (a.rank === 1) shape.splice(b.rank === 1 ? shape.length - 1 : shape.length - 2, 1)
  return reshape(out, shape)
}

/**
 * ONNX's MatMulInteger: the exact product of (a - aZeroPoint) and (b - bZeroPoint) over the last two axes; the axes before
 * them broadcast.
 *
 * @param a int8 or uint8 [..., m, k]
 * @param b int8 or uint8 [..., k, n]
 * @param aZeroPoint one element or [m]; default 0
 * @param bZeroPoint one element or [n]; default 0
 * @returns int32 [..., m, n]
 * @throws ShapeError for k above 65,793, or 33,025 when b is uint8 or has a zero point: int32 could overflow
 */
export function matmulInteger(
  a: Tensor,
  b: Tensor,
  aZeroPoint?: Tensor | null,
  bZeroPoint?: Tensor | null,
): Tensor<'int32'> {
  const op = 'matmulInteger'
  return withVectors(checkOperand(op, 'a', a), checkOperand(op, 'b', b), (x, y) => {
    const aZero = checkZero(op, 'aZeroPoint', aZeroPoint, x.shape[x.rank - 2] as number)
    const bZero = checkZero(op, 'bZeroPoint', bZeroPoint, y.shape[y.rank - 1] as number)
    return batched(op, x, y, { aZero, bZero }, 'int32')
  })
}

/** matmul() of bytes: matmulInteger without zero points, under matmul's name. a and b have at least two axes. */
export function matmulBytes(op: string, a: Tensor, b: Tensor): Tensor<'int32'> {
  return batched(op, a, b, { aZero: null, bZero: null }, 'int32')
}

/**
 * ONNX's QLinearMatMul: clip(rint((a - aZero)(b - bZero) * (aScale * bScale / yScale) + yZero)). The zero point is added
 * before rounding.
 *
 * @param a, b int8 or uint8 [..., m, k], [..., k, n]; their scales and zero points have one element, or [m] and [n]
 * @param yZeroPoint one element; its dtype is the result's
 * @returns [..., m, n]
 */
export function qlinearMatmul<D extends ByteDType>(
  a: Tensor,
  aScale: Tensor,
  aZeroPoint: Tensor | null,
  b: Tensor,
  bScale: Tensor,
  bZeroPoint: Tensor | null,
  yScale: Tensor,
  yZeroPoint: Tensor<D>,
): Tensor<D> {
  const op = 'qlinearMatmul'
  checkDTypeOf(op, 'yZeroPoint', arg(op, 'yZeroPoint', yZeroPoint), ['int8', 'uint8'])
  return withVectors(checkOperand(op, 'a', a), checkOperand(op, 'b', b), (x, y) => {
    const m = x.shape[x.rank - 2] as number
    const n = y.shape[y.rank - 1] as number
    const aZero = checkZero(op, 'aZeroPoint', aZeroPoint, m)
    let scale = checkScale(op, 'aScale', aScale, m)
    // One step for both: one row scale beside a row of zero points, or the other way round, is repeated.
    const rows = Math.max(aZero?.rank ?? 0, scale.rank)
    if (rows > scale.rank) scale = copyTo(expandedTo(scale, [m]), 'float32')
    const zero = aZero && rows > aZero.rank ? copyTo(expandedTo(aZero, [m]), 'int32') : aZero
    const finish = {
      aScale: scale,
      bScale: checkScale(op, 'bScale', bScale, n),
      outScale: checkScale(op, 'yScale', yScale, 1),
      outZero: checkZero(op, 'yZeroPoint', yZeroPoint, 1),
    }
    return batched(
      op,
      x,
      y,
      { aZero: zero, bZero: checkZero(op, 'bZeroPoint', bZeroPoint, n), finish },
      yZeroPoint.dtype,
    )
  })
}

function expandedTo<D extends DType>(t: Tensor<D>, shape: Shape): Tensor<D> {
  return t.view(
    'expand',
    shape,
    shape.map(() => 0),
    t.offset,
  )
}

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
   * uint8, or by a given scale. Default: x stays float, at 16 bits (see docs/numerics.md), and only weights are integers.
   */
  quantizeInput?: InputQuantization
  /** float32 [in]: column p of x is multiplied by it before it is quantized (SmoothQuant's 1 / s). With `quantizeInput`. */
  multiplier?: Tensor | null
}

interface Packed {
  target: string
  /** 'bytes' of W^T for qmatmul, or 'weights' for weight-only products. */
  form: 'bytes' | 'weights'
  packed: Tensor<'uint8'>
  zero: Tensor<'int32'> | null
}

const packs = new WeakMap<QuantizedTensor, Packed>()

/** Packed once; anew for another row of kernels, or when the other form is asked for. */
function packedOf(op: string, w: QuantizedTensor, form: Packed['form']): Packed {
  const target = targetName()
  const known = packs.get(w)
  if (known && known.target === target && known.form === form) return known
  known?.packed.dispose()
  const made = form === 'bytes' ? packForBytes(op, w) : packForWeights(op, w)
  const kept: Packed = { target, form, ...made }
  packs.set(w, kept)
  return kept
}

function packForBytes(op: string, w: QuantizedTensor) {
  const rows = w.granularity.kind === 'tensor' || w.granularity.kind === 'token' || isChannel0(w)
  if (w.bits !== 8 || !rows) {
    throw new DTypeError(
      `${op}: quantizeInput needs int8 or uint8 weights per tensor or per channel(0), they are ${w.dtype} ${showGranularity(w.granularity)}`,
    )
  }
  return { packed: packBytes(op, transpose(w.values)), zero: packedZero(w.values.dtype, w.zeroPoint) }
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
  const size = addon.wpackedBytes(inputs, out, w.bits, groups.size, signed, zeros)
  if (size < 0) noKernel(op)
  const packed = empty('uint8', [size])
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
  const a: Tensor = arg(op, 'x', x) as Tensor
  if (!(w instanceof QuantizedTensor)) throw new ArgumentError(`${op}: w must be a QuantizedTensor, got ${show(w)}`)
  w.checkLive(op)
  if (w.rank !== 2) throw new ShapeError(`${op}: w must be [out, in], it is ${showShape(w.shape)}`)
  const [out, inputs] = w.shape as [number, number]
  checkDTypeOf(op, 'x', a, ['float32', 'float16', 'bfloat16'])
  if (a.rank === 0 || a.shape[a.rank - 1] !== inputs)
    throw new ShapeError(
      `${op}: x ${showShape(a.shape)} does not end in the ${inputs} inputs of w ${showShape(w.shape)}`,
    )
  if (bias) checkBias(op, bias, out)
  const { activation, quantizeInput, multiplier = null } = options
  const code = activationCode(op, activation)
  const wanted = options.dtype === undefined ? a.dtype : checkDType(op, options.dtype)
  if (wanted !== a.dtype && wanted !== 'float32')
    throw new DTypeError(`${op}: with quantized weights dtype must be ${a.dtype} or float32, got ${wanted}`)
  const taking = [a, ...(bias ? [bias] : [])]
  const recorded = needsGrad(taking)
  const apart = recorded && needsInput(activation)
  const fused = apart ? 0 : code
  const rows = sizeOf(a.shape.slice(0, -1))
  const result = empty(wanted, [rows, out])
  const flat = reshape(a, [rows, inputs])
  const bias32 = bias ? biasRow(bias) : null
  if (quantizeInput === undefined) {
    if (multiplier) throw new ArgumentError(`${op}: multiplier needs quantizeInput`)
    const { packed } = packedOf(op, w, 'weights')
    const size = groupsOf(op, w).size
    const signed = w.dtype.startsWith('u') ? 0 : 1
    native.wmatmul(result, flat, packed, bias32, fused, w.bits, size, signed, w.zeroPoint ? 1 : 0)
  } else {
    const { packed, zero } = packedOf(op, w, 'bytes')
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
      activation: fused,
    })
  }
  const shaped: Tensor = a.rank === 2 ? result : reshape(result, [...a.shape.slice(0, -1), out])
  if (!recorded) return shaped as Tensor as Tensor<O>
  const before = apart ? undefined : activation
  const tracked = taped(op, shaped, taking, (grad) => {
    const g = converted(beforeActivation(grad, shaped, before), 'float32')
    return [a.requiresGrad ? gradOfInput(g, w, a, multiplier) : null, ...(bias ? [gradOfBias(g, bias)] : [])]
  })
  const activated = apart ? (activation === 'gelu' ? gelu(tracked) : silu(tracked)) : tracked
  return activated as Tensor as Tensor<O>
}

function checkMultiplier(op: string, multiplier: Tensor, inputs: number): Tensor<'float32'> {
  const t = arg(op, 'multiplier', multiplier)
  if (t.dtype !== 'float32' || t.rank !== 1 || t.shape[0] !== inputs)
    throw new ShapeError(`${op}: multiplier must be float32 [${inputs}], it is ${t.dtype} ${showShape(t.shape)}`)
  return (t.contiguous ? t : copyTo(t, 'float32')) as Tensor<'float32'>
}

function inputBytes(op: string, how: InputQuantization): Pick<BytesProduct, 'quantize' | 'aScale' | 'aZero'> {
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

/** g W, for the weights that w stands for: straight through the quantization of x. */
function gradOfInput(g: Tensor, w: QuantizedTensor, x: Tensor, multiplier: Tensor | null): Tensor {
  const [out, inputs] = w.shape as [number, number]
  const rows = sizeOf(g.shape.slice(0, -1))
  const back = empty('float32', [rows, inputs])
  native.matmul(back, reshape(g, [rows, out]), dequantize(w), null, 0)
  if (multiplier) native.mul(back, back, expandView(multiplier, back.shape))
  return converted(reshape(back, x.shape), x.dtype)
}

function gradOfBias(g: Tensor, bias: Tensor): Tensor | null {
  if (!bias.requiresGrad) return null
  const axes = Array.from({ length: g.rank - 1 }, (_, i) => i)
  return converted(sum(g, axes), bias.dtype)
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
  return quantizedLinear(a, transposedOf(op, b), options.bias, options) as Tensor
}

const transposes = new WeakMap<QuantizedTensor, QuantizedTensor>()

/** The transpose as linear()'s weights, made once. */
function transposedOf(op: string, b: QuantizedTensor): QuantizedTensor {
  const known = transposes.get(b)
  if (known && !known.disposed) return known
  const { granularity: g } = b
  const columns = g.kind === 'channel' && (g.axis === 1 || g.axis === -1)
  if (g.kind !== 'tensor' && !columns)
    throw new DTypeError(
      `${op}: a quantized b must be quantized per tensor or per channel(1), not ${showGranularity(g)}; linear() takes weights [out, in] in groups`,
    )
  const bytes = bytesOf(b)
  const turned = copyTo(transpose(bytes as Tensor), bytes.dtype) as Tensor<'int8'>
  const made = new QuantizedTensor({
    shape: [b.shape[1] as number, b.shape[0] as number],
    dtype: b.dtype,
    granularity: columns ? perChannel(0) : perTensor,
    values: b.bits === 4 ? packInt4(turned) : turned,
    scale: copyTo(b.scale, 'float32'),
    zeroPoint: b.zeroPoint && copyTo(b.zeroPoint, 'int32'),
  })
  transposes.set(b, made)
  return made
}
