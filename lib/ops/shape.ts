/** Views: the same bytes under another shape. Nothing is copied unless a function says so. */
import type { DType } from '../core/dtype'
import { ArgumentError, ShapeError, show } from '../core/errors'
import {
  broadcastStrides,
  checkAxes,
  checkAxis,
  checkInteger,
  checkShape,
  contiguousStrides,
  MAX_RANK,
  type Shape,
  sameShape,
  showShape,
  sizeOf,
} from '../core/shape'
import { native } from '../native/call'
import { copyTo } from '../tensor/tensor'
import { arg, empty, type Tensor, taped } from './op'
import { sumTo } from './reduce'

/** Strides that read the same elements under `to`, or null when only a copy can. */
function reshapeStrides(shape: Shape, strides: Shape, to: Shape): number[] | null {
  // Walk both shapes in groups of equal element count; inside a group the old axes must be evenly spaced.
  const result = new Array<number>(to.length)
  let i = shape.length - 1
  let j = to.length - 1
  while (i >= 0 || j >= 0) {
    while (i >= 0 && shape[i] === 1) i--
    if (i < 0) break
    const step = strides[i] as number
    let have = shape[i] as number
    let span = step * have
    i--
    let want = 1
    let at = step
    while (want !== have || (j >= 0 && to[j] === 1)) {
      if (want < have || (want === have && j >= 0 && to[j] === 1)) {
        if (j < 0) return null
        result[j] = at
        at *= to[j] as number
        want *= to[j] as number
        j--
      } else {
        while (i >= 0 && shape[i] === 1) i--
        if (i < 0 || strides[i] !== span) return null
        have *= shape[i] as number
        span *= shape[i] as number
        i--
      }
    }
  }
  while (j >= 0) result[j--] = 1
  return result
}

/**
 * The same elements in row-major order under another shape; one size may be -1 (worked out). A view where the strides
 * allow it, otherwise a copy.
 */
export function reshape<D extends DType>(a: Tensor<D>, shape: readonly number[]): Tensor<D> {
  const x = arg('reshape', 'a', a)
  let to: number[]
  if (Array.isArray(shape) && shape.includes(-1)) {
    const at = shape.indexOf(-1)
    const others = checkShape('reshape', [...shape.slice(0, at), 1, ...shape.slice(at + 1)])
    const rest = sizeOf(others)
    if (rest === 0 || x.size % rest !== 0)
      throw new ShapeError(`reshape: ${x.size} elements of ${showShape(x.shape)} do not fit ${showShape(shape)}`)
    others[at] = x.size / rest
    to = others
  } else {
    to = checkShape('reshape', shape)
    if (sizeOf(to) !== x.size)
      throw new ShapeError(`reshape: ${x.size} elements of ${showShape(x.shape)} do not fit ${showShape(to)}`)
  }
  const strides = x.contiguous || x.size === 0 ? contiguousStrides(to) : reshapeStrides(x.shape, x.strides, to)
  let out: Tensor<D>
  if (strides) {
    out = x.view('reshape', to, strides, x.offset)
  } else {
    out = empty(x.dtype, to, x.device)
    native.copy(
      { buffer: out.buffer, code: out.code, shape: x.shape, strides: contiguousStrides(x.shape), offset: out.offset },
      x,
    )
  }
  return taped('reshape', out, [x], (grad) => [reshape(grad, x.shape)])
}

/** A tensor whose elements lie in row-major order: itself if they do, else a copy. */
export function contiguous<D extends DType>(a: Tensor<D>): Tensor<D> {
  const x = arg('contiguous', 'a', a)
  return x.contiguous ? x : taped('contiguous', copyTo(x, x.dtype), [x], (grad) => [grad])
}

/** Axes in another order: `axes[i]` of `a` becomes axis i. */
export function permute<D extends DType>(a: Tensor<D>, axes: readonly number[]): Tensor<D> {
  const x = arg('permute', 'a', a)
  if (!Array.isArray(axes) || axes.length !== x.rank)
    throw new ShapeError(`permute: axes must name all ${x.rank} axes, got ${show(axes)}`)
  const order = axes.map((i) => checkAxis('permute', i, x.rank))
  if (new Set(order).size !== order.length) throw new ShapeError(`permute: axes ${show(axes)} name an axis twice`)
  const shape = order.map((i) => x.shape[i] as number)
  const strides = order.map((i) => x.strides[i] as number)
  const inverse = order.map((_, i) => order.indexOf(i))
  return taped('permute', x.view('permute', shape, strides, x.offset), [x], (grad) => [permute(grad, inverse)])
}

/** Two axes exchanged; the last two by default. */
export function transpose<D extends DType>(a: Tensor<D>, axis0 = -2, axis1 = -1): Tensor<D> {
  const x = arg('transpose', 'a', a)
  const i = checkAxis('transpose', axis0, x.rank)
  const j = checkAxis('transpose', axis1, x.rank)
  const shape = [...x.shape]
  const strides = [...x.strides]
  shape[i] = x.shape[j] as number
  shape[j] = x.shape[i] as number
  strides[i] = x.strides[j] as number
  strides[j] = x.strides[i] as number
  return taped('transpose', x.view('transpose', shape, strides, x.offset), [x], (grad) => [transpose(grad, i, j)])
}

/** Without the given axes of size 1 (other sizes stay), or without all of them. */
export function squeeze<D extends DType>(a: Tensor<D>, axis?: number | readonly number[]): Tensor<D> {
  const x = arg('squeeze', 'a', a)
  const axes = checkAxes('squeeze', axis, x.rank)
  const stays = (_: number, i: number) => x.shape[i] !== 1 || !axes.includes(i)
  const out = x.view('squeeze', x.shape.filter(stays), x.strides.filter(stays), x.offset)
  return taped('squeeze', out, [x], (grad) => [reshape(grad, x.shape)])
}

