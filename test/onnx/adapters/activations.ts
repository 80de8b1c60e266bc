// Activations: kerf's own, and those that its elementwise ops express.
import { abs, add, clamp, div, exp, gt, log1p, lt, maximum, minimum, mul, neg, relu, sigmoid, sub, where } from 'kerf'
import { map, type Nd } from '../../oracle/array'
import { type Adapters, exact, NUMPY_ULPS, roundings, ulps, unary } from '../adapter'
import type { Call } from '../call'

/** Sizes that follow from the input alone. */
const ofInput = (f: (x: number, call: Call) => number) => (call: Call) => map(call.values(0), (x) => f(x, call))
/** e^x on both sides, then a difference and two products: an ulp is at most two roundings. */
const EXP = 2 * (2 + NUMPY_ULPS + 3)

export const activations: Adapters = {
  Relu: exact(unary(relu)),
  // numpy's 1 / (1 + e^-x): the ulps of e^-x and three roundings
  Sigmoid: ulps(2 + NUMPY_ULPS + 2, unary(sigmoid)),
  LeakyRelu: exact((call) => {
    const x = call.input(0)
    return where(lt(x, 0), mul(x, call.number('alpha', 0.01)), x)
  }),
  PRelu: exact((call) => {
    const x = call.input(0)
    return where(lt(x, 0), mul(x, call.input(1)), x)
  }),
  ThresholdedRelu: exact((call) => {
    const x = call.input(0)
    return where(gt(x, call.number('alpha', 1)), x, 0)
  }),
  Shrink: exact((call) => {
    const x = call.input(0)
    const edge = call.number('lambd', 0.5)
    const bias = call.number('bias', 0)
    return where(lt(x, -edge), add(x, bias), where(gt(x, edge), sub(x, bias), 0))
  }),
  Elu: roundings(
    EXP,
    ofInput((x, call) => Math.max(x, call.number('alpha', 1))),
    (call) => {
      const x = call.input(0)
      return where(lt(x, 0), mul(sub(exp(x), 1), call.number('alpha', 1)), x)
    },
  ),
  Celu: roundings(
    EXP,
    ofInput((x, call) => Math.max(x, call.number('alpha', 1))),
    (call) => {
      const x = call.input(0)
      const alpha = call.number('alpha', 1)
      return add(maximum(x, 0), minimum(mul(sub(exp(div(x, alpha)), 1), alpha), 0))
    },
  ),
  Selu: roundings(
    EXP,
    ofInput((x, call) => Math.max(x, selu(call).alpha) * selu(call).gamma),
    (call) => {
      const x = call.input(0)
      const { alpha, gamma } = selu(call)
      return mul(where(lt(x, 0), mul(sub(exp(x), 1), alpha), x), gamma)
    },
  ),
  HardSigmoid: roundings(
    4,
    ofInput((x, call) => Math.abs(x * call.number('alpha', 0.2)) + Math.abs(call.number('beta', 0.5))),
    (call) => clamp(add(mul(call.input(0), call.number('alpha', 0.2)), call.number('beta', 0.5)), 0, 1),
  ),
  HardSwish: roundings(
    8,
    ofInput((x) => Math.abs(x) * (Math.abs(x) / 6 + 0.5)),
    unary((x) => mul(x, clamp(add(div(x, 6), 0.5), 0, 1))),
  ),
  // numpy's log(e^x + 1) rounds the sum to units of 1, however small the result is
  Softplus: roundings(
    EXP,
    (_call, want): Nd => map(want, (y) => 1 + y),
    unary((x) => add(log1p(exp(neg(abs(x)))), relu(x))),
  ),
  Softsign: ulps(
    2,
    unary((x) => div(x, add(abs(x), 1))),
  ),
}

function selu(call: Call) {
  return { alpha: call.number('alpha', 1.6732632), gamma: call.number('gamma', 1.050701) }
}
