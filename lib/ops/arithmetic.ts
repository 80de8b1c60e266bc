/** Elementwise functions of two tensors: arithmetic, comparisons, where, clamp. Broadcasting and promotion as in PyTorch. */
import { type DType, type FloatDType, type FloatOf, floatOf, isFloat, type Promote, promote } from '../core/dtype'
import { ArgumentError, DTypeError, show } from '../core/errors'
import { broadcastShapes, checkNumber, sameShape } from '../core/shape'
import { native, type View } from '../native/call'
import type { TapeNode } from '../tensor/tape'
import { copyTo } from '../tensor/tensor'
import { arg, converted, empty, emptyLike, expandView, needsGrad, type Tensor, taped } from './op'
import { sumTo } from './reduce'
import { log, sign } from './unary'

/** The dtype of tensor-with-number: the tensor's own, or float32 when an integer tensor meets a fraction. */
export type WithNumber<D extends DType> = NumberTable[D]
type NumberTable = {
  [D in DType]: D extends FloatDType ? D : D extends 'bool' ? 'bool' | 'int64' | 'float32' : D | 'float32'
}
/** Promotion where either side may be a plain number. */
export type Mixed<A, B> =
  A extends Tensor<infer X>
    ? B extends Tensor<infer Y>
      ? Promote<X, Y>
      : WithNumber<X>
    : B extends Tensor<infer Y>
      ? WithNumber<Y>
      : never
export type Operand = Tensor | number | boolean
type NativeBinary = (out: View, a: View, b: View) => void

/** A number beside a tensor takes the tensor's dtype if that can hold it. */
function dtypeBeside(other: DType, value: number | boolean): DType {
  if (isFloat(other) || typeof value === 'boolean') return other
  if (!Number.isInteger(value)) return 'float32'
  return other === 'bool' ? 'int64' : other
}

function scalar(op: string, name: string, value: unknown, beside: Tensor, other: DType = beside.dtype): Tensor {
  if (typeof value !== 'number' && typeof value !== 'boolean') {
    throw new ArgumentError(`${op}: ${name} must be a tensor or a number, got ${show(value)}`)
  }
  const out = empty(dtypeBeside(other, value), [], beside.device)
  native.fill(out, Number(value))
  return out
}

function isNumber(value: unknown): value is number | boolean {
  return typeof value === 'number' || typeof value === 'boolean'
}

/** Both operands as tensors. At least one must be one. */
function operands(op: string, a: Operand, b: Operand): [Tensor, Tensor] {
  if (isNumber(a)) {
    const y = arg(op, 'b', b as Tensor)
    return [scalar(op, 'a', a, y), y]
  }
  const x = arg(op, 'a', a)
  return [x, isNumber(b) ? scalar(op, 'b', b, x) : arg(op, 'b', b)]
}

function apply(op: string, call: NativeBinary, x: Tensor, y: Tensor, compute: DType, result: DType): Tensor {
  const shape = sameShape(x.shape, y.shape) ? x.shape : broadcastShapes(op, x.shape, y.shape)
  const out = empty(result, shape, x.device)
  call(out, expandView(converted(x, compute), shape), expandView(converted(y, compute), shape))
  return out
}

/** The gradient of an operand that may have been broadcast and promoted: summed back and converted back. */
function backTo(grad: Tensor, operand: Tensor): Tensor {
  return converted(sumTo(grad, operand.shape), operand.dtype)
}

type Rule = (grad: Tensor, x: Tensor, y: Tensor, out: Tensor) => readonly [() => Tensor, () => Tensor]

function binary(op: string, call: NativeBinary, a: Operand, b: Operand, rule: Rule, toFloat = false): Tensor {
  const [x, y] = operands(op, a, b)
  const common = promote(x.dtype, y.dtype)
  const dtype = toFloat ? floatOf(common) : common
  const out = apply(op, call, x, y, dtype, dtype)
  if (!needsGrad([x, y])) return out
  const vjp: TapeNode['vjp'] = (grad) => {
    const [dx, dy] = rule(grad, x, y, out)
    return [x.requiresGrad ? backTo(dx(), x) : null, y.requiresGrad ? backTo(dy(), y) : null]
  }
  return taped(op, out, [x, y], vjp)
}

