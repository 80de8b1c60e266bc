/** How ops carry neurons from the axes of their inputs to those of their result (Fang et al., "DepGraph", 2023). */
import { type Shape, showShape, sizeOf } from '../core/shape'
import type { Tensor } from '../tensor/tensor'
import { convolved, normalisedChannels, pooled } from './image-dependencies'
import type { Axis, Neurons } from './neurons'
import { type Carry, giveUp, notFollowed, type Rule, type Traced } from './rule'

/**
 * Which axes of the inputs are axis j of the result, as [input, axis]: those at the same place from the end, but those that
 * are repeated. The last `skip` axes are left out.
 */
function aligned(
  out: Tensor,
  inputs: readonly Traced[],
  neurons: Neurons,
  skip = 0,
): [input: number, axis: number][][] {
  return out.shape.slice(0, out.rank - skip).map((size, j) => {
    const places = inputs.flatMap(({ shape }, n): [number, number][] => {
      const i = j - (out.rank - shape.length)
      return i >= 0 && shape[i] === size ? [[n, i]] : []
    })
    const axes = places.map(([n, i]) => inputs[n]?.axes[i] as Axis)
    for (const axis of axes.slice(1)) neurons.tie(axes[0] as Axis, axis)
    return places
  })
}

const elementwise: Rule = (op, out, inputs, neurons) => {
  const places = aligned(out, inputs, neurons)
  return (_, now) =>
    places.map(([first]) => (first ? (now[first[0]]?.axes[first[1]] as Axis) : `op '${op}' repeats it`))
}

/** [..., m, k] by [..., k, n] and a bias of [n]. A packed b is not on the tape. */
const product: Rule = (op, out, inputs, neurons) => {
  const [a, b, bias] = inputs
  if (!a || !b || b.shape.length < 2) return notFollowed(op, out, inputs, neurons)
  neurons.tie(a.axes.at(-1) as Axis, b.axes.at(-2) as Axis)
  if (bias) neurons.tie(b.axes.at(-1) as Axis, bias.axes[0] as Axis)
  const places = aligned(out, [a, b], neurons, 2)
  return (_, now) => [
    ...places.map(([first]) => (first ? (now[first[0]]?.axes[first[1]] as Axis) : `op '${op}' repeats it`)),
    now[0]?.axes.at(-2) as Axis,
    now[1]?.axes.at(-1) as Axis,
  ]
}

/** Normalises the last axis and multiplies by a weight of it, adds a bias. */
const normalised: Rule = (_op, _out, [x, ...parameters], neurons) => {
  for (const { axes } of parameters) neurons.tie(x?.axes.at(-1) as Axis, axes[0] as Axis)
  return (_, now) => [...(now[0] as Traced).axes]
}

const lookedUp: Rule = (op, _out, inputs, neurons) => {
  neurons.fix(inputs[0]?.axes[0] as Axis, 'it is looked up by index')
  return (out, now) => [...out.shape.slice(1).map(() => `op '${op}' has an index for it`), now[0]?.axes[1] as Axis]
}

const joined: Rule = (_op, out, inputs, neurons) => {
  const along = out.shape.findIndex((size, i) => inputs.some(({ shape }) => shape[i] !== size))
  const axesAt = (now: readonly Traced[], i: number) => now.map(({ axes }) => axes[i] as Axis)
  for (let i = 0; i < out.rank; i++)
    if (i !== along) for (const axis of axesAt(inputs, i).slice(1)) neurons.tie(inputs[0]?.axes[i] as Axis, axis)
  return (now, from) =>
    now.shape.map((_, i) => {
      const axes = axesAt(from, i)
      if (i !== along || axes.every((axis) => typeof axis === 'string')) return axes[0] as Axis
      const parts = axes.map((axis, n) =>
        typeof axis === 'string' ? neurons.make(from[n]?.shape[i] as number, axis) : axis,
      )
      return Int32Array.from(parts.flatMap((part) => [...part]))
    })
}

/** Ways to leave axes of `shape` out so that `to` is left. */
function waysToFold(shape: Shape, to: Shape, from = 0): number[][] {
  if (to.length === 0) return [[]]
  const ways: number[][] = []
  for (let i = from; i <= shape.length - to.length; i++)
    if (shape[i] === to[0]) for (const rest of waysToFold(shape, to.slice(1), i + 1)) ways.push([i, ...rest])
  return ways
}

