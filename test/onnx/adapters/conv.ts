// Convolutions of floats.
import { conv1d, conv2d, convInteger, convTranspose2d, pad, type Tensor } from 'kerf'
import type { Nd } from '../../oracle/array'
import * as oracle from '../../oracle/array'
import { conv, convInput } from '../../oracle/conv'
import { type Adapters, exact, roundings } from '../adapter'
import type { Call } from '../call'
import { Skip } from '../skip'

type Two = [number, number]

interface Geometry {
  stride: Two
  dilation: Two
  /** Before and after rows and columns. */
  pads: [before: Two, after: Two]
  groups: number
}

/** Attributes of one axis are those of columns, with one row. */
const two = (values: number[] | undefined, otherwise: number): Two =>
  values === undefined
    ? [otherwise, otherwise]
    : values.length === 1
      ? [otherwise, values[0] as number]
      : (values as Two)

function geometry(call: Call, kernel: Two, size: Two): Geometry {
  const stride = two(call.numbers('strides'), 1)
  const dilation = two(call.numbers('dilations'), 1)
  const pads = call.numbers('pads')
  const half = (pads?.length ?? 0) / 2
  let before = two(pads?.slice(0, half), 0)
  let after = two(pads?.slice(half), 0)
  const auto = call.text('auto_pad', 'NOTSET')
  if (auto.startsWith('SAME')) {
    // output = ceil(input / stride); an odd pad goes to the end (upper) or the beginning (lower)
    const total = ([0, 1] as const).map((i) =>
      Math.max(0, (Math.ceil(size[i] / stride[i]) - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 - size[i]),
    )
    const less = total.map((n) => Math.floor(n / 2)) as Two
    const more = total.map((n) => Math.ceil(n / 2)) as Two
    ;[before, after] = auto === 'SAME_UPPER' ? [less, more] : [more, less]
  }
  return { stride, dilation, pads: [before, after], groups: call.number('group', 1) }
}

const sizesOf = (shape: readonly number[]): Two =>
  shape.length === 3 ? [1, shape[2] as number] : ([shape[2], shape[3]] as Two)

function convolve(call: Call): Tensor {
  const x = call.input(0)
  const w = call.input(1)
  const bias = call.has(2) ? call.input(2) : null
  if (x.rank > 4) throw new Skip('kerf convolves one and two axes')
  const { stride, dilation, pads, groups } = geometry(call, sizesOf(w.shape), sizesOf(x.shape))
  const [before, after] = pads
  if (x.rank === 3) {
    const padded = pad(x, [before[1], after[1]])
    return conv1d(padded, w, bias, { stride: stride[1], dilation: dilation[1], groups })
  }
  const even = before[0] === after[0] && before[1] === after[1]
  if (even) return conv2d(x, w, bias, { stride, dilation, groups, padding: before })
  const padded = pad(x, [before[1], after[1], before[0], after[0]])
  return conv2d(padded, w, bias, { stride, dilation, groups })
}

const flat = (a: Nd): Nd =>
  a.shape.length === 3 ? { shape: [a.shape[0], a.shape[1], 1, a.shape[2]] as number[], data: a.data } : a

function convMagnitude(call: Call, want: Nd): Nd {
  const [x, w] = [flat(oracle.abs(call.values(0))), flat(oracle.abs(call.values(1)))]
  const { stride, dilation, pads, groups } = geometry(call, sizesOf(w.shape), sizesOf(x.shape))
  const sums = conv(x, w, flat(want).shape, { stride, dilation, groups, pad: pads[0] })
  if (!call.has(2)) return sums
  const bias = oracle.abs(call.values(2))
  const pixels = sums.data.length / (sums.shape[0] as number) / bias.data.length
  return oracle.map(sums, (v, i) => v + (bias.data[Math.floor(i / pixels) % bias.data.length] as number))
}

function transposed(call: Call): Geometry & { extra: Two } {
  const [x, w] = [call.values(0).shape, call.values(1).shape]
  if (x.length !== 4) throw new Skip('kerf transposes convolutions over two axes')
  const g = geometry(call, sizesOf(w), sizesOf(x))
  let extra = two(call.numbers('output_padding'), 0)
  const full = ([0, 1] as const).map(
    (i) => ((x[2 + i] as number) - 1) * g.stride[i] + g.dilation[i] * ((w[2 + i] as number) - 1) + 1,
  ) as Two
  const auto = call.text('auto_pad', 'NOTSET')
  const shape =
    call.numbers('output_shape') ??
    (auto.startsWith('SAME') ? ([0, 1] as const).map((i) => (x[2 + i] as number) * g.stride[i]) : undefined)
  if (shape) {
    const total = ([0, 1] as const).map((i) => full[i] + extra[i] - (shape[i] as number)) as Two
    if (total.some((n) => n < 0)) {
      extra = extra.map((n, i) => n - (total[i] as number)) as Two
      g.pads = [
        [0, 0],
        [0, 0],
      ]
    } else {
      const less = total.map((n) => Math.floor(n / 2)) as Two
      const more = total.map((n) => Math.ceil(n / 2)) as Two
      g.pads = auto === 'SAME_UPPER' ? [less, more] : [more, less]
    }
  }
  return { ...g, extra }
}

function convolveBack(call: Call): Tensor {
  const { stride, dilation, pads, groups, extra } = transposed(call)
  const [before, after] = pads
  const even = before[0] === after[0] && before[1] === after[1]
  const fits = extra.every((n, i) => n < Math.max(stride[i] as number, dilation[i] as number))
  if (!even || !fits) throw new Skip('kerf cuts the same off at both sides, and adds less than a stride')
  const bias = call.has(2) ? call.input(2) : null
  return convTranspose2d(call.input(0), call.input(1), bias, {
    stride,
    dilation,
    groups,
    padding: before,
    outputPadding: extra,
  })
}

function backMagnitude(call: Call, want: Nd): Nd {
  const { stride, dilation, pads, groups } = transposed(call)
  if (call.has(2)) throw new Skip('no case of version 1.12 has a bias')
  return convInput(oracle.abs(call.values(0)), oracle.abs(call.values(1)), want.shape, {
    stride,
    dilation,
    groups,
    pad: pads[0],
  })
}

/** Both sides are chains of multiply-adds in float32, in whatever order: twice the classical bound (docs/numerics.md). */
const chains = (call: Call) =>
  2 *
  (call
    .values(1)
    .shape.slice(1)
    .reduce((n, m) => n * m, 1) +
    4)

function convolveBytes(call: Call): Tensor {
  const x = call.input(0)
  const w = call.input(1)
  const { stride, dilation, pads, groups } = geometry(call, sizesOf(w.shape), sizesOf(x.shape))
  const [before, after] = pads
  if (before[0] !== after[0] || before[1] !== after[1]) throw new Skip('bytes are padded alike on both sides')
  const zero = (i: number) => (call.has(i) ? call.input(i) : null)
  return convInteger(x, w, { stride, dilation, groups, padding: before, xZeroPoint: zero(2), wZeroPoint: zero(3) })
}

export const convolutions: Adapters = {
  ConvInteger: exact(convolveBytes),
  Conv: roundings(chains, convMagnitude, convolve),
  ConvTranspose: roundings(chains, backMagnitude, convolveBack),
}
