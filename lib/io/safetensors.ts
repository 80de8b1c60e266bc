/**
 * The safetensors format: 8 bytes with the header's length (little-endian), a JSON header, the tensors' bytes.
 * https://github.com/huggingface/safetensors: what its reference reader refuses is refused here too, and so are keys
 * given twice.
 */
import { type DType, dtypeBytes } from '../core/dtype'
import { FormatError, show } from '../core/errors'
import { showShape } from '../core/shape'
import type { Tensor } from '../tensor/tensor'
import { checkFileShape, type Extent, readTensors, snapshot } from './file-tensor'
import { bytesSource, checkPath, type PathLike, type Source, withFile } from './source'
import {
  checkCoverage,
  checkDict,
  checkMetadata,
  isObject,
  type Metadata,
  parseHeader,
  readMetadata,
  type TensorDict,
} from './tensor-dict'
import { writeFileAtomically } from './write-file'

export interface SafetensorsInfo {
  metadata: Record<string, string>
  /** In the order of their bytes in the file. */
  tensors: Record<string, { dtype: DType; shape: number[]; bytes: number }>
}

const formatNames: Record<DType, string> = {
  float32: 'F32',
  float16: 'F16',
  bfloat16: 'BF16',
  int8: 'I8',
  uint8: 'U8',
  int32: 'I32',
  int64: 'I64',
  bool: 'BOOL',
}
const dtypesByFormatName = new Map(Object.entries(formatNames).map(([dtype, name]) => [name, dtype as DType]))

const METADATA = '__metadata__'
const LENGTH_BYTES = 8
/** The reference reader's limit: more is an attack, not a model. */
const MAX_HEADER_BYTES = 100_000_000

interface Header {
  metadata: Record<string, string>
  names: string[]
  extents: Extent[]
}

function readEntry(name: string, value: unknown, dataStart: number, failFile: (why: string) => never): Extent {
  const what = `tensor ${show(name)}`
  const fail = (why: string): never => failFile(`${what}: ${why}`)
  if (!isObject(value)) return fail(`must be an object, got ${show(value)}`)
  const { dtype: formatName, shape, data_offsets: offsets, ...others } = value
  const unknown = Object.keys(others)[0]
  if (unknown !== undefined) fail(`unknown field ${show(unknown)}`)
  const dtype = typeof formatName === 'string' ? dtypesByFormatName.get(formatName) : undefined
  if (dtype === undefined)
    return fail(`dtype must be one of ${[...dtypesByFormatName.keys()].join(' ')}, got ${show(formatName)}`)
  if (!Array.isArray(shape)) return fail(`shape must be an array, got ${show(shape)}`)
  const bytes = checkFileShape(shape, fail) * dtypeBytes[dtype]
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(Number.isSafeInteger)) {
    return fail(`data_offsets must be two whole numbers, got ${show(offsets)}`)
  }
  const [begin, end] = offsets as [number, number]
  if (end - begin !== bytes)
    fail(`${dtype} ${showShape(shape)} takes ${bytes} bytes, data_offsets [${begin}, ${end}] are ${end - begin}`)
  return { what, dtype, shape, position: dataStart + begin, bytes }
}

async function readHeader(op: string, source: Source): Promise<Header> {
  const fail = (why: string, cause?: unknown): never => {
    throw new FormatError(`${op}: ${source.name}: ${why}`, { cause })
  }
  if (source.size < LENGTH_BYTES) fail(`${source.size} bytes are too few for a safetensors file`)
  const lengthBytes = new Uint8Array(LENGTH_BYTES)
  await source.read(lengthBytes, 0)
  const length = new DataView(lengthBytes.buffer).getBigUint64(0, true)
  if (length > MAX_HEADER_BYTES) fail(`header length ${length} is more than ${MAX_HEADER_BYTES}`)
  const dataStart = LENGTH_BYTES + Number(length)
  if (dataStart > source.size) fail(`header length ${length} reaches beyond the file's ${source.size} bytes`)

  const headerBytes = new Uint8Array(Number(length))
  await source.read(headerBytes, LENGTH_BYTES)
  const entries = parseHeader(headerBytes, fail)
  const metadata = Object.hasOwn(entries, METADATA) ? readMetadata(METADATA, entries[METADATA], fail) : {}
  const tensors = Object.entries(entries)
    .filter(([name]) => name !== METADATA)
    .map(([name, value]) => ({ name, extent: readEntry(name, value, dataStart, fail) }))
    .sort((a, b) => a.extent.position - b.extent.position || a.extent.bytes - b.extent.bytes)
  checkCoverage(
    tensors.map(({ extent }) => extent),
    dataStart,
    source.size,
    fail,
  )
  return { metadata, names: tensors.map(({ name }) => name), extents: tensors.map(({ extent }) => extent) }
}

