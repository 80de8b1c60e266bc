/** Gradient clipping, in place, before an optimizer's step. Nothing here waits for a value: the factor stays a tensor. */
import { ArgumentError, show } from '../core/errors'
import { checkNumber } from '../core/shape'
import { native } from '../native/call'
import { abs, add, clamp, div, maximum, mul, pow } from '../ops/arithmetic'
import { expandView } from '../ops/op'
import { max, sum } from '../ops/reduce'
import { cast, sqrt } from '../ops/unary'
import { noGrad, scope } from '../tensor/context'
import { empty, Tensor } from '../tensor/tensor'
import { checkGrad } from './optimizer'

function gradsOf(op: string, parameters: Iterable<Tensor>): Tensor[] {
  if (parameters instanceof Tensor || typeof parameters?.[Symbol.iterator] !== 'function') {
    throw new ArgumentError(`${op}: parameters must be a list of tensors, got ${show(parameters)}`)
  }
  return [...parameters].flatMap((p) => (p.grad ? [checkGrad(op, p, p.grad)] : []))
}

/**
 * Scales all gradients by one factor so that the norm of all of them together is at most `maxNorm`: the factor is
 * min(1, maxNorm / (norm + 1e-6)), as in PyTorch. The norm is computed in float32.
 *
 * @param parameters those without a gradient are passed over
 * @param options.normType p of the norm, Infinity for the largest magnitude; default 2
 * @returns the norm before clipping, a float32 tensor of one element
 */
export function clipGradNorm(
  parameters: Iterable<Tensor>,
  maxNorm: number,
  options: { normType?: number } = {},
): Tensor<'float32'> {
  const grads = gradsOf('clipGradNorm', parameters)
  if (!(checkNumber('clipGradNorm', 'maxNorm', maxNorm) >= 0))
    throw new ArgumentError(`clipGradNorm: maxNorm must be >= 0, got ${maxNorm}`)
  const p = checkNumber('clipGradNorm', 'normType', options.normType ?? 2)
  if (!(p > 0)) throw new ArgumentError(`clipGradNorm: normType must be > 0, got ${p}`)
  return noGrad(() =>
    scope(() => {
      const norm = totalNorm(grads, p)
      const factor = clamp(div(maxNorm, add(norm, 1e-6)), null, 1) as Tensor
      for (const grad of grads) native.mul(grad, grad, expandView(cast(factor, grad.dtype), grad.shape))
      return norm
    }),
  )
}

function totalNorm(grads: readonly Tensor[], p: number): Tensor<'float32'> {
  let total: Tensor<'float32'> = empty('float32', [], (grads[0] as Tensor).device)
  native.fill(total, 0)
  for (const grad of grads) {
    const g = cast(grad, 'float32')
    if (p === Number.POSITIVE_INFINITY) total = maximum(total, max(abs(g)))
    else total = add(total, sum(p === 2 ? mul(g, g) : pow(abs(g), p)))
  }
  if (p === Number.POSITIVE_INFINITY) return total
  return p === 2 ? sqrt(total) : pow(total, 1 / p)
}

/** Multiplies every gradient by a number, in place. */
export function scaleGrad(parameters: Iterable<Tensor>, factor: number): void {
  const grads = gradsOf('scaleGrad', parameters)
  for (const grad of grads) {
    const by = empty(grad.dtype, [], grad.device)
    native.fill(by, factor)
    native.mul(grad, grad, expandView(by, grad.shape))
    by.dispose()
  }
}

/** Clamps every element of every gradient to [-clipValue, clipValue]. */
export function clipGradValue(parameters: Iterable<Tensor>, clipValue: number): void {
  const grads = gradsOf('clipGradValue', parameters)
  if (!(checkNumber('clipGradValue', 'clipValue', clipValue) >= 0)) {
    throw new ArgumentError(`clipGradValue: clipValue must be >= 0, got ${clipValue}`)
  }
  for (const grad of grads) native.clamp(grad, grad, -clipValue, clipValue)
}
