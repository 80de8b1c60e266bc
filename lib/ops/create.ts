/** Tensors from values, and filled or random ones. */
import { checkDType, type DType, dtypeBytes, dtypeCode, typedArray } from '../core/dtype'
import { ArgumentError, DTypeError, ShapeError, show } from '../core/errors'
import { takeRandom } from '../core/rng'
import { checkInteger, checkNumber, checkShape, contiguousStrides, MAX_RANK, showShape, sizeOf } from '../core/shape'
import { native } from '../native/call'
import { idle } from '../native/stream'
import { checkDevice, type DeviceName } from '../tensor/device'
import { uninitialised } from '../tensor/storage'
import type { Nested } from '../tensor/tensor'
import { empty, moveTo, Tensor } from '../tensor/tensor'

export interface CreateOptions<D extends DType = DType> {
  /** Default 'float32'; tensor() takes it from the values. */
  dtype?: D
  /** Default 'cpu'. */
  device?: string
  /** Collect a gradient for this tensor. Default false; float dtypes only. */
  requiresGrad?: boolean
}

export interface TensorOptions<D extends DType = DType> extends CreateOptions<D> {
  /** Default: the nesting of the values, or one axis for a typed array. */
  shape?: readonly number[]
}

type NumberArray =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
type BigArray = BigInt64Array | BigUint64Array
export type Values = Nested<number> | Nested<boolean> | Nested<bigint> | NumberArray | BigArray

/** The dtype that tensor() takes from a typed array when none is given. */
export type DTypeOfValues<V> = V extends Float32Array | Float64Array
  ? 'float32'
  : V extends Int8Array
    ? 'int8'
    : V extends Uint8Array | Uint8ClampedArray
      ? 'uint8'
      : V extends Int16Array | Int32Array
        ? 'int32'
        : V extends Uint32Array | BigArray | Nested<bigint>
          ? 'int64'
          : V extends Nested<boolean>
            ? 'bool'
            : 'float32'

const dtypeOfArray: Record<string, DType> = {
  Float32Array: 'float32',
  Float64Array: 'float32',
  Float16Array: 'float16',
  Int8Array: 'int8',
  Uint8Array: 'uint8',
  Buffer: 'uint8',
  Uint8ClampedArray: 'uint8',
  Int16Array: 'int32',
  Int32Array: 'int32',
  Uint32Array: 'int64',
  BigInt64Array: 'int64',
  BigUint64Array: 'int64',
}

/** The device that options name: one that is there. */
const deviceOf = (op: string, { device }: CreateOptions): DeviceName =>
  device === undefined ? 'cpu' : checkDevice(op, device)

function finish<D extends DType>(op: string, out: Tensor<D>, options: CreateOptions): Tensor<D> {
  if (options.requiresGrad) {
    if (out.dtype !== 'float32' && out.dtype !== 'float16' && out.dtype !== 'bfloat16') {
      throw new DTypeError(`${op}: only float tensors can require a gradient, this one is ${out.dtype}`)
    }
    out.requiresGrad = true
  }
  return out
}

function checkOptions(op: string, options: unknown): CreateOptions {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new ArgumentError(`${op}: options must be an object, got ${show(options)}`)
  }
  deviceOf(op, options as CreateOptions)
  return options as CreateOptions
}

interface Flat {
  values: ArrayLike<number | bigint | boolean>
  shape: number[]
  dtype: DType
  /** Already the raw elements of the dtype: copied, not converted. */
  raw: boolean
}

