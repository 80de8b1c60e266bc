/**
 * Changes to single images, in place, on plain arrays: what `augment` applies. Every loop runs over typed arrays with nothing called per
 * pixel.
 */
import { ArgumentError, show } from '../core/errors'
import { checkNumber } from '../core/shape'

export interface ImageSize {
  readonly channels: number
  readonly height: number
  readonly width: number
}

/**
 * One change. `image` is [channels, height, width], row-major, and is changed in place; `scratch` is as long and holds nothing;
 * `random` gives numbers in [0, 1) that belong to this sample in this epoch.
 */
export type ImageTransform = (image: Float32Array, size: ImageSize, random: () => number, scratch: Float32Array) => void

/** A number n for [-n, n], or both ends, in ascending order. */
type Range = number | readonly [from: number, to: number]

function checkRange(op: string, name: string, value: Range): readonly [number, number] {
  const range = typeof value === 'number' ? ([-value, value] as const) : value
  if (!Array.isArray(range) || range.length !== 2 || !range.every(Number.isFinite) || range[0] > range[1])
    throw new ArgumentError(`${op}: ${name} must be a number >= 0 or [from, to], got ${show(value)}`)
  return range as readonly [number, number]
}

function checkShare(op: string, name: string, value: number): number {
  if (!(checkNumber(op, name, value) >= 0 && value <= 1))
    throw new ArgumentError(`${op}: ${name} must be in [0, 1], got ${value}`)
  return value
}

/**
 * Moves the image by whole pixels, each distance as likely as any other, right and down for positive ones; what comes in from
 * outside is `fill`.
 *
 * @param options.pixels n for -n to n, or [from, to], along both axes
 * @param options.fill default 0
 */
export function randomShift(options: { pixels: Range; fill?: number }): ImageTransform {
  const op = 'randomShift'
  const [from, to] = checkRange(op, 'pixels', options?.pixels)
  const fill = checkNumber(op, 'fill', options.fill ?? 0)
  if (!Number.isInteger(from) || !Number.isInteger(to))
    throw new ArgumentError(`${op}: pixels must be whole numbers, got ${show(options.pixels)}`)
  return (image, { channels, height, width }, random, scratch) => {
    const down = from + Math.floor(random() * (to - from + 1))
    const right = from + Math.floor(random() * (to - from + 1))
    if (down === 0 && right === 0) return
    scratch.set(image)
    image.fill(fill)
    const [left, last] = [Math.max(right, 0), width + Math.min(right, 0)]
    for (let c = 0; c < channels; c++) {
      for (let y = Math.max(down, 0); y < height + Math.min(down, 0); y++) {
        const row = (c * height + y) * width
        const source = row - down * width - right
        for (let x = left; x < last; x++) image[row + x] = scratch[source + x] as number
      }
    }
  }
}

/** The cosine and sine of an angle in degrees, exact at right angles. */
function direction(degrees: number): [cos: number, sin: number] {
  const quarter = degrees / 90
  if (!Number.isInteger(quarter)) return [Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180)]
  const turn = ((quarter % 4) + 4) % 4
  return [[1, 0, -1, 0][turn] as number, [0, 1, 0, -1][turn] as number]
}

/**
 * Turns the image about its centre, counter-clockwise for positive angles, with bilinear interpolation: a pixel is the mean of
 * the four around the place where it was, by their nearness; those outside count as `fill`.
 *
 * @param options.degrees a for -a to a, or [from, to]
 * @param options.fill default 0
 */
export function randomRotation(options: { degrees: Range; fill?: number }): ImageTransform {
  const op = 'randomRotation'
  const [from, to] = checkRange(op, 'degrees', options?.degrees)
  const fill = checkNumber(op, 'fill', options.fill ?? 0)
  return (image, size, random, scratch) => {
    const [cos, sin] = direction(from + random() * (to - from))
    scratch.set(image)
    rotate(scratch, image, size, cos, sin, fill)
  }
}

function rotate(
  from: Float32Array,
  into: Float32Array,
  { channels, height, width }: ImageSize,
  cos: number,
  sin: number,
  fill: number,
): void {
  const middleX = (width - 1) / 2
  const middleY = (height - 1) / 2
  const plane = height * width
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      // Where the pixel was: turned back, with y downwards.
      const wasX = middleX + cos * (x - middleX) - sin * (y - middleY)
      const wasY = middleY + sin * (x - middleX) + cos * (y - middleY)
      const left = Math.floor(wasX)
      const top = Math.floor(wasY)
      const right = wasX - left
      const bottom = wasY - top
      const inLeft = left >= 0 && left < width
      const inRight = left >= -1 && left < width - 1
      const inTop = top >= 0 && top < height
      const inBottom = top >= -1 && top < height - 1
      let at = y * width + x
      let was = top * width + left
      for (let c = 0; c < channels; c++) {
        const a = inTop && inLeft ? (from[was] as number) : fill
        const b = inTop && inRight ? (from[was + 1] as number) : fill
        const d = inBottom && inLeft ? (from[was + width] as number) : fill
        const e = inBottom && inRight ? (from[was + width + 1] as number) : fill
        into[at] = (1 - bottom) * ((1 - right) * a + right * b) + bottom * ((1 - right) * d + right * e)
        at += plane
        was += plane
      }
    }
  }
}

