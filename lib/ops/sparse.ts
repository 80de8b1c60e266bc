/** Between dense and sparse, and CSR as the kernels read it. */
import { type DType, type FloatDType, isFloat } from '../core/dtype'
import { ArgumentError, DTypeError, type KerfError, ShapeError, show } from '../core/errors'
import { atOnce, inTurns, type Pauses, type Steps } from '../core/pauses'
import { type Granularity, perChannel, perTensor, showGranularity } from '../core/quantization'
import { type Shape, showShape } from '../core/shape'
import type { DeviceName } from '../tensor/device'
import { QuantizedTensor } from '../tensor/quantized'
import { checkFormat, isBlocks, type SparseFormat, type SparseParts, SparseTensor } from '../tensor/sparse'
import { copyTo } from '../tensor/tensor'
import { tensor } from './create'
import { arg, converted, type Tensor } from './op'

type Stored = Float32Array | Int8Array

/** Values of a sparse tensor in its dtype. */
function stored<D extends DType>(values: Stored, shape: Shape, dtype: D, device: DeviceName): Tensor<D> {
  return tensor(values as Float32Array, { shape, dtype, device })
}

/**
 * The non-zeros of a matrix in a sparse format, on its device; they are found on the CPU. Exact: `densify` gives the same values
 * back (-0 comes back as 0). Waits for w's values.
 *
 * @param w float [rows, columns]; of weights, [out, in]. Or a QuantizedTensor of them: int8 per tensor or per channel(0),
 * without a zero point (a 0 must stand for 0); its values stay int8 and its scales stay with them
 * @param format 'csr' takes any matrix; '2:4' at most two non-zeros in every four neighbours of a row (prune.semiStructured
 * makes them so), and a multiple of 4 columns; { block: [rows, columns] } stores every block that has a non-zero, whole
 * @throws ArgumentError when a row of a '2:4' matrix has three non-zeros in one four: it is named
 */
export function sparsify<D extends DType>(w: Tensor<D>, format: SparseFormat): SparseTensor<D>
export function sparsify(w: QuantizedTensor, format: SparseFormat): SparseTensor<'int8'>
export function sparsify(w: Tensor | QuantizedTensor, format: SparseFormat): SparseTensor {
  const op = 'sparsify'
  const dense = w instanceof QuantizedTensor ? integers(op, w) : floats(op, arg(op, 'w', w))
  return atOnce(storing(op, dense, dense.values.dataSync() as Stored, checkFormat(op, format)))
}

/** @internal sparsify() that waits and computes without blocking the event loop. */
export async function sparsifyInTurns(
  w: Tensor | QuantizedTensor,
  format: SparseFormat,
  pauses: Pauses,
): Promise<SparseTensor> {
  const op = 'sparsify'
  const dense = w instanceof QuantizedTensor ? integers(op, w) : floats(op, w)
  const checked = checkFormat(op, format)
  return inTurns(storing(op, dense, (await dense.values.data()) as Stored, checked), pauses)
}

function* storing(
  op: string,
  { shape, dtype, device, scale }: Dense,
  dense: Stored,
  format: SparseFormat,
): Steps<SparseTensor> {
  const [rows, columns] = shape as [number, number]
  if (format === '2:4')
    return new SparseTensor({ ...(yield* twoOfFour(op, dense, rows, columns, { dtype, device })), scale })
  const block = isBlocks(format) ? format.block : ([1, 1] as const)
  const found = yield* blocksOf(dense, rows, columns, block)
  const count = found.columns.length
  return new SparseTensor({
    shape,
    format,
    values: stored(found.values, isBlocks(format) ? [count, ...block] : [count], dtype, device),
    pointers: tensor(found.pointers, { dtype: 'int32', device }),
    columns: tensor(found.columns, { dtype: 'int32', device }),
    scale,
  })
}

interface Dense {
  /** float32 or int8. */
  values: Tensor
  shape: Shape
  dtype: DType
  device: DeviceName
  scale: Tensor<'float32'> | null
}

function floats(op: string, x: Tensor): Dense {
  if (!isFloat(x.dtype)) throw new DTypeError(`${op}: w must be a float tensor, it is ${x.dtype}`)
  if (x.rank !== 2) throw new ShapeError(`${op}: w must be [rows, columns], it is ${showShape(x.shape)}`)
  const { shape, dtype, device } = x
  return { values: converted(x, 'float32'), shape, dtype, device, scale: null }
}

