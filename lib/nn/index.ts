/** Modules: layers, containers, initialisers. */
export { Flatten, GELU, Identity, ReLU, Sigmoid, SiLU, Tanh } from './activations'
export {
  type AttentionOptions,
  MultiHeadAttention,
  type MultiHeadAttentionOptions,
  scaledDotProductAttention,
} from './attention'
export { BatchNorm1d, BatchNorm2d, type BatchNormLayerOptions } from './batch-norm'
export { ModuleList, Sequential } from './containers'
export {
  Conv1d,
  type Conv1dLayerOptions,
  Conv2d,
  type Conv2dOptions,
  ConvTranspose2d,
  type ConvTranspose2dOptions,
} from './conv'
export { type FoldBatchNormOptions, foldBatchNorm } from './fold-batch-norm'
export * as init from './init'
export {
  Dropout,
  Dropout2d,
  Embedding,
  type EmbeddingLayerOptions,
  LayerNorm,
  type LayerNormOptions,
  LogSoftmax,
  RMSNorm,
  type RMSNormOptions,
  Softmax,
} from './layers'
export { Linear, type LinearOptions } from './linear'
export { type AnyModule, type LoadResult, Module, type StateDict } from './module'
export { Parameter } from './parameter'
export { AdaptiveAvgPool2d, AvgPool2d, MaxPool2d } from './pooling'
export {
  GRU,
  GRUCell,
  type HiddenState,
  LSTM,
  LSTMCell,
  type LSTMState,
  type RecurrentCellOptions,
  type RecurrentOptions,
  RNN,
  type RNNOptions,
} from './recurrent'
