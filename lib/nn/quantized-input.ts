/** How a layer of integer weights takes its input: what QuantizedLinear, QuantizedConv2d and SparseLinear have in common. */
import type { DType } from '../core/dtype'
import { ArgumentError, DTypeError, FormatError, ShapeError, show } from '../core/errors'
import { showShape } from '../core/shape'
import { mul } from '../ops/arithmetic'
import { zeros } from '../ops/create'
import type { InputQuantization, QuantizedLinearOptions } from '../ops/quantized-linear'
import { cast } from '../ops/unary'
import { checkTensor, copyTo, type Tensor } from '../tensor/tensor'
import type { Fields } from './layer-metadata'
import type { Module } from './module'

/** Float, bytes by a range found on the way (of the batch, of each row), or bytes by a fixed scale. */
export const inputModes = ['float', 'tensor', 'token', 'uint8', 'int8'] as const
export type InputMode = (typeof inputModes)[number]

export interface InputParts {
  input: InputMode
  /** With input 'uint8' or 'int8': one element each. */
  inputScale?: Tensor<'float32'> | null
  inputZeroPoint?: Tensor<'int32'> | null
  /** [in]: columns of the input are multiplied by it first (SmoothQuant, AWQ). */
  inputMultiplier?: Tensor<'float32'> | null
}

/** What InputParts are in a layer: the tensors are buffers of these names. */
export interface QuantizedInput {
  readonly input: InputMode
  inputScale: Tensor<'float32'> | null
  inputZeroPoint: Tensor<'int32'> | null
}

/** A layer whose input has columns, which may be multiplied first. */
export interface QuantizedColumns extends QuantizedInput {
  inputMultiplier: Tensor<'float32'> | null
}

export const inputBuffers = ['inputScale', 'inputZeroPoint', 'inputMultiplier'] as const
type InputBuffer = (typeof inputBuffers)[number]

/** Throws unless it is a mode that has the buffers that it needs. */
export function checkInputMode(op: string, input: unknown, has: (name: InputBuffer) => boolean): InputMode {
  if (!inputModes.includes(input as InputMode))
    throw new ArgumentError(`${op}: input must be ${inputModes.join(' ')}, got ${show(input)}`)
  if ((input === 'uint8' || input === 'int8') && !has('inputScale'))
    throw new ArgumentError(`${op}: input '${input}' needs inputScale`)
  return input as InputMode
}

/**
 * Makes the buffers of a layer whose `input` is set.
 *
 * @param inFeatures the columns of its input; null: it has none, and takes no multiplier
 */
export function registerInput(
  op: string,
  layer: Module & QuantizedInput,
  parts: InputParts,
  inFeatures: number | null,
): void {
  checkInputMode(op, layer.input, (name) => parts[name] != null)
  const buffer = (name: InputBuffer, dtype: DType, columns: boolean) => {
    const given: Tensor | null = parts[name] ?? null
    if (given) {
      const t = checkTensor(op, name, given)
      if (t.dtype !== dtype) throw new DTypeError(`${op}: ${name} must be ${dtype}, it is ${t.dtype}`)
      const fits = columns ? t.rank === 1 && t.shape[0] === inFeatures : t.size === 1
      if (!fits) {
        const wanted = columns ? `be [${inFeatures}]` : 'have one element'
        throw new ShapeError(`${op}: ${name} must ${wanted}, it is ${showShape(t.shape)}`)
      }
    }
    layer.registerBuffer(name, given, { fixed: true })
  }
  buffer('inputScale', 'float32', false)
  buffer('inputZeroPoint', 'int32', false)
  if (inFeatures !== null) buffer('inputMultiplier', 'float32', true)
  else if (parts.inputMultiplier) throw new ArgumentError(`${op}: inputMultiplier is for the columns of a Linear`)
}

/** What `quantizeInput` is for the layer's op. */
export function inputQuantization({
  input,
  inputScale,
  inputZeroPoint,
}: QuantizedInput): InputQuantization | undefined {
  if (input === 'float') return undefined
  if (input === 'tensor' || input === 'token') return input
  return { scale: inputScale as Tensor, zeroPoint: inputZeroPoint, dtype: input }
}

/** The layer's product: `product` is linear() with its weights. */
export function multiplyInput(
  layer: QuantizedColumns,
  x: Tensor,
  product: (x: Tensor, options: Pick<QuantizedLinearOptions, 'quantizeInput' | 'multiplier'>) => Tensor,
): Tensor {
  const { inputMultiplier: multiplier } = layer
  const quantizeInput = inputQuantization(layer)
  if (quantizeInput !== undefined) return product(x, { quantizeInput, multiplier })
  return product(multiplier ? cast(mul(x, multiplier), x.dtype) : x, {})
}

/** Parts for another layer that takes its input the same way. */
export function copyInput({ input, inputScale, inputZeroPoint, inputMultiplier }: QuantizedColumns): InputParts {
  return {
    input,
    inputScale: inputScale && copyTo(inputScale, 'float32'),
    inputZeroPoint: inputZeroPoint && copyTo(inputZeroPoint, 'int32'),
    inputMultiplier: inputMultiplier && copyTo(inputMultiplier, 'float32'),
  }
}

/** For describe(). */
export const showInput = (layer: QuantizedInput): string => `input ${layer.input}`

/** What a file says of a layer's input. */
export interface InputEntry<Name extends string = InputBuffer> {
  input: InputMode
  /** Which optional buffers there are. */
  has: readonly Name[]
}

/**
 * The same of a file, checked.
 *
 * @param optional all buffers that such a layer may have or not
 */
export function readInput<Name extends string>(
  op: string,
  { input, has }: Fields,
  optional: readonly (Name | InputBuffer)[],
): InputEntry<Name | InputBuffer> {
  if (!Array.isArray(has) || has.some((name) => !optional.includes(name)))
    throw new FormatError(`has must be a list of ${optional.join(' ')}, got ${show(has)}`)
  return { input: checkInputMode(op, input, (name) => has.includes(name)), has }
}

/** Parts of the right shapes, zeroed, for loadStateDict() to fill. */
export function blankInput({ input, has }: InputEntry<string>, inFeatures: number): InputParts {
  return {
    input,
    inputScale: has.includes('inputScale') ? (zeros([]) as Tensor<'float32'>) : null,
    inputZeroPoint: has.includes('inputZeroPoint') ? (zeros([], { dtype: 'int32' }) as Tensor<'int32'>) : null,
    inputMultiplier: has.includes('inputMultiplier') ? (zeros([inFeatures]) as Tensor<'float32'>) : null,
  }
}