/** @internal Scales that a sparse tensor of int8 can hold. */
export const hasSparseScale = (g: Granularity): boolean =>
  g.kind === 'tensor' || (g.kind === 'channel' && (g.axis === 0 || g.axis === -2))

/** @internal Why these weights cannot be sparse; null when they can. */
export function whyNotSparse(op: string, { dtype, shape, granularity, zeroPoint }: QuantizedTensor): KerfError | null {
  if (shape.length !== 2) return new ShapeError(`${op}: w must be [rows, columns], it is ${showShape(shape)}`)
  if (dtype !== 'int8' || !hasSparseScale(granularity))
    return new DTypeError(
      `${op}: quantized w must be int8 per tensor or per channel(0), it is ${dtype} ${showGranularity(granularity)}`,
    )
  if (!zeroPoint) return null
  return new ArgumentError(`${op}: quantized w must have no zero point, so that a 0 stands for 0`)
}

function integers(op: string, q: QuantizedTensor): Dense {
  q.checkLive(op)
  const error = whyNotSparse(op, q)
  if (error) throw error
  const { values, shape } = q
  return { values, shape, dtype: 'int8', device: values.device, scale: copyTo(q.scale, 'float32') }
}

const like = (dense: Stored, length: number): Stored =>
  dense instanceof Int8Array ? new Int8Array(length) : new Float32Array(length)

interface Blocks {
  values: Stored
  pointers: Int32Array
  columns: Int32Array
}

/** Blocks with a non-zero, row of blocks by row of blocks; 1 x 1 blocks are CSR's elements. */
function* blocksOf(dense: Stored, rows: number, columns: number, [r, c]: readonly [number, number]): Steps<Blocks> {
  const down = Math.ceil(rows / r)
  const across = Math.ceil(columns / c)
  const pointers = new Int32Array(down + 1)
  const used: number[] = []
  for (let i = 0; i < down; i++) {
    const bottom = Math.min((i + 1) * r, rows)
    for (let j = 0; j < across; j++) {
      const right = Math.min((j + 1) * c, columns)
      let any = false
      for (let y = i * r; y < bottom && !any; y++)
        for (let x = j * c; x < right && !any; x++) any = dense[y * columns + x] !== 0
      if (any) used.push(j)
    }
    pointers[i + 1] = used.length
    yield
  }
  const values = like(dense, used.length * r * c)
  for (let i = 0; i < down; i++) {
    for (let at = pointers[i] as number; at < (pointers[i + 1] as number); at++) {
      const left = (used[at] as number) * c
      const width = Math.min(c, columns - left)
      for (let y = 0; y < Math.min(r, rows - i * r); y++) {
        const from = (i * r + y) * columns + left
        const to = (at * r + y) * c
        for (let x = 0; x < width; x++) values[to + x] = dense[from + x] as number
      }
    }
    yield
  }
  return { values, pointers, columns: Int32Array.from(used) }
}

function* twoOfFour(
  op: string,
  dense: Stored,
  rows: number,
  columns: number,
  { dtype, device }: Pick<Dense, 'dtype' | 'device'>,
): Steps<SparseParts> {
  if (columns % 4 !== 0)
    throw new ShapeError(`${op}: 2:4 needs a multiple of 4 columns, w is ${showShape([rows, columns])}`)
  const values = like(dense, (rows * columns) / 2)
  const bytes = Math.ceil(columns / 8)
  const metadata = new Uint8Array(rows * bytes)
  for (let i = 0; i < rows; i++) {
    for (let group = 0; group < columns / 4; group++) {
      const from = i * columns + 4 * group
      let [first, second, found] = [0, 0, 0]
      for (let place = 0; place < 4; place++) {
        if (dense[from + place] === 0) continue
        if (found++ === 0) first = place
        second = place
      }
      if (found > 2)
        throw new ArgumentError(
          `${op}: row ${i} has ${found} non-zeros in columns ${4 * group} to ${4 * group + 3}; 2:4 allows 2 (prune.semiStructured leaves the largest)`,
        )
      // Zeros fill up: those places that keep the order.
      if (found === 0) second = 1
      if (found === 1 && first < 3) second = 3
      if (found === 1 && first === 3) first = 0
      const to = (i * columns) / 2 + 2 * group
      values[to] = dense[from + first] as number
      values[to + 1] = dense[from + second] as number
      const at = i * bytes + (group >> 1)
      metadata[at] = (metadata[at] as number) | ((first | (second << 2)) << (4 * (group & 1)))
    }
    yield
  }
  return {
    shape: [rows, columns],
    format: '2:4',
    values: stored(values, [rows, columns / 2], dtype, device),
    metadata: tensor(metadata, { shape: [rows, bytes], dtype: 'uint8', device }),
  }
}

