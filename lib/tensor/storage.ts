/**
 * Where the bytes of tensors come from (docs/adr/0001-memory.md).
 *
 * JavaScript owns them, on the CPU: ArrayBuffers made without zeroing, so the garbage collector frees what nobody reaches, even in
 * a synchronous loop. What is freed by hand (dispose, scope, autograd) is recycled at once and in stream order: the
 * next op may get the same bytes while they are still warm in the cache. Recycling is what makes it fast, since a page
 * fault costs more than the arithmetic on a small tensor.
 */
import { markAsUntransferable } from 'node:worker_threads'
import { OutOfMemoryError } from '../core/errors'
import { allocateCuda } from '../native/cuda'
import { addon, type Memory } from '../native/load'
import { cudaIndex, type DeviceName } from './device'

/** Bytes that several tensors or views share; `refs` counts the undisposed ones. */
export interface Storage {
  buffer: Memory
  device: DeviceName
  /** Of the first byte, 64-byte aligned in memory. */
  byteOffset: number
  /** Usable bytes: the size class. */
  bytes: number
  refs: number
  /** Counts the changes in place of what an autocast region may have cast: see changed(). */
  version: number
}

const SLAB_BYTES = 1 << 16
/** Tensors up to this many bytes share slabs: an ArrayBuffer of their own would cost more than their arithmetic. */
const SMALL_BYTES = 1 << 12
/**
 * Tensors from this size on begin at a huge page and so consist of whole ones: a matrix of 4 MiB costs 2 entries of the
 * TLB, not 1,024, and 2 page faults. The room for the alignment is address space only, never touched.
 */
const HUGE_PAGE = 1 << 21
/** Recycled bytes that are kept for reuse; beyond it they go back to the garbage collector. */
const MAX_FREE_BYTES = 1 << 29

/** By device, then by size. */
const free = new Map<DeviceName, Map<number, Storage[]>>()

function freeOn(device: DeviceName): Map<number, Storage[]> {
  const known = free.get(device)
  if (known) return known
  const sizes = new Map<number, Storage[]>()
  free.set(device, sizes)
  return sizes
}

let freeBytes = 0
let obtained = 0
let slab: ArrayBuffer | null = null
let slabNext = 0

/** Rounds up to four size classes per power of two (at most 25 % waste), multiples of 64. */
function sizeClass(bytes: number): number {
  if (bytes <= 256) return bytes <= 64 ? 64 : bytes <= 128 ? 128 : bytes <= 192 ? 192 : 256
  const step = 2 ** (Math.floor(Math.log2(bytes - 1)) - 2)
  return Math.ceil(bytes / step) * step
}

/** An ArrayBuffer whose bytes are whatever they were. */
export function uninitialised(bytes: number): ArrayBuffer {
  try {
    // Not zeroed: 3 us for a MiB where new ArrayBuffer(1 MiB) takes 700.
    return Buffer.allocUnsafeSlow(bytes).buffer as ArrayBuffer
  } catch (cause) {
    throw new OutOfMemoryError(`no memory for a tensor of ${bytes} bytes`, { cause })
  }
}

/** Bytes that cannot be transferred to another thread: commands in flight hold raw pointers to them. */
function pinned(bytes: number): ArrayBuffer {
  const buffer = uninitialised(bytes)
  markAsUntransferable(buffer)
  return buffer
}

export interface CpuStorage extends Storage {
  buffer: ArrayBuffer
}

/** Bytes for a tensor, uninitialised. */
export function allocate(bytes: number): CpuStorage
export function allocate(bytes: number, device: DeviceName): Storage
export function allocate(bytes: number, device: DeviceName = 'cpu'): Storage {
  const size = sizeClass(bytes)
  const recycled = freeOn(device).get(size)?.pop()
  if (recycled) {
    freeBytes -= size
    recycled.refs = 1
    return recycled
  }
  obtained += size
  if (device !== 'cpu') {
    return { buffer: allocateCuda(cudaIndex(device), size), device, byteOffset: 0, bytes: size, refs: 1, version: 0 }
  }
  if (size <= SMALL_BYTES) {
    if (slab === null || slabNext + size > slab.byteLength) {
      slab = pinned(SLAB_BYTES + 64)
      slabNext = addon.place(slab, SLAB_BYTES)
    }
    const byteOffset = slabNext
    slabNext += size
    return { buffer: slab, device, byteOffset, bytes: size, refs: 1, version: 0 }
  }
  const buffer = pinned(size + (size >= HUGE_PAGE ? HUGE_PAGE : 64))
  return { buffer, device, byteOffset: addon.place(buffer, size), bytes: size, refs: 1, version: 0 }
}

/** One reference less; the last one recycles the bytes (commands in flight are ahead of any reuse in the stream). */
export function release(storage: Storage): void {
  if (--storage.refs > 0) return
  if (freeBytes + storage.bytes > MAX_FREE_BYTES) return
  const { buffer, device, byteOffset, bytes } = storage
  const sizes = freeOn(device)
  const list = sizes.get(bytes)
  // A fresh object: whoever still holds the old one must not count references of the new owner. Not a spread of it, which
  // takes as long as a small op (0.25 us).
  const recycled = { buffer, device, byteOffset, bytes, refs: 0, version: 0 }
  if (list) list.push(recycled)
  else sizes.set(bytes, [recycled])
  freeBytes += bytes
}

/** For measurements: bytes of all storages made so far that were not recycled ones. */
export function obtainedBytes(): number {
  return obtained
}

/** For info() and tests: what waits for reuse. */
export function recycledBytes(): number {
  return freeBytes
}
