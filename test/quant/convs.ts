// What the tests of quantized convolutions share: a small network, images, and what an independent float64 oracle makes of the
// bytes and scales that a layer stores.
import { type DType, nn, type quant, type Tensor, tensor } from 'kerf'
import { read } from '../matrix'
import { abs, map, type Nd } from '../oracle/array'
import { type ConvSpec, conv } from '../oracle/conv'
import { unit } from '../oracle/float'
import { normal, rint } from './data'
import { affineBytes } from './models'

/** Normal values. */
export function images(seed: number, shape: readonly number[], dtype: DType = 'float32'): Tensor {
  const next = normal(seed)
  const size = shape.reduce((n, s) => n * s, 1)
  return tensor(
    Array.from({ length: size }, () => next()),
    { shape, dtype },
  )
}

/** The model with normal weights, in proportion to the inputs of each layer. */
export function drawn<M extends nn.Module>(model: M, seed: number): M {
  const state = Object.entries(model.stateDict()).map(([name, { shape, dtype }], i) => {
    const inputs = shape.slice(1).reduce((n, s) => n * s, 1)
    return [name, images(seed + i, shape, dtype).div(Math.sqrt(inputs))] as const
  })
  model.loadStateDict(Object.fromEntries(state))
  return model.eval()
}

/** Convolutions of all sorts on images [n, 3, 9, 8]; names say what is particular. */
export const cnn = (seed: number): nn.Sequential =>
  drawn(
    new nn.Sequential({
      plain: new nn.Conv2d(3, 8, 3, { padding: 1 }),
      act: new nn.ReLU(),
      strided: new nn.Conv2d(8, 6, [2, 3], { stride: 2, bias: false }),
      depthwise: new nn.Conv2d(6, 12, 3, { groups: 6, padding: 1 }),
      dilated: new nn.Conv2d(12, 5, 2, { dilation: [2, 1], padding: [1, 0] }),
      flat: new nn.Flatten(),
      fc: new nn.Linear(40, 4),
    }),
    seed,
  )

export const SHAPE = [2, 3, 9, 8] as const

/** [height, width] of both. */
const two = (value: unknown, otherwise: number): [number, number] =>
  Array.isArray(value) ? (value as [number, number]) : [Number(value ?? otherwise), Number(value ?? otherwise)]

export function specOf({ options, groups }: { options: nn.Conv2d['options']; groups: number }): ConvSpec {
  const { stride, padding, dilation } = options
  return { stride: two(stride, 1), pad: two(padding, 0), dilation: two(dilation, 1), groups }
}

/** One number of a tensor, or another. */
const one = (t: Tensor | null, otherwise: number) => (t ? (read(t).data[0] as number) : otherwise)

/** The value of each of an array's outer index. */
function rows(t: Tensor | null, outer: number, otherwise: number): number[] {
  const values = t ? [...read(t).data] : [otherwise]
  return Array.from({ length: outer }, (_, i) => values[values.length === 1 ? 0 : i] as number)
}

/** The codes of a layer's input less their zero point, and the scale: what the documentation says that they are. */
export function codesIn(layer: quant.QuantizedConv2d, x: Nd): { codes: Nd; scale: number } {
  const dynamic = affineBytes([...x.data])
  const by =
    layer.input === 'tensor'
      ? { ...dynamic, low: 0, high: 255 }
      : {
          scale: one(layer.inputScale, 1),
          zero: one(layer.inputZeroPoint, 0),
          low: layer.input === 'int8' ? -128 : 0,
          high: layer.input === 'int8' ? 127 : 255,
        }
  const code = (v: number) => Math.min(by.high, Math.max(by.low, rint(Math.fround(v / by.scale)) + by.zero)) - by.zero
  return { codes: map(x, code), scale: by.scale }
}

/** The first element of y = layer(x) that is not what the layer's bytes and scales say in float64, or null. */
export function wrong(layer: quant.QuantizedConv2d, x: Tensor, y: Tensor): string | null {
  const [input, found] = [read(x), read(y)]
  const codes = read(layer.weight)
  const out = layer.outChannels
  const per = codes.data.length / out
  const [scales, zeros, bias] = [
    rows(layer.weightScale, out, 1),
    rows(layer.weightZeroPoint, out, 0),
    rows(layer.bias, out, 0),
  ]
  const row = (list: number[], i: number) => list[Math.floor(i / per)] as number
  const spec = specOf(layer)
  const [u, uOut] = [unit('float32'), unit(x.dtype)]
  const bytes = layer.input !== 'float'
  const taken = bytes ? codesIn(layer, input) : { codes: input, scale: 1 }
  // Weights that meet floats are those that the codes stand for, in float32 and then in x's dtype.
  const half = layer.input === 'float' && x.dtype !== 'float32'
  const weights = map(codes, (q, i) => (bytes ? q - row(zeros, i) : Math.fround((q - row(zeros, i)) * row(scales, i))))
  const sums = conv(taken.codes, weights, y.shape, spec).data
  const sizes = conv(abs(taken.codes), abs(weights), y.shape, spec).data
  const pixels = (y.shape[2] as number) * (y.shape[3] as number)
  for (const [i, sum] of sums.entries()) {
    const o = Math.floor(i / pixels) % out
    const product = bytes ? sum * taken.scale * (scales[o] as number) : sum
    const b = bias[o] as number
    // Integers are exact, and the product of the scales, that with the sum, and the bias round; floats are a chain.
    const rounded = bytes
      ? 4 * u * (Math.abs(product) + Math.abs(b))
      : (per + 2) * u * ((sizes[i] as number) + Math.abs(b))
    const bound = rounded + (half ? uOut * (sizes[i] as number) : 0) + uOut * Math.abs(product + b) + 2 ** -25 * uOut
    if (!(Math.abs((found.data[i] as number) - product - b) <= bound))
      return `[${i}] is ${found.data[i]}, should be ${product + b} +- ${bound}`
  }
  return null
}

/** Every convolution of a model with the input that it gets. */
export function walk(
  model: nn.Sequential,
  x: Tensor,
  visit: (path: string, layer: nn.Module, x: Tensor) => void,
): Tensor {
  let at = x
  for (const [path, layer] of model.namedChildren() as [string, nn.Module][]) {
    visit(path, layer, at)
    at = layer.forward(at)
  }
  return at
}
