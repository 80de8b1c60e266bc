/** Shapes, strides, axes and broadcasting: pure arithmetic on arrays of numbers. */
import { ArgumentError, ShapeError, show } from './errors'

export type Shape = readonly number[]

export const MAX_RANK = 8
/** Elements a tensor may have: V8 allows ArrayBuffers of 2^33 bytes and more, and indices stay safe integers. */
export const MAX_ELEMENTS = 2 ** 40

export function showShape(shape: Shape): string {
  return `[${shape.join(', ')}]`
}

export function sizeOf(shape: Shape): number {
  let n = 1
  for (let i = 0; i < shape.length; i++) n *= shape[i] as number
  return n
}

export function contiguousStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length)
  let step = 1
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step
    step *= shape[i] as number
  }
  return strides
}

export function isContiguous(shape: Shape, strides: Shape): boolean {
  let step = 1
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== step) return false
    step *= shape[i] as number
  }
  return true
}

export function sameShape(a: Shape, b: Shape): boolean {
  if (a === b) return true
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

/** A copy of a shape that a user passed, or an error that shows it. */
export function checkShape(op: string, shape: unknown): number[] {
  const list = typeof shape === 'number' ? [shape] : shape
  if (!Array.isArray(list)) throw new ArgumentError(`${op}: shape must be an array of sizes, got ${show(shape)}`)
  if (list.length > MAX_RANK) throw new ShapeError(`${op}: at most ${MAX_RANK} axes, got ${list.length}`)
  // Zeros count as ones: they would hide the other sizes from the product, but not from the strides.
  let elements = 1
  const sizes = new Array<number>(list.length)
  for (let i = 0; i < list.length; i++) {
    const size: unknown = list[i]
    if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
      throw new ArgumentError(`${op}: sizes must be whole numbers >= 0, got ${show(list)}`)
    }
    sizes[i] = size
    elements *= Math.max(size, 1)
  }
  if (elements > MAX_ELEMENTS)
    throw new ShapeError(`${op}: ${showShape(sizes)} is more than the 2^40 elements that are possible`)
  return sizes
}

/** A whole number, or an error that names the argument. */
export function checkInteger(
  op: string,
  name: string,
  value: unknown,
  low = -Number.MAX_SAFE_INTEGER,
  high = Number.MAX_SAFE_INTEGER,
): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= low && value <= high) return value
  const range =
    low === -Number.MAX_SAFE_INTEGER ? '' : high === Number.MAX_SAFE_INTEGER ? ` >= ${low}` : ` from ${low} to ${high}`
  throw new ArgumentError(`${op}: ${name} must be a whole number${range}, got ${show(value)}`)
}

/** A finite or infinite number (NaN and other types are errors that name the argument). */
export function checkNumber(op: string, name: string, value: unknown): number {
  if (typeof value === 'number' && !Number.isNaN(value)) return value
  throw new ArgumentError(`${op}: ${name} must be a number, got ${show(value)}`)
}

/** An axis of a tensor of `rank` axes: negative ones count from the end. */
export function checkAxis(op: string, axis: unknown, rank: number): number {
  if (typeof axis !== 'number' || !Number.isSafeInteger(axis))
    throw new ArgumentError(`${op}: axis must be a whole number, got ${show(axis)}`)
  const positive = axis < 0 ? axis + rank : axis
  if (positive < 0 || positive >= rank)
    throw new ShapeError(`${op}: axis ${axis} does not exist in a tensor of ${rank} axes`)
  return positive
}

/** One axis, several, or all of them (undefined): sorted, each once. */
export function checkAxes(op: string, axes: unknown, rank: number): number[] {
  if (axes === undefined || axes === null) return Array.from({ length: rank }, (_, i) => i)
  const list = (Array.isArray(axes) ? axes : [axes]).map((a) => checkAxis(op, a, rank)).sort((a, b) => a - b)
  for (let i = 1; i < list.length; i++) {
    if (list[i] === list[i - 1]) throw new ShapeError(`${op}: axis ${list[i]} is given twice`)
  }
  return list
}

/** The shape that both broadcast to (NumPy's rule). */
export function broadcastShapes(op: string, a: Shape, b: Shape): number[] {
  const rank = Math.max(a.length, b.length)
  const out = new Array<number>(rank)
  for (let i = 0; i < rank; i++) {
    const x = a[a.length - rank + i] ?? 1
    const y = b[b.length - rank + i] ?? 1
    if (x !== y && x !== 1 && y !== 1)
      throw new ShapeError(`${op}: shapes ${showShape(a)} and ${showShape(b)} do not broadcast`)
    out[i] = x === 1 ? y : x
  }
  return out
}

/** Strides that read a tensor of `shape` as the larger `to`: 0 where it is repeated. */
export function broadcastStrides(shape: Shape, strides: Shape, to: Shape): number[] {
  const lead = to.length - shape.length
  const out = new Array<number>(to.length)
  for (let i = 0; i < to.length; i++) {
    const own = i - lead
    out[i] = own < 0 || (shape[own] === 1 && to[i] !== 1) ? 0 : (strides[own] as number)
  }
  return out
}
