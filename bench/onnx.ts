/** Writes the few ONNX models that the peer runs, in benches and tests: exactly the fields they need (onnx.proto3). */

type Field = Uint8Array

function varint(value: number): Uint8Array {
  const bytes: number[] = []
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128)
  bytes.push(value)
  return Uint8Array.from(bytes)
}

const VARINT = 0
const LENGTH = 2
const tag = (field: number, wire: number) => varint(field * 8 + wire)
const number = (field: number, value: number): Field => Buffer.concat([tag(field, VARINT), varint(value)])
const bytes = (field: number, value: Uint8Array): Field =>
  Buffer.concat([tag(field, LENGTH), varint(value.length), value])
const text = (field: number, value: string): Field => bytes(field, Buffer.from(value))
const message = (field: number, ...parts: Field[]): Field => bytes(field, Buffer.concat(parts))

/** TensorProto.DataType */
export const onnxType = { float32: 1, uint8: 2, int8: 3, int32: 6, float16: 10, bfloat16: 16 } as const
export type OnnxType = keyof typeof onnxType

/** A tensor that the model holds: the runtime reorders constants ahead of time, as kerf packs weights. */
export interface Constant {
  type: OnnxType
  shape: number[]
  data: Uint8Array | Int8Array | Uint16Array | Float32Array
}

interface Node {
  op: string
  inputs: string[]
  outputs: string[]
  /** Of com.microsoft rather than of ONNX. */
  contrib?: boolean
  attributes?: Record<string, number | readonly number[]>
}

export interface Value {
  type: OnnxType
  shape: readonly number[]
}

interface Graph {
  nodes: Node[]
  inputs: Record<string, Value>
  outputs: Record<string, Value>
  constants?: Record<string, Constant>
}

const CONTRIB = 'com.microsoft'

const valueInfo = (field: number, name: string, { type, shape }: Value): Field =>
  message(
    field,
    text(1, name),
    message(2, message(1, number(1, onnxType[type]), message(2, ...shape.map((size) => message(1, number(1, size)))))),
  )

const initializer = (name: string, { type, shape, data }: Constant): Field => {
  const raw = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  return message(5, ...shape.map((size) => number(1, size)), number(2, onnxType[type]), text(8, name), bytes(9, raw))
}

const [INT, INTS] = [2, 7] // AttributeProto.AttributeType

const attribute = (name: string, value: number | readonly number[]): Field =>
  typeof value === 'number'
    ? message(5, text(1, name), number(3, value), number(20, INT))
    : message(5, text(1, name), ...value.map((each) => number(8, each)), number(20, INTS))

const node = ({ op, inputs, outputs, contrib, attributes = {} }: Node): Field =>
  message(
    1,
    ...inputs.map((name) => text(1, name)),
    ...outputs.map((name) => text(2, name)),
    text(4, op),
    ...Object.entries(attributes).map(([name, value]) => attribute(name, value)),
    ...(contrib ? [text(7, CONTRIB)] : []),
  )

function model({ nodes, inputs, outputs, constants = {} }: Graph): Uint8Array {
  const opset = (domain: string, version: number) => message(8, text(1, domain), number(2, version))
  return Buffer.concat([
    number(1, 8),
    message(
      7,
      ...nodes.map(node),
      text(2, 'bench'),
      ...Object.entries(constants).map(([name, constant]) => initializer(name, constant)),
      ...Object.entries(inputs).map(([name, value]) => valueInfo(11, name, value)),
      ...Object.entries(outputs).map(([name, value]) => valueInfo(12, name, value)),
    ),
    opset('', 17),
    ...(nodes.some((n) => n.contrib) ? [opset(CONTRIB, 1)] : []),
  ])
}

/** m x n x k: Y [m, n] = X [m, k] times a constant [k, n]. */
export interface Size {
  m: number
  n: number
  k: number
}

export function matmulModel(type: OnnxType, { m, n, k }: Size, weights: Constant['data']): Uint8Array {
  return model({
    nodes: [{ op: 'MatMul', inputs: ['X', 'W'], outputs: ['Y'] }],
    inputs: { X: { type, shape: [m, k] } },
    outputs: { Y: { type, shape: [m, n] } },
    constants: { W: { type, shape: [k, n], data: weights } },
  })
}

export interface ConvSize {
  /** Images, channels, rows, columns. */
  x: readonly [number, number, number, number]
  out: number
  kernel: number
  stride: number
  groups: number
}

/** What a convolution with pads of half the kernel makes. */
export const convOutput = ({ x, out, kernel, stride }: ConvSize): [number, number, number, number] => {
  const size = (n: number) => Math.floor((n + 2 * (kernel >> 1) - kernel) / stride) + 1
  return [x[0], out, size(x[2]), size(x[3])]
}

/** Y = X convolved with constant weights. */
export function convModel(size: ConvSize, weights: Float32Array): Uint8Array {
  const { x, out, kernel, stride, groups } = size
  const pad = kernel >> 1
  return model({
    nodes: [
      {
        op: 'Conv',
        inputs: ['X', 'W'],
        outputs: ['Y'],
        attributes: { group: groups, pads: [pad, pad, pad, pad], strides: [stride, stride] },
      },
    ],
    inputs: { X: { type: 'float32', shape: x } },
    outputs: { Y: { type: 'float32', shape: convOutput(size) } },
    constants: { W: { type: 'float32', shape: [out, x[1] / groups, kernel, kernel], data: weights } },
  })
}

