/** Every op as a method of Tensor, with the meaning of the function of the same name: `a.matmul(b)` is `matmul(a, b)`. */
import { type BackwardOptions, backward } from './autograd/backward'
import type { DType, FloatOf, Promote, SumOf } from './core/dtype'
import type { Operand, WithNumber } from './ops/arithmetic'
import * as arithmetic from './ops/arithmetic'
import { clone, detach } from './ops/clone'
import * as indices from './ops/index'
import type { PadOptions } from './ops/join'
import * as joins from './ops/join'
import { type MatmulOf, type MatmulOptions, matmul, type PackedMatrix } from './ops/matmul'
import type { Axes, ReduceOptions } from './ops/reduce'
import * as reductions from './ops/reduce'
import type { Range } from './ops/shape'
import * as views from './ops/shape'
import { logSoftmax, softmax } from './ops/softmax'
import type { VarianceOptions } from './ops/statistics'
import * as statistics from './ops/statistics'
import { toDevice } from './ops/transfer'
import * as elementwise from './ops/unary'
import { type Device, destinationOf } from './tensor/device'
import type { QuantizedTensor } from './tensor/quantized'
import { Tensor } from './tensor/tensor'

type Real<D extends DType> = () => Tensor<FloatOf<D>>
type Same<D extends DType> = () => Tensor<D>
interface Binary<D extends DType> {
  <E extends DType>(b: Tensor<E>): Tensor<Promote<D, E>>
  (b: number | boolean): Tensor<WithNumber<D>>
}
interface RealBinary<D extends DType> {
  <E extends DType>(b: Tensor<E>): Tensor<FloatOf<Promote<D, E>>>
  (b: number | boolean): Tensor<FloatOf<WithNumber<D>>>
}
type Compare = (b: Operand) => Tensor<'bool'>
type Reduce<R extends DType> = (axis?: Axes, options?: ReduceOptions) => Tensor<R>

/** The methods; each is documented at the function of its name. */
export interface TensorMethods<D extends DType> {
  // arithmetic
  add: Binary<D>
  sub: Binary<D>
  mul: Binary<D>
  div: RealBinary<D>
  pow: RealBinary<D>
  maximum: Binary<D>
  minimum: Binary<D>
  eq: Compare
  ne: Compare
  lt: Compare
  le: Compare
  gt: Compare
  ge: Compare
  /** This tensor where `condition` holds, `b` elsewhere. */
  where<E extends DType>(condition: Tensor, b: Tensor<E>): Tensor<Promote<D, E>>
  where(condition: Tensor, b: number | boolean): Tensor<WithNumber<D>>
  clamp(min?: number | null, max?: number | null): Tensor<D>
  neg: Same<D>
  abs: Same<D>
  // elementwise
  exp: Real<D>
  log: Real<D>
  log1p: Real<D>
  sqrt: Real<D>
  rsqrt: Real<D>
  sin: Real<D>
  cos: Real<D>
  tanh: Real<D>
  sigmoid: Real<D>
  gelu: Real<D>
  silu: Real<D>
  erf: Real<D>
  relu: Same<D>
  sign: Same<D>
  floor: Same<D>
  ceil: Same<D>
  round: Same<D>
  cast<E extends DType>(dtype: E): Tensor<E>
  // reductions
  sum: Reduce<SumOf<D>>
  mean: Reduce<FloatOf<D>>
  max: Reduce<D>
  min: Reduce<D>
  variance(axis?: Axes, options?: VarianceOptions): Tensor<FloatOf<D>>
  std(axis?: Axes, options?: VarianceOptions): Tensor<FloatOf<D>>
  argmax(axis?: number | null, options?: ReduceOptions): Tensor<'int64'>
  argmin(axis?: number | null, options?: ReduceOptions): Tensor<'int64'>
  any: Reduce<'bool'>
  all: Reduce<'bool'>
  cumsum(axis: number): Tensor<SumOf<D>>
  softmax(axis?: number): Tensor<FloatOf<D>>
  logSoftmax(axis?: number): Tensor<FloatOf<D>>
  // parts
  indexSelect(axis: number, index: Tensor): Tensor<D>
  indexAdd(axis: number, index: Tensor, source: Tensor): Tensor<D>
  gather(axis: number, index: Tensor): Tensor<D>
  scatterAdd(axis: number, index: Tensor, source: Tensor): Tensor<D>
  split(size: number | readonly number[], axis?: number): Tensor<D>[]
  chunk(count: number, axis?: number): Tensor<D>[]
  pad(pads: readonly number[], options?: PadOptions): Tensor<D>
  triu(diagonal?: number): Tensor<D>
  tril(diagonal?: number): Tensor<D>
  // views
  reshape(shape: readonly number[]): Tensor<D>
  permute(axes: readonly number[]): Tensor<D>
  transpose(axis0?: number, axis1?: number): Tensor<D>
  squeeze(axis?: number | readonly number[]): Tensor<D>
  unsqueeze(axis: number): Tensor<D>
  expand(shape: readonly number[]): Tensor<D>
  slice(ranges: readonly (number | Range | null)[]): Tensor<D>
  flip(axis: number | readonly number[]): Tensor<D>
  // products
  matmul<B extends DType, O extends DType = MatmulOf<D, B>>(
    b: Tensor<B> | PackedMatrix<B>,
    options?: MatmulOptions<O>,
  ): Tensor<O>
  matmul<O extends DType = D>(b: QuantizedTensor, options?: MatmulOptions<O>): Tensor<O>
  // the tensor itself
  clone: Same<D>
  detach: Same<D>
  /** The tensor in another dtype, or on another device: itself when it is there already. Gradients pass through. */
  to(device: Device): Tensor<D>
  to<E extends DType>(dtype: E): Tensor<E>
  /**
   * Adds the gradient of this tensor (a loss of one element, unless `grad` gives the gradient it starts from) to the
   * `grad` of every leaf that it depends on.
   */
  backward(grad?: Tensor | null, options?: BackwardOptions): void
}

