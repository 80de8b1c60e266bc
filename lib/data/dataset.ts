/** Datasets: samples by index, in memory or made on the fly, and ways to divide them. */
import { ArgumentError, ShapeError, show } from '../core/errors'
import { takeRandom, uniformGenerator } from '../core/rng'
import { checkInteger, showShape } from '../core/shape'
import { native } from '../native/call'
import { empty, Tensor } from '../tensor/tensor'

/** A batch: one tensor per field, each with the samples along axis 0. */
export type Batch = readonly Tensor[]

/** Samples that can be asked for by index. Implement it to load or augment samples on the fly. */
export interface Dataset<B extends Batch = Batch> {
  /** Number of samples. */
  readonly length: number
  /** The samples with these indices (whole numbers in [0, length), in this order) as one batch. */
  batch(indices: Int32Array): B | Promise<B>
}

/** A dataset of tensors in memory: sample i is row i of each of them. */
export class TensorDataset<B extends Batch = Batch> implements Dataset<B> {
  readonly tensors: B
  readonly length: number

  /**
   * @param tensors at least one, all with the same size along axis 0; they are not copied
   * @throws ArgumentError, ShapeError
   */
  constructor(...tensors: [...B]) {
    if (tensors.length === 0) throw new ArgumentError('TensorDataset: at least one tensor is needed')
    tensors.forEach((tensor: unknown, i) => {
      if (!(tensor instanceof Tensor))
        throw new ArgumentError(`TensorDataset: tensors[${i}] must be a tensor, got ${show(tensor)}`)
      if (tensor.shape.length === 0) throw new ShapeError(`TensorDataset: tensors[${i}] has no axis of samples`)
      tensor.storage('TensorDataset')
    })
    const sizes = tensors.map((tensor) => tensor.shape[0] as number)
    if (sizes.some((size) => size !== sizes[0])) {
      throw new ShapeError(
        `TensorDataset: the tensors have different numbers of samples: ${tensors.map((t) => showShape(t.shape)).join(' ')}`,
      )
    }
    this.tensors = tensors as unknown as B
    this.length = sizes[0] as number
  }

  /** Consecutive samples come as views of the tensors, others as copies. */
  batch(indices: Int32Array): B {
    const first = checkIndices('TensorDataset.batch', indices, this.length)
    if (isRun(indices)) return this.tensors.map((tensor) => rows(tensor, first, indices.length)) as unknown as B
    const index = indexTensor(indices)
    const batch = this.tensors.map((tensor) => selectRows(tensor, index))
    index.dispose()
    return batch as unknown as B
  }
}

function checkIndices(op: string, indices: unknown, length: number): number {
  if (!(indices instanceof Int32Array))
    throw new ArgumentError(`${op}: indices must be an Int32Array, got ${show(indices)}`)
  for (const index of indices) {
    if (index < 0 || index >= length) throw new ArgumentError(`${op}: index ${index} is outside [0, ${length})`)
  }
  return indices[0] ?? 0
}

function isRun(indices: Int32Array): boolean {
  for (let i = 1; i < indices.length; i++) if (indices[i] !== (indices[i - 1] as number) + 1) return false
  return true
}

function rows(tensor: Tensor, first: number, count: number): Tensor {
  const { shape, strides, offset } = tensor
  return tensor.view(
    'TensorDataset.batch',
    [count, ...shape.slice(1)],
    strides,
    count === 0 ? offset : offset + first * (strides[0] as number),
  )
}

// Through the stream, not by writing into the tensor's bytes: those may be recycled while commands still use them.
function indexTensor(indices: Int32Array): Tensor<'int64'> {
  const index = empty('int64', [indices.length])
  const values = BigInt64Array.from(indices, BigInt)
  native.copy(index, {
    buffer: values.buffer as ArrayBuffer,
    code: index.code,
    shape: index.shape,
    strides: [1],
    offset: 0,
  })
  return index
}

function selectRows(tensor: Tensor, index: Tensor): Tensor {
  tensor.storage('TensorDataset.batch')
  const out = empty(tensor.dtype, [index.size, ...tensor.shape.slice(1)])
  native.indexSelect(out, tensor, index, 0)
  return out
}

/** Some samples of another dataset, in a given order. */
export class Subset<B extends Batch = Batch> implements Dataset<B> {
  readonly dataset: Dataset<B>
  readonly indices: Int32Array

