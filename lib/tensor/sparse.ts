/** SparseTensor: a matrix that stores little but its non-zeros. */
import { type DType, isFloat } from '../core/dtype'
import { ArgumentError, DeviceError, DisposedError, DTypeError, ShapeError, show } from '../core/errors'
import { checkInteger, checkShape, type Shape, sameShape, showShape, sizeOf } from '../core/shape'
import { checkDevice, type Device, type DeviceName, type Movable } from './device'
import { checkTensor, keep, moveTo, type Tensor } from './tensor'

/**
 * How the non-zeros are stored: each with its column ('csr'); at most two of every four neighbours along the last axis
 * ('2:4'); or whole blocks [rows, columns].
 */
export type SparseFormat = 'csr' | '2:4' | { readonly block: readonly [number, number] }

export interface SparseParts {
  /** [rows, columns]: of weights, [out, in]. */
  shape: Shape
  format: SparseFormat
  /**
   * A float tensor, or int8 with a scale. 'csr': [count]. '2:4': [rows, columns / 2]. Blocks: [count, block rows, block
   * columns], zero beyond the matrix.
   */
  values: Tensor
  /** With int8 values: float32, one element ([]) or one a row ([rows]); a weight is value * scale. */
  scale?: Tensor<'float32'> | null
  /** 'csr' and blocks: int32 [rows (of blocks) + 1], where each row's values begin; from 0 to count. */
  pointers?: Tensor<'int32'> | null
  /** 'csr' and blocks: int32 [count], the column (of blocks) of each value, growing within a row. */
  columns?: Tensor<'int32'> | null
  /**
   * '2:4': uint8 [rows, ceil(columns / 8)]. Four bits for each four columns, the lower half of a byte first: the place of
   * the first value among the four in the lower two bits, of the second in the upper two, first < second. That is the order
   * of the metadata of NVIDIA's sparse tensor cores.
   */
  metadata?: Tensor<'uint8'> | null
}

export interface SparsePacked {
  packed: Tensor<'uint8'>
  /** What its size depends on: the kernel's count. */
  count: number
}

/** What ops derive from a sparse tensor and keep with it. */
export interface SparseMade {
  /** By the form's name, for the row of kernels `target`, which is the device's name on a GPU. */
  packed: Map<string, SparsePacked>
  target: string
  /** What the forms of int8 weights consist of: steps, and units. */
  byteCounts?: { tables: number; panels: number } | undefined
  transposed?: SparseTensor
}

export const isBlocks = (format: SparseFormat): format is { block: readonly [number, number] } =>
  typeof format === 'object'

export const showFormat = (format: SparseFormat): string =>
  typeof format === 'string' ? format : `blocks ${showShape(format.block)}`

/** A format as users write it, or an error that names the op. */
export function checkFormat(op: string, format: unknown): SparseFormat {
  if (format === 'csr' || format === '2:4') return format
  const block = (format as { block?: unknown } | null)?.block
  if (!Array.isArray(block) || block.length !== 2)
    throw new ArgumentError(`${op}: format must be 'csr', '2:4' or { block: [rows, columns] }, got ${show(format)}`)
  return Object.freeze({
    block: Object.freeze(block.map((n, i) => checkInteger(op, `block[${i}]`, n, 1, 4096)) as [number, number]),
  })
}

/**
 * A matrix in one of three sparse formats. Made by `prune.sparsify`; `linear` and `matmul` take it as weights,
 * `prune.densify` makes a tensor of it. Nothing about it changes after it is made.
 */
export class SparseTensor<D extends DType = DType> implements Movable {
  readonly shape: Shape
  readonly format: SparseFormat
  readonly dtype: D
  /** Where all its parts are. */
  readonly device: DeviceName
  readonly values: Tensor<D>
  readonly pointers: Tensor<'int32'> | null
  readonly columns: Tensor<'int32'> | null
  readonly metadata: Tensor<'uint8'> | null
  readonly scale: Tensor<'float32'> | null
  /** @internal What the ops have made of it for the kernels; goes when it goes. */
  readonly made: SparseMade = { packed: new Map(), target: '' }

