/** A tensor that a Module owns and an optimizer changes. */
import { type DType, type FloatDType, isFloat } from '../core/dtype'
import { DTypeError } from '../core/errors'
import { checkTensor, copyTo, keep, Tensor } from '../tensor/tensor'

export class Parameter<D extends DType = DType> extends Tensor<D> {
  /**
   * Shares the bytes of `data` when they are contiguous and copies them otherwise. No scope() disposes a parameter.
   *
   * @param data float32, float16 or bfloat16
   */
  constructor(data: Tensor<D>, options: { requiresGrad?: boolean } = {}) {
    checkTensor('Parameter', 'data', data)
    if (!isFloat(data.dtype)) throw new DTypeError(`Parameter: data must be a float tensor, got ${data.dtype}`)
    const values = data.contiguous ? data : copyTo(data, data.dtype)
    const storage = values.storage('Parameter')
    super(values.dtype, values.shape, values.strides, values.offset, storage)
    storage.refs++
    if (values !== data) values.dispose()
    this.requiresGrad = options.requiresGrad ?? true
    keep(this)
  }
}

/** A parameter that takes over a new tensor's bytes, which nobody else uses. */
export function own<D extends FloatDType>(data: Tensor<D>): Parameter<D> {
  const parameter = new Parameter(data)
  data.dispose()
  return parameter
}
