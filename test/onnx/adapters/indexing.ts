// Reading and writing at positions.
import {
  add,
  arange,
  argmax,
  cast,
  expand,
  gather,
  gt,
  indexAdd,
  indexSelect,
  lt,
  mul,
  oneHot,
  onesLike,
  permute,
  reshape,
  scatterAdd,
  slice,
  sub,
  sum,
  type Tensor,
  tensor,
  where,
  zerosLike,
} from 'kerf'
import { contiguousStrides, sizeOf } from '#lib/core/shape'
import { type Adapters, exact, positive } from '../adapter'
import type { Call } from '../call'
import { Skip } from '../skip'

/** Indices of any shape: their axes take the place of `axis`. */
function gathered(call: Call): Tensor {
  const [x, index] = [call.input(0), call.input(1)]
  const axis = positive(call.number('axis', 0), x.rank)
  const flat = indexSelect(x, axis, reshape(index, [index.size]))
  return reshape(flat, [...x.shape.slice(0, axis), ...index.shape, ...x.shape.slice(axis + 1)])
}

/** kerf only adds: what is written is added to zeros, and taken where a count of the writes is not zero. */
function replaced(x: Tensor, updates: Tensor, addAt: (into: Tensor, what: Tensor) => Tensor): Tensor {
  const hit = gt(addAt(zerosLike(x), onesLike(updates)), 0)
  return where(hit, addAt(zerosLike(x), updates), x)
}

function scattered(call: Call, x: Tensor, updates: Tensor, addAt: (into: Tensor, what: Tensor) => Tensor): Tensor {
  const reduction = call.text('reduction', 'none')
  if (reduction === 'add') return addAt(x, updates)
  if (reduction !== 'none') throw new Skip(`kerf has no scatter with reduction ${reduction}`)
  return replaced(x, updates, addAt)
}

function scatterElements(call: Call): Tensor {
  const [x, index, updates] = [call.input(0), call.input(1), call.input(2)]
  const axis = call.number('axis', 0)
  return scattered(call, x, updates, (into, what) => scatterAdd(into, axis, index, what))
}

/** The last axis of `index` holds positions along the first q axes of x: as one position along their product. */
function flatPositions(x: Tensor, index: Tensor): { lines: Tensor; positions: Tensor; q: number } {
  const q = index.shape[index.rank - 1] as number
  const lead = x.shape.slice(0, q)
  const strides = tensor(contiguousStrides(lead), { dtype: 'int64' })
  const positions = reshape(sum(mul(index, strides), -1), [-1])
  return { lines: reshape(x, [sizeOf(lead), sizeOf(x.shape.slice(q))]), positions, q }
}

function gatherND(call: Call): Tensor {
  if (call.number('batch_dims', 0) !== 0) throw new Skip('kerf has no gather in batches')
  const [x, index] = [call.input(0), call.input(1)]
  const { lines, positions, q } = flatPositions(x, index)
  return reshape(indexSelect(lines, 0, positions), [...index.shape.slice(0, -1), ...x.shape.slice(q)])
}

function scatterND(call: Call): Tensor {
  const [x, index, updates] = [call.input(0), call.input(1), call.input(2)]
  const { lines, positions } = flatPositions(x, index)
  const rows = reshape(updates, [positions.size, lines.shape[1] as number])
  const addAt = (into: Tensor, what: Tensor) => indexAdd(into, 0, positions, what)
  return reshape(scattered(call, lines, rows, addAt), x.shape)
}

/** The last axis moved to `axis`. */
function lastTo(a: Tensor, axis: number): Tensor {
  const order = a.shape.map((_, i) => i).slice(0, -1)
  order.splice(axis, 0, a.rank - 1)
  return permute(a, order)
}

function oneHotOf(call: Call): Tensor {
  const depth = call.scalar(1)
  const index = cast(call.input(0), 'int64')
  const hot = oneHot(where(lt(index, 0), add(index, depth), index), depth, { dtype: 'bool' })
  const [off, on] = [slice(call.input(2), [0]), slice(call.input(2), [1])]
  return lastTo(where(hot, on, off), positive(call.number('axis', -1), hot.rank))
}

function hardmax(call: Call): Tensor {
  const x = call.input(0)
  if (call.opset < 13) throw new Skip('before opset 13 the axes from `axis` on are one line')
  const axis = positive(call.number('axis', -1), x.rank)
  return lastTo(oneHot(argmax(x, axis), x.shape[axis], { dtype: x.dtype }), axis)
}

/** Position t of a sequence of length n comes from n - 1 - t; what is behind the sequence stays. */
function reverseSequence(call: Call): Tensor {
  const x = call.input(0)
  const time = call.number('time_axis', 0)
  const alongAxis = (a: Tensor, axis: number) =>
    reshape(
      a,
      x.shape.map((_, i) => (i === axis ? a.size : 1)),
    )
  const t = alongAxis(arange(0, x.shape[time] as number, 1, { dtype: 'int64' }), time)
  const n = alongAxis(call.input(1), call.number('batch_axis', 1))
  const from = where(lt(t, n), sub(sub(n, 1), t), t)
  return gather(x, time, expand(from, x.shape))
}

export const indexing: Adapters = {
  Gather: exact(gathered),
  GatherElements: exact((call) => gather(call.input(0), call.number('axis', 0), call.input(1))),
  GatherND: exact(gatherND),
  ScatterElements: exact(scatterElements),
  Scatter: exact(scatterElements),
  ScatterND: exact(scatterND),
  OneHot: exact(oneHotOf),
  Hardmax: exact(hardmax),
  ReverseSequence: exact(reverseSequence),
}