declare module './tensor/tensor' {
  interface Tensor<D extends DType = DType> extends TensorMethods<D> {}
}

type Method = keyof TensorMethods<DType>

const { abs, add, clamp, div, eq, ge, gt, le, lt, maximum, minimum, mul, ne, neg, pow, sub } = arithmetic
const { ceil, cos, erf, exp, floor, gelu, log, log1p, relu, round, rsqrt, sigmoid, sign, silu, sin, sqrt, tanh } =
  elementwise
const { max, mean, min, sum } = reductions
const { all, any, argmax, argmin, cumsum, std, variance } = statistics
const { chunk, pad, split, tril, triu } = joins
const { gather, indexAdd, indexSelect, scatterAdd } = indices
const { expand, flip, permute, reshape, slice, squeeze, transpose, unsqueeze } = views

const functions: Record<Method, (self: Tensor, ...rest: never[]) => unknown> = {
  ...{ abs, add, clamp, div, eq, ge, gt, le, lt, maximum, minimum, mul, ne, neg, pow, sub },
  ...{ ceil, cos, erf, exp, floor, gelu, log, log1p, relu, round, rsqrt, sigmoid, sign, silu, sin, sqrt, tanh },
  ...{ max, mean, min, sum },
  ...{ all, any, argmax, argmin, cumsum, logSoftmax, softmax, std, variance },
  ...{ chunk, gather, indexAdd, indexSelect, pad, scatterAdd, split, tril, triu },
  ...{ expand, flip, permute, reshape, slice, squeeze, transpose, unsqueeze },
  ...{ backward, cast: elementwise.cast, clone, detach, matmul },
  where: (self, condition: Tensor, b: Operand) => arithmetic.where(condition, self, b),
  to: (self, destination: unknown) => {
    self.storage('to')
    const wanted = destinationOf('to', destination)
    if ('device' in wanted) return toDevice(self, wanted.device)
    return wanted.dtype === self.dtype ? self : elementwise.cast(self, wanted.dtype)
  },
}

for (const [name, call] of Object.entries(functions)) {
  const method = function (this: Tensor, ...rest: never[]) {
    return call(this, ...rest)
  }
  Object.defineProperty(method, 'name', { value: name })
  Object.defineProperty(Tensor.prototype, name, { value: method, configurable: true, writable: true })
}