/** a + b. On two bool tensors: or. */
export function add<A extends Operand, B extends Operand>(a: A, b: B): Tensor<Mixed<A, B>> {
  const call: NativeBinary = isBool(a) && isBool(b) ? native.maximum : native.add
  return binary('add', call, a, b, (g) => [() => g, () => g]) as Tensor<Mixed<A, B>>
}

/** a - b. Not defined for two bool tensors. */
export function sub<A extends Operand, B extends Operand>(a: A, b: B): Tensor<Mixed<A, B>> {
  if (isBool(a) && isBool(b)) throw new DTypeError('sub: not defined for two bool tensors: use ne')
  return binary('sub', native.sub, a, b, (g) => [() => g, () => neg(g)]) as Tensor<Mixed<A, B>>
}

/** a * b. On two bool tensors: and. */
export function mul<A extends Operand, B extends Operand>(a: A, b: B): Tensor<Mixed<A, B>> {
  const call: NativeBinary = isBool(a) && isBool(b) ? native.minimum : native.mul
  return binary('mul', call, a, b, (g, x, y) => [() => mul(g, y), () => mul(g, x)]) as Tensor<Mixed<A, B>>
}

/** a / b, as a float: integers are divided as float32. */
export function div<A extends Operand, B extends Operand>(a: A, b: B): Tensor<FloatOf<Mixed<A, B>>> {
  const rule: Rule = (g, _x, y, out) => [() => div(g, y), () => neg(div(mul(g, out), y))]
  return binary('div', native.div, a, b, rule, true) as Tensor<FloatOf<Mixed<A, B>>>
}

/** a to the power b, as a float (integers are computed as float32). The gradient of b is out * log(a). */
export function pow<A extends Operand, B extends Operand>(a: A, b: B): Tensor<FloatOf<Mixed<A, B>>> {
  const rule: Rule = (g, x, y, out) => [
    () => mul(g, mul(y, pow(x, sub(y, 1)))),
    // where a = 0 the limit of out * log(a) is 0 for b > 0
    () => mul(g, where(eq(out, 0), 0, mul(out, log(x)))),
  ]
  return binary('pow', native.pow, a, b, rule, true) as Tensor<FloatOf<Mixed<A, B>>>
}

// Equal elements share the gradient half and half, as in PyTorch.
function pick(grad: Tensor, x: Tensor, y: Tensor, sideOf: typeof gt): Tensor {
  return mul(grad, add(mul(converted(sideOf(x, y), grad.dtype), 1), mul(converted(eq(x, y), grad.dtype), 0.5)))
}

/** The larger of two elements; NaN if either is NaN. */
export function maximum<A extends Operand, B extends Operand>(a: A, b: B): Tensor<Mixed<A, B>> {
  const rule: Rule = (g, x, y) => [() => pick(g, x, y, gt), () => pick(g, x, y, lt)]
  return binary('maximum', native.maximum, a, b, rule) as Tensor<Mixed<A, B>>
}

/** The smaller of two elements; NaN if either is NaN. */
export function minimum<A extends Operand, B extends Operand>(a: A, b: B): Tensor<Mixed<A, B>> {
  const rule: Rule = (g, x, y) => [() => pick(g, x, y, lt), () => pick(g, x, y, gt)]
  return binary('minimum', native.minimum, a, b, rule) as Tensor<Mixed<A, B>>
}

function isBool(a: Operand): boolean {
  return typeof a === 'boolean' || (typeof a === 'object' && a?.dtype === 'bool')
}

function compare(op: string, call: NativeBinary, a: Operand, b: Operand): Tensor<'bool'> {
  const [x, y] = operands(op, a, b)
  return apply(op, call, x, y, promote(x.dtype, y.dtype), 'bool') as Tensor<'bool'>
}