/** With a new axis of size 1 before axis `axis` of the result. */
export function unsqueeze<D extends DType>(a: Tensor<D>, axis: number): Tensor<D> {
  const x = arg('unsqueeze', 'a', a)
  if (x.rank === MAX_RANK) throw new ShapeError(`unsqueeze: at most ${MAX_RANK} axes are possible`)
  const i = checkAxis('unsqueeze', axis, x.rank + 1)
  const shape = [...x.shape.slice(0, i), 1, ...x.shape.slice(i)]
  const strides = [...x.strides.slice(0, i), 1, ...x.strides.slice(i)]
  return taped('unsqueeze', x.view('unsqueeze', shape, strides, x.offset), [x], (grad) => [reshape(grad, x.shape)])
}

/** Axes of size 1 repeated to `shape` without copying; -1 keeps a size; new axes may come in front. */
export function expand<D extends DType>(a: Tensor<D>, shape: readonly number[]): Tensor<D> {
  const x = arg('expand', 'a', a)
  const lead = Array.isArray(shape) ? shape.length - x.rank : 0
  const wanted = Array.isArray(shape)
    ? shape.map((size, i) => (size === -1 && i >= lead ? (x.shape[i - lead] as number) : size))
    : shape
  const to = checkShape('expand', wanted)
  const fits = lead >= 0 && x.shape.every((size, i) => size === to[i + lead] || size === 1)
  if (!fits) throw new ShapeError(`expand: ${showShape(x.shape)} does not repeat to ${showShape(to)}`)
  if (sameShape(x.shape, to)) return taped('expand', x.view('expand', to, x.strides, x.offset), [x], (grad) => [grad])
  const out = x.view('expand', to, broadcastStrides(x.shape, x.strides, to), x.offset)
  return taped('expand', out, [x], (grad) => [sumTo(grad, x.shape)])
}

/** A range along one axis: [start, end, step] as in Python (end excluded, negatives count from the end). */
export type Range = readonly [start?: number | null, end?: number | null, step?: number]

function resolveRange(axis: number, range: Range, size: number): { start: number; count: number; step: number } {
  if (!Array.isArray(range) || range.length > 3)
    throw new ArgumentError(`slice: axis ${axis} wants [start, end, step], got ${show(range)}`)
  const step = range[2] === undefined ? 1 : checkInteger('slice', `step of axis ${axis}`, range[2])
  if (step === 0) throw new ArgumentError(`slice: step of axis ${axis} must not be 0`)
  const at = (value: number | null | undefined, name: string, fallback: number): number => {
    if (value === undefined || value === null) return fallback
    const index = checkInteger('slice', `${name} of axis ${axis}`, value)
    const positive = index < 0 ? index + size : index
    return step > 0 ? Math.min(Math.max(positive, 0), size) : Math.min(Math.max(positive, -1), size - 1)
  }
  const start = at(range[0], 'start', step > 0 ? 0 : size - 1)
  const end = at(range[1], 'end', step > 0 ? size : -1)
  return { start, step, count: Math.max(0, Math.ceil((end - start) / step)) }
}

/**
 * A part of a tensor, without copying. One entry an axis, later axes may be left out: `[start, end, step]` keeps the
 * axis, a number picks one index and drops the axis, `null` takes all of it.
 *
 * @example slice(a, [[0, 2], null, -1]) // rows 0 and 1, everything of axis 1, the last of axis 2
 */
export function slice<D extends DType>(a: Tensor<D>, ranges: readonly (number | Range | null)[]): Tensor<D> {
  const x = arg('slice', 'a', a)
  if (!Array.isArray(ranges))
    throw new ArgumentError(`slice: ranges must be an array with one entry an axis, got ${show(ranges)}`)
  if (ranges.length > x.rank) throw new ShapeError(`slice: ${ranges.length} ranges for a tensor of ${x.rank} axes`)
  const shape: number[] = []
  const strides: number[] = []
  let offset = x.offset
  for (let i = 0; i < x.rank; i++) {
    const range: number | Range | null = ranges[i] ?? null
    const size = x.shape[i] as number
    const stride = x.strides[i] as number
    if (range === null) {
      shape.push(size)
      strides.push(stride)
    } else if (typeof range === 'number') {
      const index = checkInteger('slice', `index of axis ${i}`, range)
      if (index < -size || index >= size)
        throw new ShapeError(`slice: index ${index} of axis ${i} is outside a size of ${size}`)
      offset += stride * (index < 0 ? index + size : index)
    } else {
      const { start, count, step } = resolveRange(i, range, size)
      shape.push(count)
      strides.push(stride * step)
      if (count > 0) offset += stride * start
    }
  }
  const out = x.view('slice', shape, strides, offset)
  return taped('slice', out, [x], (grad) => {
    const whole = empty(grad.dtype, x.shape, x.device)
    native.fill(whole, 0)
    const part = slice(whole, ranges)
    native.copy(part, grad)
    part.dispose()
    return [whole]
  })
}

/** The elements in reverse order along the given axes, without copying. */
export function flip<D extends DType>(a: Tensor<D>, axis: number | readonly number[]): Tensor<D> {
  const x = arg('flip', 'a', a)
  const axes = checkAxes('flip', axis, x.rank)
  const strides = [...x.strides]
  let offset = x.offset
  for (const i of axes) {
    const size = x.shape[i] as number
    if (size === 0) continue
    offset += (strides[i] as number) * (size - 1)
    strides[i] = -(strides[i] as number)
  }
  return taped('flip', x.view('flip', x.shape, strides, offset), [x], (grad) => [flip(grad, axes)])
}
