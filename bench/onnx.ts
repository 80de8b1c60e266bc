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
export type OnnxFloat = 'float32' | 'float16' | 'bfloat16'

const valueInfo = (field: number, name: string, type: OnnxType, shape: readonly number[]): Field =>
  message(
    field,
    text(1, name),
    message(2, message(1, number(1, onnxType[type]), message(2, ...shape.map((size) => message(1, number(1, size)))))),
  )

const initializer = (name: string, type: OnnxFloat, shape: number[], data: Uint8Array): Field =>
  message(5, ...shape.map((size) => number(1, size)), number(2, onnxType[type]), text(8, name), bytes(9, data))

const INT = 2 // AttributeProto.AttributeType
const attribute = (name: string, value: number): Field => message(5, text(1, name), number(3, value), number(20, INT))

const node = (op: string, inputs: string[], outputs: string[], attributes: Record<string, number> = {}): Field =>
  message(
    1,
    ...inputs.map((name) => text(1, name)),
    ...outputs.map((name) => text(2, name)),
    text(4, op),
    ...Object.entries(attributes).map(([name, value]) => attribute(name, value)),
  )

const model = (...graph: Field[]): Uint8Array =>
  Buffer.concat([number(1, 8), message(7, ...graph, text(2, 'bench')), message(8, text(1, ''), number(2, 17))])

/** Y = X [m, k] times a constant [k, n]: the runtime packs constants ahead of time, as pack() does. */
export function matmulModel(type: OnnxFloat, m: number, n: number, k: number, weights: Uint8Array): Uint8Array {
  return model(
    node('MatMul', ['X', 'W'], ['Y']),
    initializer('W', type, [k, n], weights),
    valueInfo(11, 'X', type, [m, k]),
    valueInfo(12, 'Y', type, [m, n]),
  )
}

/** Y = X * W with both sides given at run time, or X + W. */
export function binaryModel(op: 'MatMul' | 'Add', a: number[], b: number[], out: number[]): Uint8Array {
  return model(
    node(op, ['X', 'W'], ['Y']),
    valueInfo(11, 'X', 'float32', a),
    valueInfo(11, 'W', 'float32', b),
    valueInfo(12, 'Y', 'float32', out),
  )
}

export interface OnnxValue {
  type: OnnxType
  shape: readonly number[]
}

/** One node, all of whose inputs are given at run time; values by their names, in the op's order. */
export function nodeModel(
  op: string,
  inputs: Record<string, OnnxValue>,
  outputs: Record<string, OnnxValue>,
  attributes: Record<string, number> = {},
): Uint8Array {
  const infos = (field: number, values: Record<string, OnnxValue>) =>
    Object.entries(values).map(([name, { type, shape }]) => valueInfo(field, name, type, shape))
  return model(
    node(op, Object.keys(inputs), Object.keys(outputs), attributes),
    ...infos(11, inputs),
    ...infos(12, outputs),
  )
}
