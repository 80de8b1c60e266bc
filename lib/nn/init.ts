/**
 * Initialisers: each fills a contiguous float tensor in place and returns it; nothing is recorded on the tape. Random
 * ones follow manualSeed(). fan-in and fan-out are those of a weight [out, in, ...kernel].
 */
import { isFloat } from '../core/dtype'
import { ArgumentError, DTypeError, ShapeError, show } from '../core/errors'
import { takeRandom } from '../core/rng'
import { checkNumber, showShape, sizeOf } from '../core/shape'
import { native } from '../native/call'
import { changed, checkTensor, type Tensor } from '../tensor/tensor'

export type Nonlinearity = 'linear' | 'sigmoid' | 'tanh' | 'relu' | 'leakyRelu' | 'selu'
export type FanMode = 'fanIn' | 'fanOut'

export interface KaimingOptions {
  /** Negative slope of the leaky ReLU that follows; default 0. */
  a?: number
  /** Whose variance stays: 'fanIn' (default) that of activations, 'fanOut' that of gradients. */
  mode?: FanMode
  /** What follows the layer; default 'leakyRelu'. */
  nonlinearity?: Nonlinearity
}

function target<T extends Tensor>(op: string, tensor: T): T {
  checkTensor(op, 'tensor', tensor)
  if (!isFloat(tensor.dtype)) throw new DTypeError(`${op}: the tensor must be a float one, got ${tensor.dtype}`)
  if (!tensor.contiguous) throw new ArgumentError(`${op}: the tensor must be contiguous`)
  changed(tensor)
  return tensor
}

function fill<T extends Tensor>(op: string, tensor: T, value: unknown): T {
  native.fill(target(op, tensor), checkNumber(op, 'value', value))
  return tensor
}

/** Every element `value`. */
export function constant<T extends Tensor>(tensor: T, value: number): T {
  return fill('constant', tensor, value)
}

/** Every element 0. */
export function zeros<T extends Tensor>(tensor: T): T {
  return fill('zeros', tensor, 0)
}

/** Every element 1. */
export function ones<T extends Tensor>(tensor: T): T {
  return fill('ones', tensor, 1)
}

/** Uniform in [low, high); default [0, 1). */
export function uniform<T extends Tensor>(tensor: T, low = 0, high = 1): T {
  target('uniform', tensor)
  if (!(checkNumber('uniform', 'low', low) <= checkNumber('uniform', 'high', high))) {
    throw new ArgumentError(`uniform: low ${low} must not be above high ${high}`)
  }
  const { seed, offset } = takeRandom(tensor.size)
  native.randUniform(tensor, low, high, seed, offset)
  return tensor
}

/** Normal with the given mean and standard deviation; default 0 and 1. */
export function normal<T extends Tensor>(tensor: T, mean = 0, std = 1): T {
  target('normal', tensor)
  checkNumber('normal', 'mean', mean)
  if (checkNumber('normal', 'std', std) < 0) throw new ArgumentError(`normal: std must not be negative, got ${std}`)
  const { seed, offset } = takeRandom(tensor.size)
  native.randNormal(tensor, mean, std, seed, offset)
  return tensor
}

/** Glorot's uniform: bound gain * sqrt(6 / (fanIn + fanOut)) (Glorot and Bengio 2010, eq. 16). */
export function xavierUniform<T extends Tensor>(tensor: T, options: { gain?: number } = {}): T {
  const { fanIn, fanOut } = fans('xavierUniform', tensor)
  const bound = checkNumber('xavierUniform', 'gain', options.gain ?? 1) * Math.sqrt(6 / (fanIn + fanOut))
  return uniform(tensor, -bound, bound)
}

/** Glorot's normal: standard deviation gain * sqrt(2 / (fanIn + fanOut)). */
export function xavierNormal<T extends Tensor>(tensor: T, options: { gain?: number } = {}): T {
  const { fanIn, fanOut } = fans('xavierNormal', tensor)
  return normal(tensor, 0, checkNumber('xavierNormal', 'gain', options.gain ?? 1) * Math.sqrt(2 / (fanIn + fanOut)))
}

/** He's uniform: bound gain * sqrt(3 / fan) (He et al. 2015). */
export function kaimingUniform<T extends Tensor>(tensor: T, options: KaimingOptions = {}): T {
  const bound = Math.sqrt(3) * kaimingDeviation('kaimingUniform', tensor, options)
  return uniform(tensor, -bound, bound)
}

/** He's normal: standard deviation gain / sqrt(fan). */
export function kaimingNormal<T extends Tensor>(tensor: T, options: KaimingOptions = {}): T {
  return normal(tensor, 0, kaimingDeviation('kaimingNormal', tensor, options))
}

/** The factor by which a nonlinearity shrinks a signal's deviation, inverted (PyTorch's values). */
export function calculateGain(nonlinearity: Nonlinearity, a = 0.01): number {
  const gains: Record<Nonlinearity, number> = {
    linear: 1,
    sigmoid: 1,
    tanh: 5 / 3,
    relu: Math.SQRT2,
    leakyRelu: Math.sqrt(2 / (1 + a * a)),
    selu: 3 / 4,
  }
  const gain = Object.hasOwn(gains, nonlinearity) ? gains[nonlinearity] : undefined
  if (gain === undefined) {
    throw new ArgumentError(`calculateGain: expected one of ${Object.keys(gains).join(' ')}, got ${show(nonlinearity)}`)
  }
  return gain
}

/** Inputs and outputs of one unit of a weight [out, in, ...kernel]. */
export function fans(op: string, tensor: Tensor): { fanIn: number; fanOut: number } {
  target(op, tensor)
  if (tensor.rank < 2)
    throw new ShapeError(`${op}: the tensor must have two axes or more, its shape is ${showShape(tensor.shape)}`)
  const [out, inputs, ...kernel] = tensor.shape as readonly [number, number, ...number[]]
  const field = sizeOf(kernel)
  return { fanIn: inputs * field, fanOut: out * field }
}

function kaimingDeviation(op: string, tensor: Tensor, options: KaimingOptions): number {
  const { fanIn, fanOut } = fans(op, tensor)
  const mode = options.mode ?? 'fanIn'
  if (mode !== 'fanIn' && mode !== 'fanOut')
    throw new ArgumentError(`${op}: mode must be 'fanIn' or 'fanOut', got ${show(mode)}`)
  const gain = calculateGain(options.nonlinearity ?? 'leakyRelu', checkNumber(op, 'a', options.a ?? 0))
  return gain / Math.sqrt(mode === 'fanIn' ? fanIn : fanOut)
}
