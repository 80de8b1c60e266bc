// The messages of ONNX that a model of one node and its tensors consist of (onnx.proto, IR version 8), and what kerf
// makes of their tensors.
import type { DType } from '#lib/core/dtype'
import { tensor } from '#lib/ops/create'
import type { Tensor } from '#lib/tensor/tensor'
import type { Nd } from '../oracle/array'
import { decode } from '../oracle/float'
import { Skip } from './skip'
import { Message } from './wire'

type Data =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array

interface ElementType {
  name: string
  data: { new (buffer: ArrayBuffer): Data; readonly BYTES_PER_ELEMENT: number }
  /** The field of TensorProto with the values where there is no raw_data. */
  field: number
  /** kerf's dtype; none where it has no such thing. float64 is computed as float32. */
  dtype?: DType
}

const RAW_DATA = 9
const FLOAT_DATA = 4
const INT32_DATA = 5 // also of everything narrower
const INT64_DATA = 7
const DOUBLE_DATA = 10
const UINT64_DATA = 11

/** TensorProto.DataType, without strings and complex numbers. */
const elementTypes: Record<number, ElementType> = {
  1: { name: 'float', data: Float32Array, field: FLOAT_DATA, dtype: 'float32' },
  2: { name: 'uint8', data: Uint8Array, field: INT32_DATA, dtype: 'uint8' },
  3: { name: 'int8', data: Int8Array, field: INT32_DATA, dtype: 'int8' },
  4: { name: 'uint16', data: Uint16Array, field: INT32_DATA },
  5: { name: 'int16', data: Int16Array, field: INT32_DATA },
  6: { name: 'int32', data: Int32Array, field: INT32_DATA, dtype: 'int32' },
  7: { name: 'int64', data: BigInt64Array, field: INT64_DATA, dtype: 'int64' },
  9: { name: 'bool', data: Uint8Array, field: INT32_DATA, dtype: 'bool' },
  10: { name: 'float16', data: Uint16Array, field: INT32_DATA, dtype: 'float16' },
  11: { name: 'double', data: Float64Array, field: DOUBLE_DATA, dtype: 'float32' },
  12: { name: 'uint32', data: Uint32Array, field: UINT64_DATA },
  13: { name: 'uint64', data: BigUint64Array, field: UINT64_DATA },
  16: { name: 'bfloat16', data: Uint16Array, field: INT32_DATA, dtype: 'bfloat16' },
}

function elementType(code: number): ElementType {
  const type = elementTypes[code]
  if (type === undefined) throw new Skip(`element type ${code === 8 ? 'string' : code} is not read`)
  return type
}

/** kerf's dtype for a TensorProto.DataType. */
export function dtypeOf(code: number): DType {
  const { name, dtype } = elementType(code)
  if (dtype === undefined) throw new Skip(`kerf has no ${name}`)
  return dtype
}

/** The name of a TensorProto.DataType. */
export function typeName(code: number): string {
  return elementType(code).name
}

/** A TensorProto: type (DataType), shape and elements. */
export interface OnnxTensor {
  type: number
  shape: number[]
  data: Data
}

export function readTensor(message: Message): OnnxTensor {
  const shape = message.integers(1)
  const type = message.integer(2)
  const { name, data, field } = elementType(type)
  if (message.integer(14) !== 0) throw new Skip('the elements are in another file')
  const values = message.has(RAW_DATA) ? new data(message.bytes(RAW_DATA)) : typedValues(message, field, data)
  const size = shape.reduce((n, s) => n * s, 1)
  if (values.length !== size) throw new Error(`${values.length} elements of ${name} for the shape [${shape}]`)
  return { type, shape, data: values }
}

function typedValues(message: Message, field: number, data: ElementType['data']): Data {
  if (field === FLOAT_DATA) return message.floats(field)
  if (field === DOUBLE_DATA) return message.doubles(field)
  // Any other element is the low bits of a varint.
  const bits = message.varints(field)
  const words = BigUint64Array.from(bits)
  const low = Buffer.concat(bits.map((_, i) => Buffer.from(words.buffer, 8 * i, data.BYTES_PER_ELEMENT)))
  return new data(low.buffer.slice(low.byteOffset, low.byteOffset + low.length) as ArrayBuffer)
}

export function toTensor({ type, shape, data }: OnnxTensor): Tensor {
  const dtype = dtypeOf(type)
  const values = dtype === 'bool' ? Array.from(data as Uint8Array, Boolean) : data
  return tensor(values, { shape, dtype })
}

/** The values in float64, by the oracle's own decoding. */
export function toNd({ type, shape, data }: OnnxTensor): Nd {
  const dtype = dtypeOf(type)
  const half = dtype === 'float16' || dtype === 'bfloat16' ? dtype : null
  const values = Float64Array.from(data as ArrayLike<number | bigint>, (x) => {
    if (half) return decode(half, x as number)
    if (typeof x === 'bigint' && BigInt(Number(x)) !== x) throw new Error(`${x} is not a float64`)
    return Number(x)
  })
  return { shape, data: values }
}

export type Attribute = number | string | OnnxTensor | number[] | string[]

/** A graph's input or output; `type` is null for a sequence, an optional or a map. */
export interface OnnxValue {
  name: string
  type: number | null
}

export interface OnnxNode {
  opType: string
  domain: string
  /** Names; '' for an optional one that is left out. */
  inputs: string[]
  outputs: string[]
  /** AttributeProto by name. */
  attributes: ReadonlyMap<string, Message>
}

export interface OnnxModel {
  /** Versions by domain; '' is ONNX itself. */
  opsets: ReadonlyMap<string, number>
  nodes: OnnxNode[]
  inputs: OnnxValue[]
  outputs: OnnxValue[]
}

/** The value of an AttributeProto, by its AttributeType. */
export function readAttribute(message: Message): Attribute {
  switch (message.integer(20)) {
    case 1:
      return message.floats(2)[0] ?? 0
    case 2:
      return message.integer(3)
    case 3:
      return message.text(4)
    case 4:
      return readTensor(message.messages(5)[0] as Message)
    case 6:
      return Array.from(message.floats(7))
    case 7:
      return message.integers(8)
    case 8:
      return message.texts(9)
    default:
      throw new Skip(`attribute ${message.text(1)} is a graph or a list of tensors`)
  }
}

function readNode(message: Message): OnnxNode {
  return {
    inputs: message.texts(1),
    outputs: message.texts(2),
    opType: message.text(4),
    domain: message.text(7),
    attributes: new Map(message.messages(5).map((attribute) => [attribute.text(1), attribute])),
  }
}

function readValue(message: Message): OnnxValue {
  const tensorType = message.messages(2)[0]?.messages(1)[0]
  return { name: message.text(1), type: tensorType ? tensorType.integer(1) : null }
}

export function readModel(bytes: Uint8Array): OnnxModel {
  const model = new Message(bytes)
  const graph = model.messages(7)[0] as Message
  return {
    opsets: new Map(model.messages(8).map((opset) => [opset.text(1), opset.integer(2)])),
    nodes: graph.messages(1).map(readNode),
    inputs: graph.messages(11).map(readValue),
    outputs: graph.messages(12).map(readValue),
  }
}
