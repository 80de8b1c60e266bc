/** Writes a file so that its name never shows half of it: a temporary file beside it, flushed, then renamed over it. */
import { randomBytes } from 'node:crypto'
import { type FileHandle, open, realpath, rename, unlink } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import type { PathLike } from './source'

/** Bytes of one write: the kernel takes at most 2^31 - 4096 at a time. */
const PIECE_BYTES = 64 << 20

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, at, Math.min(PIECE_BYTES, bytes.length - at))
    at += bytesWritten
  }
}

/** A rename is on disk once its folder is; Windows can neither open nor flush folders, and needs not. */
async function flushFolder(folder: string): Promise<void> {
  if (process.platform === 'win32') return
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/**
 * Writes `parts`, one after the other. Afterwards the file is whole and on disk; when anything fails, a file that was
 * there before is untouched and nothing is left beside it. A symbolic link is followed.
 */
export async function writeFileAtomically(target: PathLike, parts: readonly Uint8Array[]): Promise<void> {
  const asked = path.resolve(target instanceof URL ? fileURLToPath(target) : target)
  const final = await realpath(asked).catch(() => asked)
  const temporary = `${final}.${process.pid}.${randomBytes(6).toString('hex')}.tmp`
  const file = await open(temporary, 'wx')
  try {
    try {
      for (const part of parts) await writeAll(file, part)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, final)
  } catch (error) {
    await unlink(temporary).catch(() => {})
    throw error
  }
  await flushFolder(path.dirname(final))
}
