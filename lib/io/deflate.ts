/** Raw deflate streams (RFC 1951) by node:zlib, off this thread and never larger than said. */
import { createDeflateRaw, createInflateRaw } from 'node:zlib'
import { KerfError } from '../core/errors'

/** Bytes of a piece: each costs a trip to another thread. */
const CHUNK_BYTES = 1 << 18

/** The compressed bytes, or null as soon as they would be `limit` or more. */
export async function deflate(bytes: Uint8Array, limit: number): Promise<Uint8Array | null> {
  const stream = createDeflateRaw({ chunkSize: CHUNK_BYTES })
  stream.end(bytes)
  const chunks: Uint8Array[] = []
  let total = 0
  for await (const chunk of stream as AsyncIterable<Uint8Array>) {
    total += chunk.length
    // Leaving the loop destroys the stream.
    if (total >= limit) return null
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

/** Fills `target` with what `bytes` stand for; `fail` learns why it cannot. */
export async function inflateInto(target: Uint8Array, bytes: Uint8Array, fail: (why: string) => never): Promise<void> {
  const stream = createInflateRaw({ chunkSize: CHUNK_BYTES })
  stream.end(bytes)
  let at = 0
  try {
    for await (const chunk of stream as AsyncIterable<Uint8Array>) {
      // Leaving the loop destroys the stream: a bomb's bytes are never made.
      if (chunk.length > target.length - at) return fail(`inflating gives more than ${target.length} bytes`)
      target.set(chunk, at)
      at += chunk.length
    }
  } catch (cause) {
    if (cause instanceof KerfError) throw cause
    fail(`inflating failed: ${(cause as Error).message}`)
  }
  if (at !== target.length) fail(`inflating gives ${at} bytes, not ${target.length}`)
  if (stream.bytesWritten !== bytes.length) fail('bytes follow the end of the deflated ones')
}
