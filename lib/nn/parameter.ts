/** A tensor that a Module owns and an optimizer changes. */
import { type DType, type FloatDType, isFloat } from '../core/dtype'
import { DTypeError, ShapeError } from '../core/errors'
import { sameShape, showShape } from '../core/shape'
import { applyMask } from '../tensor/mask'
import { checkTensor, copyTo, keep, Tensor } from '../tensor/tensor'

export class Parameter<D extends DType = DType> extends Tensor<D> {
  #mask: Tensor<'bool'> | null = null

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

  /**
   * Which elements are kept (true) and which are pruned (false), a bool tensor of the parameter's shape; null, the default,
   * prunes none. Pruned elements are set to 0 at once, after every step of an optimizer, and when values are loaded.
   * A module's stateDict() has it as `<name>.mask`. The parameter keeps a copy of what is assigned; null leaves the zeros.
   *
   * @throws DTypeError, ShapeError for a mask that is not bool or of another shape; nothing has changed then
   */
  get mask(): Tensor<'bool'> | null {
    return this.#mask
  }

  set mask(value: Tensor<'bool'> | null) {
    if (value === null) {
      this.#mask = null
      return
    }
    checkMask('Parameter', 'mask', value, this)
    this.#mask = keep(copyTo(value, 'bool'))
    applyMask(this)
  }
}

/** A bool tensor of the parameter's shape, or an error that names what it is not. */
export function checkMask(op: string, name: string, value: unknown, parameter: Tensor): void {
  const mask = checkTensor(op, name, value)
  if (mask.dtype !== 'bool') throw new DTypeError(`${op}: ${name} must be a bool tensor, got ${mask.dtype}`)
  if (!sameShape(mask.shape, parameter.shape))
    throw new ShapeError(
      `${op}: ${name} has shape ${showShape(mask.shape)}, its parameter ${showShape(parameter.shape)}`,
    )
}

/** A parameter that takes over a new tensor's bytes, which nobody else uses. */
export function own<D extends FloatDType>(data: Tensor<D>): Parameter<D> {
  const parameter = new Parameter(data)
  data.dispose()
  return parameter
}