/**
 * The matrix that a sparse tensor stands for: [rows, columns] in its dtype and on its device, of int8 values a QuantizedTensor.
 * Waits for its values.
 */
export function densify<D extends FloatDType>(s: SparseTensor<D>): Tensor<D>
export function densify(s: SparseTensor<'int8'>): QuantizedTensor
export function densify(s: SparseTensor): Tensor | QuantizedTensor
export function densify(s: SparseTensor): Tensor | QuantizedTensor {
  checkSparse('densify', 's', s)
  const all = fromCsr(csrArrays(s), s.shape, s.dtype, s.device)
  if (!s.scale) return all
  return new QuantizedTensor({
    shape: s.shape,
    dtype: 'int8',
    granularity: s.scale.rank > 0 ? perChannel(0) : perTensor,
    values: all as Tensor<'int8'>,
    scale: copyTo(s.scale, 'float32'),
  })
}

/** @internal The matrix of these non-zeros. */
export function fromCsr<D extends DType>(
  { pointers, columns: at, values }: CsrArrays,
  shape: Shape,
  dtype: D,
  device: DeviceName,
): Tensor<D> {
  const [rows, columns] = shape as [number, number]
  const dense = like(values, rows * columns)
  for (let i = 0; i < rows; i++)
    for (let p = pointers[i] as number; p < (pointers[i + 1] as number); p++)
      dense[i * columns + (at[p] as number)] = values[p] as number
  return stored(dense, shape, dtype, device)
}

/** @internal */
export function checkSparse(op: string, name: string, s: unknown): SparseTensor {
  if (!(s instanceof SparseTensor)) throw new ArgumentError(`${op}: ${name} must be a SparseTensor, got ${show(s)}`)
  s.checkLive(op)
  return s
}

export interface CsrArrays {
  pointers: Int32Array
  columns: Int32Array
  /** int8 of an int8 tensor, otherwise float32. */
  values: Stored
}

/** @internal Any format as the three arrays of CSR, without the zeros that fill blocks and fours. */
export function csrArrays(s: SparseTensor): CsrArrays {
  const [rows, columns] = s.shape as [number, number]
  const all = (s.dtype === 'int8' ? s.values : converted(s.values, 'float32')).dataSync() as Stored
  if (s.format === 'csr')
    return {
      pointers: (s.pointers as Tensor<'int32'>).dataSync(),
      columns: (s.columns as Tensor<'int32'>).dataSync(),
      values: all,
    }
  const pointers = new Int32Array(rows + 1)
  const at = new Int32Array(all.length)
  const values = like(all, all.length)
  let count = 0
  const put = (column: number, value: number) => {
    if (value === 0) return
    at[count] = column
    values[count++] = value
  }
  if (s.format === '2:4') {
    const metadata = (s.metadata as Tensor<'uint8'>).dataSync()
    const bytes = Math.ceil(columns / 8)
    for (let i = 0; i < rows; i++) {
      for (let group = 0; group < columns / 4; group++) {
        const four = ((metadata[i * bytes + (group >> 1)] as number) >> (4 * (group & 1))) & 15
        const from = (i * columns) / 2 + 2 * group
        put(4 * group + (four & 3), all[from] as number)
        put(4 * group + (four >> 2), all[from + 1] as number)
      }
      pointers[i + 1] = count
    }
  } else {
    const [r, c] = s.format.block
    const begins = (s.pointers as Tensor<'int32'>).dataSync()
    const blocks = (s.columns as Tensor<'int32'>).dataSync()
    for (let i = 0; i < rows; i++) {
      const row = Math.floor(i / r)
      for (let b = begins[row] as number; b < (begins[row + 1] as number); b++) {
        const left = (blocks[b] as number) * c
        for (let x = 0; x < c && left + x < columns; x++) put(left + x, all[(b * r + (i % r)) * c + x] as number)
      }
      pointers[i + 1] = count
    }
  }
  return { pointers, columns: at.subarray(0, count), values: values.subarray(0, count) }
}
