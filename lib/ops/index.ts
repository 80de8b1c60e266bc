/**
 * Reading and adding at positions that a tensor holds. Positions are int64 (other integers are converted); negative ones
 * count from the end. They are known only when the kernel runs, so one out of range is reported by the next barrier
 * (data(), item(), ...) as an error with code ERR_RANGE.
 */
import { type DType, isFloat, promote } from '../core/dtype'
import { DTypeError, ShapeError } from '../core/errors'
import { checkAxis, checkInteger, type Shape, sameShape, showShape } from '../core/shape'
import { native } from '../native/call'
import { autocastRegion } from '../tensor/context'
import { copyTo } from '../tensor/tensor'
import { arg, castTo, checkDTypeOf, converted, empty, type Tensor, taped } from './op'
import { reshape } from './shape'

/** Positions or labels as int64; bool and floats are refused. */
export function positions(op: string, name: string, index: Tensor): Tensor<'int64'> {
  checkDTypeOf(op, name, arg(op, name, index), ['int64', 'int32', 'uint8', 'int8'])
  return converted(index, 'int64')
}

function zeros(dtype: DType, like: Tensor): Tensor {
  const out = empty(dtype, like.shape, like.device)
  native.fill(out, 0)
  return out
}

/** The part of a tensor that `shape` covers on every axis but one: what gather and scatterAdd touch. */
function narrowed(a: Tensor, shape: Shape, axis: number) {
  return {
    buffer: a.buffer,
    code: a.code,
    shape: shape.map((n, i) => (i === axis ? (a.shape[i] as number) : n)),
    strides: a.strides,
    offset: a.offset,
  }
}

function checkLine(op: string, index: Tensor): void {
  if (index.rank !== 1) throw new ShapeError(`${op}: index must have one axis, its shape is ${showShape(index.shape)}`)
}

/** The two tensors of one dtype; autocast promotes floats that differ. */
function sameDType<D extends DType>(op: string, a: Tensor<D>, source: Tensor<D>): [a: Tensor<D>, source: Tensor<D>] {
  if (a.dtype === source.dtype) return [a, source]
  if (!autocastRegion() || !isFloat(a.dtype) || !isFloat(source.dtype))
    throw new DTypeError(`${op}: a and source must have one dtype, they are ${a.dtype} and ${source.dtype}`)
  const dtype: DType = promote<DType, DType>(a.dtype, source.dtype)
  const widened = (t: Tensor<D>) => ((t.dtype as DType) === dtype ? t : (castTo(t, dtype) as Tensor as Tensor<D>))
  return [widened(a), widened(source)]
}

/**
 * The slices of `a` at the positions in `index`, along `axis`: out[i, ...] = a[index[i], ...] for axis 0.
 *
 * @param index int64 [n]
 * @returns a's shape with n on that axis
 */
export function indexSelect<D extends DType>(a: Tensor<D>, axis: number, index: Tensor): Tensor<D> {
  const x = arg('indexSelect', 'a', a)
  const along = checkAxis('indexSelect', axis, x.rank)
  const at = positions('indexSelect', 'index', index)
  checkLine('indexSelect', at)
  const out = empty(
    x.dtype,
    x.shape.map((n, i) => (i === along ? at.size : n)),
    x.device,
  )
  native.indexSelect(out, x, at, along)
  return taped('indexSelect', out, [x], (grad) => {
    const da = zeros(grad.dtype, x)
    native.indexAdd(da, grad, at, along)
    return [da]
  })
}

/** A copy of `a` to which the slices of `source` were added at the positions in `index`, in order: PyTorch's index_add. */
export function indexAdd<D extends DType>(a: Tensor<D>, axis: number, index: Tensor, source: Tensor<D>): Tensor<D> {
  const [x, s] = sameDType('indexAdd', arg('indexAdd', 'a', a), arg('indexAdd', 'source', source))
  const along = checkAxis('indexAdd', axis, x.rank)
  const at = positions('indexAdd', 'index', index)
  checkLine('indexAdd', at)
  const wanted = x.shape.map((n, i) => (i === along ? at.size : n))
  if (!sameShape(s.shape, wanted))
    throw new ShapeError(`indexAdd: source must have shape ${showShape(wanted)}, got ${showShape(s.shape)}`)
  const out = copyTo(x, x.dtype)
  native.indexAdd(out, s, at, along)
  return taped('indexAdd', out, [x, s], (grad) => [
    x.requiresGrad ? grad : null,
    s.requiresGrad ? indexSelect(grad, along, at) : null,
  ])
}

function checkGather(op: string, a: Tensor, index: Tensor, along: number): void {
  const fits = index.rank === a.rank && index.shape.every((n, i) => i === along || n <= (a.shape[i] as number))
  if (!fits)
    throw new ShapeError(
      `${op}: index ${showShape(index.shape)} is not inside a ${showShape(a.shape)} off axis ${along}`,
    )
}

