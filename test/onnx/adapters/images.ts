// Pooling and resizing.
import {
  type AvgPool2dOptions,
  adaptiveAvgPool2d,
  avgPool2d,
  div,
  maxPool2d,
  onesLike,
  pad,
  type ResizeOptions,
  reshape,
  resize,
  type Tensor,
} from 'kerf'
import { type Nd, nd, size } from '../../oracle/array'
import { type Adapters, type Bound, exact, type Run, U, within } from '../adapter'
import type { Call } from '../call'
import { Skip } from '../skip'

type Pair = [number, number]
interface Padding {
  before: Pair
  after: Pair
}

/** Sequences are images of one row. */
function image(call: Call): Tensor {
  const x = call.input(0)
  if (x.dtype === 'uint8') throw new Skip('kerf pools floats only')
  if (x.rank === 3) return reshape(x, [...x.shape.slice(0, 2), 1, x.shape[2] as number])
  if (x.rank !== 4) throw new Skip('kerf pools images and sequences, no volumes')
  return x
}

/** One number an axis of the image, from an attribute. */
function perAxis(call: Call, name: string, fallback: number): Pair {
  const given = call.numbers(name)
  if (given === undefined) return [fallback, fallback]
  return given.length === 1 ? [1, given[0] as number] : [given[0] as number, given[1] as number]
}

function padding(call: Call, x: Tensor, kernel: Pair, stride: Pair): Padding {
  const auto = call.text('auto_pad', 'NOTSET')
  if (auto === 'SAME_UPPER' || auto === 'SAME_LOWER') {
    const total = ([0, 1] as const).map((i) => {
      const size = x.shape[2 + i] as number
      return Math.max((Math.ceil(size / stride[i]) - 1) * stride[i] + kernel[i] - size, 0)
    })
    const less = total.map((n) => Math.floor(n / 2)) as Pair
    const more = total.map((n) => Math.ceil(n / 2)) as Pair
    return auto === 'SAME_UPPER' ? { before: less, after: more } : { before: more, after: less }
  }
  const pads = call.numbers('pads') ?? [0, 0, 0, 0]
  const [top, left, bottom, right] = pads.length === 2 ? [0, pads[0], 0, pads[1]] : pads
  return { before: [top as number, left as number], after: [bottom as number, right as number] }
}

/**
 * A pooling with ONNX's attributes. kerf pads both sides alike and by half a window at most, as PyTorch does; what is padded
 * otherwise is padded before.
 */
function pooled(call: Call, fill: number, pool: (x: Tensor, options: AvgPool2dOptions) => Tensor, x = image(call)) {
  const kernelSize = perAxis(call, 'kernel_shape', 1)
  const stride = perAxis(call, 'strides', 1)
  const options = { kernelSize, stride, ceilMode: call.flag('ceil_mode') }
  const { before, after } = padding(call, x, kernelSize, stride)
  const native = [0, 1].every((i) => before[i] === after[i] && 2 * (before[i] as number) <= (kernelSize[i] as number))
  const out = native
    ? pool(x, { ...options, padding: before })
    : pool(pad(x, [before[1], after[1], before[0], after[0]], { value: fill }), options)
  return call.input(0).rank === 3 ? reshape(out, [...out.shape.slice(0, 2), out.shape[3] as number]) : out
}

function maximum(call: Call): Tensor {
  if (call.node.outputs.length > 1) throw new Skip('maxPool2d keeps the positions to itself')
  const dilation = perAxis(call, 'dilations', 1)
  return pooled(call, Number.NEGATIVE_INFINITY, (x, options) => maxPool2d(x, { ...options, dilation }))
}

function average(call: Call): Tensor {
  const countIncludePad = call.flag('count_include_pad')
  const zeros = pooled(call, 0, (x, options) => avgPool2d(x, { ...options, countIncludePad }))
  if (countIncludePad) return zeros
  // Of what was padded before, averages take the zeros for elements: divided by the share that is not padding.
  const share = pooled(
    call,
    0,
    (x, options) => avgPool2d(x, { ...options, countIncludePad: false }),
    onesLike(image(call)),
  )
  return div(zeros, share)
}