/** Sums, means and the like. The tape does not say over which axes: the shapes must. */
const folded: Rule = (op, out, inputs, neurons) => {
  const { shape } = inputs[0] as Traced
  const axisOf = (now: readonly Traced[], i: number) => now[0]?.axes[i] as Axis
  if (out.rank === shape.length) {
    const kept = shape.map((size, i) => size === out.shape[i])
    return (_, now) => kept.map((stays, i) => (stays ? axisOf(now, i) : `op '${op}' folds it`))
  }
  const ways = waysToFold(shape, out.shape)
  // Which of two axes of size 1 stays makes no difference.
  const different = new Set(ways.map((way) => way.filter((i) => shape[i] !== 1).join()))
  if (different.size === 1) return (_, now) => (ways[0] as number[]).map((i) => axisOf(now, i))
  const reason = `which axis of ${showShape(shape)} op '${op}' folds is not clear: give an exampleInput of other sizes`
  return giveUp(reason, inputs, neurons)
}

/** The same elements in row-major order under another shape: axes become one, or one becomes several, or nothing changes. */
const reshaped: Rule = (op, out, inputs, neurons) => {
  const { shape, axes } = inputs[0] as Traced
  if (out.size === 0) return giveUp(`op '${op}' of no elements`, inputs, neurons)
  const parts: ((now: Traced, to: Shape) => Axis[] | null)[] = []
  for (let i = 0, j = 0; i < shape.length || j < out.rank; ) {
    const [from, to] = [i, j]
    let have = i < shape.length ? (shape[i++] as number) : 1
    let want = j < out.rank ? (out.shape[j++] as number) : 1
    while (have !== want) {
      if (have < want) have *= shape[i++] as number
      else want *= out.shape[j++] as number
    }
    const [last, end] = [i, j]
    const carry = regrouped(op, shape.slice(from, last), axes.slice(from, last), out.shape.slice(to, end), neurons)
    parts.push((now, sizes) => {
      const [before, after] = [now.shape.slice(from, last), sizes.slice(to, end)]
      return sizeOf(before) === sizeOf(after) ? carry(before, now.axes.slice(from, last), after) : null
    })
  }
  return (now, [from]) => {
    const found = parts.map((part) => part(from as Traced, now.shape))
    return found.includes(null) ? null : (found as Axis[][]).flat()
  }
}

type Regroup = (from: Shape, axes: readonly Axis[], to: Shape) => Axis[]

/**
 * Of axes that become one, one keeps its neurons, each at several positions: a neuron at all times. Of axes that come from
 * one, the first gets neurons, each of several positions: heads.
 */
function regrouped(op: string, from: Shape, axes: readonly Axis[], to: Shape, neurons: Neurons): Regroup {
  const part = `op '${op}' makes it a part of an axis`
  if (axes.length === 1 && to.length === 1) return (_, now) => [now[0] as Axis]
  const [whole] = axes
  if (axes.length === 1 && typeof whole === 'object' && to.length > 0) {
    const first = Math.max(
      0,
      to.findIndex((size) => size !== 1),
    )
    const size = sizeOf(to.slice(first + 1))
    for (let p = 0; p < whole.length; p += size) neurons.merge(whole, p, p + size)
    return (_, [axis], now) => {
      const inner = sizeOf(now.slice(first + 1))
      const heads = (axis as Int32Array).filter((_, p) => p % inner === 0)
      return now.map((_, j) => (j === first ? heads : part))
    }
  }
  const open = axes.map((_, i) => i).filter((i) => !neurons.fixed(axes[i] as Axis))
  const large = open.filter((i) => from[i] !== 1)
  const only = large.length > 0 ? large : open
  if (to.length !== 1 || only.length !== 1) {
    for (const i of open) neurons.fix(axes[i] as Axis, `op '${op}' mixes it with another axis`)
    return (_from, _axes, now) => now.map(() => part)
  }
  const one = only[0] as number
  for (const i of open) if (i !== one) neurons.fix(axes[i] as Axis, part)
  return (sizes, now, [length]) => {
    const axis = now[one] as Int32Array
    const inner = sizeOf(sizes.slice(one + 1))
    return [
      Int32Array.from({ length: length as number }, (_, p) => axis[Math.floor(p / inner) % axis.length] as number),
    ]
  }
}

