/** The Tensor: a typed, strided view of storage, with its place on the tape. It knows no op (ops/ and fluent.ts do). */
import {
  type DType,
  dtypeBytes,
  dtypeCode,
  newTypedArray,
  type TypedArrayOf,
  typedArray,
  type ValueOf,
} from '../core/dtype'
import { ArgumentError, DisposedError, ShapeError } from '../core/errors'
import { contiguousStrides, isContiguous, type Shape, showShape, sizeOf } from '../core/shape'
import { native } from '../native/call'
import { download, upload } from '../native/cuda'
import type { DeviceMemory, Memory } from '../native/load'
import { syncBlocking } from '../native/stream'
import { context } from './context'
import { type DeviceName, finish, finishBlocking } from './device'
import { allocate, release, type Storage, uninitialised } from './storage'
import type { TapeNode } from './tape'

const gone = new ArrayBuffer(0)

/** Nested arrays of a tensor's values; a plain value for rank 0. */
export type Nested<V> = V | Nested<V>[]

export class Tensor<D extends DType = DType> {
  readonly dtype: D
  readonly shape: Shape
  /** In elements; 0 repeats one element along an axis. */
  readonly strides: Shape
  /** Of the first element, in elements from the buffer's start. */
  readonly offset: number
  /** Number of elements. */
  readonly size: number
  /** Where it lives: 'cpu', or 'cuda:0' and so on. */
  readonly device: DeviceName
  /** True for leaves that collect a gradient and for results that depend on one. */
  requiresGrad = false
  /** The gradient that backward() left here (leaves only), or null. */
  grad: Tensor | null = null
  /** @internal The op that made it, for backward(). */
  node: TapeNode | null = null
  /** @internal Native view: the bytes it looks at. */
  buffer: Memory
  /** @internal Native view: the dtype's code. */
  readonly code: number
  #storage: Storage | null

  /** @internal Tensors are made by tensor(), zeros(), ... and by ops. */
  constructor(dtype: D, shape: Shape, strides: Shape, offset: number, storage: Storage) {
    this.dtype = dtype
    this.shape = shape
    this.strides = strides
    this.offset = offset
    this.size = sizeOf(shape)
    this.code = dtypeCode[dtype]
    this.buffer = storage.buffer
    this.device = storage.device
    this.#storage = storage
    context().scope?.add(this)
  }

  get rank(): number {
    return this.shape.length
  }

  get disposed(): boolean {
    return this.#storage === null
  }

  /** True when its elements lie one after the other in row-major order. */
  get contiguous(): boolean {
    return isContiguous(this.shape, this.strides)
  }

  /** @internal True when no other tensor looks at its bytes. */
  get ownsStorage(): boolean {
    return this.#storage?.refs === 1
  }

  /** Bytes of its elements. */
  get bytes(): number {
    return this.size * dtypeBytes[this.dtype]
  }

