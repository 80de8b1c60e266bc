/**
 * Elementwise functions of one tensor. Those with real values return float: integers and bool are computed as float32.
 * float32 results are within 2 ulp; float16 and bfloat16 are computed in float32 and rounded once.
 */
import { type DType, type FloatOf, floatOf, isFloat } from '../core/dtype'
import { native, type View } from '../native/call'
import { copyTo } from '../tensor/tensor'
import { add, div, mul, neg } from './arithmetic'
import { arg, castTo, converted, emptyLike, overwritten, type Tensor, taped } from './op'

type NativeUnary = (out: View, a: View) => void
type NativeGrad = (out: View, grad: View, saved: View) => void

/** A float function; `rule` gives the gradient of x from that of the result. */
function real<D extends DType>(
  op: string,
  call: NativeUnary,
  a: Tensor<D>,
  rule: (grad: Tensor, x: Tensor, out: Tensor) => Tensor,
): Tensor<FloatOf<D>> {
  const x = arg(op, 'a', a)
  const dtype = floatOf(x.dtype)
  const out = emptyLike(x, dtype)
  call(out, converted(x, dtype))
  return taped(op, out, [x], (grad) => [rule(grad, x, out)])
}

function fused(call: NativeGrad, grad: Tensor, saved: Tensor): Tensor {
  const out = overwritten(grad, saved)
  call(out, grad, saved)
  return out
}

/** e^a. */
export function exp<D extends DType>(a: Tensor<D>): Tensor<FloatOf<D>> {
  return real('exp', native.exp, a, (g, _x, out) => mul(g, out))
}

/** Natural logarithm: -Infinity at 0, NaN below. */
export function log<D extends DType>(a: Tensor<D>): Tensor<FloatOf<D>> {
  return real('log', native.log, a, (g, x) => div(g, x))
}

/** log(1 + a), accurate near 0. */
export function log1p<D extends DType>(a: Tensor<D>): Tensor<FloatOf<D>> {
  return real('log1p', native.log1p, a, (g, x) => div(g, add(x, 1)))
}

/** Square root: NaN below 0. */
export function sqrt<D extends DType>(a: Tensor<D>): Tensor<FloatOf<D>> {
  return real('sqrt', native.sqrt, a, (g, _x, out) => div(g, mul(out, 2)))
}

/** 1 / sqrt(a). */
export function rsqrt<D extends DType>(a: Tensor<D>): Tensor<FloatOf<D>> {
  return real('rsqrt', native.rsqrt, a, (g, _x, out) => mul(g, mul(mul(mul(out, out), out), -0.5)))
}

/** Sine of radians. */
export function sin<D extends DType>(a: Tensor<D>): Tensor<FloatOf<D>> {
  return real('sin', native.sin, a, (g, x) => mul(g, cos(x)))
}

/** Cosine of radians. */
export function cos<D extends DType>(a: Tensor<D>): Tensor<FloatOf<D>> {
  return real('cos', native.cos, a, (g, x) => neg(mul(g, sin(x))))
}

/** Hyperbolic tangent. */
export function tanh<D extends DType>(a: Tensor<D>): Tensor<FloatOf<D>> {
  return real('tanh', native.tanh, a, (g, _x, out) => fused(native.tanhGrad, g, out))
}

/** 1 / (1 + e^-a). */
export function sigmoid<D extends DType>(a: Tensor<D>): Tensor<FloatOf<D>> {
  return real('sigmoid', native.sigmoid, a, (g, _x, out) => fused(native.sigmoidGrad, g, out))
}

/** a / 2 * (1 + erf(a / sqrt(2))): the exact form, PyTorch's default. */
export function gelu<D extends DType>(a: Tensor<D>): Tensor<FloatOf<D>> {
  return real('gelu', native.gelu, a, (g, x) => fused(native.geluGrad, g, converted(x, g.dtype)))
}

/** a * sigmoid(a), also called swish. */
export function silu<D extends DType>(a: Tensor<D>): Tensor<FloatOf<D>> {
  return real('silu', native.silu, a, (g, x) => fused(native.siluGrad, g, converted(x, g.dtype)))
}

/** Gauss error function. */
export function erf<D extends DType>(a: Tensor<D>): Tensor<FloatOf<D>> {
  const slope = 2 / Math.sqrt(Math.PI) // d erf / dx = 2 / sqrt(pi) * e^(-x^2)
  return real('erf', native.erf, a, (g, x) => mul(g, mul(exp(neg(mul(x, x))), slope)))
}

/** max(a, 0); NaN stays NaN. The gradient at 0 is 0. */
export function relu<D extends DType>(a: Tensor<D>): Tensor<D> {
  const x = arg('relu', 'a', a)
  if (x.dtype === 'bool') return copyTo(x, x.dtype)
  const out = emptyLike(x, x.dtype)
  native.relu(out, x)
  return taped('relu', out, [x], (grad) => [fused(native.reluGrad, grad, out)])
}

/** A step function: same dtype, gradient 0 everywhere. */
function step<D extends DType>(op: string, call: NativeUnary, a: Tensor<D>): Tensor<D> {
  const x = arg(op, 'a', a)
  if (!isFloat(x.dtype) && op !== 'sign') return copyTo(x, x.dtype)
  const out = emptyLike(x, x.dtype)
  call(out, x)
  return taped(op, out, [x], (grad) => [mul(grad, 0)])
}

/** -1, 0 or 1; NaN stays NaN. */
export function sign<D extends DType>(a: Tensor<D>): Tensor<D> {
  return step('sign', native.sign, a)
}

/** The largest whole number <= a. */
export function floor<D extends DType>(a: Tensor<D>): Tensor<D> {
  return step('floor', native.floor, a)
}

/** The smallest whole number >= a. */
export function ceil<D extends DType>(a: Tensor<D>): Tensor<D> {
  return step('ceil', native.ceil, a)
}

/** The nearest whole number, halves to even. */
export function round<D extends DType>(a: Tensor<D>): Tensor<D> {
  return step('round', native.round, a)
}

/** The tensor in another dtype (PyTorch's casts; out of range saturates, NaN becomes 0 for integers). */
export function cast<D extends DType>(a: Tensor, dtype: D): Tensor<D> {
  return castTo(arg('cast', 'a', a), dtype)
}
