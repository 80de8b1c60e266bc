/** Between files and tensors: bytes of a source become storage, and tensors become bytes. */
import { type DType, dtypeBytes } from '../core/dtype'
import { ArgumentError, FormatError, show } from '../core/errors'
import { contiguousStrides, MAX_ELEMENTS, MAX_RANK, type Shape, showShape, sizeOf } from '../core/shape'
import { sync } from '../native/stream'
import { allocate, release, type Storage } from '../tensor/storage'
import { Tensor } from '../tensor/tensor'
import type { Source } from './source'

/** What a tensor of a file will be. */
export interface TensorDescription {
  /** For messages: "tensor 'a.weight'". */
  readonly what: string
  readonly dtype: DType
  readonly shape: Shape
  /** Row-major unless given. */
  readonly strides?: Shape
}

/** A tensor whose bytes lie in a source as they will lie in memory. */
export interface Extent extends TensorDescription {
  /** Of its first byte in the source. */
  readonly position: number
  readonly bytes: number
}

/** A shape as it stands in a file; `fail` receives what is wrong with it. Returns the number of elements. */
export function checkFileShape(shape: readonly unknown[], fail: (why: string) => never): number {
  if (shape.length > MAX_RANK) fail(`shape has ${shape.length} axes, at most ${MAX_RANK} are possible`)
  let elements = 1
  let strideReach = 1
  for (const size of shape) {
    if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
      fail(`shape ${showFileShape(shape)} has a size that is not a whole number`)
    elements *= size as number
    strideReach *= Math.max(size as number, 1)
    // Zero sizes hide the others from the product, but not from the strides.
    if (strideReach > MAX_ELEMENTS) fail(`shape ${showFileShape(shape)} has more than 2^40 elements`)
  }
  return elements
}

function showFileShape(shape: readonly unknown[]): string {
  return shape.every((size) => typeof size === 'number') ? showShape(shape as number[]) : show(shape)
}

/** A bool's byte is 0 or 1; kernels rely on it. `piece` begins with element `at`. */
export function checkBools(piece: Uint8Array, at: number, fail: (why: string) => never): void {
  for (let i = 0; i < piece.length; i++)
    if ((piece[i] as number) > 1) fail(`element ${at + i} of a bool is ${piece[i]}, must be 0 or 1`)
}

/**
 * Makes tensors of `described`, one after the other, whose bytes `fill` writes. All or none: when one fails, the bytes of
 * all go back.
 */
export async function fillTensors<D extends TensorDescription>(
  described: readonly D[],
  fill: (description: D, target: Uint8Array) => Promise<void>,
): Promise<Tensor[]> {
  const storages: Storage[] = []
  try {
    for (const description of described) {
      const bytes = sizeOf(description.shape) * dtypeBytes[description.dtype]
      const storage = allocate(bytes)
      storages.push(storage)
      // Recycled bytes may still be read or written by commands in flight; what fills them does not queue behind those.
      await sync()
      await fill(description, new Uint8Array(storage.buffer, storage.byteOffset, bytes))
    }
  } catch (error) {
    for (const storage of storages) release(storage)
    throw error
  }
  // Made only now: a scope() that ended meanwhile would have recycled bytes that a read still fills.
  return described.map(({ dtype, shape, strides }, i) => {
    const storage = storages[i] as Storage
    return new Tensor(
      dtype,
      shape,
      strides ?? contiguousStrides(shape),
      storage.byteOffset / dtypeBytes[dtype],
      storage,
    )
  })
}

/** Reads the tensors at `extents`, which must lie inside the source, straight into their storage; all or none. */
export async function readTensors(op: string, source: Source, extents: readonly Extent[]): Promise<Tensor[]> {
  return fillTensors(extents, ({ dtype, what, position }, target) => {
    const fail = (why: string): never => {
      throw new FormatError(`${op}: ${source.name}: ${what}: ${why}`)
    }
    const check = (piece: Uint8Array, at: number) => checkBools(piece, at, fail)
    return source.read(target, position, dtype === 'bool' ? check : undefined)
  })
}

/** A live tensor, or an error that names the entry. */
export function checkEntry(op: string, what: string, value: unknown): Tensor {
  if (!(value instanceof Tensor)) throw new ArgumentError(`${op}: ${what} must be a tensor, got ${show(value)}`)
  value.storage(op)
  return value
}

/** The bytes of tensors as they are now, whatever is enqueued after this call: one snapshot of all of them. */
export async function snapshot(tensors: readonly Tensor[]): Promise<Uint8Array[]> {
  const copies = await Promise.all(tensors.map((tensor) => tensor.data()))
  return copies.map((copy) => new Uint8Array(copy.buffer as ArrayBuffer, copy.byteOffset, copy.byteLength))
}
