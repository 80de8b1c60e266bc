/** linear() and matmul() whose weights are a SparseTensor. */
import { type DType, isFloat } from '../core/dtype'
import { ArgumentError, DTypeError, ShapeError } from '../core/errors'
import { showShape } from '../core/shape'
import { native } from '../native/call'
import type { SparseTensor } from '../tensor/sparse'
import { copyTo } from '../tensor/tensor'
import type { ActivationName } from './epilogue'
import { converted, live, type Tensor } from './op'
import { productWithWeights } from './product-with-weights'
import { checkInner, quantizeCode } from './qmatmul'
import { checkMultiplier, type InputQuantization, inputBytes } from './quantized-linear'
import { transpose } from './shape'
import { type CsrArrays, checkSparse, csrArrays, fromCsr, sparsify } from './sparse'
import { packedFor } from './sparse-kernels'

export interface SparseLinearOptions<O extends DType = DType> {
  /** Applied after the bias, in float32. */
  activation?: ActivationName
  /** The result's dtype: x's (default) or float32. */
  dtype?: O
  /**
   * With int8 weights: multiplies bytes by bytes, as for quantized weights. Default: x stays float, weights are value *
   * scale in float32.
   */
  quantizeInput?: InputQuantization
  /** float32 [in]: column p of x is multiplied by it before it is quantized. With `quantizeInput`. */
  multiplier?: Tensor | null
}

/**
 * linear() with sparse weights: x times the transpose of w, plus bias, without work for the zeros of w. Zeros count as zero
 * whatever they meet: an infinity or NaN in x spoils only outputs that have a weight for it.
 *
 * @param x float [..., in]
 * @param w [out, in], of floats or int8
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
  const a = live(op, 'x', x)
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
  b.made.transposed ??= sparsify(transpose(asFloats(b)), 'csr')
  return product(op, a, b.made.transposed, options.bias, options)
}

/** @internal The matrix, dense: [rows, columns] in its dtype, of int8 values float32. */
export function asFloats(w: SparseTensor): Tensor {
  return fromCsr(floatArrays(w), w.shape, w.scale ? 'float32' : w.dtype, w.device)
}

/** @internal The non-zeros in float32; int8 ones as what they stand for. */
export function floatArrays(w: SparseTensor): CsrArrays {
  const { pointers, columns, values } = csrArrays(w)
  if (!w.scale) return { pointers, columns, values }
  const scales = w.scale.dataSync()
  const scaled = new Float32Array(values.length)
  for (let i = 0; i + 1 < pointers.length; i++) {
    const scale = scales[scales.length === 1 ? 0 : i] as number
    for (let at = pointers[i] as number; at < (pointers[i + 1] as number); at++)
      scaled[at] = (values[at] as number) * scale
  }
  return { pointers, columns, values: scaled }
}

function product(
  op: string,
  a: Tensor,
  w: SparseTensor,
  bias: Tensor | null | undefined,
  options: SparseLinearOptions,
): Tensor {
  const { quantizeInput, multiplier = null } = options
  if (!isFloat(a.dtype)) throw new DTypeError(`${op}: sparse weights need a float input, it is ${a.dtype}`)
  if (quantizeInput !== undefined && !w.scale)
    throw new DTypeError(`${op}: quantizeInput needs int8 weights, they are ${w.dtype}`)
  if (multiplier && quantizeInput === undefined) throw new ArgumentError(`${op}: multiplier needs quantizeInput`)
  const [out, inputs] = w.shape as [number, number]
  return productWithWeights({
    ...{ op, kind: 'sparse', x: a, outFeatures: out, bias: bias ?? null },
    ...{ activation: options.activation, dtype: options.dtype, multiplier },
    dense: () => converted(asFloats(w), 'float32'),
    run(result, flat, bias32, code) {
      const rows = flat.shape[0] as number
      if (quantizeInput === undefined) {
        const { packed, weights, form, count } = packedFor(op, 'float', w, rows, flat.dtype, () => floatArrays(w))
        const lines = inputs === 1 || flat.strides[1] === 1 ? flat : copyTo(flat, flat.dtype)
        native.spmatmul(result, lines, packed, bias32, code, weights, form, count)
        return
      }
      checkInner(op, inputs, false)
      const { quantize = 'none', aScale = null, aZero = null } = inputBytes(op, quantizeInput)
      const factors = multiplier && checkMultiplier(op, multiplier, inputs)
      const { packed, form, count } = packedFor(op, 'bytes', w, rows, 'int8')
      // biome-ignore format: the parameters of ops.def
      native.spqmatmul(
        result, flat, quantizeCode[quantize], aScale, aZero, factors, packed, w.scale, bias32, code, form, count,
      )
    },
  })
}
