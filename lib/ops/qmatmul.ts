/** Products of bytes: exact int32 sums, and ONNX's operators on them. */
import type { DType } from '../core/dtype'
import { ArgumentError, DTypeError, ShapeError } from '../core/errors'
import { showGranularity } from '../core/quantization'
import { broadcastShapes, type Shape, showShape, sizeOf } from '../core/shape'
import { native, type View } from '../native/call'
import { qpackedBytesCuda } from '../native/cuda'
import { addon, targetName } from '../native/load'
import type { DeviceName } from '../tensor/device'
import { type Made, QuantizedTensor } from '../tensor/quantized'
import { copyTo, keep } from '../tensor/tensor'
import { arg, checkDTypeOf, converted, empty, expandView, type Tensor } from './op'
import { reshape } from './shape'

export type ByteDType = 'int8' | 'uint8'
export const isByte = (dtype: DType): dtype is ByteDType => dtype === 'int8' || dtype === 'uint8'

/** Sums stay below 2^31 up to these inner sizes: 255 * 128 * k, and with a zero point of B 255 * 255 * k. */
const MAX_INNER = 65_793
const MAX_INNER_WITH_ZERO = 33_025

export function checkInner(op: string, k: number, withZero: boolean): void {
  const most = withZero ? MAX_INNER_WITH_ZERO : MAX_INNER
  if (k > most)
    throw new ShapeError(
      `${op}: the inner size ${k} could overflow int32: at most ${most}${withZero ? ' with a zero point of b' : ''}`,
    )
}

/** @internal How the kernel gets bytes out of a (native/core/kernels.h: Quantize). */
export const quantizeCode = { none: 0, uint8: 1, int8: 2, tensor: 3, token: 4 } as const

