/**
 * Weight sharing: the values of a weight tensor become those of a small codebook, found by k-means. Section 3 of
 * S. Han, H. Mao, W. Dally, "Deep Compression", ICLR 2016, https://arxiv.org/abs/1510.00149.
 */
import { dtypeCode, isFloat } from '../core/dtype'
import { ArgumentError, show } from '../core/errors'
import { inSlices, Pauses } from '../core/pauses'
import { checkInteger, contiguousStrides } from '../core/shape'
import { native } from '../native/call'
import { copyTo, type Tensor } from '../tensor/tensor'
import { MAX_LENGTH } from './huffman'
import { kMeans, lowerBound, midpoints, sortedNonZeros } from './k-means'
import { checkDict, isObject, type TensorDict } from './tensor-dict'

const OP = 'shareWeights'

/** What shareWeights needs of an nn.Module. */
export interface StatefulModel {
  namedParameters(): [name: string, parameter: Tensor][]
  stateDict(): Record<string, Tensor>
  loadStateDict(dict: Record<string, Tensor>): unknown
}

export interface ShareWeightsOptions {
  /**
   * A codebook has 2^bits values at most, 1 to 15; default 5. Deep Compression took 5 for fully connected layers and 8
   * for convolutions: a function decides by name and tensor.
   */
  bits?: number | ((name: string, tensor: Tensor) => number)
  /** Names of tensors to leave alone, or a function that says so. Tensors of fewer than two axes are left in any case. */
  skip?: readonly string[] | ((name: string, tensor: Tensor) => boolean)
}

/** The codebook of a tensor. */
export interface SharedWeights {
  /** Ascending; of float16 and bfloat16 tensors before they are rounded to the dtype. */
  centroids: Float32Array
  /** The mean over all elements of (weight - centroid)^2; zeros count as without error. */
  mse: number
}

/**
 * Replaces, in place, every non-zero value of the weight tensors by the nearest of at most 2^bits centroids, which
 * minimise the squared error of each tensor (a local minimum: Lloyd's k-means from centroids that lie evenly between
 * the smallest and the largest non-zero value, the initialisation that Han et al. found best). What a model computes
 * afterwards is what it computes after saveCompressed and loadCompressed, bit for bit.
 *
 * Zeros stay zeros (-0 becomes 0) and take no centroid, so a pruned model stays as sparse as it was. A tensor with no
 * more than 2^bits distinct non-zero values stays as it is: doing it twice changes nothing. Deterministic.
 *
 * Weight tensors are those of float32, float16 or bfloat16 with two axes or more, of a model its parameters only: buffers
 * are scales, masks or statistics. They must not change until the promise has resolved. When it rejects, no tensor has
 * changed.
 *
 * @param target a model, or tensors by name
 * @returns the codebooks by name, a tensor with several names under its first one
 * @throws ArgumentError for a weight that is not finite, for bits out of range, for a name in `skip` that is none;
 * DisposedError
 */
export async function shareWeights(
  target: StatefulModel | TensorDict,
  options: ShareWeightsOptions = {},
): Promise<Record<string, SharedWeights>> {
  const model = isModel(target) ? target : null
  const entries = checkDict(OP, model ? new Map(model.namedParameters()) : target)
  const skipped = checkSkip(options.skip, entries)
  const seen = new Set<Tensor>()
  const chosen = entries
    .filter(({ name, tensor }) => isFloat(tensor.dtype) && tensor.rank >= 2 && !skipped(name, tensor))
    .filter(({ tensor }) => !seen.has(tensor) && seen.add(tensor))
    .map(({ name, tensor }) => ({ name, tensor, k: 2 ** bitsOf(options.bits, name, tensor) }))
  const pauses = new Pauses()
  const results: { name: string; tensor: Tensor; values: Float32Array; shared: SharedWeights }[] = []
  for (const { name, tensor, k } of chosen) {
    tensor.storage(OP)
    const copy = copyTo(tensor, 'float32')
    const values = await copy.data()
    copy.dispose()
    results.push({ name, tensor, values, shared: await shareValues(name, values, k, pauses) })
  }
  // Disposed meanwhile: to be found out before the first one changes.
  for (const { tensor } of results) tensor.storage(OP)
  for (const { tensor, values } of results) {
    const { shape } = tensor
    const strides = contiguousStrides(shape)
    const buffer = values.buffer as ArrayBuffer
    if (tensor.size > 0) native.copy(tensor, { buffer, code: dtypeCode.float32, shape, strides, offset: 0 })
  }
  // Nothing is left to copy, but layers drop what they have derived from their weights.
  model?.loadStateDict(model.stateDict())
  return Object.fromEntries(results.map(({ name, shared }) => [name, shared]))
}

function isModel(target: unknown): target is StatefulModel {
  return (
    isObject(target) &&
    !(target instanceof Map) &&
    typeof target.namedParameters === 'function' &&
    typeof target.stateDict === 'function' &&
    typeof target.loadStateDict === 'function'
  )
}

function bitsOf(bits: ShareWeightsOptions['bits'] = 5, name: string, tensor: Tensor): number {
  const value = typeof bits === 'function' ? bits(name, tensor) : bits
  return checkInteger(OP, `bits of ${show(name)}`, value, 1, MAX_LENGTH)
}

function checkSkip(
  skip: ShareWeightsOptions['skip'] = [],
  entries: readonly { name: string }[],
): (name: string, tensor: Tensor) => boolean {
  if (typeof skip === 'function') return skip
  if (!Array.isArray(skip))
    throw new ArgumentError(`${OP}: skip must be an array of names or a function, got ${show(skip)}`)
  for (const name of skip)
    if (!entries.some((entry) => entry.name === name))
      throw new ArgumentError(`${OP}: skip: no tensor has the name ${show(name)}`)
  return (name) => skip.includes(name)
}

/** Replaces the non-zeros of `values` by their centroids. */
async function shareValues(name: string, values: Float32Array, k: number, pauses: Pauses): Promise<SharedWeights> {
  const sorted = await sortedNonZeros(values, pauses, (value) => {
    throw new ArgumentError(`${OP}: ${show(name)} has a weight that is not finite: ${value}`)
  })
  const centroids = await kMeans(sorted, k, pauses)
  const limits = midpoints(centroids)
  let squares = 0
  await inSlices(values.length, pauses, (from, to) => {
    for (let i = from; i < to; i++) {
      const value = values[i] as number
      // Makes 0 of -0, which would be a bit pattern of its own in a file.
      const shared = value === 0 ? 0 : (centroids[lowerBound(limits, value)] as number)
      squares += (value - shared) ** 2
      values[i] = shared
    }
  })
  return { centroids, mse: values.length === 0 ? 0 : squares / values.length }
}
