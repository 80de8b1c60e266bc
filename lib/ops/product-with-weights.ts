/** What linear() does the same way for all weights that are no tensor: dtypes, bias, activation and the gradients around the product. */
import { checkDType, type DType, promote } from '../core/dtype'
import { DTypeError } from '../core/errors'
import { sizeOf } from '../core/shape'
import { native } from '../native/call'
import {
  type ActivationName,
  activatedApart,
  activationCode,
  beforeActivation,
  biasRow,
  checkBias,
  needsInput,
} from './epilogue'
import { converted, empty, expandView, needsGrad, type Tensor, taped } from './op'
import { sum } from './reduce'
import { reshape } from './shape'

export interface WeightsProduct {
  op: string
  /** What the weights are, for messages: 'quantized'. */
  kind: string
  /** float [..., in] */
  x: Tensor
  outFeatures: number
  bias: Tensor | null
  activation?: ActivationName
  dtype?: DType
  /** Puts activation(flat W^T + bias) into `result`, [rows, out]. */
  run(result: Tensor, flat: Tensor, bias: Tensor<'float32'> | null, activation: number): void
  /** The weights as float32 [out, in], for the gradient of x. */
  dense(): Tensor
  /** [in]: the gradient's columns are multiplied by it. */
  multiplier?: Tensor | null
}

/** x W^T + bias, [..., out]; gradients flow to x and bias. */
export function productWithWeights(p: WeightsProduct): Tensor {
  const { op, x, outFeatures, bias, activation } = p
  if (bias) checkBias(op, bias, outFeatures)
  const code = activationCode(op, activation)
  const wanted = p.dtype === undefined ? x.dtype : checkDType(op, p.dtype)
  if (wanted !== x.dtype && wanted !== 'float32')
    throw new DTypeError(
      `${op}: with ${p.kind} weights dtype must be ${x.dtype === 'float32' ? '' : `${x.dtype} or `}float32, got ${wanted}`,
    )
  const taking = [x, ...(bias ? [bias] : [])]
  const recorded = needsGrad(taking)
  // gelu and silu need the value before them for their gradient: apart, so that it is there
  const apart = recorded && needsInput(activation)
  const rows = sizeOf(x.shape.slice(0, -1))
  const result = empty(wanted, [rows, outFeatures], x.device)
  const flat = reshape(x, [rows, x.shape[x.rank - 1] as number])
  p.run(result, flat, bias ? biasRow(bias) : null, apart ? 0 : code)
  const shaped: Tensor = x.rank === 2 ? result : reshape(result, [...x.shape.slice(0, -1), outFeatures])
  if (!recorded) return shaped
  const before = apart ? undefined : activation
  const tracked = taped(op, shaped, taking, (grad) => {
    const g = converted(beforeActivation(grad, shaped, before), 'float32')
    return [x.requiresGrad ? gradOfInput(g, p) : null, ...(bias ? [gradOfBias(g, bias)] : [])]
  })
  return apart ? activatedApart(tracked, activation) : tracked
}

/** g W, for the weights as they are. */
function gradOfInput(g: Tensor, p: WeightsProduct): Tensor {
  const { x, outFeatures, multiplier } = p
  const rows = sizeOf(g.shape.slice(0, -1))
  const back = empty('float32', [rows, x.shape[x.rank - 1] as number], x.device)
  native.matmul(back, reshape(g, [rows, outFeatures]), p.dense(), null, 0)
  if (multiplier) native.mul(back, back, expandView(multiplier, back.shape))
  return converted(reshape(back, x.shape), x.dtype)
}

/** The sum of g over all axes but the bias's, in the bias's dtype. */
export function gradOfBias(g: Tensor, bias: Tensor, axis: number = g.rank - 1): Tensor | null {
  if (!bias.requiresGrad) return null
  const axes = g.shape.map((_, i) => i).filter((i) => i !== axis)
  // In the wider dtype: a float16 sum over the batch could leave float16's range.
  return converted(sum(converted(g, promote(g.dtype, bias.dtype)), axes), bias.dtype)
}
