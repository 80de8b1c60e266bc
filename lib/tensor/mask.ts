/** Masks: elements of a tensor that stay 0 whatever an optimizer does. Known here so that nn and optim both may ask. */
import { native } from '../native/call'
import { changed, empty, type Tensor } from './tensor'

/** What a Parameter is, to an optimizer. */
interface Masked {
  readonly mask: Tensor<'bool'> | null
}

/** The mask of a tensor that has one: true where elements are kept. */
export function maskOf(tensor: Tensor): Tensor<'bool'> | null {
  return (tensor as Tensor & Partial<Masked>).mask ?? null
}

/** Sets the elements that the tensor's mask prunes to 0, NaN ones too, in place; nothing without a mask. */
export function applyMask(tensor: Tensor): void {
  const mask = maskOf(tensor)
  if (mask === null) return
  const zero = empty(tensor.dtype, [], tensor.device)
  native.fill(zero, 0)
  const { buffer, code, offset } = zero
  native.where(tensor, mask, tensor, { buffer, code, shape: tensor.shape, strides: tensor.shape.map(() => 0), offset })
  zero.dispose()
  changed(tensor)
}