/**
 * One element of `a` for every element of `index`: out[i, j] = a[i, index[i, j]] for axis 1.
 *
 * @param index int64, as many axes as `a`, nowhere larger than `a` off `axis`
 * @returns a tensor of index's shape
 */
export function gather<D extends DType>(a: Tensor<D>, axis: number, index: Tensor): Tensor<D> {
  const x = arg('gather', 'a', a)
  const along = checkAxis('gather', axis, x.rank)
  const at = positions('gather', 'index', index)
  checkGather('gather', x, at, along)
  const out = empty(x.dtype, at.shape, x.device)
  native.gather(out, narrowed(x, at.shape, along), at, along)
  return taped('gather', out, [x], (grad) => {
    const da = zeros(grad.dtype, x)
    native.scatterAdd(narrowed(da, at.shape, along), grad, at, along)
    return [da]
  })
}

/**
 * A copy of `a` to which each element of `source` was added at its position: out[i, index[i, j]] += source[i, j] for axis 1.
 *
 * @param index int64, of source's shape, nowhere larger than `a` off `axis`
 */
export function scatterAdd<D extends DType>(a: Tensor<D>, axis: number, index: Tensor, source: Tensor<D>): Tensor<D> {
  const [x, s] = sameDType('scatterAdd', arg('scatterAdd', 'a', a), arg('scatterAdd', 'source', source))
  const along = checkAxis('scatterAdd', axis, x.rank)
  const at = positions('scatterAdd', 'index', index)
  checkGather('scatterAdd', x, at, along)
  if (!sameShape(s.shape, at.shape))
    throw new ShapeError(
      `scatterAdd: source ${showShape(s.shape)} and index ${showShape(at.shape)} must have one shape`,
    )
  const out = copyTo(x, x.dtype)
  native.scatterAdd(narrowed(out, at.shape, along), s, at, along)
  return taped('scatterAdd', out, [x, s], (grad) => [
    x.requiresGrad ? grad : null,
    s.requiresGrad ? gather(grad, along, at) : null,
  ])
}

export interface EmbeddingOptions {
  /** The row that gets no gradient; negative counts from the end. Default: none. */
  paddingIdx?: number
}

/**
 * Rows of a table: out[..., :] = weight[index[...], :].
 *
 * @param index int64, any shape
 * @param weight [rows, width]
 * @returns index's shape with the width appended
 */
export function embedding<D extends DType>(
  index: Tensor,
  weight: Tensor<D>,
  options: EmbeddingOptions = {},
): Tensor<D> {
  const table = arg('embedding', 'weight', weight)
  const at = positions('embedding', 'index', index)
  if (table.rank !== 2)
    throw new ShapeError(`embedding: weight must have two axes, its shape is ${showShape(table.shape)}`)
  const [count, width] = table.shape as [number, number]
  const { paddingIdx } = options
  const padding =
    paddingIdx === undefined ? undefined : checkInteger('embedding', 'paddingIdx', paddingIdx, -count, count - 1)
  const line = reshape(at, [at.size])
  const out = empty(table.dtype, [...at.shape, width], table.device)
  const rows = { buffer: out.buffer, code: out.code, shape: [at.size, width], strides: [width, 1], offset: out.offset }
  native.indexSelect(rows, table, line, 0)
  return taped('embedding', out, [table], (grad) => {
    const dweight = zeros(grad.dtype, table)
    native.indexAdd(dweight, reshape(grad, [at.size, width]), line, 0)
    if (padding !== undefined) {
      const row = padding < 0 ? padding + count : padding
      native.fill(
        {
          buffer: dweight.buffer,
          code: dweight.code,
          shape: [width],
          strides: [1],
          offset: dweight.offset + row * width,
        },
        0,
      )
    }
    return [dweight]
  })
}

export interface OneHotOptions<D extends DType> {
  /** Default int64, as in PyTorch. */
  dtype?: D
}

/**
 * A last axis of `numClasses` with 1 at each position and 0 elsewhere.
 *
 * @param index int64, any shape, values in [0, numClasses)
 * @param numClasses default: one more than the largest position, which waits for the values in place
 */
export function oneHot<D extends DType = 'int64'>(
  index: Tensor,
  numClasses?: number,
  options: OneHotOptions<D> = {},
): Tensor<D> {
  const at = positions('oneHot', 'index', index)
  const classes =
    numClasses === undefined || numClasses === -1
      ? largest(at) + 1
      : checkInteger('oneHot', 'numClasses', numClasses, 0)
  const out = empty((options.dtype ?? 'int64') as D, [...at.shape, classes], at.device)
  native.oneHot(out, at)
  return out
}

function largest(at: Tensor<'int64'>): number {
  if (at.size === 0) throw new ShapeError('oneHot: numClasses must be given for an index without elements')
  let best = 0n
  for (const value of at.dataSync()) if (value > best) best = value
  return Number(best)
}
