/** Tensors put together and taken apart: cat, stack, split, chunk, pad, triu, tril. */
import { type DType, promote } from '../core/dtype'
import { ArgumentError, ShapeError, show } from '../core/errors'
import { checkAxis, checkInteger, checkNumber, checkShape, type Shape, showShape } from '../core/shape'
import { native, type View } from '../native/call'
import { arg, converted, empty, emptyLike, type Tensor, taped } from './op'
import { type Range, slice, unsqueeze } from './shape'

/** The box of `shape` that begins at `start`, as a view that is never recorded. */
function box(a: Tensor, start: readonly number[], shape: Shape): View {
  const offset = start.reduce((sum, from, i) => sum + from * (a.strides[i] as number), a.offset)
  return { buffer: a.buffer, code: a.code, shape, strides: a.strides, offset }
}

function along(axis: number, range: Range): (Range | null)[] {
  return [...new Array<null>(axis).fill(null), range]
}

function checkList(op: string, tensors: readonly Tensor[]): readonly Tensor[] {
  if (!Array.isArray(tensors) || tensors.length === 0)
    throw new ArgumentError(`${op}: tensors must be an array of at least one tensor, got ${show(tensors)}`)
  return tensors.map((t, i) => arg(op, `tensors[${i}]`, t))
}

/**
 * Tensors joined along an axis that they all have. Different dtypes are promoted.
 *
 * @throws ShapeError when they differ on another axis
 */
export function cat<D extends DType>(tensors: readonly Tensor<D>[], axis = 0): Tensor<D> {
  const list = checkList('cat', tensors)
  const first = list[0] as Tensor
  const i = checkAxis('cat', axis, first.rank)
  let total = 0
  let dtype = first.dtype
  for (const t of list) {
    const fits = t.rank === first.rank && t.shape.every((n, j) => j === i || n === first.shape[j])
    if (!fits) throw new ShapeError(`cat: ${showShape(first.shape)} and ${showShape(t.shape)} differ off axis ${i}`)
    total += t.shape[i] as number
    dtype = promote(dtype, t.dtype)
  }
  const out = empty(
    dtype,
    first.shape.map((n, j) => (j === i ? total : n)),
    first.device,
  )
  const start = new Array<number>(first.rank).fill(0)
  for (const t of list) {
    if (t.size > 0) native.copy(box(out, start, t.shape), t)
    start[i] = (start[i] as number) + (t.shape[i] as number)
  }
  return taped('cat', out, list, (grad) => {
    let at = 0
    return list.map((t) => {
      const start = at
      at += t.shape[i] as number
      return t.requiresGrad ? converted(slice(grad, along(i, [start, at])), t.dtype) : null
    })
  }) as Tensor as Tensor<D>
}

/** Tensors of one shape joined along a new axis, which is axis `axis` of the result. */
export function stack<D extends DType>(tensors: readonly Tensor<D>[], axis = 0): Tensor<D> {
  const list = checkList('stack', tensors)
  const first = list[0] as Tensor
  const i = checkAxis('stack', axis, first.rank + 1)
  for (const t of list) {
    if (showShape(t.shape) !== showShape(first.shape))
      throw new ShapeError(`stack: shapes ${showShape(first.shape)} and ${showShape(t.shape)} differ`)
  }
  return cat(
    list.map((t) => unsqueeze(t, i)),
    i,
  ) as Tensor<D>
}

/**
 * Views of consecutive parts along `axis`: of `size` elements each (the last may be smaller), or of the sizes given, which
 * must add up.
 */
export function split<D extends DType>(a: Tensor<D>, size: number | readonly number[], axis = 0): Tensor<D>[] {
  const x = arg('split', 'a', a)
  const i = checkAxis('split', axis, x.rank)
  const total = x.shape[i] as number
  const ends: number[] = []
  if (Array.isArray(size)) {
    let end = 0
    for (const n of size) {
      end += checkInteger('split', 'size', n, 0)
      ends.push(end)
    }
    if (end !== total)
      throw new ShapeError(`split: sizes ${show(size)} do not add up to axis ${i} of ${showShape(x.shape)}`)
  } else {
    const step = checkInteger('split', 'size', size, 1)
    for (let end = step; end < total; end += step) ends.push(end)
    ends.push(total)
  }
  return ends.map((end, k) => slice(x, along(i, [ends[k - 1] ?? 0, end])))
}

