/** Where a reader's bytes come from: a file or memory, read piece by piece so that the event loop keeps turning. */
import { type FileHandle, open, stat } from 'node:fs/promises'
import { ArgumentError, FormatError, show } from '../core/errors'

/** Bytes of one read: large enough for full speed, small enough that checking a piece takes a millisecond or two. */
const PIECE_BYTES = 4 << 20

export interface Source {
  /** For messages: the path, or what kind of bytes they are. */
  readonly name: string
  readonly size: number
  /**
   * Fills `target` with the bytes from `position` on; `check` sees every piece as it arrives.
   *
   * @throws FormatError when the source ends before
   */
  read(target: Uint8Array, position: number, check?: (piece: Uint8Array, at: number) => void): Promise<void>
}

/** A path as users give it: a string, or a file URL. */
export type PathLike = string | URL

export function checkPath(op: string, path: unknown): PathLike {
  if ((typeof path === 'string' && path !== '' && !path.includes('\0')) || path instanceof URL) return path
  throw new ArgumentError(`${op}: path must be a non-empty string or a file URL, got ${show(path)}`)
}

const pieces = (bytes: number) => Math.ceil(bytes / PIECE_BYTES)

async function openFile(op: string, path: PathLike): Promise<{ file: FileHandle; size: number }> {
  // Asked before opening: a FIFO would block the open until somebody writes to it.
  if (!(await stat(path)).isFile()) throw new FormatError(`${op}: ${path} is not a regular file`)
  const file = await open(path, 'r')
  return { file, size: (await file.stat()).size }
}

/**
 * Opens a file, hands it to `use`, closes it. Errors of the file system (ENOENT, EACCES, ...) are passed on as Node
 * raises them: they name the path.
 */
export async function withFile<R>(op: string, path: unknown, use: (source: Source) => Promise<R>): Promise<R> {
  const checked = checkPath(op, path)
  const { file, size } = await openFile(op, checked)
  const name = String(checked)
  try {
    return await use({
      name,
      size,
      async read(target, position, check) {
        for (let at = 0; at < target.length; ) {
          const wanted = Math.min(PIECE_BYTES, target.length - at)
          const { bytesRead } = await file.read(target, at, wanted, position + at)
          if (bytesRead === 0)
            throw new FormatError(`${op}: ${name} ends at byte ${position + at}, expected ${target.length - at} more`)
          check?.(target.subarray(at, at + bytesRead), at)
          at += bytesRead
        }
      },
    })
  } finally {
    await file.close()
  }
}

/** Bytes in memory as a source. They must not change until the reader has finished. */
export function bytesSource(op: string, bytes: unknown): Source {
  const isView = bytes instanceof Uint8Array
  if (!isView && !(bytes instanceof ArrayBuffer))
    throw new ArgumentError(`${op}: bytes must be a Uint8Array or an ArrayBuffer, got ${show(bytes)}`)
  const all = isView ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength) : new Uint8Array(bytes)
  const name = `${all.length} bytes in memory`
  return {
    name,
    size: all.length,
    async read(target, position, check) {
      for (let i = 0; i < pieces(target.length); i++) {
        const at = i * PIECE_BYTES
        const piece = all.subarray(position + at, position + Math.min(at + PIECE_BYTES, target.length))
        if (piece.length !== Math.min(PIECE_BYTES, target.length - at)) {
          throw new FormatError(`${op}: the bytes end at ${all.length}, expected ${position + target.length}`)
        }
        target.set(piece, at)
        check?.(target.subarray(at, at + piece.length), at)
        if (i > 0) await new Promise((resolve) => setImmediate(resolve))
      }
    },
  }
}
