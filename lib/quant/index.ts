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
export type { CalibrationData, RunBatch } from '../nn/calibrate'
export { QuantizedConv2d } from '../nn/quantized-conv'
export type { InputMode } from '../nn/quantized-input'
export { QuantizedLinear } from '../nn/quantized-linear'
export { matmulInteger, qlinearMatmul } from '../ops/qmatmul'
export { dequantize, dequantizeLinear, dynamicQuantizeLinear, fakeQuantize, quantizeLinear } from '../ops/quantize'
export { QuantizedTensor } from '../tensor/quantized'
export * from './calibration'
export { int8Dynamic, int8Static, type QuantConfig, type WeightMethod, weightOnly } from './config'
export { applyMetadata, fromTensors, metadata, toTensors } from './metadata'
export { convert, prepareQat, QatConv2d, QatLinear, type QatOptions } from './qat'
export type { Skip } from './quantizable'
export { type QuantizeOptions, quantize } from './quantize'
export { type QuantizeModelOptions, quantizeModel } from './quantize-model'
export { type SmoothModelOptions, smoothQuant } from './smooth-model'
export { type TunedLayer, type TuneOptions, type TuneReport, tune } from './tune'
