/** Random changes of images on their way from a loader. */
import { ArgumentError, ShapeError, show } from '../core/errors'
import { Pauses } from '../core/pauses'
import { uniformGenerator } from '../core/rng'
import { checkInteger, showShape } from '../core/shape'
import { tensor } from '../ops/create'
import { noGrad } from '../tensor/context'
import { copyTo, Tensor } from '../tensor/tensor'
import type { Batch } from './dataset'
import type { ImageSize, ImageTransform } from './images'
import type { Transform } from './loader'

export interface AugmentOptions {
  /** Makes what happens to each sample reproducible; default: the loader's seed. */
  seed?: number
  /** [channels, height, width] of images that come as rows [n, channels * height * width]. */
  image?: readonly [channels: number, height: number, width: number]
}

/** A step of murmur3's 32-bit hash; the generator that takes the hash mixes on. */
function mixed(hash: number, value: number): number {
  let k = Math.imul(value, 0xcc9e2d51)
  k = Math.imul((k << 15) | (k >>> 17), 0x1b873593)
  const h = hash ^ k
  return (Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64) | 0
}

/** Numbers of one sample in one epoch: nothing else counts, so neither batches nor where a run was resumed. */
function sampleRandom(seed: number, epoch: number, index: number): () => number {
  const high = mixed(mixed(0, (seed % 2 ** 32) | 0), Math.floor(seed / 2 ** 32))
  return uniformGenerator(mixed(mixed(high, epoch), index))
}

function sizeOf(op: string, input: unknown, image: AugmentOptions['image']): ImageSize {
  if (!(input instanceof Tensor)) throw new ArgumentError(`${op}: a batch must begin with a tensor, got ${show(input)}`)
  const { shape, rank } = input
  if (image !== undefined) {
    const [channels, height, width] = image
    if (rank !== 2 || shape[1] !== channels * height * width)
      throw new ShapeError(
        `${op}: image ${showShape(image)} needs inputs [n, ${channels * height * width}], got ${input}`,
      )
    return { channels, height, width }
  }
  if (rank !== 3 && rank !== 4)
    throw new ShapeError(`${op}: images must be [n, height, width] or [n, channels, height, width], got ${input}`)
  const [height, width] = shape.slice(-2) as [number, number]
  return { channels: rank === 4 ? (shape[1] as number) : 1, height, width }
}

/**
 * Applies changes, one after the other, to the images of a batch, its first tensor: give it to a loader as `transform`. What
 * happens to a sample depends on `seed`, the epoch and its index alone: not on the order, on the size of batches, or on where
 * a run was resumed.
 *
 * Images are [n, channels, height, width], [n, height, width], or rows with `image`. The result is float32, in the same shape; the
 * event loop turns in between.
 *
 * @param transforms `randomShift`, `randomRotation`, `randomHorizontalFlip`, `cutout`, `randomErasing`, `normalize`, or functions of
 * one's own
 * @throws ArgumentError; later, ShapeError for batches without images
 * @example
 * const transform = data.augment([data.randomShift({ pixels: 2 }), data.randomRotation({ degrees: 10 })], { seed: 1 })
 * const batches = data.loader(train, { batchSize: 64, shuffle: true, seed: 1, transform })
 */
export function augment(transforms: readonly ImageTransform[], options: AugmentOptions = {}): Transform {
  const op = 'augment'
  if (!Array.isArray(transforms)) throw new ArgumentError(`${op}: transforms must be an array, got ${show(transforms)}`)
  const steps = [...transforms]
  for (const [i, step] of steps.entries())
    if (typeof step !== 'function')
      throw new ArgumentError(`${op}: transforms[${i}] must be a function, got ${show(step)}`)
  const { image } = options
  if (image !== undefined) {
    if (!Array.isArray(image) || image.length !== 3)
      throw new ArgumentError(`${op}: image must be [channels, height, width], got ${show(image)}`)
    for (const [i, size] of image.entries()) checkInteger(op, `image[${i}]`, size, 1)
  }
  const own = options.seed === undefined ? null : checkInteger(op, 'seed', options.seed, 0)
  return async ([input, ...others], { indices, epoch, seed }): Promise<Batch> => {
    const size = sizeOf(op, input, image)
    const given = input as Tensor
    // data() is a copy: it is changed in place.
    const source = given.dtype === 'float32' ? given : noGrad(() => copyTo(given, 'float32'))
    const values = (await source.data()) as Float32Array
    if (source !== given) source.dispose()
    const pixels = size.channels * size.height * size.width
    const scratch = new Float32Array(pixels)
    const pauses = new Pauses()
    for (const [i, index] of indices.entries()) {
      const random = sampleRandom(own ?? seed, epoch, index)
      const one = values.subarray(i * pixels, (i + 1) * pixels)
      for (const step of steps) step(one, size, random, scratch)
      if (pauses.due()) await pauses.take()
    }
    return [tensor(values, { shape: [...given.shape] }), ...others]
  }
}