function flattenNested(data: unknown): Flat {
  const shape: number[] = []
  for (let level = data; Array.isArray(level); level = level[0]) {
    if (shape.length === MAX_RANK) throw new ShapeError(`tensor: at most ${MAX_RANK} axes are possible`)
    shape.push(level.length)
    if (level.length === 0) break
  }
  const values: (number | bigint | boolean)[] = []
  const walk = (value: unknown, axis: number): void => {
    if (axis < shape.length) {
      if (!Array.isArray(value) || value.length !== shape[axis]) {
        const got = Array.isArray(value) ? `one of ${value.length}` : show(value)
        throw new ShapeError(
          `tensor: the nested arrays are ragged: axis ${axis} has ${shape[axis]} entries, then ${got}`,
        )
      }
      for (const item of value) walk(item, axis + 1)
    } else if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint') {
      values.push(value)
    } else {
      throw new ArgumentError(`tensor: values must be numbers, booleans or bigints, got ${show(value)}`)
    }
  }
  walk(data, 0)
  const kind = typeof values[0]
  if (values.some((v) => typeof v !== kind))
    throw new ArgumentError('tensor: values of different types are mixed (numbers, booleans, bigints)')
  return { values, shape, dtype: kind === 'boolean' ? 'bool' : kind === 'bigint' ? 'int64' : 'float32', raw: false }
}

function flattenTyped(data: ArrayBufferView & ArrayLike<number | bigint>, wanted: DType | undefined): Flat {
  const name = data.constructor.name
  if (data instanceof DataView) throw new ArgumentError('tensor: a DataView has no element type: pass a typed array')
  if (name === 'Uint16Array') {
    if (wanted === undefined)
      throw new ArgumentError(
        "tensor: a Uint16Array may be raw float16, raw bfloat16 or numbers: give a dtype ('float16', 'bfloat16', 'int32', ...)",
      )
    return { values: data, shape: [data.length], dtype: wanted, raw: wanted === 'float16' || wanted === 'bfloat16' }
  }
  const dtype = dtypeOfArray[name]
  if (dtype === undefined) throw new ArgumentError(`tensor: ${name} is not a typed array that kerf knows`)
  const raw =
    name === 'Float32Array' ||
    name === 'Int8Array' ||
    name === 'Uint8Array' ||
    name === 'Buffer' ||
    name === 'Int32Array' ||
    name === 'BigInt64Array'
  return { values: data, shape: [data.length], dtype, raw: raw && (wanted === undefined || wanted === dtype) }
}

const word = new Float32Array(1)
const wordBits = new Uint32Array(word.buffer)

/**
 * A float64 as a float32 rounded to odd, so that rounding it again to float16 or bfloat16 gives what one rounding of
 * the float64 would have given (Boldo and Melquiond 2008: to odd in at least two more bits makes double rounding
 * innocuous).
 */
function roundToOdd(value: number): number {
  const near = Math.fround(value)
  if (near === value || !Number.isFinite(value) || !Number.isFinite(near)) return near
  word[0] = near
  if (((wordBits[0] as number) & 1) === 0) {
    // The even neighbour was chosen: step to the odd one on the other side of the value.
    const away = near > value === near > 0 ? -1 : 1
    wordBits[0] = (wordBits[0] as number) + away
  }
  return word[0] as number
}

/** Writes JavaScript values into a new tensor, in stream order. */
function fromValues(flat: Flat, shape: number[], dtype: DType): Tensor {
  const out = empty(dtype, shape)
  if (out.size === 0) return out
  if (flat.raw) {
    write(out, dtype, (into) => (into as Uint8Array).set(flat.values as Uint8Array))
    return out
  }
  // Everything else goes through the widest type that holds its values, then one native conversion.
  const big = typeof flat.values[0] === 'bigint'
  const narrow = dtype === 'float16' || dtype === 'bfloat16'
  const integral = dtype === 'int64' || dtype === 'int32' || dtype === 'int8' || dtype === 'uint8'
  if (big || integral) {
    const wide = empty('int64', shape)
    write(wide, 'int64', (into) => {
      const target = into as BigInt64Array
      for (let i = 0; i < target.length; i++) target[i] = toBigInt(flat.values[i] as number | bigint | boolean, dtype)
    })
    native.copy(out, wide)
    wide.dispose()
    return out
  }
  const wide = dtype === 'float32' ? out : empty('float32', shape)
  write(wide, 'float32', (into) => {
    const target = into as Float32Array
    const values = flat.values as ArrayLike<number>
    if (narrow) for (let i = 0; i < target.length; i++) target[i] = roundToOdd(Number(values[i]))
    else for (let i = 0; i < target.length; i++) target[i] = Number(values[i])
  })
  if (wide !== out) {
    native.copy(out, wide)
    wide.dispose()
  }
  return out
}