  /** @internal The storage, or DisposedError naming the op that asked. */
  storage(op: string): Storage {
    if (this.#storage === null)
      throw new DisposedError(`${op}: a tensor of shape ${showShape(this.shape)} was used after dispose()`)
    return this.#storage
  }

  /** @internal Another view of the same bytes. */
  view(op: string, shape: Shape, strides: Shape, offset: number): Tensor<D> {
    const storage = this.storage(op)
    storage.refs++
    return new Tensor(this.dtype, shape, strides, offset, storage)
  }

  /**
   * Gives its bytes back at once instead of waiting for the garbage collector. Calling it twice is fine; using the
   * tensor afterwards throws DisposedError. Views of the same bytes stay valid.
   */
  dispose(): void {
    if (this.#storage === null) return
    release(this.#storage)
    this.#storage = null
    this.buffer = gone
    this.node = null
    context().scope?.delete(this)
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  /**
   * A copy of the values in row-major order, once everything enqueued before has run. Never blocks the event loop.
   * float16 and bfloat16 come as raw bits (Uint16Array), bool as bytes; `array()` gives numbers.
   */
  async data(): Promise<TypedArrayOf<D>> {
    const copy = this.#read('data', this.dtype)
    await finish(this.device)
    return copy
  }

  /** data(), waiting in place. */
  dataSync(): TypedArrayOf<D> {
    const copy = this.#read('dataSync', this.dtype)
    finishBlocking(this.device)
    return copy
  }

  /** The values as nested arrays: numbers (bigints for int64, booleans for bool); a plain value for rank 0. */
  async array(): Promise<Nested<ValueOf<D>>> {
    const copy = this.#readValues('array')
    await finish(this.device)
    return nest(this.#values(copy), this.shape)
  }

  /** array(), waiting in place. */
  arraySync(): Nested<ValueOf<D>> {
    const copy = this.#readValues('arraySync')
    finishBlocking(this.device)
    return nest(this.#values(copy), this.shape)
  }

  /** The value of a tensor of one element, waiting in place. */
  item(): ValueOf<D> {
    if (this.size !== 1)
      throw new ShapeError(`item: the tensor must have one element, its shape is ${showShape(this.shape)}`)
    const copy = this.#readValues('item')
    finishBlocking(this.device)
    return this.#values(copy)[0] as ValueOf<D>
  }

  toString(): string {
    return `Tensor<${this.dtype}>${showShape(this.shape)}${this.disposed ? ' (disposed)' : ''}`
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString()
  }

  // Enqueues the copy into a buffer of the caller's; it is complete after the next barrier. Being a command of the
  // stream, it sees the values of this moment, whatever is enqueued or disposed before the barrier.
  #read<E extends DType>(op: string, dtype: E): TypedArrayOf<E> {
    this.storage(op)
    if (this.size === 0) return newTypedArray(dtype, 0)
    const buffer = uninitialised(this.size * dtypeBytes[dtype])
    if (this.device !== 'cpu') {
      downloadInto(buffer, 0, this, dtype)
      return typedArray(dtype, buffer, 0, this.size)
    }
    native.copy(
      { buffer, code: dtypeCode[dtype], shape: this.shape, strides: contiguousStrides(this.shape), offset: 0 },
      this,
    )
    return typedArray(dtype, buffer, 0, this.size)
  }

  #readValues(op: string): ArrayLike<number | bigint> {
    return this.dtype === 'float16' || this.dtype === 'bfloat16'
      ? this.#read(op, 'float32')
      : this.#read(op, this.dtype)
  }

  #values(flat: ArrayLike<number | bigint>): ArrayLike<ValueOf<D>> {
    return (this.dtype === 'bool' ? Array.from(flat, (v) => v !== 0) : flat) as ArrayLike<ValueOf<D>>
  }
}

/** A new contiguous tensor with uninitialised bytes. `shape` is not copied. */
export function empty<D extends DType>(dtype: D, shape: Shape, device: DeviceName = 'cpu'): Tensor<D> {
  const bytes = dtypeBytes[dtype]
  const storage = allocate(sizeOf(shape) * bytes, device)
  return new Tensor(dtype, shape, contiguousStrides(shape), storage.byteOffset / bytes, storage)
}

/** A contiguous copy in the given dtype, not recorded on the tape. */
export function copyTo<D extends DType>(a: Tensor, dtype: D): Tensor<D> {
  const out = empty(dtype, a.shape, a.device)
  native.copy(out, a)
  return out
}

/** Enqueues a copy of a GPU's tensor, in row-major order, to byte `start` of the buffer: there after the device's next barrier. */
function downloadInto(buffer: ArrayBuffer, start: number, a: Tensor, dtype: DType): void {
  const dense = a.dtype === dtype && a.contiguous ? a : copyTo(a, dtype)
  const bytes = dtypeBytes[dtype]
  download(dense.buffer as DeviceMemory, dense.offset * bytes, buffer, start, a.size * bytes)
  if (dense !== a) dense.dispose()
}

/** A copy on another device, not recorded on the tape. Waits for what is under way on the device that it leaves. */
export function moveTo<D extends DType>(a: Tensor<D>, device: DeviceName): Tensor<D> {
  if (a.device !== 'cpu' && device !== 'cpu') {
    const between = moveTo(a, 'cpu')
    const out = moveTo(between, device)
    between.dispose()
    return out
  }
  const out = empty(a.dtype, a.shape, device)
  if (a.size === 0) return out
  const bytes = dtypeBytes[a.dtype]
  syncBlocking()
  if (device === 'cpu') {
    downloadInto(out.buffer as ArrayBuffer, out.offset * bytes, a, a.dtype)
    finishBlocking(a.device)
  } else {
    const dense = a.contiguous ? a : copyTo(a, a.dtype)
    syncBlocking()
    upload(out.buffer as DeviceMemory, 0, dense.buffer as ArrayBuffer, dense.offset * bytes, a.size * bytes)
    if (dense !== a) dense.dispose()
  }
  return out
}

/** Copies values into a tensor of the same shape, from any dtype and device. Whoever calls it says what changed(). */
export function assignFrom(target: Tensor, values: Tensor): void {
  const beside = values.device === target.device ? values : moveTo(values, target.device)
  native.copy(target, beside)
  if (beside !== values) beside.dispose()
}

/** Takes a tensor out of the scope that made it: scope() will not dispose it. */
export function keep<T extends Tensor>(tensor: T): T {
  context().scope?.delete(tensor)
  return tensor
}

/** Says that a parameter's bytes were changed in place, so that no autocast region goes on using its older cast. */
export function changed(tensor: Tensor): void {
  tensor.storage('changed').version++
}

function nest<V>(flat: ArrayLike<V>, shape: Shape): Nested<V> {
  if (shape.length === 0) return flat[0] as V
  let next = 0
  const build = (axis: number): Nested<V>[] => {
    const n = shape[axis] as number
    const row = new Array<Nested<V>>(n)
    for (let i = 0; i < n; i++) row[i] = axis === shape.length - 1 ? (flat[next++] as V) : build(axis + 1)
    return row
  }
  return build(0)
}

/** Throws unless `value` is a live tensor; the error names op and argument. */
export function checkTensor(op: string, name: string, value: unknown): Tensor {
  if (value instanceof Tensor) {
    value.storage(op)
    return value
  }
  throw new ArgumentError(`${op}: ${name} must be a tensor, got ${value === null ? 'null' : typeof value}`)
}
