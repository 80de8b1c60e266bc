// Elementwise ops of one, two or many tensors, and casts.
import {
  abs,
  add,
  cast,
  ceil,
  clamp,
  clone,
  cos,
  div,
  eq,
  erf,
  exp,
  floor,
  ge,
  gt,
  le,
  log,
  lt,
  maximum,
  minimum,
  mul,
  ne,
  neg,
  pow,
  round,
  sign,
  sin,
  sqrt,
  sub,
  type Tensor,
  tanh,
  where,
} from 'kerf'
import { isFloat } from '#lib/core/dtype'
import { map } from '../../oracle/array'
import { type Adapters, binary, exact, NUMPY_ULPS, roundings, ulps, unary, variadic } from '../adapter'
import type { Call } from '../call'
import { dtypeOf, typeName } from '../model'
import { Skip } from '../skip'

/** ONNX divides integers as C does; kerf gives the quotient as a float. */
function divide(a: Tensor, b: Tensor): Tensor {
  const out = div(a, b)
  return isFloat(a.dtype) ? out : cast(out, a.dtype)
}

/** ONNX's result has the base's dtype; kerf gives floats. */
function power(a: Tensor, b: Tensor): Tensor {
  const out = pow(a, b)
  return isFloat(a.dtype) ? out : cast(out, a.dtype)
}

function clip(call: Call): Tensor {
  return clamp(
    call.input(0),
    call.scalar(1, call.number('min', -Infinity)),
    call.scalar(2, call.number('max', Infinity)),
  )
}

function isInf(call: Call): Tensor {
  const x = call.input(0)
  const infinities = [
    ...(call.flag('detect_positive', true) ? [Infinity] : []),
    ...(call.flag('detect_negative', true) ? [-Infinity] : []),
  ]
  return infinities.map((infinity) => eq(x, infinity)).reduce((a, b) => add(a, b))
}

function castTo(call: Call, type: number): Tensor {
  const from = call.given[0]?.type as number
  if ([from, type].some((code) => typeName(code) === 'double')) throw new Skip('kerf has no double')
  return cast(call.input(0), dtypeOf(type))
}

export const elementwise: Adapters = {
  Identity: exact(unary(clone)),
  Cast: exact((call) => castTo(call, call.number('to', 0))),
  CastLike: exact((call) => castTo(call, call.given[1]?.type as number)),

  Abs: exact(unary(abs)),
  Neg: exact(unary(neg)),
  Sign: exact(unary(sign)),
  Floor: exact(unary(floor)),
  Ceil: exact(unary(ceil)),
  Round: exact(unary(round)),
  Reciprocal: exact(unary((x) => div(1, x))),
  Sqrt: exact(unary(sqrt)),
  // kerf's functions are within 2 ulp
  Exp: ulps(2 + NUMPY_ULPS, unary(exp)),
  Log: ulps(2 + NUMPY_ULPS, unary(log)),
  Sin: ulps(2 + NUMPY_ULPS, unary(sin)),
  Cos: ulps(2 + NUMPY_ULPS, unary(cos)),
  Tanh: ulps(2 + NUMPY_ULPS, unary(tanh)),
  Erf: ulps(2 + 0.5, unary(erf)), // the expected one is a rounded float64
  // Three functions of kerf's in one: each with its ulps, and one more for the last step.
  Tan: ulps(
    2 + 2 + 1 + NUMPY_ULPS,
    unary((x) => div(sin(x), cos(x))),
  ),
  Cosh: ulps(
    2 + 1 + NUMPY_ULPS,
    unary((x) => mul(add(exp(x), exp(neg(x))), 0.5)),
  ),
  Sinh: roundings(
    2 * (2 + 1 + NUMPY_ULPS), // an ulp is at most two roundings
    (call) => map(call.values(0), Math.cosh),
    unary((x) => mul(sub(exp(x), exp(neg(x))), 0.5)),
  ),

  Add: exact(binary(add)),
  Sub: exact(binary(sub)),
  Mul: exact(binary(mul)),
  Div: exact(binary(divide)),
  Pow: ulps(2 + NUMPY_ULPS, binary(power)),
  Max: exact(variadic(maximum)),
  Min: exact(variadic(minimum)),
  Sum: exact(variadic(add)),
  Mean: exact((call) =>
    div(
      call.inputs().reduce((a, b) => add(a, b)),
      call.given.length,
    ),
  ),

  Equal: exact(binary(eq)),
  Less: exact(binary(lt)),
  LessOrEqual: exact(binary(le)),
  Greater: exact(binary(gt)),
  GreaterOrEqual: exact(binary(ge)),
  IsNaN: exact(unary((x) => ne(x, x))),
  IsInf: exact(isInf),
  Where: exact((call) => where(call.input(0), call.input(1), call.input(2))),
  Clip: exact(clip),

  // on bool tensors: mul is and, add is or
  And: exact(binary(mul)),
  Or: exact(binary(add)),
  Xor: exact(binary(ne)),
  Not: exact(unary((x) => eq(x, false))),
}