  /**
   * Takes the tensors over: no scope() disposes them, dispose() does. Waits for their values and checks every index.
   *
   * @throws ArgumentError, DTypeError, ShapeError or DeviceError when the parts do not fit together; an index out of place is
   * named by its row and column
   */
  constructor(parts: SparseParts) {
    const op = 'SparseTensor'
    if (typeof parts !== 'object' || parts === null)
      throw new ArgumentError(`${op}: parts must be an object, got ${show(parts)}`)
    const shape = checkShape(op, parts.shape)
    if (shape.length !== 2) throw new ShapeError(`${op}: shape must be [rows, columns], got ${showShape(shape)}`)
    const format = checkFormat(op, parts.format)
    const values = checkTensor(op, 'values', parts.values)
    const bytes = values.dtype === 'int8'
    if (!bytes && !isFloat(values.dtype))
      throw new DTypeError(`${op}: values must be a float tensor or int8, they are ${values.dtype}`)
    const part = <P extends DType>(name: string, dtype: P, wanted: boolean): Tensor<P> | null => {
      const given = parts[name as 'columns'] as Tensor | null | undefined
      if (!wanted) {
        if (given)
          throw new ArgumentError(`${op}: ${name === 'scale' ? values.dtype : showFormat(format)} has no ${name}`)
        return null
      }
      const t = checkTensor(op, name, given as Tensor)
      if (t.dtype !== dtype) throw new DTypeError(`${op}: ${name} must be ${dtype}, not ${t.dtype}`)
      return t as Tensor<P>
    }
    const indexed = format !== '2:4'
    this.shape = shape
    this.format = format
    this.dtype = values.dtype as D
    this.device = values.device
    this.values = values as Tensor as Tensor<D>
    this.pointers = part('pointers', 'int32', indexed)
    this.columns = part('columns', 'int32', indexed)
    this.metadata = part('metadata', 'uint8', !indexed)
    this.scale = part('scale', 'float32', bytes)
    if (this.scale && this.scale.rank > 0) this.#expect(op, 'scale', this.scale, [shape[0] as number])
    for (const t of this.parts()) {
      if (t.device !== this.device)
        throw new DeviceError(`${op}: its parts are on ${this.device} and ${t.device}: to() brings them together`)
      if (!t.contiguous) throw new ArgumentError(`${op}: parts must be contiguous`)
    }
    if (indexed) this.#checkIndices(op)
    else this.#checkMetadata(op)
    for (const t of this.parts()) keep(t)
  }

