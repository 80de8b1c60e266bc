/** Convolutions of bytes: exact int32 sums, and float layers on them. */
import type { DType } from '../core/dtype'
import { ArgumentError, DTypeError, ShapeError } from '../core/errors'
import { showGranularity } from '../core/quantization'
import { showShape } from '../core/shape'
import { native } from '../native/call'
import type { QuantizedTensor } from '../tensor/quantized'
import {
  type ConvOptions,
  checkSize,
  type Geometry,
  geometryOf,
  gradOfInput,
  images,
  oneGroup,
  type Two,
} from './convolve'
import { activatedApart, activationCode, beforeActivation, biasRow, checkBias, needsInput } from './epilogue'
import { arg, checkDTypeOf, converted, empty, gapless, needsGrad, type Tensor, taped } from './op'
import { gradOfBias } from './product-with-weights'
import { checkInner, checkZero, packBytes, packedOnce, packedZero, quantizeCode } from './qmatmul'
import { dequantize } from './quantize'
import { type InputQuantization, inputBytes } from './quantized-linear'
import { permute, reshape, squeeze } from './shape'

export interface QuantizedConvOptions extends ConvOptions {
  /** Multiplies bytes by bytes: x is quantized on the way, by the range of all of it ('tensor'), or by a given scale. */
  quantizeInput?: Exclude<InputQuantization, 'token'>
}

/** [O, C, R, S] as the kernels read it: [R * S * C, O]. */
const columns = (w: Tensor): Tensor =>
  reshape(permute(w, [2, 3, 1, 0]), [
    (w.shape[1] as number) * (w.shape[2] as number) * (w.shape[3] as number),
    w.shape[0] as number,
  ])

interface BytesConv {
  x: Tensor
  quantize?: keyof typeof quantizeCode
  xScale?: Tensor | null
  xZero?: Tensor | null
  packed: Tensor
  wScale?: Tensor | null
  wZero?: Tensor | null
  bias?: Tensor | null
  activation?: number
  kernel: Two
}

/** The one place that calls the addon. */
function run(out: Tensor, p: BytesConv, g: Geometry): void {
  const code = quantizeCode[p.quantize ?? 'none']
  // biome-ignore format: the parameters of ops.def
  native.qconv2d(
    out, p.x, code, p.xScale ?? null, p.xZero ?? null, p.packed, p.wScale ?? null, p.wZero ?? null,
    p.bias ?? null, p.activation ?? 0, p.kernel[0], p.kernel[1], g.stride[0], g.stride[1], g.pad[0], g.pad[1],
    g.dilation[0], g.dilation[1],
  )
}

/**
 * ONNX's ConvInteger: the exact int32 convolution of x - xZeroPoint by w - wZeroPoint. Padding stands for 0, so it holds
 * xZeroPoint.
 *
 * @param x int8 or uint8 [images, channels, height, width], or without images
 * @param w int8 or uint8 [outChannels, channels, kernel height, kernel width]; packed on every call
 * @param options.xZeroPoint one element; default 0
 * @param options.wZeroPoint one element or [outChannels]; default 0
 * @throws ShapeError where int32 could overflow (channels times kernel above 65,793, or 33,025 with a zero point of w or uint8 w)
 */
export function convInteger(
  x: Tensor,
  w: Tensor,
  options: Omit<ConvOptions, 'activation'> & { xZeroPoint?: Tensor | null; wZeroPoint?: Tensor | null } = {},
): Tensor<'int32'> {
  const op = 'convInteger'
  const a = arg(op, 'x', x)
  const weight = arg(op, 'w', w)
  for (const [name, t] of [
    ['x', a],
    ['w', weight],
  ] as const)
    checkDTypeOf(op, name, t, ['int8', 'uint8'])
  const image = images(op, a)
  if (weight.rank !== 4) throw new ShapeError(`${op}: w must have 4 axes, it is ${showShape(weight.shape)}`)
  oneGroup(op, 'bytes', options)
  const { geometry, size } = geometryOf(op, image.shape, weight.shape, options)
  const out = weight.shape[0] as number
  const zero = checkZero(op, 'wZeroPoint', options.wZeroPoint, out)
  const matrix = columns(weight)
  checkInner(op, matrix.shape[0] as number, zero !== null || weight.dtype === 'uint8')
  const shape = [image.shape[0] as number, out, ...size]
  checkSize(op, shape)
  const result = empty('int32', shape, image.device)
  run(
    result,
    {
      x: gapless(image, image.dtype),
      xZero: checkZero(op, 'xZeroPoint', options.xZeroPoint, 1),
      packed: packBytes(op, matrix, matrix.device),
      wZero: packedZero(weight, zero),
      kernel: weight.shape.slice(2) as unknown as Two,
    },
    geometry,
  )
  return image === a ? result : squeeze(result, 0)
}