/** At most `count` views of equal consecutive parts along `axis`; the last may be smaller: PyTorch's chunk. */
export function chunk<D extends DType>(a: Tensor<D>, count: number, axis = 0): Tensor<D>[] {
  const x = arg('chunk', 'a', a)
  const parts = checkInteger('chunk', 'count', count, 1)
  const total = x.shape[checkAxis('chunk', axis, x.rank)] as number
  return split(x, Math.max(1, Math.ceil(total / parts)), axis)
}

export interface PadOptions {
  /** What the new elements hold. Default 0. */
  value?: number
}

/**
 * Elements added at the ends of axes, in PyTorch's order: `[before, after]` of the last axis, then of the one before it,
 * and so on. Negative numbers take elements away.
 *
 * @example pad(image, [1, 1, 2, 2]) // one column left and right, two rows above and below
 */
export function pad<D extends DType>(a: Tensor<D>, pads: readonly number[], options: PadOptions = {}): Tensor<D> {
  const x = arg('pad', 'a', a)
  if (!Array.isArray(pads) || pads.length % 2 !== 0 || pads.length > 2 * x.rank) {
    throw new ArgumentError(
      `pad: pads must be [before, after] for at most ${x.rank} axes, the last one first, got ${show(pads)}`,
    )
  }
  const value = options.value === undefined ? 0 : checkNumber('pad', 'value', options.value)
  const shape = new Array<number>(x.rank) // of the result
  const kept = new Array<number>(x.rank) // of the box that both have
  const from = new Array<number>(x.rank) // where that box begins in a
  const to = new Array<number>(x.rank) // and in the result
  for (let i = 0; i < x.rank; i++) {
    const at = 2 * (x.rank - 1 - i)
    const before = checkInteger('pad', `pads[${at}]`, pads[at] ?? 0)
    const after = checkInteger('pad', `pads[${at + 1}]`, pads[at + 1] ?? 0)
    const size = x.shape[i] as number
    const padded = size + before + after
    if (padded < 0)
      throw new ShapeError(`pad: axis ${i} of ${showShape(x.shape)} cannot lose ${-before - after} elements`)
    shape[i] = padded
    from[i] = Math.max(0, -before)
    to[i] = Math.max(0, before)
    kept[i] = Math.max(0, size - Math.max(0, -before) - Math.max(0, -after))
  }
  const out = empty(x.dtype, checkShape('pad', shape), x.device)
  native.fill(out, value)
  const some = !kept.includes(0)
  if (some) native.copy(box(out, to, kept), box(x, from, kept))
  return taped('pad', out, [x], (grad) => {
    const da = emptyLike(x, x.dtype)
    native.fill(da, 0)
    if (some) native.copy(box(da, from, kept), box(grad, to, kept))
    return [da]
  })
}

function triangle<D extends DType>(op: string, a: Tensor<D>, diagonal: number, upper: number): Tensor<D> {
  const x = arg(op, 'a', a)
  if (x.rank < 2) throw new ShapeError(`${op}: a must have at least two axes, its shape is ${showShape(x.shape)}`)
  const k = checkInteger(op, 'diagonal', diagonal)
  const out = emptyLike(x, x.dtype)
  native.tri(out, x, k, upper)
  return taped(op, out, [x], (grad) => [triangle(op, grad, k, upper)])
}

/** The upper triangle of the last two axes, zeros below: where column - row >= diagonal. */
export function triu<D extends DType>(a: Tensor<D>, diagonal = 0): Tensor<D> {
  return triangle('triu', a, diagonal, 1)
}

/** The lower triangle of the last two axes, zeros above: where column - row <= diagonal. */
export function tril<D extends DType>(a: Tensor<D>, diagonal = 0): Tensor<D> {
  return triangle('tril', a, diagonal, 0)
}