async function readAll(
  op: string,
  source: Source,
): Promise<{ tensors: Record<string, Tensor>; metadata: Record<string, string> }> {
  const { metadata, names, extents } = await readHeader(op, source)
  const tensors = await readTensors(op, source, extents)
  // fromEntries defines own properties: a tensor named __proto__ is a tensor like others.
  return { tensors: Object.fromEntries(names.map((name, i) => [name, tensors[i] as Tensor])), metadata }
}

/**
 * Reads all tensors of a safetensors file. The event loop keeps turning, however large the file.
 *
 * @returns names to tensors (row-major, without gradient), as `loadStateDict` takes them
 * @throws FormatError for a file that is damaged, hostile, or holds dtypes that kerf does not have; the message names
 * file, tensor, field and value. Errors of the file system are Node's.
 */
export async function loadSafetensors(path: PathLike): Promise<Record<string, Tensor>> {
  return withFile('loadSafetensors', path, async (source) => (await readAll('loadSafetensors', source)).tensors)
}

/**
 * Reads the header of a safetensors file and no more: its metadata, and every tensor's dtype, shape and bytes.
 *
 * @throws FormatError as loadSafetensors, except for what only the tensors' own bytes show
 */
export async function readSafetensorsInfo(path: PathLike): Promise<SafetensorsInfo> {
  const op = 'readSafetensorsInfo'
  return withFile(op, path, async (source) => {
    const { metadata, names, extents } = await readHeader(op, source)
    const describe = ({ dtype, shape, bytes }: Extent) => ({ dtype, shape: [...shape], bytes })
    return { metadata, tensors: Object.fromEntries(names.map((name, i) => [name, describe(extents[i] as Extent)])) }
  })
}

/**
 * loadSafetensors for bytes in memory; they must not change until it has resolved.
 *
 * @throws FormatError as loadSafetensors
 */
export async function parseSafetensors(
  bytes: Uint8Array | ArrayBuffer,
): Promise<{ tensors: Record<string, Tensor>; metadata: Record<string, string> }> {
  return readAll('parseSafetensors', bytesSource('parseSafetensors', bytes))
}

/** The file in parts. Larger elements first, then by name: every tensor is aligned, and equal dicts give equal files. */
async function serialize(op: string, dict: unknown, options: { metadata?: Metadata } = {}): Promise<Uint8Array[]> {
  const metadata = checkMetadata(op, options.metadata)
  const order = checkDict(op, dict, METADATA).sort(
    (a, b) => dtypeBytes[b.tensor.dtype] - dtypeBytes[a.tensor.dtype] || (a.name < b.name ? -1 : 1),
  )
  const data = snapshot(order.map(({ tensor }) => tensor))
  let next = 0
  const entries: [string, unknown][] = order.map(({ name, tensor: { dtype, shape, bytes } }) => {
    const begin = next
    next += bytes
    return [name, { dtype: formatNames[dtype], shape, data_offsets: [begin, next] }]
  })
  if (metadata.length > 0) entries.unshift([METADATA, Object.fromEntries(metadata)])
  const json = Buffer.from(JSON.stringify(Object.fromEntries(entries)))
  const length = Math.ceil(json.length / 8) * 8
  const head = Buffer.alloc(LENGTH_BYTES + length, ' ')
  head.writeBigUInt64LE(BigInt(length))
  json.copy(head, LENGTH_BYTES)
  return [head, ...(await data)]
}

/**
 * Writes tensors of any dtype to a safetensors file, row-major, with the values they have at the moment of the call.
 * The file appears under its name only when it is whole and on disk: a crash never leaves half a file.
 *
 * @param options.metadata strings to keep with them; readSafetensorsInfo reads them back
 * @throws ArgumentError for an entry that is no tensor; DisposedError; errors of the file system are Node's
 */
export async function saveSafetensors(
  path: PathLike,
  tensors: TensorDict,
  options: { metadata?: Metadata } = {},
): Promise<void> {
  const target = checkPath('saveSafetensors', path)
  await writeFileAtomically(target, await serialize('saveSafetensors', tensors, options))
}

/**
 * The bytes that saveSafetensors would write.
 *
 * @throws ArgumentError for an entry that is no tensor; DisposedError
 */
export async function serializeSafetensors(
  tensors: TensorDict,
  options: { metadata?: Metadata } = {},
): Promise<Uint8Array> {
  return Buffer.concat(await serialize('serializeSafetensors', tensors, options))
}
