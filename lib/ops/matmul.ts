/** Matrix products: matmul, linear, and weights packed once for this machine's kernel. */
import { checkDType, type DType, dtypeBytes, dtypeCode, isFloat, type Promote, promote } from '../core/dtype'
import { DTypeError, ShapeError } from '../core/errors'
import { broadcastShapes, type Shape, showShape, sizeOf } from '../core/shape'
import { native } from '../native/call'
import { packedBytesCuda } from '../native/cuda'
import { addon, targetName } from '../native/load'
import { autocastRegion } from '../tensor/context'
import { QuantizedTensor } from '../tensor/quantized'
import { SparseTensor } from '../tensor/sparse'
import { keep } from '../tensor/tensor'
import {
  type ActivationName,
  activatedApart,
  activationCode,
  beforeActivation,
  biasRow,
  checkBias,
  needsInput,
} from './epilogue'
import { arg, converted, empty, expandView, live, needsGrad, observed, Tensor, taped } from './op'
import { gradOfBias } from './product-with-weights'
import { isByte, matmulBytes } from './qmatmul'
import { matmulQuantized, type QuantizedLinearOptions, quantizedLinear } from './quantized-linear'
import { sumTo } from './reduce'
import { reshape, transpose } from './shape'
import { matmulSparse, type SparseLinearOptions, sparseLinear } from './spmatmul'
import { cast } from './unary'

export interface MatmulOptions<O extends DType = DType> {
  /** [n], added to every row of the result. */
  bias?: Tensor | null
  /** Applied after the bias, in float32. */
  activation?: ActivationName
  /** The result's dtype. Default: the promoted dtype of the inputs. */
  dtype?: O
}

/**
 * A weight matrix reordered once for this machine's matmul kernel. `linear(x, p)` reads it as [out, in] weights,
 * `matmul(a, p)` as a [k, n] matrix; each is packed at its first use. The source tensor must not be changed or
 * disposed before that. No scope() disposes what is packed, dispose() does.
 */
export class PackedMatrix<D extends DType = DType> {
  readonly shape: Shape
  readonly dtype: D
  readonly #source: Tensor<D>
  readonly #packed: { plain?: Tensor<'uint8'>; transposed?: Tensor<'uint8'> } = {}
  #target = ''

  /** @internal Use pack(). */
  constructor(source: Tensor<D>) {
    this.shape = source.shape
    this.dtype = source.dtype
    this.#source = keep(source.view('pack', source.shape, source.strides, source.offset))
  }

