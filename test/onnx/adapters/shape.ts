// Ops that move elements and compute nothing.
import {
  cat,
  expand,
  pad,
  permute,
  type Range,
  reshape,
  slice,
  split,
  squeeze,
  type Tensor,
  tril,
  triu,
  unsqueeze,
} from 'kerf'
import { broadcastShapes, sizeOf } from '#lib/core/shape'
import { type Adapters, exact, positive } from '../adapter'
import type { Call } from '../call'
import { Skip } from '../skip'

/** A size of 0 keeps the input's, unless allowzero says that it means 0. */
function reshaped(call: Call): Tensor {
  const x = call.input(0)
  const given = call.list('shape', 1) ?? []
  return reshape(
    x,
    given.map((size, i) => (size === 0 && !call.flag('allowzero') ? (x.shape[i] as number) : size)),
  )
}

function flattened(call: Call): Tensor {
  const x = call.input(0)
  const axis = positive(call.number('axis', 1), x.rank)
  return reshape(x, [sizeOf(x.shape.slice(0, axis)), sizeOf(x.shape.slice(axis))])
}

function unsqueezed(call: Call): Tensor {
  const x = call.input(0)
  const axes = call.list('axes', 1) ?? []
  const rank = x.rank + axes.length // axes count in the result
  return axes
    .map((axis) => positive(axis, rank))
    .sort((a, b) => a - b)
    .reduce((out, axis) => unsqueeze(out, axis), x)
}

function sliced(call: Call): Tensor {
  const x = call.input(0)
  const starts = call.list('starts', 1) ?? []
  const ends = call.list('ends', 2) ?? []
  const axes = call.list('axes', 3) ?? starts.map((_, i) => i)
  const steps = call.integers(4) ?? starts.map(() => 1)
  const ranges: (Range | null)[] = x.shape.map(() => null)
  for (const [i, axis] of axes.entries()) ranges[positive(axis, x.rank)] = [starts[i], ends[i], steps[i]]
  return slice(x, ranges)
}

function parts(call: Call): Tensor[] {
  const x = call.input(0)
  const axis = positive(call.number('axis', 0), x.rank)
  const sizes = call.list('split', 1)
  return split(x, sizes ?? (x.shape[axis] as number) / call.node.outputs.length, axis)
}

/** ONNX lists all beginnings, then all ends; kerf [before, after] of the last axis first. */
function padded(call: Call): Tensor {
  const mode = call.text('mode', 'constant')
  if (mode !== 'constant') throw new Skip(`kerf pads with constants only, not with mode ${mode}`)
  if (call.has(3)) throw new Skip('pads of some axes only')
  const x = call.input(0)
  const pads = call.list('pads', 1) ?? []
  const pairs = x.shape.map((_, i) => [pads[i] as number, pads[i + x.rank] as number]).reverse()
  return pad(x, pairs.flat(), { value: call.scalar(2, call.number('value', 0)) })
}

/** Every axis [n] as [repeats, n], then as one. */
function tiled(call: Call): Tensor {
  const x = call.input(0)
  const repeats = call.integers(1) ?? []
  const apart = reshape(
    x,
    x.shape.flatMap((n) => [1, n]),
  )
  const whole = expand(
    apart,
    x.shape.flatMap((n, i) => [repeats[i] as number, n]),
  )
  return reshape(
    whole,
    x.shape.map((n, i) => n * (repeats[i] as number)),
  )
}

function depthToSpace(call: Call): Tensor {
  const x = call.input(0)
  const [n, c, h, w] = x.shape as [number, number, number, number]
  const b = call.number('blocksize', 1)
  const depth = c / (b * b)
  const column = call.text('mode', 'DCR') === 'CRD'
  const apart = reshape(x, column ? [n, depth, b, b, h, w] : [n, b, b, depth, h, w])
  return reshape(permute(apart, column ? [0, 1, 4, 2, 5, 3] : [0, 3, 4, 1, 5, 2]), [n, depth, h * b, w * b])
}

function spaceToDepth(call: Call): Tensor {
  const x = call.input(0)
  const [n, c, h, w] = x.shape as [number, number, number, number]
  const b = call.number('blocksize', 1)
  const apart = reshape(x, [n, c, h / b, b, w / b, b])
  return reshape(permute(apart, [0, 3, 5, 1, 2, 4]), [n, c * b * b, h / b, w / b])
}

export const shapes: Adapters = {
  Reshape: exact(reshaped),
  Flatten: exact(flattened),
  Transpose: exact((call) => {
    const x = call.input(0)
    return permute(x, call.numbers('perm') ?? x.shape.map((_, i) => x.rank - 1 - i))
  }),
  Squeeze: exact((call) => squeeze(call.input(0), call.list('axes', 1))),
  Unsqueeze: exact(unsqueezed),
  Slice: exact(sliced),
  Concat: exact((call) => cat(call.inputs(), call.number('axis', 0))),
  Split: exact(parts),
  // Sizes of 1 in the wanted shape keep the input's.
  Expand: exact((call) => {
    const x = call.input(0)
    return expand(x, broadcastShapes('Expand', x.shape, call.integers(1) ?? []))
  }),
  Pad: exact(padded),
  Tile: exact(tiled),
  DepthToSpace: exact(depthToSpace),
  SpaceToDepth: exact(spaceToDepth),
  Trilu: exact((call) => (call.flag('upper', true) ? triu : tril)(call.input(0), call.scalar(1, 0))),
}
