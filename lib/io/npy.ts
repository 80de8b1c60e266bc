/**
 * NumPy's .npy format, versions 1 to 3, one array a file.
 * https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 */
import { type DType, dtypeBytes } from '../core/dtype'
import { DTypeError, FormatError, show } from '../core/errors'
import type { Tensor } from '../tensor/tensor'
import { checkEntry, checkFileShape, type Extent, readTensors, snapshot } from './file-tensor'
import { bytesSource, checkPath, type PathLike, type Source, withFile } from './source'
import { writeFileAtomically } from './write-file'

const descriptors: Record<Exclude<DType, 'bfloat16'>, string> = {
  float32: '<f4',
  float16: '<f2',
  int8: '|i1',
  uint8: '|u1',
  int32: '<i4',
  int64: '<i8',
  bool: '|b1',
}
const dtypesByDescriptor = new Map(Object.entries(descriptors).map(([dtype, name]) => [name, dtype as DType]))

const MAGIC = '\x93NUMPY'
/** Writers pad the header so that the data starts at a multiple of it. */
const ALIGNMENT = 64
/** A plain array's header has about 100 bytes; NumPy itself refuses more than 10,000. */
const MAX_HEADER_BYTES = 1 << 16

/** The header is a Python literal of exactly three keys: descr, fortran_order, shape; in any order. */
function parseHeader(
  text: string,
  fail: (why: string) => never,
): { descr: string; fortranOrder: boolean; shape: number[] } {
  let rest = text.trim()
  const take = (pattern: RegExp, what: string): string => {
    const match = pattern.exec(rest)
    if (!match) return fail(`the header needs ${what} at ${show(rest)}`)
    rest = rest.slice(match[0].length).trimStart()
    return match[1] ?? ''
  }
  const fields = new Map<string, string>()
  const values: Record<string, [RegExp, string]> = {
    descr: [/^'([^'\\]*)'|^\[/, 'a quoted type'],
    fortran_order: [/^(True|False)\b/, 'True or False'],
    shape: [/^\(([\d\s,L]*)\)/, 'a tuple of sizes'],
  }
  take(/^\{/, "'{'")
  while (!rest.startsWith('}')) {
    const key = take(/^'([^'\\]*)'/, 'a quoted key')
    const value = Object.hasOwn(values, key) ? values[key] : undefined
    if (!value || fields.has(key)) return fail(`the header's key ${show(key)} is ${value ? 'given twice' : 'unknown'}`)
    take(/^:/, "':'")
    fields.set(key, take(...value))
    if (!rest.startsWith('}')) take(/^,/, "',' or '}'")
  }
  if (rest !== '}') fail(`the header goes on after '}': ${show(rest)}`)
  for (const key of Object.keys(values)) if (!fields.has(key)) fail(`the header has no ${show(key)}`)
  return {
    descr: fields.get('descr') as string,
    fortranOrder: fields.get('fortran_order') === 'True',
    shape: parseTuple(fields.get('shape') as string, fail),
  }
}

/** '3, 4', '3,' or '': Python 2 wrote long integers as 3L. */
function parseTuple(text: string, fail: (why: string) => never): number[] {
  const items = text.split(',').map((item) => item.trim())
  if (items.at(-1) === '') items.pop()
  else if (items.length === 1) fail(`shape (${text}) is not a tuple`)
  return items.map((item) =>
    /^\d+L?$/.test(item) ? Number.parseInt(item, 10) : fail(`shape (${text}) has a size that is not a whole number`),
  )
}

function dtypeOf(descr: string, fail: (why: string) => never): DType {
  const dtype = dtypesByDescriptor.get(descr)
  if (dtype) return dtype
  const known = [...dtypesByDescriptor.keys()].join(' ')
  if (descr === '') return fail(`structured arrays are not supported, only ${known}`)
  const advice = descr.startsWith('>')
    ? 'big-endian: save it with astype(a.dtype.newbyteorder("<"))'
    : 'convert it with astype before saving'
  return fail(`descr must be one of ${known}, got ${show(descr)} (${advice})`)
}

