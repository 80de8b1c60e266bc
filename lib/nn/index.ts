/** Modules: layers, containers, initialisers. */
export { Flatten, GELU, Identity, ReLU, Sigmoid, SiLU, Tanh } from './activations'
export { ModuleList, Sequential } from './containers'
export * as init from './init'
export { Linear, type LinearOptions } from './linear'
export { type AnyModule, type LoadResult, Module, type StateDict } from './module'
export { Parameter } from './parameter'
