/** What follows the sums of a product: bias and activation, named by the user, fused by the kernels. */

import { isFloat } from '../core/dtype'
import { ArgumentError, DTypeError, ShapeError, show } from '../core/errors'
import { showShape } from '../core/shape'
import { native } from '../native/call'
import { copyTo } from '../tensor/tensor'
import { converted, live, overwritten, type Tensor } from './op'
import { gelu, silu } from './unary'

export type ActivationName = 'relu' | 'gelu' | 'silu' | 'sigmoid' | 'tanh'
const activations = [undefined, 'relu', 'gelu', 'silu', 'sigmoid', 'tanh'] as const

/** The code that the kernels know an activation by. */
export function activationCode(op: string, activation: unknown): number {
  const code = activations.indexOf(activation as undefined)
  if (code < 0)
    throw new ArgumentError(`${op}: activation must be relu, gelu, silu, sigmoid or tanh, got ${show(activation)}`)
  return code
}

/** Whether an activation's gradient needs the value before it, not only the one after it. */
export const needsInput = (activation: ActivationName | undefined) => activation === 'gelu' || activation === 'silu'

/** The result before one of these with the activation after it, recorded. */
export const activatedApart = (before: Tensor, activation: ActivationName | undefined): Tensor =>
  activation === 'gelu' ? gelu(before) : silu(before)

/** The gradient before the activation, from the one after it and the result. Only for those that need no more. */
export function beforeActivation(grad: Tensor, out: Tensor, activation: ActivationName | undefined): Tensor {
  if (activation === undefined) return grad
  const rule = { relu: native.reluGrad, sigmoid: native.sigmoidGrad, tanh: native.tanhGrad }[activation as 'relu']
  const before = overwritten(grad, out)
  rule(before, grad, out)
  return before
}

/** A bias as users give it: a float tensor [n]. */
export function checkBias(op: string, bias: Tensor, n: number): void {
  live(op, 'bias', bias)
  if (bias.rank !== 1 || bias.shape[0] !== n)
    throw new ShapeError(`${op}: bias must be [${n}], it is ${showShape(bias.shape)}`)
  if (!isFloat(bias.dtype)) throw new DTypeError(`${op}: bias must be a float tensor, it is ${bias.dtype}`)
}

/** The bias as the kernels read it: contiguous float32. */
export function biasRow(bias: Tensor): Tensor<'float32'> {
  const row = converted(bias, 'float32')
  return row.contiguous ? row : copyTo(row, 'float32')
}