/** Y = X * W with both sides given at run time, or X + W. */
export function binaryModel(op: 'MatMul' | 'Add', a: number[], b: number[], out: number[]): Uint8Array {
  const type = 'float32'
  return model({
    nodes: [{ op, inputs: ['X', 'W'], outputs: ['Y'] }],
    inputs: { X: { type, shape: a }, W: { type, shape: b } },
    outputs: { Y: { type, shape: out } },
  })
}

/** uint8 by constant int8 [k, n]: the int32 sums. */
export function matmulIntegerModel({ m, n, k }: Size, weights: Int8Array): Uint8Array {
  return model({
    nodes: [{ op: 'MatMulInteger', inputs: ['X', 'W'], outputs: ['Y'] }],
    inputs: { X: { type: 'uint8', shape: [m, k] } },
    outputs: { Y: { type: 'int32', shape: [m, n] } },
    constants: { W: { type: 'int8', shape: [k, n], data: weights } },
  })
}

const scalar = (type: OnnxType, data: Constant['data']): Constant => ({ type, shape: [], data })

/** The same with everything requantized to uint8. */
export function qlinearMatmulModel(
  { m, n, k }: Size,
  weights: Int8Array,
  by: { aScale: number; aZero: number; bScale: number; yScale: number; yZero: number },
): Uint8Array {
  return model({
    nodes: [
      {
        op: 'QLinearMatMul',
        inputs: ['X', 'aScale', 'aZero', 'W', 'bScale', 'bZero', 'yScale', 'yZero'],
        outputs: ['Y'],
      },
    ],
    inputs: { X: { type: 'uint8', shape: [m, k] } },
    outputs: { Y: { type: 'uint8', shape: [m, n] } },
    constants: {
      W: { type: 'int8', shape: [k, n], data: weights },
      aScale: scalar('float32', Float32Array.of(by.aScale)),
      aZero: scalar('uint8', Uint8Array.of(by.aZero)),
      bScale: scalar('float32', Float32Array.of(by.bScale)),
      bZero: scalar('int8', Int8Array.of(0)),
      yScale: scalar('float32', Float32Array.of(by.yScale)),
      yZero: scalar('uint8', Uint8Array.of(by.yZero)),
    },
  })
}

/**
 * relu(X W + bias) with X float32, quantized by the range of all of it, and W int8 [k, n] with a scale a column: the
 * runtime's fused form of DynamicQuantizeLinear, MatMulInteger and what makes floats of the sums.
 */
export function dynamicLinearModel(
  { m, n, k }: Size,
  weights: Int8Array,
  scale: Float32Array,
  bias: Float32Array,
): Uint8Array {
  return model({
    nodes: [
      { op: 'DynamicQuantizeMatMul', inputs: ['X', 'W', 'scale', '', 'bias'], outputs: ['Z'], contrib: true },
      { op: 'Relu', inputs: ['Z'], outputs: ['Y'] },
    ],
    inputs: { X: { type: 'float32', shape: [m, k] } },
    outputs: { Y: { type: 'float32', shape: [m, n] } },
    constants: {
      W: { type: 'int8', shape: [k, n], data: weights },
      scale: { type: 'float32', shape: [n], data: scale },
      bias: { type: 'float32', shape: [n], data: bias },
    },
  })
}

export interface Blocks {
  bits: 4 | 8
  /** Inputs that share a scale: a power of two from 16 on. */
  block: number
  /** How the runtime may compute: 0 as it likes, 1 float32, 4 with activations as int8. */
  accuracy: number
}

/** Weight-only: X float32 by W^T, W signed codes [n, k] times scales [n, ceil(k / block)]. */
export function matmulNBitsModel(
  { m, n, k }: Size,
  codes: Int8Array,
  scales: Float32Array,
  { bits, block, accuracy }: Blocks,
): Uint8Array {
  const blocks = Math.ceil(k / block)
  const size = (block * bits) / 8
  return model({
    nodes: [
      {
        op: 'MatMulNBits',
        inputs: ['X', 'W', 'scales'],
        outputs: ['Y'],
        contrib: true,
        attributes: { K: k, N: n, bits, block_size: block, accuracy_level: accuracy },
      },
    ],
    inputs: { X: { type: 'float32', shape: [m, k] } },
    outputs: { Y: { type: 'float32', shape: [m, n] } },
    constants: {
      W: { type: 'uint8', shape: [n, blocks, size], data: blobs(codes, n, k, blocks * block, bits) },
      scales: { type: 'float32', shape: [n * blocks], data: scales },
    },
  })
}

/** Codes as MatMulNBits stores them: unsigned, the middle standing for 0; two of 4 bits a byte, the first in the low half. */
function blobs(codes: Int8Array, n: number, k: number, padded: number, bits: 4 | 8): Uint8Array {
  const middle = 2 ** (bits - 1)
  const out = new Uint8Array((n * padded * bits) / 8)
  for (let j = 0; j < n; j++) {
    for (let p = 0; p < padded; p++) {
      const code = middle + (p < k ? (codes[j * k + p] as number) : 0)
      const at = j * padded + p
      if (bits === 8) out[at] = code
      else out[at >> 1] = (out[at >> 1] as number) | (code << (4 * (at & 1)))
    }
  }
  return out
}

/** One node, all of whose inputs are given at run time; values by their names, in the op's order. */
export function nodeModel(
  op: string,
  inputs: Record<string, Value>,
  outputs: Record<string, Value>,
  attributes: Record<string, number> = {},
): Uint8Array {
  return model({
    nodes: [{ op, inputs: Object.keys(inputs), outputs: Object.keys(outputs), attributes }],
    inputs,
    outputs,
  })
}
