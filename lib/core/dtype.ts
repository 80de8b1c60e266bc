/** Element types: names, sizes, typed arrays, and PyTorch's promotion table. */
import { ArgumentError, show } from './errors'
import { type DType, dtypes } from './tables.gen'

export type { DType } from './tables.gen'

export type FloatDType = 'float32' | 'float16' | 'bfloat16'
export type IntDType = 'int8' | 'uint8' | 'int32' | 'int64'

/** The typed array that holds a dtype. float16 and bfloat16 are raw bits, bool is one byte (0 or 1). */
export interface TypedArrays {
  float32: Float32Array
  float16: Uint16Array
  bfloat16: Uint16Array
  int8: Int8Array
  uint8: Uint8Array
  int32: Int32Array
  int64: BigInt64Array
  bool: Uint8Array
}
export type TypedArrayOf<D extends DType> = TypedArrays[D]
/** A JavaScript value of one element: bigint for int64, boolean for bool, number otherwise. */
export type ValueOf<D extends DType> = D extends 'int64' ? bigint : D extends 'bool' ? boolean : number

/**
 * The dtype of a result of two operands: PyTorch's table. uint8 with int8 gives int32 here (PyTorch's int16 does not
 * exist in kerf).
 */
// biome-ignore format: a table reads best as one
export const promotion = {
  float32: { float32: 'float32', float16: 'float32', bfloat16: 'float32', int8: 'float32', uint8: 'float32', int32: 'float32', int64: 'float32', bool: 'float32' },
  float16: { float32: 'float32', float16: 'float16', bfloat16: 'float32', int8: 'float16', uint8: 'float16', int32: 'float16', int64: 'float16', bool: 'float16' },
  bfloat16: { float32: 'float32', float16: 'float32', bfloat16: 'bfloat16', int8: 'bfloat16', uint8: 'bfloat16', int32: 'bfloat16', int64: 'bfloat16', bool: 'bfloat16' },
  int8: { float32: 'float32', float16: 'float16', bfloat16: 'bfloat16', int8: 'int8', uint8: 'int32', int32: 'int32', int64: 'int64', bool: 'int8' },
  uint8: { float32: 'float32', float16: 'float16', bfloat16: 'bfloat16', int8: 'int32', uint8: 'uint8', int32: 'int32', int64: 'int64', bool: 'uint8' },
  int32: { float32: 'float32', float16: 'float16', bfloat16: 'bfloat16', int8: 'int32', uint8: 'int32', int32: 'int32', int64: 'int64', bool: 'int32' },
  int64: { float32: 'float32', float16: 'float16', bfloat16: 'bfloat16', int8: 'int64', uint8: 'int64', int32: 'int64', int64: 'int64', bool: 'int64' },
  bool: { float32: 'float32', float16: 'float16', bfloat16: 'bfloat16', int8: 'int8', uint8: 'uint8', int32: 'int32', int64: 'int64', bool: 'bool' },
} as const satisfies Record<DType, Record<DType, DType>>

// Tables, not conditional types: those would make Tensor<D> invariant in D, and Tensor<'float32'> no Tensor.
type FloatTable = { [D in DType]: D extends FloatDType ? D : 'float32' }
type SumTable = { [D in DType]: D extends FloatDType ? D : 'int64' }

export type Promote<A extends DType, B extends DType> = (typeof promotion)[A][B]
/** The dtype of exp, sqrt, mean, ...: a float dtype stays, anything else becomes float32. */
export type FloatOf<D extends DType> = FloatTable[D]
/** The dtype of sum and cumsum: floats stay, integers and bool become int64. */
export type SumOf<D extends DType> = SumTable[D]

export function promote<A extends DType, B extends DType>(a: A, b: B): Promote<A, B> {
  return promotion[a][b] as Promote<A, B>
}

export interface DTypeInfo {
  readonly name: DType
  readonly code: number
  readonly bytes: number
  readonly kind: 'floating' | 'integer' | 'boolean'
}

const byName = new Map<string, DTypeInfo>(dtypes.map((d) => [d.name, d]))
/** dtype -> its code at the binding. */
export const dtypeCode = Object.fromEntries(dtypes.map((d) => [d.name, d.code])) as Record<DType, number>
/** dtype -> bytes per element. */
export const dtypeBytes = Object.fromEntries(dtypes.map((d) => [d.name, d.bytes])) as Record<DType, number>

export function isDType(value: unknown): value is DType {
  return typeof value === 'string' && byName.has(value)
}

/** Throws unless `value` names a dtype. */
export function checkDType(op: string, value: unknown): DType {
  if (isDType(value)) return value
  throw new ArgumentError(`${op}: dtype must be one of ${[...byName.keys()].join(' ')}, got ${show(value)}`)
}

export function isFloat(dtype: DType): dtype is FloatDType {
  return dtype === 'float32' || dtype === 'float16' || dtype === 'bfloat16'
}

export function floatOf<D extends DType>(dtype: D): FloatOf<D> {
  return (isFloat(dtype) ? dtype : 'float32') as FloatOf<D>
}

export function sumOf<D extends DType>(dtype: D): SumOf<D> {
  return (isFloat(dtype) ? dtype : 'int64') as SumOf<D>
}

const arrays = {
  float32: Float32Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int32: Int32Array,
  int64: BigInt64Array,
  bool: Uint8Array,
}

/** A typed array of the dtype's kind on (part of) a buffer. */
export function typedArray<D extends DType>(
  dtype: D,
  buffer: ArrayBuffer,
  byteOffset: number,
  length: number,
): TypedArrayOf<D> {
  return new arrays[dtype](buffer, byteOffset, length) as TypedArrayOf<D>
}

/** A new zeroed typed array of the dtype's kind. */
export function newTypedArray<D extends DType>(dtype: D, length: number): TypedArrayOf<D> {
  return new arrays[dtype](length) as TypedArrayOf<D>
}