/**
 * @internal conv2d() whose weights are quantized and whose input becomes bytes on the way. Gradients flow to x, by the values that
 * the weights stand for, and to bias.
 */
export function quantizedConv2d(
  x: Tensor,
  w: QuantizedTensor,
  bias: Tensor | null,
  options: QuantizedConvOptions,
): Tensor {
  const op = 'conv2d'
  w.checkLive(op)
  checkDTypeOf(op, 'x', x, ['float32', 'float16', 'bfloat16'] satisfies DType[])
  if (w.rank !== 4) throw new ShapeError(`${op}: quantized weights must have 4 axes, they are ${showShape(w.shape)}`)
  const { granularity: g } = w
  const rows = g.kind === 'tensor' || (g.kind === 'channel' && (g.axis === 0 || g.axis === -4))
  if (w.bits !== 8 || !rows)
    throw new DTypeError(
      `${op}: quantizeInput needs int8 or uint8 weights per tensor or per channel(0), they are ${w.dtype} ${showGranularity(g)}`,
    )
  oneGroup(op, 'bytes', options)
  const image = images(op, x)
  const { geometry, size } = geometryOf(op, image.shape, w.shape, options)
  const out = w.shape[0] as number
  if (bias) checkBias(op, bias, out)
  const code = activationCode(op, options.activation)
  const how = inputBytes(op, options.quantizeInput as InputQuantization)
  if (how.quantize === 'token')
    throw new ArgumentError(`${op}: quantizeInput must be 'tensor' or { scale, zeroPoint, dtype }, got 'token'`)
  const { packed, zero } = packedOnce(w, 'bytes', () => ({
    packed: packBytes(op, columns(w.values), w.device),
    zero: packedZero(w.values, w.zeroPoint),
  }))
  checkInner(op, w.size / Math.max(out, 1), zero !== null)
  const one = (t: Tensor | null) => (t && t.rank > 0 && t.size === 1 ? reshape(t, []) : t)
  const taking = [x, ...(bias ? [bias] : [])]
  const apart = needsGrad(taking) && needsInput(options.activation)
  const shape = [image.shape[0] as number, out, ...size]
  checkSize(op, shape)
  const result = empty(x.dtype, shape, x.device)
  run(
    result,
    {
      x: gapless(image, image.dtype),
      quantize: how.quantize,
      xScale: (how.aScale ?? null) as Tensor | null,
      xZero: (how.aZero ?? null) as Tensor | null,
      packed,
      wScale: one(w.scale),
      wZero: one(zero),
      bias: bias && biasRow(bias),
      activation: apart ? 0 : code,
      kernel: w.shape.slice(2) as unknown as Two,
    },
    geometry,
  )
  taped(op, result, [image, ...(bias ? [bias] : [])], (grad) => {
    const wide = gapless(beforeActivation(grad, result, apart ? undefined : options.activation), 'float32')
    const dx = image.requiresGrad ? gradOfInput(wide, image, dequantize(w), geometry) : null
    return [dx && converted(dx, x.dtype), ...(bias ? [gradOfBias(wide, bias, 1)] : [])]
  })
  const activated = apart ? activatedApart(result, options.activation) : result
  return image === x ? activated : squeeze(activated, 0)
}