/** Mirrors the image, left to right, with probability `p`; default 0.5. */
export function randomHorizontalFlip(options: { p?: number } = {}): ImageTransform {
  const p = checkShare('randomHorizontalFlip', 'p', options.p ?? 0.5)
  return (image, { channels, height, width }, random) => {
    if (random() >= p) return
    for (let row = 0; row < channels * height * width; row += width) {
      for (let a = row, b = row + width - 1; a < b; a++, b--) {
        const value = image[a] as number
        image[a] = image[b] as number
        image[b] = value
      }
    }
  }
}

/** Sets a box of all channels to a value; what lies outside the image is left out. */
function erase(
  image: Float32Array,
  size: ImageSize,
  top: number,
  left: number,
  h: number,
  w: number,
  value: number,
): void {
  const { channels, height, width } = size
  const [first, last] = [Math.max(left, 0), Math.max(Math.min(left + w, width), 0)]
  for (let c = 0; c < channels; c++)
    for (let y = Math.max(top, 0); y < Math.min(top + h, height); y++) {
      const row = (c * height + y) * width
      image.fill(value, row + first, row + last)
    }
}

/**
 * Sets a square to a value (DeVries and Taylor 2017): its centre is any pixel, so part of it may lie outside.
 *
 * @param options.size of its edge, in pixels
 * @param options.p probability; default 1
 * @param options.value default 0
 */
export function cutout(options: { size: number; p?: number; value?: number }): ImageTransform {
  const op = 'cutout'
  const edge = checkNumber(op, 'size', options?.size)
  if (!Number.isInteger(edge) || edge < 1)
    throw new ArgumentError(`${op}: size must be a whole number >= 1, got ${show(edge)}`)
  const p = checkShare(op, 'p', options.p ?? 1)
  const value = checkNumber(op, 'value', options.value ?? 0)
  return (image, size, random) => {
    if (random() >= p) return
    const top = Math.floor(random() * size.height) - (edge >> 1)
    const left = Math.floor(random() * size.width) - (edge >> 1)
    erase(image, size, top, left, edge, edge, value)
  }
}

/** How often a box is drawn again that is larger than the image, as in the authors' code. */
const TRIES = 100

/**
 * Sets a box inside the image to a value (Zhong et al. 2020): its area is a uniform share of the image's, its height over width
 * uniform between 1 / `ratio` and `ratio` on a logarithmic scale.
 *
 * @param options.p probability; default 0.5
 * @param options.scale least and largest share of the area; default [0.02, 0.33]
 * @param options.ratio >= 1; default 3.3
 * @param options.value default 0
 */
export function randomErasing(
  options: { p?: number; scale?: readonly [from: number, to: number]; ratio?: number; value?: number } = {},
): ImageTransform {
  const op = 'randomErasing'
  const p = checkShare(op, 'p', options.p ?? 0.5)
  const [least, most] = checkRange(op, 'scale', options.scale ?? [0.02, 0.33])
  checkShare(op, 'scale[0]', least)
  checkShare(op, 'scale[1]', most)
  const ratio = checkNumber(op, 'ratio', options.ratio ?? 3.3)
  if (!(ratio >= 1)) throw new ArgumentError(`${op}: ratio must be >= 1, got ${ratio}`)
  const value = checkNumber(op, 'value', options.value ?? 0)
  return (image, size, random) => {
    if (random() >= p) return
    const { height, width } = size
    for (let i = 0; i < TRIES; i++) {
      const area = (least + random() * (most - least)) * height * width
      const aspect = ratio ** (2 * random() - 1)
      const [h, w] = [Math.round(Math.sqrt(area * aspect)), Math.round(Math.sqrt(area / aspect))]
      const [top, left] = [Math.floor(random() * (height - h + 1)), Math.floor(random() * (width - w + 1))]
      if (h > height || w > width) continue
      erase(image, size, top, left, h, w, value)
      return
    }
  }
}

/**
 * (x - mean) / std.
 *
 * @param options.mean one number, or one a channel; so `std`, which is > 0
 */
export function normalize(options: {
  mean: number | readonly number[]
  std: number | readonly number[]
}): ImageTransform {
  const op = 'normalize'
  const list = (name: 'mean' | 'std') => {
    const value = options?.[name]
    const values = typeof value === 'number' ? [value] : value
    const least = name === 'std' ? 0 : Number.NEGATIVE_INFINITY
    if (!Array.isArray(values) || values.length === 0 || !values.every((x) => Number.isFinite(x) && x > least))
      throw new ArgumentError(`${op}: ${name} must be numbers${name === 'std' ? ' > 0' : ''}, got ${show(value)}`)
    return values as readonly number[]
  }
  const [means, stds] = [list('mean'), list('std')]
  return (image, { channels, height, width }) => {
    for (const [name, values] of [
      ['mean', means],
      ['std', stds],
    ] as const)
      if (values.length !== 1 && values.length !== channels)
        throw new ArgumentError(`${op}: ${name} has ${values.length} numbers for images of ${channels} channels`)
    const plane = height * width
    for (let c = 0; c < channels; c++) {
      const mean = (means[c] ?? means[0]) as number
      const factor = 1 / ((stds[c] ?? stds[0]) as number)
      for (let i = c * plane; i < (c + 1) * plane; i++) image[i] = ((image[i] as number) - mean) * factor
    }
  }
}
