/** conv2d() whose weights are a SparseTensor. */
import { isFloat } from '../core/dtype'
import { DTypeError, ShapeError } from '../core/errors'
import { checkPair, type Pair } from '../core/pair'
import { showShape } from '../core/shape'
import { native } from '../native/call'
import type { SparseTensor } from '../tensor/sparse'
import { type ConvOptions, checkSize, geometryOf, gradOfInput, images, oneGroup } from './convolve'
import { activatedApart, activationCode, beforeActivation, biasRow, checkBias, needsInput } from './epilogue'
import { converted, empty, gapless, needsGrad, type Tensor, taped } from './op'
import { gradOfBias } from './product-with-weights'
import { reshape, squeeze } from './shape'
import { checkSparse } from './sparse'
import { packedInBlocks } from './sparse-kernels'
import { asFloats, floatArrays } from './spmatmul'

export interface SparseConvOptions extends ConvOptions {
  /** [height, width] of the kernel, which the matrix of weights does not tell. */
  kernelSize: Pair
}

/**
 * @internal conv2d() by w [outChannels, channels * kernel height * kernel width], without work for runs of 8 neighbouring taps
 * that are all zero in an output. Zeros count as zero whatever they meet. Gradients flow to x and bias.
 */
export function sparseConv2d(x: Tensor, w: SparseTensor, bias: Tensor | null, options: SparseConvOptions): Tensor {
  const op = 'conv2d'
  checkSparse(op, 'weight', w)
  if (!isFloat(x.dtype)) throw new DTypeError(`${op}: sparse weights need a float input, it is ${x.dtype}`)
  const kernel = checkPair(op, 'kernelSize', options.kernelSize, 1)
  oneGroup(op, 'sparse weights', options)
  const image = images(op, x)
  const [out, taps] = w.shape as [number, number]
  const channels = image.shape[1] as number
  if (channels * kernel[0] * kernel[1] !== taps)
    throw new ShapeError(
      `${op}: weight ${showShape(w.shape)} does not hold kernels of ${showShape(kernel)} for the channels of x ${showShape(x.shape)}`,
    )
  const dense = [out, channels, ...kernel]
  const { geometry: g, size } = geometryOf(op, image.shape, dense, options)
  if (bias) checkBias(op, bias, out)
  const code = activationCode(op, options.activation)
  const taking = [image, ...(bias ? [bias] : [])]
  // gelu and silu need the value before them for their gradient: apart, so that it is there
  const apart = needsGrad(taking) && needsInput(options.activation)
  const shape = [image.shape[0] as number, out, ...size]
  checkSize(op, shape)
  const result = empty(x.dtype, shape, x.device)
  const { packed, count } = packedInBlocks(op, w, () => floatArrays(w))
  // biome-ignore format: the parameters of ops.def
  native.spconv2d(
    result, gapless(image, image.dtype), packed, bias && biasRow(bias), apart ? 0 : code, count,
    ...kernel, ...g.stride, ...g.pad, ...g.dilation,
  )
  taped(op, result, taking, (grad) => {
    const wide = gapless(beforeActivation(grad, result, apart ? undefined : options.activation), 'float32')
    const weights = () => reshape(converted(asFloats(w), 'float32'), dense)
    const dx = image.requiresGrad ? gradOfInput(wide, image, weights(), g) : null
    return [dx && converted(dx, x.dtype), ...(bias ? [gradOfBias(wide, bias, 1)] : [])]
  })
  const activated = apart ? activatedApart(result, options.activation) : result
  return image === x ? activated : squeeze(activated, 0)
}
