/**
 * Compressed files: tensors by name, each in the lossless encoding that takes the fewest bytes. What Deep Compression
 * (S. Han, H. Mao, W. Dally, ICLR 2016) stores, for any tensors; the layout is in docs/adr/0008-compressed-files.md.
 */
import { crc32 } from 'node:zlib'
import { type DType, dtypeBytes, isDType } from '../core/dtype'
import { FormatError, show } from '../core/errors'
import { inSlices, Pauses } from '../core/pauses'
import { checkInteger } from '../core/shape'
import type { Tensor } from '../tensor/tensor'
import { decodeTensor } from './decode-tensor'
import { encodeTensor } from './encode-tensor'
import { checkFileShape, fillTensors, snapshot, type TensorDescription } from './file-tensor'
import { MAX_EXPANSION, type TensorEncoding, tensorEncodings } from './sections'
import { bytesSource, checkPath, type PathLike, type Source, withFile } from './source'
import {
  checkCoverage,
  checkDict,
  checkMetadata,
  isObject,
  type Metadata,
  type Place,
  parseHeader,
  readMetadata,
  type TensorDict,
} from './tensor-dict'
import { writeFileAtomically } from './write-file'

/** The first byte is no text's, and line ends among the others would not survive a transfer as text. */
const MAGIC = Buffer.from('\x8ekerf\r\n\n', 'latin1')
const VERSION = 1
/** Magic, then version, length and CRC-32 of the header as uint32, little-endian. */
const PREFIX_BYTES = 20
const MAX_HEADER_BYTES = 100_000_000

/** What a tensor takes in a compressed file. */
export interface CompressedTensorInfo {
  dtype: DType
  shape: number[]
  /** Uncompressed. */
  bytes: number
  /** Bytes in the file. */
  stored: number
  /** bytes / stored; 1 for a tensor without elements. */
  ratio: number
  encoding: TensorEncoding
}

/** What a compressed file holds, and how small it is. */
export interface CompressedReport {
  metadata: Record<string, string>
  /** In the order of their bytes in the file. */
  tensors: Record<string, CompressedTensorInfo>
  /** Of all tensors, uncompressed. */
  bytes: number
  /** Of the whole file, its header included. */
  stored: number
  /** bytes / stored. */
  ratio: number
}

export interface LoadCompressedOptions {
  /**
   * Bytes that the tensors may have in all: more is refused before anything is allocated. Default: no limit of its own,
   * but no tensor is more than 1032 times its bytes in the file.
   */
  maxBytes?: number
}

interface Entry extends TensorDescription, Place {
  readonly name: string
  readonly encoding: TensorEncoding
  readonly crc: number
  /** In the file. */
  readonly bytes: number
  readonly decodedBytes: number
}

interface Header {
  metadata: Record<string, string>
  entries: Entry[]
}

/** CRC-32 of `parts` one after the other. */
async function checksum(parts: readonly Uint8Array[], pauses: Pauses): Promise<number> {
  let crc = 0
  for (const part of parts)
    await inSlices(part.length, pauses, (from, to) => {
      crc = crc32(part.subarray(from, to), crc)
    })
  return crc
}

function readEntry(name: string, value: unknown, dataStart: number, failFile: (why: string) => never): Entry {
  const what = `tensor ${show(name)}`
  const fail = (why: string): never => failFile(`${what}: ${why}`)
  if (!isObject(value)) return fail(`must be an object, got ${show(value)}`)
  const { dtype: dtypeName, shape, encoding: encodingName, data_offsets: offsets, crc32: crc, ...others } = value
  const unknown = Object.keys(others)[0]
  if (unknown !== undefined) fail(`unknown field ${show(unknown)}`)
  if (!isDType(dtypeName))
    return fail(`dtype must be one of ${Object.keys(dtypeBytes).join(' ')}, got ${show(dtypeName)}`)
  const encoding = tensorEncodings.find((known) => known === encodingName)
  if (encoding === undefined)
    return fail(`encoding must be one of ${tensorEncodings.join(' ')}, got ${show(encodingName)}`)
  if (!Array.isArray(shape)) return fail(`shape must be an array, got ${show(shape)}`)
  const decodedBytes = checkFileShape(shape, fail) * dtypeBytes[dtypeName]
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(Number.isSafeInteger))
    return fail(`data_offsets must be two whole numbers, got ${show(offsets)}`)
  const [begin, end] = offsets as [number, number]
  const bytes = end - begin
  if (bytes < 0) fail(`data_offsets [${begin}, ${end}] end before they begin`)
  if (decodedBytes > MAX_EXPANSION * bytes)
    fail(`takes ${decodedBytes} bytes, more than ${MAX_EXPANSION} times the ${bytes} in the file`)
  if (typeof crc !== 'number' || crc >= 2 ** 32)
    return fail(`crc32 must be a whole number of 32 bits, got ${show(crc)}`)
  return { name, what, dtype: dtypeName, shape, encoding, crc, position: dataStart + begin, bytes, decodedBytes }
}

