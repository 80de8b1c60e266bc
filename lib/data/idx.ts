/**
 * The IDX format of MNIST and its kin: magic 0 0 type rank, big-endian sizes, big-endian values; often gzipped.
 * http://yann.lecun.com/exdb/mnist
 */
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import { type DType, dtypeBytes } from '../core/dtype'
import { ArgumentError, FormatError, show } from '../core/errors'
import { checkInteger, contiguousStrides, MAX_ELEMENTS, MAX_RANK, showShape } from '../core/shape'
import { sync } from '../native/stream'
import { allocate, release } from '../tensor/storage'
import { Tensor } from '../tensor/tensor'

/** Type code -> dtype of the tensor and bytes in the file. int16 has no dtype of its own and becomes int32. */
const types = new Map<number, { dtype: DType; bytes: number }>([
  [0x08, { dtype: 'uint8', bytes: 1 }],
  [0x09, { dtype: 'int8', bytes: 1 }],
  [0x0b, { dtype: 'int32', bytes: 2 }],
  [0x0c, { dtype: 'int32', bytes: 4 }],
  [0x0d, { dtype: 'float32', bytes: 4 }],
])

const inflate = promisify(gunzip)

/** Bytes converted between two turns of the event loop. */
const PIECE_BYTES = 4 << 20

async function contents(path: string | URL, maxBytes: number): Promise<Buffer> {
  const file = await readFile(path)
  if (file[0] !== 0x1f || file[1] !== 0x8b) return file
  try {
    return await inflate(file, { maxOutputLength: maxBytes })
  } catch (cause) {
    const tooLarge = (cause as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE'
    const why = tooLarge
      ? `it unpacks to more than maxBytes = ${maxBytes} bytes`
      : `it is damaged: ${(cause as Error).message}`
    throw new FormatError(`readIdx: ${path}: ${why}`, { cause })
  }
}

/**
 * Reads an IDX file, gzipped or not, into a tensor of uint8, int8, int32 or float32 (int16 becomes int32).
 *
 * @param options.maxBytes the most that a gzipped file may unpack to; 1 GiB unless given
 * @throws FormatError for a file that is damaged or of another type; errors of the file system are Node's
 */
export async function readIdx(path: string | URL, options: { maxBytes?: number } = {}): Promise<Tensor> {
  if (!(typeof path === 'string' && path !== '') && !(path instanceof URL))
    throw new ArgumentError(`readIdx: path must be a non-empty string or a file URL, got ${show(path)}`)
  const maxBytes = checkInteger('readIdx', 'maxBytes', options.maxBytes ?? 2 ** 30, 1, 2 ** 32)
  const file = await contents(path, maxBytes)
  const fail = (why: string): never => {
    throw new FormatError(`readIdx: ${path}: ${why}`)
  }
  if (file.length < 4 || file[0] !== 0 || file[1] !== 0) return fail('it does not start with two zero bytes and a type')
  const type = types.get(file[2] as number)
  if (!type) return fail(`type 0x${(file[2] as number).toString(16)} is not one of 0x8 0x9 0xb 0xc 0xd`)
  const rank = file[3] as number
  if (rank > MAX_RANK) return fail(`it has ${rank} axes, at most ${MAX_RANK} are possible`)
  const start = 4 + 4 * rank
  if (file.length < start) return fail(`it ends inside its ${rank} sizes`)
  const shape = Array.from({ length: rank }, (_, i) => file.readUInt32BE(4 + 4 * i))
  let size = 1
  let reach = 1
  for (const n of shape) {
    size *= n
    reach *= Math.max(n, 1) // a zero hides the other sizes from the product, but not from the strides
    if (reach > MAX_ELEMENTS) return fail(`shape ${showShape(shape)} has more than 2^40 elements`)
  }
  if (file.length - start !== size * type.bytes)
    return fail(`${showShape(shape)} takes ${size * type.bytes} bytes, the file has ${file.length - start}`)
  return fill(type.dtype, type.bytes, shape, size, file.subarray(start))
}

async function fill(dtype: DType, bytes: number, shape: number[], size: number, data: Buffer): Promise<Tensor> {
  const storage = allocate(size * dtypeBytes[dtype])
  try {
    await sync() // recycled bytes may still be in use by commands in flight
  } catch (error) {
    release(storage)
    throw error
  }
  const out = Buffer.from(storage.buffer, storage.byteOffset, size * dtypeBytes[dtype])
  for (let at = 0; at < data.length; at += PIECE_BYTES) {
    const end = Math.min(at + PIECE_BYTES, data.length)
    if (bytes === 1) data.copy(out, at, at, end)
    else if (bytes === 4) swap4(data, out, at, end)
    else for (let i = at; i < end; i += 2) out.writeInt32LE(data.readInt16BE(i), 2 * i)
    if (end < data.length) await new Promise<void>((resolve) => setImmediate(resolve))
  }
  return new Tensor(dtype, shape, contiguousStrides(shape), storage.byteOffset / dtypeBytes[dtype], storage)
}

function swap4(data: Buffer, out: Buffer, from: number, to: number): void {
  data.copy(out, from, from, to)
  out.subarray(from, to).swap32()
}