/** @internal */
export interface BytesProduct {
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

/** @internal The one place that calls the addon. */
export function multiply(out: View, p: BytesProduct): void {
  const code = quantizeCode[p.quantize ?? 'none']
  // biome-ignore format: the parameters of ops.def
  native.qmatmul(
    out, p.a, code, p.aScale ?? null, p.aZero ?? null, p.multiplier ?? null, p.packed,
    p.bScale ?? null, p.bZero ?? null, p.outScale ?? null, p.outZero ?? null, p.bias ?? null, p.activation ?? 0,
  )
}

export function noKernel(op: string): never {
  throw new DTypeError(`${op}: no int8 kernel on ${targetName()}`)
}

/** @internal B [k, n] reordered for the kernel. */
export function packBytes(op: string, b: View, device: DeviceName): Tensor<'uint8'> {
  const [k, n] = b.shape as [number, number]
  const size = device === 'cpu' ? addon.qpackedBytes(k, n) : qpackedBytesCuda(k, n)
  if (size < 0) noKernel(op)
  const packed = empty('uint8', [size], device)
  native.qpack(packed, b)
  return packed
}

/** @internal The zero point of the packed int8 values, beside them: uint8 is packed as int8, 128 less. */
export function packedZero(values: Tensor, zeroPoint: Tensor | null): Tensor<'int32'> | null {
  if (values.dtype === 'int8') return zeroPoint && converted(zeroPoint, 'int32')
  const shifted = empty('int32', zeroPoint?.shape ?? [], values.device)
  const shift = empty('int32', [], values.device)
  native.fill(shift, zeroPoint ? 128 : -128)
  if (!zeroPoint) return shift
  native.sub(shifted, converted(zeroPoint, 'int32'), expandView(shift, shifted.shape))
  return shifted
}

type Packed = NonNullable<Made['packed']>

/** @internal Packed once; anew for another row of kernels, or when another form is asked for. */
export function packedOnce(
  w: QuantizedTensor,
  form: Packed['form'],
  pack: () => Pick<Packed, 'packed' | 'zero'>,
): Packed {
  const target = targetName()
  const known = w.made.packed
  if (known && known.target === target && known.form === form) return known
  known?.packed.dispose()
  known?.zero?.dispose()
  const { packed, zero } = pack()
  // It outlives the scope that is open now; a zero point may be w's own.
  const own = zero && (zero === w.zeroPoint ? copyTo(zero, 'int32') : zero)
  w.made.packed = { target, form, packed: keep(packed), zero: own && keep(own) }
  return w.made.packed
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

/** @internal One element as [], or [n], contiguous int32. */
export function checkZero(
  op: string,
  name: string,
  zero: Tensor | null | undefined,
  n: number,
): Tensor<'int32'> | null {
  if (!zero) return null
  checkDTypeOf(op, name, arg(op, name, zero), ['int8', 'uint8', 'int32'])
  if (zero.size !== 1 && !(zero.rank === 1 && zero.shape[0] === n))
    throw new ShapeError(`${op}: ${name} must have one element or be [${n}], it is ${showShape(zero.shape)}`)
  const whole = converted(zero, 'int32')
  const flat = whole.contiguous ? whole : copyTo(whole, 'int32')
  return zero.size === 1 ? (reshape(flat, []) as Tensor<'int32'>) : flat
}

/** @internal One element as [], or [n], contiguous float32. */
export function checkScale(op: string, name: string, scale: Tensor, n: number): Tensor<'float32'> {
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
  /** b, if it is packed already; its zero point is then that of what is packed. */
  packed?: Packed
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
  const { finish, packed: ready } = sides
  const bZero = ready ? ready.zero : packedZero(b, sides.bZero)
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
    const out = empty(dtype, [rows, n], a.device)
    multiply(out, { a: reshape(a, [rows, k]), packed: ready?.packed ?? packBytes(op, b, b.device), ...rest })
    return reshape(out, [...a.shape.slice(0, -1), n])
  }
  const batch = broadcastShapes(op, a.shape.slice(0, -2), b.shape.slice(0, -2))
  const out = empty(dtype, [...batch, m, n], a.device)
  const left = matrices(expandView(a, [...batch, m, k]), batch)
  const right = matrices(expandView(b, [...batch, k, n]), batch)
  let packed: Tensor | null = ready?.packed ?? (b.rank === 2 ? packBytes(op, b, b.device) : null)
  for (const target of matrices(out, batch)) {
    const y = right.next().value as View
    if (b.rank > 2) {
      packed?.dispose()
      packed = packBytes(op, y, b.device)
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

interface RightSide {
  values: Tensor
  scale: Tensor | null
  zeroPoint: Tensor | null
  packed?: Packed
}

/** b and what belongs to it: the tensors that were given, or what a quantized matrix holds. */
function rightSide(
  op: string,
  b: Tensor | QuantizedTensor,
  given: { bScale?: Tensor | null; bZeroPoint?: Tensor | null },
): RightSide {
  const { bScale = null, bZeroPoint = null } = given
  if (!(b instanceof QuantizedTensor)) return { values: checkOperand(op, 'b', b), scale: bScale, zeroPoint: bZeroPoint }
  b.checkLive(op)
  for (const [name, tensor] of Object.entries(given))
    if (tensor) throw new ArgumentError(`${op}: ${name} must not be given for a quantized b: it has its own`)
  if (b.rank !== 2) throw new ShapeError(`${op}: a quantized b must be [k, n], it is ${showShape(b.shape)}`)
  const { granularity: g, values, scale, zeroPoint } = b
  const columns = g.kind === 'channel' && (g.axis === 1 || g.axis === -1)
  if (b.bits !== 8 || (g.kind !== 'tensor' && !columns)) {
    throw new DTypeError(
      `${op}: a quantized b must be int8 or uint8 per tensor or per channel(1), it is ${b.dtype} ${showGranularity(g)}`,
    )
  }
  const pack = () => ({ packed: packBytes(op, values, values.device), zero: packedZero(values, zeroPoint) })
  return { values, scale, zeroPoint, packed: packedOnce(b, 'columns', pack) }
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
 * A tensor b is packed for the kernel on every call, a QuantizedTensor once: weights should be one. Its zero point counts;
 * its scale does not, the sums are integers.
 *
 * @param a int8 or uint8 [..., m, k]
 * @param b int8 or uint8 [..., k, n]; or a QuantizedTensor of them, [k, n] per tensor or per channel(1)
 * @param aZeroPoint one element or [m]; default 0
 * @param bZeroPoint one element or [n]; default 0; none for a QuantizedTensor
 * @returns int32 [..., m, n]
 * @throws ShapeError for k above 65,793, or 33,025 when b is uint8 or has a zero point: int32 could overflow
 */
export function matmulInteger(
  a: Tensor,
  b: Tensor | QuantizedTensor,
  aZeroPoint?: Tensor | null,
  bZeroPoint?: Tensor | null,
): Tensor<'int32'> {
  const op = 'matmulInteger'
  const left = checkOperand(op, 'a', a)
  const { values, zeroPoint, packed } = rightSide(op, b, { bZeroPoint })
  return withVectors(left, values, (x, y) => {
    const aZero = checkZero(op, 'aZeroPoint', aZeroPoint, x.shape[x.rank - 2] as number)
    const bZero = checkZero(op, 'bZeroPoint', zeroPoint, y.shape[y.rank - 1] as number)
    return batched(op, x, y, { aZero, bZero, packed }, 'int32')
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
 * @param a int8 or uint8 [..., m, k]; its scale and zero point have one element, or [m]
 * @param b int8 or uint8 [..., k, n]; its scale and zero point have one element, or [n]. Or a QuantizedTensor [k, n] per
 * tensor or per channel(1), packed once, with null for both
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
): Tensor<D>
export function qlinearMatmul<D extends ByteDType>(
  a: Tensor,
  aScale: Tensor,
  aZeroPoint: Tensor | null,
  b: QuantizedTensor,
  bScale: null,
  bZeroPoint: null,
  yScale: Tensor,
  yZeroPoint: Tensor<D>,
): Tensor<D>
export function qlinearMatmul<D extends ByteDType>(
  a: Tensor,
  aScale: Tensor,
  aZeroPoint: Tensor | null,
  b: Tensor | QuantizedTensor,
  bScale: Tensor | null,
  bZeroPoint: Tensor | null,
  yScale: Tensor,
  yZeroPoint: Tensor<D>,
): Tensor<D> {
  const op = 'qlinearMatmul'
  checkDTypeOf(op, 'yZeroPoint', arg(op, 'yZeroPoint', yZeroPoint), ['int8', 'uint8'])
  const left = checkOperand(op, 'a', a)
  const right = rightSide(op, b, { bScale, bZeroPoint })
  return withVectors(left, right.values, (x, y) => {
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
      bScale: checkScale(op, 'bScale', right.scale as Tensor, n),
      outScale: checkScale(op, 'yScale', yScale, 1),
      outZero: checkZero(op, 'yZeroPoint', yZeroPoint, 1),
    }
    const bZero = checkZero(op, 'bZeroPoint', right.zeroPoint, n)
    return batched(op, x, y, { aZero: zero, bZero, packed: right.packed, finish }, yZeroPoint.dtype)
  })
}

/** @internal One element read as many. */
export function expandedTo<D extends DType>(t: Tensor<D>, shape: Shape): Tensor<D> {
  return t.view(
    'expand',
    shape,
    shape.map(() => 0),
    t.offset,
  )
}
