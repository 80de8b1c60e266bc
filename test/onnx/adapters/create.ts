// Tensors made from values, sizes and numbers; and dropout.
import { arange, dropout, full, ones, type Tensor, tril, triu } from 'kerf'
import { type Adapters, exact } from '../adapter'
import type { Call } from '../call'
import { dtypeOf, toNd, toTensor } from '../model'
import { Skip } from '../skip'

function constant(call: Call): Tensor {
  const value = call.tensor('value')
  if (value === undefined) throw new Skip('a constant that is not a tensor')
  return toTensor(value)
}

function constantOfShape(call: Call): Tensor {
  const value = call.tensor('value')
  const dtype = value ? dtypeOf(value.type) : 'float32'
  return full(call.integers(0) ?? [], value ? (toNd(value).data[0] as number) : 0, { dtype })
}

/** The diagonal k, which lies on both sides of itself: column - row = k. */
function eyeLike(call: Call): Tensor {
  const x = call.input(0)
  const k = call.number('k', 0)
  const type = call.number('dtype', call.given[0]?.type as number)
  return tril(triu(ones(x.shape, { dtype: dtypeOf(type) }), k), k)
}

/** Outside of training nothing is dropped, and the mask says so. */
function dropped(call: Call): Tensor[] {
  const x = call.input(0)
  const training = call.scalar(2, 0) !== 0
  const ratio = call.scalar(1, call.number('ratio', 0.5))
  if (training && ratio > 0) throw new Skip("what is dropped depends on numpy's random numbers")
  return [dropout(x, ratio, { training }), ones(x.shape, { dtype: 'bool' })]
}

export const creation: Adapters = {
  Constant: exact(constant),
  ConstantOfShape: exact(constantOfShape),
  EyeLike: exact(eyeLike),
  Range: exact((call) => arange(call.scalar(0), call.scalar(1), call.scalar(2), { dtype: call.input(0).dtype })),
  Dropout: exact(dropped),
}