/** Coordinates of the element of a tensor at an address; null where its strides do not tell. */
function coordinates({ tensor: { shape, strides, offset } }: Traced, address: number): number[] | null {
  const order = shape.map((_, i) => i).filter((i) => shape[i] !== 1)
  order.sort((i, j) => Math.abs(strides[j] as number) - Math.abs(strides[i] as number))
  const at = shape.map(() => 0)
  let rest = address - offset
  for (const i of order) if ((strides[i] as number) < 0) rest -= (strides[i] as number) * ((shape[i] as number) - 1)
  for (const i of order) {
    const [size, stride] = [shape[i] as number, strides[i] as number]
    if (stride === 0) return null
    const steps = Math.floor(rest / Math.abs(stride))
    if (steps < 0 || steps >= size) return null
    rest -= steps * Math.abs(stride)
    at[i] = stride < 0 ? size - 1 - steps : steps
  }
  return rest === 0 ? at : null
}

/** Where along axis i of x the positions of axis j of its view `out` are; null when it is not that axis alone that moves. */
function positions(x: Traced, out: Tensor, j: number, i: number): number[] | null {
  const base = coordinates(x, out.offset)
  if (base === null) return null
  const places = Array.from({ length: out.shape[j] as number }, (_, b) =>
    coordinates(x, out.offset + b * (out.strides[j] as number)),
  )
  const moved = places.some((at) => at === null || at.some((c, axis) => axis !== i && c !== base[axis]))
  return moved ? null : places.map((at) => at?.[i] as number)
}

/** Axes moved, added, dropped, reversed, cut: where an element of the result lies, there it was in the input. */
const viewed: Rule = (op, out, inputs, neurons) => {
  const x = inputs[0] as Traced
  const base = out.size === 0 ? null : coordinates(x, out.offset)
  const sources = out.shape.map((size, j) =>
    size === 1 ? -1 : x.shape.findIndex((_, i) => x.shape[i] !== 1 && positions(x, out, j, i) !== null),
  )
  if (base === null || sources.some((i, j) => i < 0 && out.shape[j] !== 1))
    return giveUp(`op '${op}' of a repeated or empty tensor is not followed`, inputs, neurons)
  const picked = x.axes.flatMap((axis, i): [axis: number, neuron: number][] =>
    sources.includes(i) || typeof axis === 'string' ? [] : [[i, axis[base[i] as number] as number]],
  )
  for (const [i, neuron] of picked) {
    const reason = x.shape[i] === 1 ? 'there is only one' : `op '${op}' picks it by its number`
    neurons.fix(Int32Array.of(neuron), reason)
  }
  return (now, [from]) => {
    // The number must still be the same neuron's.
    const first = coordinates(from as Traced, now.offset)
    const moved = picked.some(([i, neuron]) => {
      const axis = from?.axes[i] as Int32Array
      return !neurons.fixed(axis) && neurons.find(axis[first?.[i] as number] as number) !== neurons.find(neuron)
    })
    if (moved) return null
    const found = sources.map((i, j): Axis | null => {
      if (i < 0) return `op '${op}' gives it size 1`
      const axis = from?.axes[i] as Axis
      const places = positions(from as Traced, now, j, i)
      if (typeof axis === 'string' || places === null) return places && axis
      return Int32Array.from(places, (p) => axis[p] as number)
    })
    return found.includes(null) ? null : (found as Axis[])
  }
}

const named = (names: string, rule: Rule) => names.split(' ').map((op): [string, Rule] => [op, rule])

const rules = new Map<string, Rule>([
  ...named('add sub mul div pow maximum minimum where clamp neg abs sign floor ceil round cast', elementwise),
  ...named('exp log log1p sqrt rsqrt sin cos tanh sigmoid gelu silu erf relu', elementwise),
  ...named('dropout contiguous clone expand softmax logSoftmax', elementwise),
  ...named('sum mean max min variance std', folded),
  ...named('permute transpose squeeze unsqueeze slice flip', viewed),
  ...named('matmul linear', product),
  ...named('layerNorm rmsNorm', normalised),
  ...named('conv1d conv2d', convolved),
  ...named('maxPool2d avgPool2d adaptiveAvgPool2d', pooled),
  ['batchNorm', normalisedChannels],
  ['embedding', lookedUp],
  ['cat', joined],
  ['reshape', reshaped],
])

/** What an op does to axes. */
export function carryOf(op: string, out: Tensor, inputs: readonly Traced[], neurons: Neurons): Carry {
  return (rules.get(op) ?? notFollowed)(op, out, inputs, neurons)
}
