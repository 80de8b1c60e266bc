/** The tensors that a SparseTensor consists of: the one list of them, for layers, files and blanks. */
import { type DType, isFloat } from '../core/dtype'
import { type Granularity, perChannel, perTensor, scaleShape } from '../core/quantization'
import type { Shape } from '../core/shape'
import { isBlocks, type SparseFormat, SparseTensor } from '../tensor/sparse'
import type { Tensor } from '../tensor/tensor'

/** All that decides the shapes and dtypes of a SparseTensor's tensors. */
export interface SparseLayout {
  /** [rows, columns] */
  shape: readonly [number, number]
  format: SparseFormat
  /** Of the values. */
  dtype: DType
  /** 'csr': stored values. Blocks: stored blocks. '2:4': not asked. */
  count: number
  /** Of int8 values; default perTensor. */
  granularity?: Granularity
}

export type PartName = 'values' | 'scale' | 'pointers' | 'columns' | 'metadata'

interface Part {
  /** In a SparseTensor and, but for the values, after a tensor's name in a file. */
  name: PartName
  /** In a SparseLinear. */
  buffer: 'weight' | 'weightScale' | 'weightPointers' | 'weightColumns' | 'weightMetadata'
  dtype(layout: SparseLayout): DType
  /** Null where such a matrix has no such part. */
  shape(layout: SparseLayout): Shape | null
}

const blockOf = (format: SparseFormat): readonly [number, number] => (isBlocks(format) ? format.block : [1, 1])

export const sparseParts: readonly Part[] = [
  {
    name: 'values',
    buffer: 'weight',
    dtype: ({ dtype }) => dtype,
    shape: ({ shape: [rows, columns], format, count }) =>
      format === '2:4' ? [rows, columns / 2] : isBlocks(format) ? [count, ...format.block] : [count],
  },
  {
    name: 'scale',
    buffer: 'weightScale',
    dtype: () => 'float32',
    shape: ({ shape, dtype, granularity = perTensor }) =>
      dtype === 'int8' ? scaleShape('sparsify', granularity, shape) : null,
  },
  {
    name: 'pointers',
    buffer: 'weightPointers',
    dtype: () => 'int32',
    shape: ({ shape, format }) => (format === '2:4' ? null : [Math.ceil(shape[0] / blockOf(format)[0]) + 1]),
  },
  {
    name: 'columns',
    buffer: 'weightColumns',
    dtype: () => 'int32',
    shape: ({ format, count }) => (format === '2:4' ? null : [count]),
  },
  {
    name: 'metadata',
    buffer: 'weightMetadata',
    dtype: () => 'uint8',
    shape: ({ shape: [rows, columns], format }) => (format === '2:4' ? [rows, Math.ceil(columns / 8)] : null),
  },
]

/** The most values or blocks that a matrix can store. */
export function mostStored([rows, columns]: readonly [number, number], format: SparseFormat): number {
  const [r, c] = blockOf(format)
  return Math.ceil(rows / r) * Math.ceil(columns / c)
}

/** Whether values of a SparseTensor may be of this dtype. */
export const isValuesDType = (dtype: unknown): dtype is DType =>
  typeof dtype === 'string' && (dtype === 'int8' || isFloat(dtype as DType))

/** Of weights [out, in] by their scale. */
export const granularityOf = (scale: Tensor): Granularity => (scale.rank > 0 ? perChannel(0) : perTensor)

/** A SparseTensor of these tensors; its constructor checks them. */
export function fromParts<D extends DType = DType>(
  shape: Shape,
  format: SparseFormat,
  part: (name: PartName) => Tensor | null,
): SparseTensor<D> {
  const parts = Object.fromEntries(sparseParts.map(({ name }) => [name, part(name)])) as Record<PartName, Tensor>
  return new SparseTensor<D>({ shape, format, ...parts } as never)
}