async function readHeader(op: string, source: Source): Promise<Header> {
  const fail = failer(op, source)
  if (source.size < PREFIX_BYTES) fail(`${source.size} bytes are too few for a compressed file`)
  const prefix = Buffer.alloc(PREFIX_BYTES)
  await source.read(prefix, 0)
  if (!prefix.subarray(0, MAGIC.length).equals(MAGIC)) fail('it does not start as a compressed file does')
  const version = prefix.readUInt32LE(8)
  if (version !== VERSION) fail(`version ${version} is not ${VERSION}`)
  const length = prefix.readUInt32LE(12)
  if (length > MAX_HEADER_BYTES) fail(`header length ${length} is more than ${MAX_HEADER_BYTES}`)
  const dataStart = PREFIX_BYTES + length
  if (dataStart > source.size) fail(`header length ${length} reaches beyond the file's ${source.size} bytes`)
  const headerBytes = new Uint8Array(length)
  await source.read(headerBytes, PREFIX_BYTES)
  if ((await checksum([headerBytes], new Pauses())) !== prefix.readUInt32LE(16))
    fail('the header is damaged: its CRC-32 is another')

  const { metadata = {}, tensors, ...others } = parseHeader(headerBytes, fail)
  const unknown = Object.keys(others)[0]
  if (unknown !== undefined) fail(`the header has an unknown field ${show(unknown)}`)
  if (!isObject(tensors)) return fail(`tensors must be an object, got ${show(tensors)}`)
  const entries = Object.entries(tensors)
    .map(([name, value]) => readEntry(name, value, dataStart, fail))
    .sort((a, b) => a.position - b.position || a.bytes - b.bytes)
  checkCoverage(entries, dataStart, source.size, fail)
  return { metadata: readMetadata('metadata', metadata, fail), entries }
}

function failer(op: string, source: Source) {
  return (why: string, cause?: unknown): never => {
    throw new FormatError(`${op}: ${source.name}: ${why}`, { cause })
  }
}

async function readAll(
  op: string,
  source: Source,
  options: LoadCompressedOptions,
): Promise<{ tensors: Record<string, Tensor>; metadata: Record<string, string> }> {
  const fail = failer(op, source)
  const { maxBytes } = options
  if (maxBytes !== undefined) checkInteger(op, 'maxBytes', maxBytes, 0)
  const { metadata, entries } = await readHeader(op, source)
  const bytes = entries.reduce((sum, { decodedBytes }) => sum + decodedBytes, 0)
  if (maxBytes !== undefined && bytes > maxBytes) fail(`the tensors take ${bytes} bytes, maxBytes is ${maxBytes}`)
  const pauses = new Pauses()
  const tensors = await fillTensors(entries, async (entry, target) => {
    const section = new Uint8Array(entry.bytes)
    await source.read(section, entry.position)
    const failTensor = (why: string): never => fail(`${entry.what}: ${why}`)
    if ((await checksum([section], pauses)) !== entry.crc) failTensor('its bytes are damaged: their CRC-32 is another')
    await decodeTensor(entry.encoding, entry.dtype, section, target, pauses, failTensor)
  })
  // fromEntries defines own properties: a tensor named __proto__ is a tensor like others.
  return { tensors: Object.fromEntries(entries.map(({ name }, i) => [name, tensors[i] as Tensor])), metadata }
}

/**
 * Reads all tensors of a file that saveCompressed wrote: every bit is what it was. The event loop keeps turning, however
 * large the file.
 *
 * @returns names to tensors (row-major, without gradient), as `loadStateDict` takes them
 * @throws FormatError for a file that is damaged or hostile, or beyond options.maxBytes; the message names file, tensor
 * and value. ArgumentError. Errors of the file system are Node's.
 */
export async function loadCompressed(
  path: PathLike,
  options: LoadCompressedOptions = {},
): Promise<Record<string, Tensor>> {
  return withFile('loadCompressed', path, async (source) => (await readAll('loadCompressed', source, options)).tensors)
}

/**
 * loadCompressed for bytes in memory; they must not change until it has resolved.
 *
 * @throws FormatError as loadCompressed
 */
