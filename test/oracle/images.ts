// Batch norm, pooling and resizing as plain loops over float64.
import { at, fold, mean, type Nd, nd, variance } from './array'

/** All axes but the channels'. */
export const batchAxes = (rank: number): number[] => Array.from({ length: rank }, (_, i) => i).filter((i) => i !== 1)

export interface Normalized {
  mean: Nd
  variance: Nd
  /** (x - mean) / sqrt(variance + eps) */
  h: Nd
  rstd: Nd
}

/** A batch normalised by its own biased variance. */
export function normalize(x: Nd, eps: number): Normalized {
  const axes = batchAxes(x.shape.length)
  const m = fold(x, axes, mean)
  const v = fold(x, axes, (line) => variance(line, 0))
  const rstd = { shape: v.shape, data: v.data.map((s) => 1 / Math.sqrt(s + eps)) }
  const h = nd(x.shape, (index, flat) => ((x.data[flat] as number) - at(m, index)) * at(rstd, index))
  return { mean: m, variance: v, h, rstd }
}

export interface Window {
  kernel: [number, number]
  stride: [number, number]
  padding: [number, number]
  dilation: [number, number]
}

/** Outputs along an axis: every window that begins before the padding at the end and, without ceil, ends in it. */
function pooled(size: number, i: 0 | 1, { kernel, stride, padding, dilation }: Window, ceil: boolean): number {
  const reach = (kernel[i] - 1) * dilation[i] + 1
  let n = 0
  const begins = (o: number) => o * stride[i] - padding[i]
  while (begins(n) + reach <= size + padding[i]) n++
  // Ceil mode has one more if that sticks out by less than a stride.
  if (ceil && begins(n) + reach < size + padding[i] + stride[i] && begins(n) < size) n++
  return n
}

function outputs(x: Nd, window: Window, ceil: boolean): number[] {
  const [n, c, h, w] = x.shape as [number, number, number, number]
  return [n, c, pooled(h, 0, window, ceil), pooled(w, 1, window, ceil)]
}

/** For each output the flat positions of its window's elements in x, in row-major order. */
export function windows(x: Nd, window: Window, ceil: boolean): { shape: number[]; members: number[][] } {
  const shape = outputs(x, window, ceil)
  const [, channels, height, width] = x.shape as [number, number, number, number]
  const members: number[][] = []
  nd(shape, (index) => {
    const [n, c, oh, ow] = index as [number, number, number, number]
    const list: number[] = []
    for (let a = 0; a < window.kernel[0]; a++) {
      for (let b = 0; b < window.kernel[1]; b++) {
        const row = oh * window.stride[0] - window.padding[0] + a * window.dilation[0]
        const column = ow * window.stride[1] - window.padding[1] + b * window.dilation[1]
        if (row >= 0 && row < height && column >= 0 && column < width)
          list.push(((n * channels + c) * height + row) * width + column)
      }
    }
    members.push(list)
    return 0
  })
  return { shape, members }
}

/** How many elements each window counts when padding does: what lies beyond the padding never does. */
export function paddedCounts(x: Nd, window: Window, ceil: boolean): number[] {
  const [, , height, width] = x.shape as [number, number, number, number]
  const along = (o: number, i: 0 | 1, size: number) => {
    let n = 0
    for (let k = 0; k < window.kernel[i]; k++)
      if (o * window.stride[i] - window.padding[i] + k < size + window.padding[i]) n++
    return n
  }
  const counts: number[] = []
  nd(outputs(x, window, ceil), (index) => {
    counts.push(along(index[2] as number, 0, height) * along(index[3] as number, 1, width))
    return 0
  })
  return counts
}

/** The position of the first maximum (of the first NaN where there is one) among `members` of x. */
export function argmax(x: Nd, members: readonly number[]): number {
  let best = -1
  for (const i of members) {
    const v = x.data[i] as number
    const known = best < 0 ? Number.NEGATIVE_INFINITY : (x.data[best] as number)
    if (best < 0 || v > known || (Number.isNaN(v) && !Number.isNaN(known))) best = i
  }
  return best
}

/** The windows of adaptive averages. */
export function adaptiveWindows(x: Nd, size: readonly [number, number]): { shape: number[]; members: number[][] } {
  const [n, channels, height, width] = x.shape as [number, number, number, number]
  const shape = [n, channels, ...size]
  const ends = (o: number, inputs: number, all: number) =>
    [Math.floor((o * inputs) / all), Math.ceil(((o + 1) * inputs) / all)] as const
  const members: number[][] = []
  nd(shape, (index) => {
    const [i, c, oh, ow] = index as [number, number, number, number]
    const [top, bottom] = ends(oh, height, size[0])
    const [left, right] = ends(ow, width, size[1])
    const list: number[] = []
    for (let row = top; row < bottom; row++)
      for (let column = left; column < right; column++) list.push(((i * channels + c) * height + row) * width + column)
    members.push(list)
    return 0
  })
  return { shape, members }
}

export interface Ratio {
  out: number
  /** Where output o lies among the inputs. */
  at: (o: number) => number
}

/** For each output of a resized image the positions it is made of, with their weights. */
export function resized(
  x: Nd,
  rows: Ratio,
  columns: Ratio,
  nearest: boolean,
): { shape: number[]; parts: [number, number][][] } {
  const [n, channels, height, width] = x.shape as [number, number, number, number]
  const shape = [n, channels, rows.out, columns.out]
  const lines = (ratio: Ratio, o: number, size: number): [number, number][] => {
    const source = Math.min(Math.max(ratio.at(o), 0), size - 1)
    const low = Math.floor(source)
    if (nearest) return [[low, 1]]
    return [
      [low, 1 - (source - low)],
      [Math.min(low + 1, size - 1), source - low],
    ]
  }
  const parts: [number, number][][] = []
  nd(shape, (index) => {
    const [i, c, oh, ow] = index as [number, number, number, number]
    const list: [number, number][] = []
    for (const [row, u] of lines(rows, oh, height))
      for (const [column, v] of lines(columns, ow, width))
        list.push([((i * channels + c) * height + row) * width + column, u * v])
    parts.push(list)
    return 0
  })
  return { shape, parts }
}