/** Sums of a window's elements in any order, one quotient (ours may be three), a side. */
const averageBound: Bound = (call, want) => {
  const { shape, data } = call.values(0)
  const count = size(call.numbers('kernel_shape') ?? shape.slice(2))
  const top = Math.max(...data.map(Math.abs))
  return (flat) => U * (2 * (count + 1) * top + 4 * Math.abs(want.data[flat] as number))
}

/** [h, w] of sizes or scales; the batch and the channels stay. */
function ofImage(call: Call, given: number[], kept: (i: 0 | 1) => number): Pair {
  if (given.length !== 4 || given[0] !== kept(0) || given[1] !== kept(1))
    throw new Skip(`kerf resizes images only, not [${call.input(0).shape}] by [${given}]`)
  return [given[2] as number, given[3] as number]
}

interface Target {
  options: ResizeOptions
  /** Output size over input size, of both axes. */
  ratio: Pair
  out: Pair
}

function target(call: Call): Target {
  const { shape } = call.input(0)
  const inputs = shape.slice(2) as Pair
  const sizes = call.integers(3)
  if (sizes !== undefined) {
    const wanted = ofImage(call, sizes, (i) => shape[i] as number)
    return { options: { size: wanted }, ratio: [wanted[0] / inputs[0], wanted[1] / inputs[1]], out: wanted }
  }
  const scale = ofImage(call, call.integers(call.node.opType === 'Upsample' ? 1 : 2) ?? [], () => 1)
  return { options: { scale }, ratio: scale, out: [Math.floor(inputs[0] * scale[0]), Math.floor(inputs[1] * scale[1])] }
}

function nearest(call: Call): Tensor {
  const { options, ratio } = target(call)
  const coordinates = call.text('coordinate_transformation_mode', 'half_pixel')
  const rounding = call.text('nearest_mode', 'round_prefer_floor')
  const ours = coordinates === 'asymmetric' && rounding === 'floor'
  // Times a whole number, ONNX's default repeats every pixel too.
  const repeats = coordinates === 'half_pixel' && rounding.startsWith('round') && ratio.every(Number.isInteger)
  if (!ours && !repeats)
    throw new Skip(`kerf's nearest pixel is the floor of o * in / out, not ${rounding} of ${coordinates}`)
  return resize(call.input(0), { ...options, mode: 'nearest' })
}

function linear(call: Call): Tensor {
  const { options, out } = target(call)
  const mode = call.text('coordinate_transformation_mode', 'half_pixel')
  if (mode === 'tf_crop_and_resize') throw new Skip('kerf does not crop while it resizes')
  if (mode === 'pytorch_half_pixel' && out.includes(1))
    throw new Skip('a single output lies in the middle of the axis, not at its begin')
  if (!['half_pixel', 'pytorch_half_pixel', 'align_corners'].includes(mode)) throw new Skip(`no ${mode} coordinates`)
  const alignCorners = mode === 'align_corners'
  const { scale } = options as { scale?: Pair }
  if (alignCorners && scale && !scale.every((s, i) => Number.isInteger(s * (call.input(0).shape[2 + i] as number))))
    throw new Skip('ONNX aligns the corners of an image of fractional size')
  return resize(call.input(0), { ...options, mode: 'bilinear', alignCorners })
}

const resized: Run = (call) => {
  const mode = call.text('mode', 'nearest')
  if (mode === 'cubic') throw new Skip('kerf has no cubic interpolation')
  return mode === 'linear' ? linear(call) : nearest(call)
}

/** Weights are off by the rounding of coordinates, which are below the size; then three operations an axis. A side. */
const resizeBound: Bound = (call, want: Nd) => {
  if (call.text('mode', 'nearest') === 'nearest') return () => 0
  const x = call.values(0)
  const top = Math.max(...x.data.map(Math.abs))
  const largest = Math.max(...x.shape, ...want.shape)
  const { data } = nd(want.shape, () => 2 * U * top * (2 * largest + 6))
  return (flat) => data[flat] as number
}

export const images: Adapters = {
  MaxPool: exact(maximum),
  AveragePool: within(averageBound, average),
  GlobalAveragePool: within(averageBound, (call) => adaptiveAvgPool2d(call.input(0), 1)),
  Resize: within(resizeBound, resized),
  Upsample: exact((call) => resize(call.input(0), { ...target(call).options, mode: 'nearest' })),
}