  /** @internal The bytes for the kernel: of the matrix itself or of its transpose. */
  bytes(transposed: boolean): Tensor<'uint8'> {
    const target = targetName()
    const slot = transposed ? 'transposed' : 'plain'
    if (this.#target !== target) {
      this.#packed.plain?.dispose()
      this.#packed.transposed?.dispose()
      this.#packed.plain = undefined
      this.#packed.transposed = undefined
      this.#target = target
    }
    const made = this.#packed[slot]
    if (made) return made
    const b = transposed ? transpose(this.#source) : this.#source
    const [k, n] = b.shape as [number, number]
    const size =
      b.device === 'cpu'
        ? addon.packedBytes(dtypeCode[this.dtype], k, n)
        : packedBytesCuda(dtypeBytes[this.dtype], k, n)
    // It outlives the call that needed it first, so no scope() of that call may dispose it.
    const packed = keep(empty('uint8', [size], b.device))
    native.pack(packed, b)
    this.#packed[slot] = packed
    return packed
  }

  /** Gives the memory back. */
  dispose(): void {
    this.#source.dispose()
    this.#packed.plain?.dispose()
    this.#packed.transposed?.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/**
 * Reorders a matrix once, for many products: `linear(x, pack(w))`, `matmul(a, pack(b))`. No gradient flows into it.
 *
 * @param w a float matrix of two axes: [out, in] weights for linear, [k, n] for matmul
 */
export function pack<D extends DType>(w: Tensor<D>): PackedMatrix<D> {
  const x = arg('pack', 'w', w)
  if (x.rank !== 2) throw new ShapeError(`pack: w must have two axes, its shape is ${showShape(x.shape)}`)
  checkMatmulDType('pack', x.dtype)
  return new PackedMatrix(x)
}

function checkMatmulDType(op: string, dtype: DType): void {
  if (addon.matmulName(dtypeCode[dtype]) === null)
    throw new DTypeError(`${op}: no ${dtype} kernel on ${targetName()}: use a float dtype`)
}

interface Product {
  op: string
  a: Tensor
  /** [..., k, n], or packed as [k, n]. */
  b: Tensor | PackedMatrix
  /** `b` is packed as its transpose (linear's weights). */
  transposed: boolean
  options: MatmulOptions
}

/** a [..., m, k] by b [..., k, n]: the one place that calls the addon. */
function product({ op, a, b, transposed, options }: Product): Tensor {
  const bias = options.bias ?? null
  const code = activationCode(op, options.activation)
  if (b instanceof Tensor && isByte(a.dtype) && isByte(b.dtype)) {
    if (bias || code !== 0) throw new DTypeError(`${op}: a product of integers takes no bias and no activation`)
    const sums = matmulBytes(op, a, b)
    return options.dtype === undefined ? sums : cast(sums, checkDType(op, options.dtype))
  }
  const common = promote(a.dtype, b.dtype)
  checkMatmulDType(op, common)
  const [k, n] =
    b instanceof PackedMatrix && transposed
      ? [b.shape[1], b.shape[0]]
      : [b.shape[b.shape.length - 2], b.shape[b.shape.length - 1]]
  const m = a.shape[a.rank - 2] as number
  if (a.shape[a.rank - 1] !== k) {
    throw new ShapeError(
      `${op}: inner sizes differ: a is ${showShape(a.shape)}, b is ${showShape(transposed ? [k as number, n as number] : b.shape)}`,
    )
  }
  if (bias) checkBias(op, bias, n as number)
  const wanted = options.dtype === undefined ? common : checkDType(op, options.dtype)
  const result = wanted === common || wanted === 'float32' ? wanted : common
  const lead =
    b instanceof PackedMatrix ? a.shape.slice(0, -2) : broadcastShapes(op, a.shape.slice(0, -2), b.shape.slice(0, -2))
  const inputs = [a, ...(b instanceof Tensor ? [b] : []), ...(bias ? [bias] : [])]
  const recorded = needsGrad(inputs)
  // gelu and silu need the value before them for their gradient: apart, so that it is there
  const apart = recorded && needsInput(options.activation)
  const out = empty(result, [...lead, m, n as number], a.device)
  const x = converted(a, common)
  const activation = apart ? 0 : code
  const bias32 = bias && biasRow(bias)
  if (b instanceof PackedMatrix) {
    if (b.dtype !== common) throw new DTypeError(`${op}: a is ${a.dtype} but the packed matrix is ${b.dtype}`)
    native.matmulPacked(out, expandView(x, [...lead, m, k as number]), b.bytes(transposed), bias32, activation)
  } else {
    const y = converted(b, common)
    native.matmul(
      out,
      expandView(x, [...lead, m, k as number]),
      expandView(y, [...lead, k as number, n as number]),
      bias32,
      activation,
    )
  }
  const fusedName = apart ? undefined : options.activation
  const recordedOut = recorded
    ? taped(op, out, inputs, (grad) => {
        const g = converted(beforeActivation(grad, out, fusedName), common)
        const gradients: (Tensor | null)[] = [
          a.requiresGrad ? converted(sumTo(matmulGradA(g, b, transposed), a.shape), a.dtype) : null,
        ]
        if (b instanceof Tensor) gradients.push(b.requiresGrad ? converted(matmulGradB(a, g, b), b.dtype) : null)
        if (bias) gradients.push(gradOfBias(g, bias))
        return gradients
      })
    : observed(op, out)
  const activated = apart ? activatedApart(recordedOut, options.activation) : recordedOut
  return wanted === result ? activated : cast(activated, wanted)
}

function matmulGradA(grad: Tensor, b: Tensor | PackedMatrix, transposed: boolean): Tensor {
  if (b instanceof Tensor) return matmul(grad, transpose(converted(b, grad.dtype))) as Tensor
  return product({ op: 'matmul', a: grad, b, transposed: !transposed, options: {} })
}

function matmulGradB(a: Tensor, grad: Tensor, b: Tensor): Tensor {
  const x = converted(a, grad.dtype)
  if (b.rank === 2) {
    // One long product instead of a batch that is summed afterwards.
    const rows = sizeOf(grad.shape.slice(0, -1))
    const left = reshape(x, [rows, x.shape[x.rank - 1] as number])
    const right = reshape(grad, [rows, grad.shape[grad.rank - 1] as number])
    // Laid out as b is: the gradient of linear's weights, whose transpose b is, arrives contiguous.
    const columns = b.strides[0] === 1 && b.strides[1] !== 1
    return columns ? transpose(matmul(transpose(right), left) as Tensor) : (matmul(transpose(left), right) as Tensor)
  }
  return sumTo(matmul(transpose(x), grad) as Tensor, b.shape)
}

/** Batches over a shared matrix are one tall product: [batch, m, k] becomes [batch * m, k] where that is a view. */
function foldBatch(a: Tensor): Tensor | null {
  if (a.rank <= 2 || !a.contiguous) return null
  return reshape(a, [sizeOf(a.shape.slice(0, -1)), a.shape[a.rank - 1] as number])
}

/** The left side; under autocast in the dtype that the right one was packed in, if it was. */
function left(op: string, name: string, a: Tensor, b: Tensor | PackedMatrix): Tensor {
  if (!(b instanceof PackedMatrix)) return arg(op, name, a)
  const x = live(op, name, a)
  return autocastRegion() && isFloat(x.dtype) && x.dtype !== b.dtype ? cast(x, b.dtype) : x
}

// A table, not a conditional type: that would make Tensor<D> invariant in D.
type MatmulTable = {
  [A in DType]: {
    [B in DType]: A extends 'int8' | 'uint8' ? (B extends 'int8' | 'uint8' ? 'int32' : Promote<A, B>) : Promote<A, B>
  }
}
/** The dtype of a product: the promoted one, and int32 for bytes by bytes. */
export type MatmulOf<A extends DType, B extends DType> = MatmulTable[A][B]

/**
 * The matrix product of the last two axes; the axes before them broadcast. A vector (one axis) on the left is a row, on
 * the right a column, and that axis is dropped from the result. Floats accumulate in float32; int8 and uint8 give the
 * exact int32 product.
 *
 * @param a [..., m, k]
 * @param b [..., k, n], or a packed [k, n] matrix, or a sparse one, or a quantized one per tensor or per channel(1) (a is float then)
 * @returns [..., m, n] in the promoted dtype of the inputs, int32 for bytes by bytes, unless `dtype` says otherwise
 * @throws ShapeError where sizes do not go together, or where int32 could overflow (k above 65,793; 33,025 for uint8 b);
 * DTypeError where this machine has no kernel for the dtype
 */
export function matmul<A extends DType, B extends DType, O extends DType = MatmulOf<A, B>>(
  a: Tensor<A>,
  b: Tensor<B> | PackedMatrix<B>,
  options?: MatmulOptions<O>,
): Tensor<O>
export function matmul<A extends DType, O extends DType = A>(
  a: Tensor<A>,
  b: QuantizedTensor | SparseTensor,
  options?: MatmulOptions<O>,
): Tensor<O>
export function matmul(
  a: Tensor,
  b: Tensor | PackedMatrix | QuantizedTensor | SparseTensor,
  options: MatmulOptions = {},
): Tensor {
  if (b instanceof SparseTensor) return matmulSparse('matmul', live('matmul', 'a', a), b, options)
  if (b instanceof QuantizedTensor) return matmulQuantized('matmul', live('matmul', 'a', a), b, options)
  const x: Tensor = left('matmul', 'a', a, b)
  const y: Tensor | PackedMatrix = b instanceof PackedMatrix ? b : arg('matmul', 'b', b)
  if (x.rank === 0 || y.shape.length === 0) throw new ShapeError('matmul: both operands need at least one axis')
  const row = x.rank === 1
  const column = y.shape.length === 1
  const rows = row ? reshape(x, [1, x.size]) : x
  const right = column ? reshape(y as Tensor, [(y as Tensor).size, 1]) : y
  const folded = right.shape.length === 2 ? foldBatch(rows) : null
  let out = product({ op: 'matmul', a: folded ?? rows, b: right, transposed: false, options })
  if (folded) out = reshape(out, [...rows.shape.slice(0, -1), right.shape[1] as number])
  if (row || column) {
    const shape = [...out.shape]
    if (column) shape.pop()
    if (row) shape.splice(column ? shape.length - 1 : shape.length - 2, 1)
    out = reshape(out, shape)
  }
  return out
}

/**
 * x times the transpose of w, plus bias: a fully connected layer.
 *
 * @param x [..., in]
 * @param w [out, in], a tensor, a packed one, a sparse one, or a quantized one (see quantizedLinear for its options)
 * @param bias [out]
 * @returns [..., out]
 */
export function linear<A extends DType, B extends DType, O extends DType = MatmulOf<A, B>>(
  x: Tensor<A>,
  w: Tensor<B> | PackedMatrix<B>,
  bias?: Tensor | null,
  options?: Omit<MatmulOptions<O>, 'bias'>,
): Tensor<O>
export function linear<A extends DType, O extends DType = A>(
  x: Tensor<A>,
  w: QuantizedTensor,
  bias?: Tensor | null,
  options?: QuantizedLinearOptions<O>,
): Tensor<O>
export function linear<A extends DType, O extends DType = A>(
  x: Tensor<A>,
  w: SparseTensor,
  bias?: Tensor | null,
  options?: SparseLinearOptions<O>,
): Tensor<O>
export function linear(
  x: Tensor,
  w: Tensor | PackedMatrix | QuantizedTensor | SparseTensor,
  bias?: Tensor | null,
  options: QuantizedLinearOptions = {},
): Tensor {
  if (w instanceof QuantizedTensor) return quantizedLinear(live('linear', 'x', x), w, bias, options)
  if (w instanceof SparseTensor) return sparseLinear(live('linear', 'x', x), w, bias, options)
  const a: Tensor = left('linear', 'x', x, w)
  const packed = w instanceof PackedMatrix
  const weights: Tensor | PackedMatrix = packed ? w : arg('linear', 'w', w)
  if (weights.shape.length !== 2) throw new ShapeError(`linear: w must be [out, in], it is ${showShape(weights.shape)}`)
  if (a.rank === 0 || a.shape[a.rank - 1] !== weights.shape[1]) {
    throw new ShapeError(
      `linear: x ${showShape(a.shape)} does not end in the ${weights.shape[1]} inputs of w ${showShape(weights.shape)}`,
    )
  }
  const rows = reshape(a, [sizeOf(a.shape.slice(0, -1)), a.shape[a.rank - 1] as number])
  const b = weights instanceof PackedMatrix ? weights : transpose(weights)
  const out = product({ op: 'linear', a: rows, b, transposed: packed, options: { ...options, bias: bias ?? null } })
  return a.rank === 2 ? out : reshape(out, [...a.shape.slice(0, -1), weights.shape[0] as number])
}