  /** @param indices of samples in `dataset`; they are copied */
  constructor(dataset: Dataset<B>, indices: ArrayLike<number>) {
    checkDataset('Subset', dataset)
    const own = Int32Array.from(indices)
    for (let i = 0; i < own.length; i++) {
      if (own[i] !== indices[i] || (own[i] as number) < 0 || (own[i] as number) >= dataset.length) {
        throw new ArgumentError(
          `Subset: indices[${i}] must be a whole number in [0, ${dataset.length}), got ${show(indices[i])}`,
        )
      }
    }
    this.dataset = dataset
    this.indices = own
  }

  get length(): number {
    return this.indices.length
  }

  batch(indices: Int32Array): B | Promise<B> {
    checkIndices('Subset.batch', indices, this.length)
    return this.dataset.batch(indices.map((index) => this.indices[index] as number))
  }
}

/** Samples are numbered by int32. */
const MAX_SAMPLES = 2 ** 31 - 1

export function checkDataset(op: string, dataset: unknown): void {
  const { length, batch } = (dataset ?? {}) as Dataset
  if (typeof batch !== 'function')
    throw new ArgumentError(`${op}: dataset must have length and batch(indices), got ${show(dataset)}`)
  checkInteger(op, 'dataset.length', length, 0, MAX_SAMPLES)
}

/** A batch as training takes it: tensors, the inputs first. */
export function checkBatch(op: string, batch: unknown): Batch {
  if (Array.isArray(batch) && batch.length > 0 && batch.every((x) => x instanceof Tensor)) return batch
  throw new ArgumentError(`${op}: a batch of data must be an array of tensors, [input, labels], got ${show(batch)}`)
}

/**
 * 0 ... n - 1 in random order (Fisher-Yates).
 *
 * @param seed any whole number >= 0
 */
export function permutation(n: number, seed: number): Int32Array {
  const order = Int32Array.from({ length: n }, (_, i) => i)
  const random = uniformGenerator((seed % 2 ** 32) ^ Math.floor(seed / 2 ** 32))
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    const value = order[i] as number
    order[i] = order[j] as number
    order[j] = value
  }
  return order
}

/** The seed that was given, or one of manualSeed's stream. */
export function seedOr(op: string, seed: number | undefined): number {
  if (seed !== undefined) return checkInteger(op, 'seed', seed, 0)
  const taken = takeRandom(1)
  return (taken.seed + taken.offset * 0x9e3779b1) % 2 ** 53
}

/**
 * Divides a dataset at random into parts without common samples.
 *
 * @param parts either fractions that add up to 1 (rounded down; what is left goes to the first parts, one each) or
 * whole numbers that add up to the number of samples
 * @param options.seed makes the division reproducible; else it follows manualSeed
 * @returns one dataset a part
 * @example const [train, validation] = split(dataset, [0.9, 0.1], { seed: 1 })
 */
export function split<B extends Batch>(
  dataset: Dataset<B>,
  parts: readonly number[],
  options: { seed?: number } = {},
): Subset<B>[] {
  checkDataset('split', dataset)
  const lengths = partLengths(parts, dataset.length)
  const order = permutation(dataset.length, seedOr('split', options.seed))
  let next = 0
  return lengths.map((length) => {
    next += length
    return new Subset(dataset, order.subarray(next - length, next))
  })
}

function partLengths(parts: unknown, n: number): number[] {
  const valid =
    Array.isArray(parts) &&
    parts.length > 0 &&
    parts.every((part) => typeof part === 'number' && part >= 0 && part < 2 ** 31)
  if (!valid) throw new ArgumentError(`split: parts must be numbers >= 0, got ${show(parts)}`)
  const list = parts as number[]
  const total = list.reduce((sum, part) => sum + part, 0)
  if (total === n && list.every(Number.isInteger)) return list
  if (Math.abs(total - 1) > 1e-6)
    throw new ArgumentError(`split: parts must add up to 1 or to the ${n} samples, got ${show(list)}`)
  // Not floor alone: 0.29 * 100 is 28.999999999999996.
  const lengths = list.map((part) => Math.floor(part * n + 1e-9 * n))
  let left = n - lengths.reduce((sum, length) => sum + length, 0)
  for (let i = 0; left > 0; i = (i + 1) % lengths.length, left--) lengths[i] = (lengths[i] as number) + 1
  return lengths
}