const limits: Partial<Record<DType, [bigint, bigint]>> = {
  int8: [-128n, 127n],
  uint8: [0n, 255n],
  int32: [-(2n ** 31n), 2n ** 31n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
}

function toBigInt(value: number | bigint | boolean, dtype: DType): bigint {
  if (typeof value === 'number' && !Number.isFinite(value))
    throw new ArgumentError(`tensor: ${value} does not fit ${dtype}`)
  const whole = typeof value === 'bigint' ? value : BigInt(Math.trunc(Number(value)))
  const [low, high] = limits[dtype] ?? (limits.int64 as [bigint, bigint])
  if (whole < low || whole > high) throw new ArgumentError(`tensor: ${value} does not fit ${dtype}`)
  return whole
}

/** Lets `fill` write the elements of a contiguous tensor that nobody has used yet. */
function write(out: Tensor, dtype: DType, fill: (into: unknown) => void): void {
  const bytes = dtypeBytes[dtype]
  if (idle()) {
    fill(typedArray(dtype, out.buffer as ArrayBuffer, out.offset * bytes, out.size))
    return
  }
  // The bytes may be recycled ones that a queued command still reads: write beside them and copy in stream order.
  const buffer = uninitialised(out.size * bytes)
  fill(typedArray(dtype, buffer, 0, out.size))
  native.copy(out, {
    buffer,
    code: dtypeCode[dtype],
    shape: out.shape,
    strides: contiguousStrides(out.shape),
    offset: 0,
  })
}

/**
 * A tensor of the given values: nested arrays, a number, or a typed array. The values are copied. A Uint16Array with
 * dtype float16 or bfloat16 is taken as raw bits; anything else is converted.
 *
 * @throws ShapeError for ragged arrays or a shape of another size, ArgumentError for values of other types
 */
export function tensor<const V extends Values>(
  data: V,
  options?: TensorOptions<never> & { dtype?: undefined },
): Tensor<DTypeOfValues<V>>
export function tensor<D extends DType>(data: Values, options: TensorOptions<D> & { dtype: D }): Tensor<D>
export function tensor<D extends DType>(data: Values, options?: TensorOptions<D>): Tensor<D>
export function tensor(data: Values, options: TensorOptions = {}): Tensor {
  checkOptions('tensor', options)
  const wanted = options.dtype === undefined ? undefined : checkDType('tensor', options.dtype)
  if ((data as unknown) instanceof Tensor) throw new ArgumentError('tensor: got a tensor; use clone() or to(dtype)')
  const flat = ArrayBuffer.isView(data) ? flattenTyped(data as never, wanted) : flattenNested(data)
  const shape = options.shape === undefined ? flat.shape : checkShape('tensor', options.shape)
  if (sizeOf(shape) !== flat.values.length) {
    throw new ShapeError(
      `tensor: ${flat.values.length} values do not fill the shape ${showShape(shape)} of ${sizeOf(shape)}`,
    )
  }
  const values = fromValues(flat, shape, wanted ?? flat.dtype)
  const device = deviceOf('tensor', options)
  if (device === 'cpu') return finish('tensor', values, options)
  const moved = moveTo(values, device)
  values.dispose()
  return finish('tensor', moved, options)
}

/** The dtype that creation options name. */
type Made<O> = O extends { dtype: infer D extends DType } ? D : 'float32'

function fresh(op: string, shape: unknown, options: CreateOptions): Tensor {
  checkOptions(op, options)
  const dtype = options.dtype === undefined ? 'float32' : checkDType(op, options.dtype)
  return empty(dtype, checkShape(op, shape), deviceOf(op, options))
}

function filled(op: string, shape: unknown, value: number, options: CreateOptions): Tensor {
  const out = fresh(op, shape, options)
  native.fill(out, value)
  return finish(op, out, options)
}

/** All 0. */
export function zeros<const O extends CreateOptions>(shape: readonly number[], options?: O): Tensor<Made<O>> {
  return filled('zeros', shape, 0, options ?? {}) as Tensor<Made<O>>
}

/** All 1. */
export function ones<const O extends CreateOptions>(shape: readonly number[], options?: O): Tensor<Made<O>> {
  return filled('ones', shape, 1, options ?? {}) as Tensor<Made<O>>
}

/** All `value`. */
export function full<const O extends CreateOptions>(
  shape: readonly number[],
  value: number | boolean,
  options?: O,
): Tensor<Made<O>> {
  const number = typeof value === 'boolean' ? Number(value) : value
  if (typeof number !== 'number') throw new ArgumentError(`full: value must be a number, got ${show(value)}`)
  return filled('full', shape, number, options ?? {}) as Tensor<Made<O>>
}

/** Zeros in the shape and dtype of another tensor. */
export function zerosLike<D extends DType>(a: Tensor<D>): Tensor<D> {
  return filled('zerosLike', a.shape, 0, { dtype: a.dtype, device: a.device }) as Tensor<D>
}

/** Ones in the shape and dtype of another tensor. */
export function onesLike<D extends DType>(a: Tensor<D>): Tensor<D> {
  return filled('onesLike', a.shape, 1, { dtype: a.dtype, device: a.device }) as Tensor<D>
}

/** arange(end) or arange(start, end, step): start, start + step, ... below end (above it for a negative step). */
export function arange(end: number): Tensor<'float32'>
export function arange<const O extends CreateOptions>(
  start: number,
  end: number,
  step?: number,
  options?: O,
): Tensor<Made<O>>
export function arange(first: number, second?: number, step = 1, options: CreateOptions = {}): Tensor {
  const start = second === undefined ? 0 : checkNumber('arange', 'start', first)
  const end = checkNumber('arange', 'end', second === undefined ? first : second)
  checkNumber('arange', 'step', step)
  if (step === 0) throw new ArgumentError('arange: step must not be 0')
  const count = Math.max(0, Math.ceil((end - start) / step))
  const out = fresh('arange', [count], options)
  native.arange(out, start, step)
  return finish('arange', out, options)
}

/** The identity matrix [n, m], m = n by default. */
export function eye<const O extends CreateOptions>(n: number, m?: number, options?: O): Tensor<Made<O>> {
  const rows = checkInteger('eye', 'n', n, 0)
  const columns = checkInteger('eye', 'm', m ?? n, 0)
  const out = filled('eye', [rows, columns], 0, options ?? {})
  if (out.size > 0) {
    const diagonal = {
      buffer: out.buffer,
      code: out.code,
      shape: [Math.min(rows, columns)],
      strides: [columns + 1],
      offset: out.offset,
    }
    native.fill(diagonal, 1)
  }
  return out as Tensor<Made<O>>
}

/** Uniform in [low, high), 24 random bits; [0, 1) by default. Float dtypes. */
export function rand<const O extends CreateOptions & { low?: number; high?: number }>(
  shape: readonly number[],
  options?: O,
): Tensor<Made<O>> {
  const { low = 0, high = 1, ...rest } = options ?? {}
  const out = fresh('rand', shape, rest)
  const { seed, offset } = takeRandom(out.size)
  native.randUniform(out, checkNumber('rand', 'low', low), checkNumber('rand', 'high', high), seed, offset)
  return finish('rand', out, rest) as Tensor<Made<O>>
}

/** Normal with mean 0 and standard deviation 1, or `mean` and `std`. Float dtypes. */
export function randn<const O extends CreateOptions & { mean?: number; std?: number }>(
  shape: readonly number[],
  options?: O,
): Tensor<Made<O>> {
  const { mean = 0, std = 1, ...rest } = options ?? {}
  const out = fresh('randn', shape, rest)
  const { seed, offset } = takeRandom(out.size)
  native.randNormal(out, checkNumber('randn', 'mean', mean), checkNumber('randn', 'std', std), seed, offset)
  return finish('randn', out, rest) as Tensor<Made<O>>
}
