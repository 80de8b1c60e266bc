/** Quantization: integers instead of floats, from a single tensor to a whole model. */
export {
  type Affine,
  affineOf,
  type Convention,
  conventions,
  type Granularity,
  perChannel,
  perGroup,
  perTensor,
  perToken,
  type QuantDType,
} from '../core/quantization'
export { matmulInteger, qlinearMatmul } from '../ops/qmatmul'
export { dequantize, dequantizeLinear, dynamicQuantizeLinear, fakeQuantize, quantizeLinear } from '../ops/quantize'
export { QuantizedTensor } from '../tensor/quantized'
export * from './calibration'
export { type QuantizeOptions, quantize } from './quantize'
