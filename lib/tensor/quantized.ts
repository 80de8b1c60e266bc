/** QuantizedTensor: integers, and the scales and zero points that say what they stand for. */
import { ArgumentError, DeviceError, DisposedError, DTypeError, ShapeError, show } from '../core/errors'
import {
  checkGranularity,
  type Granularity,
  integerRange,
  type QuantDType,
  scaleShape,
  showGranularity,
} from '../core/quantization'
import { checkShape, type Shape, sameShape, showShape, sizeOf } from '../core/shape'
import { checkDevice, type Device, type DeviceName, type Movable } from './device'
import { checkTensor, keep, moveTo, type Tensor } from './tensor'

const dtypes: readonly QuantDType[] = ['int8', 'uint8', 'int4', 'uint4']

export interface QuantizedParts {
  /** Of the tensor that the integers stand for. */
  shape: Shape
  dtype: QuantDType
  granularity: Granularity
  /**
   * int8 or uint8 [...shape]; for int4 and uint4 two a byte along the last axis, uint8 [..., ceil(last / 2)], the first
   * in the low half, signed ones in two's complement (ONNX's order).
   */
  values: Tensor<'int8'> | Tensor<'uint8'>
  /** float32, of the shape that the granularity says. */
  scale: Tensor<'float32'>
  /** int32, of the scale's shape, integers of `dtype`; null: all 0. */
  zeroPoint?: Tensor<'int32'> | null
}

/** What ops derive from a quantized tensor and keep with it. */
export interface Made {
  packed?: {
    target: string
    /** 'columns': a [k, n] matrix for products of bytes; 'bytes': W^T for them; 'weights': W for weight-only ones. */
    form: 'columns' | 'bytes' | 'weights'
    packed: Tensor<'uint8'>
    zero: Tensor<'int32'> | null
  }
  transposed?: QuantizedTensor
}

/**
 * A tensor of small integers: an element stands for (value - zeroPoint) * scale. Made by `quant.quantize`; `linear` and
 * `matmul` take it as weights, `quant.dequantize` makes a float tensor of it. Nothing about it changes after it is made.
 */
export class QuantizedTensor implements Movable {
  readonly shape: Shape
  readonly dtype: QuantDType
  readonly granularity: Granularity
  readonly values: Tensor<'int8'> | Tensor<'uint8'>
  readonly scale: Tensor<'float32'>
  readonly zeroPoint: Tensor<'int32'> | null
  /** @internal What the ops have made of it for the kernels; goes when it goes. */
  readonly made: Made = {}

  /**
   * Takes the tensors over: no scope() disposes them, dispose() does.
   *
   * @throws ArgumentError, DTypeError or ShapeError when the parts do not fit together
   */
  constructor(parts: QuantizedParts) {
    const op = 'QuantizedTensor'
    if (typeof parts !== 'object' || parts === null)
      throw new ArgumentError(`${op}: parts must be an object, got ${show(parts)}`)
    if (!dtypes.includes(parts.dtype))
      throw new ArgumentError(`${op}: dtype must be ${dtypes.join(' ')}, got ${show(parts.dtype)}`)
    const { dtype } = parts
    const shape = checkShape(op, parts.shape)
    const granularity = checkGranularity(op, parts.granularity, shape.length)
    const values = checkTensor(op, 'values', parts.values)
    const scale = checkTensor(op, 'scale', parts.scale)
    const zeroPoint = parts.zeroPoint ? checkTensor(op, 'zeroPoint', parts.zeroPoint) : null
    const four = dtype === 'int4' || dtype === 'uint4'
    const stored = four ? 'uint8' : dtype
    if (values.dtype !== stored) throw new DTypeError(`${op}: values of ${dtype} are ${stored}, not ${values.dtype}`)
    if (four && shape.length === 0) throw new ShapeError(`${op}: ${dtype} needs at least one axis`)
    const wanted = four ? [...shape.slice(0, -1), Math.ceil((shape[shape.length - 1] as number) / 2)] : shape
    if (!sameShape(values.shape, wanted))
      throw new ShapeError(
        `${op}: values of ${dtype} ${showShape(shape)} are ${showShape(wanted)}, not ${showShape(values.shape)}`,
      )
    const scales = scaleShape(op, granularity, shape)
    if (scale.dtype !== 'float32') throw new DTypeError(`${op}: scale must be float32, not ${scale.dtype}`)
    if (!sameShape(scale.shape, scales))
      throw new ShapeError(
        `${op}: scale ${showGranularity(granularity)} of ${showShape(shape)} is ${showShape(scales)}, not ${showShape(scale.shape)}`,
      )
    if (zeroPoint && (zeroPoint.dtype !== 'int32' || !sameShape(zeroPoint.shape, scales)))
      throw new ShapeError(
        `${op}: zeroPoint must be int32 ${showShape(scales)}, not ${zeroPoint.dtype} ${showShape(zeroPoint.shape)}`,
      )
    for (const t of [values, scale, zeroPoint]) {
      if (t && !t.contiguous) throw new ArgumentError(`${op}: parts must be contiguous`)
      if (t && t.device !== values.device)
        throw new DeviceError(`${op}: parts must be on one device, they are on ${values.device} and ${t.device}`)
    }
    this.shape = shape
    this.dtype = dtype
    this.granularity = Object.freeze({ ...granularity })
    this.values = keep(values) as Tensor<'int8'>
    this.scale = keep(scale) as Tensor<'float32'>
    this.zeroPoint = zeroPoint && (keep(zeroPoint) as Tensor<'int32'>)
  }

  get rank(): number {
    return this.shape.length
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape)
  }

  /** Bits a value. */
  get bits(): 4 | 8 {
    return integerRange(this.dtype).qmax > 15 || this.dtype === 'int8' ? 8 : 4
  }

  /** Bytes of values, scales and zero points. */
  get bytes(): number {
    return this.values.bytes + this.scale.bytes + (this.zeroPoint?.bytes ?? 0)
  }

  /** Where its tensors are. */
  get device(): DeviceName {
    return this.values.device
  }

  /** A copy on a device; itself where it is there. */
  to(device: Device): QuantizedTensor {
    const op = 'to'
    const place = checkDevice(op, device)
    this.checkLive(op)
    if (place === this.device) return this
    return new QuantizedTensor({
      shape: this.shape,
      dtype: this.dtype,
      granularity: this.granularity,
      values: moveTo(this.values as Tensor<'int8'>, place),
      scale: moveTo(this.scale, place),
      zeroPoint: this.zeroPoint && moveTo(this.zeroPoint, place),
    })
  }

  get disposed(): boolean {
    return this.values.disposed || this.scale.disposed || (this.zeroPoint?.disposed ?? false)
  }

  /** @internal Throws DisposedError naming the op that asked. */
  checkLive(op: string): void {
    if (this.disposed)
      throw new DisposedError(`${op}: a quantized tensor of shape ${showShape(this.shape)} was used after dispose()`)
  }

  /** Gives the memory back. */
  dispose(): void {
    this.values.dispose()
    this.scale.dispose()
    this.zeroPoint?.dispose()
    this.made.packed?.packed.dispose()
    this.made.packed?.zero?.dispose()
    this.made.transposed?.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  toString(): string {
    return `QuantizedTensor<${this.dtype}>${showShape(this.shape)} ${showGranularity(this.granularity)}${this.disposed ? ' (disposed)' : ''}`
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString()
  }
}
