/** The same values as another tensor. */
import type { DType } from '../core/dtype'
import { copyTo } from '../tensor/tensor'
import { arg, type Tensor, taped } from './op'

/** A copy with bytes of its own, in row-major order. Gradients pass through. */
export function clone<D extends DType>(a: Tensor<D>): Tensor<D> {
  const x = arg('clone', 'a', a)
  return taped('clone', copyTo(x, x.dtype), [x], (grad) => [grad])
}

/** The same bytes without the tape: a view that no gradient passes. */
export function detach<D extends DType>(a: Tensor<D>): Tensor<D> {
  const x = arg('detach', 'a', a)
  return x.view('detach', x.shape, x.strides, x.offset)
}