async function read(op: string, source: Source): Promise<Tensor> {
  const fail = (why: string): never => {
    throw new FormatError(`${op}: ${source.name}: ${why}`)
  }
  const start = new Uint8Array(12)
  if (source.size < start.length) fail(`${source.size} bytes are too few for an .npy file`)
  await source.read(start, 0)
  if (Buffer.from(start.subarray(0, 6)).toString('latin1') !== MAGIC) fail('it does not start with \\x93NUMPY')
  const [major, minor] = [start[6] as number, start[7] as number]
  if (major < 1 || major > 3 || minor !== 0) fail(`version ${major}.${minor} is not 1.0, 2.0 or 3.0`)
  const view = new DataView(start.buffer)
  const lengthBytes = major === 1 ? 2 : 4
  const length = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true)
  if (length > MAX_HEADER_BYTES) fail(`header length ${length} is more than ${MAX_HEADER_BYTES}`)
  const position = 8 + lengthBytes + length
  if (position > source.size) fail(`header length ${length} reaches beyond the file's ${source.size} bytes`)
  const headerBytes = Buffer.alloc(length)
  await source.read(headerBytes, 8 + lengthBytes)
  const { descr, fortranOrder, shape } = parseHeader(headerBytes.toString(major === 3 ? 'utf8' : 'latin1'), fail)

  const dtype = dtypeOf(descr, fail)
  const bytes = checkFileShape(shape, fail) * dtypeBytes[dtype]
  if (position + bytes !== source.size)
    fail(`${dtype} shape (${shape}) takes ${bytes} bytes, the file has ${source.size - position} after its header`)
  const extent: Extent = { what: 'the array', dtype, shape, position, bytes }
  const [tensor] = await readTensors(op, source, [fortranOrder ? { ...extent, strides: columnMajor(shape) } : extent])
  return tensor as Tensor
}

function columnMajor(shape: readonly number[]): number[] {
  let step = 1
  return shape.map((size) => {
    const stride = step
    step *= size
    return stride
  })
}

/**
 * Reads a .npy file of dtype <f4 <f2 |i1 |u1 <i4 <i8 or |b1. An array in Fortran order keeps its layout in memory: the
 * tensor has the array's shape and column-major strides.
 *
 * @throws FormatError for a file that is damaged, hostile, or of another dtype or byte order; errors of the file system
 * are Node's
 */
export async function loadNpy(path: PathLike): Promise<Tensor> {
  return withFile('loadNpy', path, (source) => read('loadNpy', source))
}

/** loadNpy for bytes in memory; they must not change until it has resolved. */
export async function parseNpy(bytes: Uint8Array | ArrayBuffer): Promise<Tensor> {
  return read('parseNpy', bytesSource('parseNpy', bytes))
}

async function serialize(op: string, value: unknown): Promise<Uint8Array[]> {
  const tensor = checkEntry(op, 'tensor', value)
  if (tensor.dtype === 'bfloat16') throw new DTypeError(`${op}: .npy has no bfloat16: convert the tensor to float32`)
  const data = snapshot([tensor])
  const { shape } = tensor
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(', ')})`
  const text = `{'descr': '${descriptors[tensor.dtype]}', 'fortran_order': False, 'shape': ${tuple}, }`
  const total = Math.ceil((10 + text.length + 1) / ALIGNMENT) * ALIGNMENT
  const head = Buffer.alloc(total, ' ')
  head.write(MAGIC, 'latin1')
  head.writeUInt8(1, 6)
  head.writeUInt8(0, 7)
  head.writeUInt16LE(total - 10, 8)
  head.write(text, 10, 'latin1')
  head.write('\n', total - 1)
  return [head, ...(await data)]
}

/**
 * Writes a tensor to a .npy file (version 1.0, row-major) with the values it has at the moment of the call. The file
 * appears under its name only when it is whole and on disk.
 *
 * @throws DTypeError for bfloat16, which the format does not have; ArgumentError; DisposedError
 */
export async function saveNpy(path: PathLike, tensor: Tensor): Promise<void> {
  const target = checkPath('saveNpy', path)
  await writeFileAtomically(target, await serialize('saveNpy', tensor))
}

/** The bytes that saveNpy would write. */
export async function serializeNpy(tensor: Tensor): Promise<Uint8Array> {
  return Buffer.concat(await serialize('serializeNpy', tensor))
}
