/** Moving tensors between devices. */
import type { DType } from '../core/dtype'
import type { DeviceName } from '../tensor/device'
import { moveTo } from '../tensor/tensor'
import { live, type Tensor, taped } from './op'

/** The tensor on a device: itself when it is there, else a copy. Gradients pass through, and come back to where it was. */
export function toDevice<D extends DType>(a: Tensor<D>, device: DeviceName): Tensor<D> {
  const x = live('to', 'a', a)
  if (x.device === device) return x
  return taped('to', moveTo(x, device), [x], (grad) => [moveTo(grad, x.device)])
}