export async function parseCompressed(
  bytes: Uint8Array | ArrayBuffer,
  options: LoadCompressedOptions = {},
): Promise<{ tensors: Record<string, Tensor>; metadata: Record<string, string> }> {
  return readAll('parseCompressed', bytesSource('parseCompressed', bytes), options)
}

/**
 * Reads the header of a compressed file and no more: its metadata, what it holds, and what each tensor takes.
 *
 * @throws FormatError as loadCompressed, except for what only the tensors' own bytes show
 */
export async function compressedReport(path: PathLike): Promise<CompressedReport> {
  return withFile('compressedReport', path, async (source) =>
    report(await readHeader('compressedReport', source), source.size),
  )
}

function report({ metadata, entries }: Header, stored: number): CompressedReport {
  const tensors = entries.map(({ name, dtype, shape, encoding, bytes: stored, decodedBytes: bytes }) => {
    return [name, { dtype, shape: [...shape], bytes, stored, ratio: stored === 0 ? 1 : bytes / stored, encoding }]
  })
  const bytes = entries.reduce((sum, { decodedBytes }) => sum + decodedBytes, 0)
  return { metadata, tensors: Object.fromEntries(tensors), bytes, stored, ratio: bytes / stored }
}

/** The file in parts, in the order of the names: equal dictionaries give equal files. */
async function serialize(op: string, dict: unknown, options: { metadata?: Metadata }) {
  const metadata = Object.fromEntries(checkMetadata(op, options.metadata))
  const order = checkDict(op, dict).sort((a, b) => (a.name < b.name ? -1 : 1))
  const data = await snapshot(order.map(({ tensor }) => tensor))
  const pauses = new Pauses()
  const parts: Uint8Array[] = []
  const entries: Entry[] = []
  let position = 0
  for (let i = 0; i < order.length; i++) {
    const { name, tensor } = order[i] as (typeof order)[number]
    const section = await encodeTensor(tensor.dtype, data[i] as Uint8Array, pauses)
    const bytes = section.parts.reduce((sum, part) => sum + part.length, 0)
    const crc = await checksum(section.parts, pauses)
    const { dtype, shape, bytes: decodedBytes } = tensor
    entries.push({ name, what: '', dtype, shape, encoding: section.encoding, crc, position, bytes, decodedBytes })
    parts.push(...section.parts)
    position += bytes
  }
  const tensors = entries.map(({ name, dtype, shape, encoding, crc, position, bytes }) => {
    return [name, { dtype, shape, encoding, data_offsets: [position, position + bytes], crc32: crc }]
  })
  const json = Buffer.from(JSON.stringify({ metadata, tensors: Object.fromEntries(tensors) }))
  const prefix = Buffer.alloc(PREFIX_BYTES)
  MAGIC.copy(prefix)
  prefix.writeUInt32LE(VERSION, 8)
  prefix.writeUInt32LE(json.length, 12)
  prefix.writeUInt32LE(await checksum([json], pauses), 16)
  return {
    parts: [prefix, json, ...parts],
    report: report({ metadata, entries }, prefix.length + json.length + position),
  }
}

/**
 * Writes tensors of any dtype to a compressed file, lossless, with the values they have at the moment of the call. Each
 * tensor is stored in the smallest of five ways (`TensorEncoding`): it pays for weights that are zeros for the most
 * part, or few distinct values (`shareWeights`), or both. The file appears under its name only when it is whole and on
 * disk.
 *
 * @param options.metadata strings to keep with them; compressedReport reads them back
 * @returns what the file and each tensor take
 * @throws ArgumentError for an entry that is no tensor; DisposedError; errors of the file system are Node's
 * @example
 * await io.shareWeights(model, { bits: 5 })
 * const { ratio } = await io.saveCompressed('model.kerf', model.stateDict())
 * model.loadStateDict(await io.loadCompressed('model.kerf'))
 */
export async function saveCompressed(
  path: PathLike,
  tensors: TensorDict,
  options: { metadata?: Metadata } = {},
): Promise<CompressedReport> {
  const target = checkPath('saveCompressed', path)
  const { parts, report } = await serialize('saveCompressed', tensors, options)
  await writeFileAtomically(target, parts)
  return report
}

/**
 * The bytes that saveCompressed would write.
 *
 * @throws ArgumentError for an entry that is no tensor; DisposedError
 */
export async function serializeCompressed(
  tensors: TensorDict,
  options: { metadata?: Metadata } = {},
): Promise<Uint8Array> {
  return Buffer.concat((await serialize('serializeCompressed', tensors, options)).parts)
}
