/** kerf: tensors, autograd and optimization on own kernels. */
import './fluent'

// areas
// nn, optim and the rest by area
export * as amp from './amp'
// autograd
export { type BackwardOptions, backward, grad } from './autograd/backward'
export { checkpoint } from './autograd/checkpoint'
export { type GradcheckOptions, gradcheck } from './autograd/gradcheck'
// core
export type { DType, FloatDType, IntDType, Promote } from './core/dtype'
export * from './core/errors'
export type { Pair } from './core/pair'
export { manualSeed, type RandomState, randomState, setRandomState } from './core/rng'
export type { Shape } from './core/shape'
export * as data from './data'
export * as distill from './distill'
// this machine
export { type DeviceInfo, device, type Info, info } from './info'
export * as io from './io'
// nn, optim and the rest by area
export * as nn from './nn'
// ops
export * from './ops/arithmetic'
export { type BatchNormOptions, batchNorm } from './ops/batch-norm'
export { clone, detach } from './ops/clone'
export {
  type Conv1dOptions,
  type ConvOptions,
  type ConvTransposeOptions,
  conv1d,
  conv2d,
  convTranspose2d,
} from './ops/conv'
export {
  arange,
  type CreateOptions,
  eye,
  full,
  ones,
  onesLike,
  rand,
  randn,
  type TensorOptions,
  tensor,
  zeros,
  zerosLike,
} from './ops/create'
export { type DropoutOptions, dropout } from './ops/dropout'
export type { ActivationName } from './ops/epilogue'
export {
  type EmbeddingOptions,
  embedding,
  gather,
  indexAdd,
  indexSelect,
  type OneHotOptions,
  oneHot,
  scatterAdd,
} from './ops/index'
export { cat, chunk, type PadOptions, pad, split, stack, tril, triu } from './ops/join'
export * from './ops/loss'
export { linear, type MatmulOptions, matmul, PackedMatrix, pack } from './ops/matmul'
export { layerNorm, rmsNorm } from './ops/norm'
export {
  type AvgPool2dOptions,
  adaptiveAvgPool2d,
  avgPool2d,
  type MaxPool2dOptions,
  maxPool2d,
} from './ops/pooling'
export { convInteger, type QuantizedConvOptions } from './ops/quantized-conv'
export { max, mean, min, type ReduceOptions, sum } from './ops/reduce'
export { type ResizeOptions, resize } from './ops/resize'
export {
  contiguous,
  expand,
  flip,
  permute,
  type Range,
  reshape,
  slice,
  squeeze,
  transpose,
  unsqueeze,
} from './ops/shape'
export { logSoftmax, softmax } from './ops/softmax'
export type { SparseConvOptions } from './ops/sparse-conv'
export { all, any, argmax, argmin, cumsum, std, type VarianceOptions, variance } from './ops/statistics'
export * from './ops/unary'
export * as optim from './optim'
export * as prune from './prune'
export * as quant from './quant'
// whole models
export { type LayerSummary, type ModelSummary, summary } from './summary'
// tensor
export { enableGrad, noGrad, scope } from './tensor/context'
export type { Device } from './tensor/device'
export { type Nested, Tensor } from './tensor/tensor'
export * as train from './train'
