/** linear() and matmul() whose weights are a SparseTensor. */
import { type DType, isFloat } from '../core/dtype'
import { DTypeError, ShapeError } from '../core/errors'
import { showShape } from '../core/shape'
import { native } from '../native/call'
import { addon, fewRows, targetName } from '../native/load'
import type { SparsePacked, SparseTensor } from '../tensor/sparse'
import { copyTo, keep } from '../tensor/tensor'
import { tensor } from './create'
import type { ActivationName } from './epilogue'
import { arg, converted, empty, type Tensor } from './op'
import { productWithWeights } from './product-with-weights'
import { transpose } from './shape'
import { checkSparse, csrArrays, densify, sparsify } from './sparse'

export interface SparseLinearOptions<O extends DType = DType> {
  /** Applied after the bias, in float32. */
  activation?: ActivationName
  /** The result's dtype: x's (default) or float32. */
  dtype?: O
}

/** Packed once for the chosen row of kernels: for any number of rows of x, or for few. */
function packedOnce(op: string, w: SparseTensor, few: boolean): SparsePacked {
  const target = targetName()
  const slot = few ? 'few' : 'packed'
  const known = w.made[slot]
  if (known && known.target === target) return known
  const [n, k] = w.shape as [number, number]
  const { pointers, columns, values } = csrArrays(w)
  const steps = few ? addon.spfewSteps(pointers, columns, k) : -1
  const size = few ? addon.spfewBytes(n, k, steps) : addon.sppackedBytes(n, k, values.length)
  if (size < 0) throw new DTypeError(`${op}: no kernel on ${target} for a sparse tensor of shape ${showShape(w.shape)}`)
  known?.packed.dispose()
  const packed = keep(empty('uint8', [size]))
  const parts = [tensor(values), tensor(pointers, { dtype: 'int32' }), tensor(columns, { dtype: 'int32' })] as const
  native.sppack(packed, ...parts, k, steps)
  for (const part of parts) part.dispose()
  const made = { target, packed, count: few ? steps : values.length }
  w.made[slot] = made
  return made
}

/**
 * linear() with sparse weights: x times the transpose of w, plus bias, without work for the zeros of w. Zeros count as zero
 * whatever they meet: an infinity or NaN in x spoils only outputs that have a weight for it.
 *
 * @param x float [..., in]
 * @param w [out, in]
 * @param bias float [out]
 * @returns [..., out] in x's dtype unless `dtype` says float32; sums are float32; gradients flow to x and bias
 */
export function sparseLinear<A extends DType, O extends DType = A>(
  x: Tensor<A>,
  w: SparseTensor,
  bias?: Tensor | null,
  options: SparseLinearOptions<O> = {},
): Tensor<O> {
  const op = 'linear'
  const a = arg(op, 'x', x)
  checkSparse(op, 'w', w)
  if (a.rank === 0 || a.shape[a.rank - 1] !== w.shape[1])
    throw new ShapeError(
      `${op}: x ${showShape(a.shape)} does not end in the ${w.shape[1]} inputs of w ${showShape(w.shape)}`,
    )
  return product(op, a, w, bias, options) as Tensor as Tensor<O>
}

/**
 * matmul() with a sparse matrix on the right.
 *
 * @param b [k, n]; its transpose is made and packed once
 */
export function matmulSparse(
  op: string,
  a: Tensor,
  b: SparseTensor,
  options: SparseLinearOptions & { bias?: Tensor | null },
): Tensor {
  checkSparse(op, 'b', b)
  if (a.rank === 0 || a.shape[a.rank - 1] !== b.shape[0])
    throw new ShapeError(`${op}: inner sizes differ: a is ${showShape(a.shape)}, b is ${showShape(b.shape)}`)
  b.made.transposed ??= sparsify(transpose(densify(b)), 'csr')
  return product(op, a, b.made.transposed, options.bias, options)
}

function product(
  op: string,
  a: Tensor,
  w: SparseTensor,
  bias: Tensor | null | undefined,
  options: SparseLinearOptions,
): Tensor {
  if (!isFloat(a.dtype)) throw new DTypeError(`${op}: sparse weights need a float input, it is ${a.dtype}`)
  return productWithWeights({
    ...{ op, kind: 'sparse', x: a, outFeatures: w.shape[0] as number, bias: bias ?? null },
    ...{ activation: options.activation, dtype: options.dtype },
    dense: () => converted(densify(w), 'float32'),
    run(result, flat, bias32, code) {
      const rows = flat.shape[0] as number
      const few = rows > 0 && rows <= fewRows()
      const { packed, count } = packedOnce(op, w, few)
      const lines = flat.shape[1] === 1 || flat.strides[1] === 1 ? flat : copyTo(flat, flat.dtype)
      native.spmatmul(result, lines, packed, bias32, code, count, few ? 1 : 0)
    },
  })
}