/** a == b, elementwise. NaN equals nothing. */
export function eq(a: Operand, b: Operand): Tensor<'bool'> {
  return compare('eq', native.eq, a, b)
}

/** a != b, elementwise. */
export function ne(a: Operand, b: Operand): Tensor<'bool'> {
  return compare('ne', native.ne, a, b)
}

/** a < b, elementwise. */
export function lt(a: Operand, b: Operand): Tensor<'bool'> {
  return compare('lt', native.lt, a, b)
}

/** a <= b, elementwise. */
export function le(a: Operand, b: Operand): Tensor<'bool'> {
  return compare('le', native.le, a, b)
}

/** a > b, elementwise. */
export function gt(a: Operand, b: Operand): Tensor<'bool'> {
  return compare('gt', native.gt, a, b)
}

/** a >= b, elementwise. */
export function ge(a: Operand, b: Operand): Tensor<'bool'> {
  return compare('ge', native.ge, a, b)
}

/** condition ? a : b, elementwise; all three broadcast. `condition` is a bool tensor (another dtype: not zero). */
export function where<A extends Operand, B extends Operand>(condition: Tensor, a: A, b: B): Tensor<Mixed<A, B>> {
  const c = converted(arg('where', 'condition', condition), 'bool')
  const [x, y] = isNumber(a) && isNumber(b) ? numbers(a, b, c) : operands('where', a, b)
  const dtype = promote(x.dtype, y.dtype)
  const shape = broadcastShapes('where', broadcastShapes('where', c.shape, x.shape), y.shape)
  const out = empty(dtype, shape, c.device)
  native.where(
    out,
    expandView(c, shape),
    expandView(converted(x, dtype), shape),
    expandView(converted(y, dtype), shape),
  )
  return taped('where', out, [x, y], (grad) => [
    x.requiresGrad ? backTo(where(c, grad, 0), x) : null,
    y.requiresGrad ? backTo(where(c, 0, grad), y) : null,
  ]) as Tensor as Tensor<Mixed<A, B>>
}

function numbers(a: number | boolean, b: number | boolean, beside: Tensor): [Tensor, Tensor] {
  return [scalar('where', 'a', a, beside, 'float32'), scalar('where', 'b', b, beside, 'float32')]
}

/**
 * Limits every element to [min, max]; either may be left out. NaN stays NaN. The gradient is 1 inside the range (its
 * ends included), 0 outside.
 */
export function clamp<D extends DType>(a: Tensor<D>, min?: number | null, max?: number | null): Tensor<D> {
  const x = arg('clamp', 'a', a)
  const low = min === undefined || min === null ? -Infinity : checkNumber('clamp', 'min', min)
  const high = max === undefined || max === null ? Infinity : checkNumber('clamp', 'max', max)
  const out = emptyLike(x, x.dtype)
  native.clamp(out, x, low, high)
  return taped('clamp', out, [x], (grad) => [mul(grad, converted(mul(ge(x, low), le(x, high)), grad.dtype))])
}

/** -a. Not defined for bool. */
export function neg<D extends DType>(a: Tensor<D>): Tensor<D> {
  const x = arg('neg', 'a', a)
  if (x.dtype === 'bool') throw new DTypeError('neg: not defined for bool')
  const out = emptyLike(x, x.dtype)
  native.neg(out, x)
  return taped('neg', out, [x], (grad) => [neg(grad)])
}

/** |a|. The gradient at 0 is 0. */
export function abs<D extends DType>(a: Tensor<D>): Tensor<D> {
  const x = arg('abs', 'a', a)
  if (x.dtype === 'bool') return copyTo(x, x.dtype)
  const out = emptyLike(x, x.dtype)
  native.abs(out, x)
  return taped('abs', out, [x], (grad) => [mul(grad, sign(x)) as Tensor])
}
