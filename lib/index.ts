/** kerf: tensors, autograd and optimization on own kernels. */
import './fluent'

// autograd
export { type BackwardOptions, backward, grad } from './autograd/backward'
// core
export type { DType, FloatDType, IntDType, Promote } from './core/dtype'
export * from './core/errors'
export { manualSeed } from './core/rng'
export type { Shape } from './core/shape'
// nn, optim and the rest by area
export * as nn from './nn'
// ops
export * from './ops/arithmetic'
export { clone, detach } from './ops/clone'
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
export { type ActivationName, linear, type MatmulOptions, matmul, PackedMatrix, pack } from './ops/matmul'
export { max, mean, min, type ReduceOptions, sum } from './ops/reduce'
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
export * from './ops/unary'
export * as optim from './optim'
// tensor
export { enableGrad, noGrad, scope } from './tensor/context'
export type { Device } from './tensor/device'
export { type Nested, Tensor } from './tensor/tensor'