  #expect(op: string, name: string, t: Tensor, wanted: Shape): void {
    if (!sameShape(t.shape, wanted))
      throw new ShapeError(
        `${op}: ${name} of ${showFormat(this.format)} ${showShape(this.shape)} must be ${showShape(wanted)}, not ${showShape(t.shape)}`,
      )
  }

  #checkIndices(op: string): void {
    const [r, c] = isBlocks(this.format) ? this.format.block : [1, 1]
    const rows = Math.ceil((this.shape[0] as number) / r)
    const width = Math.ceil((this.shape[1] as number) / c)
    const count = this.values.shape[0] ?? 0
    this.#expect(op, 'values', this.values, isBlocks(this.format) ? [count, r, c] : [count])
    this.#expect(op, 'pointers', this.pointers as Tensor, [rows + 1])
    this.#expect(op, 'columns', this.columns as Tensor, [count])
    const pointers = (this.pointers as Tensor<'int32'>).dataSync()
    const columns = (this.columns as Tensor<'int32'>).dataSync()
    const row = isBlocks(this.format) ? 'row of blocks' : 'row'
    if (pointers[0] !== 0) throw new ArgumentError(`${op}: pointers must begin with 0, not ${pointers[0]}`)
    for (let i = 0; i < rows; i++) {
      const from = pointers[i] as number
      const to = pointers[i + 1] as number
      if (to < from || to > count)
        throw new ArgumentError(`${op}: pointers[${i + 1}] must be ${from} to ${count}, it is ${to}`)
      let last = -1
      for (let at = from; at < to; at++) {
        const column = columns[at] as number
        if (column < 0 || column >= width)
          throw new ArgumentError(`${op}: ${row} ${i} has column ${column}, which is not 0 to ${width - 1}`)
        if (column === last) throw new ArgumentError(`${op}: ${row} ${i} has column ${column} twice`)
        if (column < last)
          throw new ArgumentError(`${op}: ${row} ${i} has column ${column} after ${last}; columns must grow`)
        last = column
      }
    }
    if (pointers[rows] !== count)
      throw new ArgumentError(`${op}: pointers must end with the ${count} values, not ${pointers[rows]}`)
  }

  #checkMetadata(op: string): void {
    const [rows, columns] = this.shape as [number, number]
    if (columns % 4 !== 0)
      throw new ShapeError(`${op}: 2:4 needs a multiple of 4 columns, the shape is ${showShape(this.shape)}`)
    this.#expect(op, 'values', this.values, [rows, columns / 2])
    const bytes = Math.ceil(columns / 8)
    this.#expect(op, 'metadata', this.metadata as Tensor, [rows, bytes])
    const metadata = (this.metadata as Tensor<'uint8'>).dataSync()
    for (let i = 0; i < rows; i++) {
      for (let group = 0; group < columns / 4; group++) {
        const four = ((metadata[i * bytes + (group >> 1)] as number) >> (4 * (group & 1))) & 15
        if ((four & 3) >= four >> 2)
          throw new ArgumentError(
            `${op}: row ${i}, columns ${4 * group} to ${4 * group + 3}: places ${four & 3}, ${four >> 2} do not grow`,
          )
      }
    }
  }

  /** @internal */
  parts(): Tensor[] {
    const all: (Tensor | null)[] = [this.values, this.pointers, this.columns, this.metadata, this.scale]
    return all.filter((t): t is Tensor => t !== null)
  }

  get rank(): 2 {
    return 2
  }

  /** Number of elements of the matrix, zeros included. */
  get size(): number {
    return sizeOf(this.shape)
  }

  /** Stored values, among them zeros that fill a block or a group of four. */
  get count(): number {
    return this.values.size
  }

  /** Bytes of values, indices and scales. */
  get bytes(): number {
    return this.parts().reduce((sum, t) => sum + t.bytes, 0)
  }

  get disposed(): boolean {
    return this.parts().some((t) => t.disposed)
  }

  /** @internal Throws DisposedError naming the op that asked. */
  checkLive(op: string): void {
    if (this.disposed)
      throw new DisposedError(`${op}: a sparse tensor of shape ${showShape(this.shape)} was used after dispose()`)
  }

  /**
   * A copy of its parts on a device; itself where it is there. Waits for what is under way on the device that it leaves.
   *
   * @throws ArgumentError for what names no device, DeviceError for one that is not there
   */
  to(device: Device): SparseTensor<D> {
    this.checkLive('to')
    const name = checkDevice('to', device)
    if (name === this.device) return this
    const moved = <P extends DType>(t: Tensor<P> | null) => t && moveTo(t, name)
    return new SparseTensor<D>({
      shape: this.shape,
      format: this.format,
      values: moveTo(this.values as Tensor, name),
      scale: moved(this.scale),
      pointers: moved(this.pointers),
      columns: moved(this.columns),
      metadata: moved(this.metadata),
    })
  }

  /** Gives the memory back. */
  dispose(): void {
    for (const t of this.parts()) t.dispose()
    for (const { packed } of this.made.packed.values()) packed.dispose()
    this.made.transposed?.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  toString(): string {
    return `SparseTensor<${this.dtype}>${showShape(this.shape)} ${showFormat(this.format)}, ${this.count} values${this.disposed ? ' (disposed)' : ''}`
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString()
  }
}
