/** How ops on images [..., channels, rows, columns] carry channels. */
import type { Axis, Neurons } from './neurons'
import { notFollowed, type Rule, type Traced } from './rule'

const pixels = (op: string) => `op '${op}' goes along it`

/**
 * x [n, c, h, w], weight [o, c / groups, r, s] and a bias of [o], as a convolution leaves them on the tape. In groups, what a
 * group reads and makes is one neuron: a channel and its filters of a depthwise convolution.
 */
export const convolved: Rule = (op, out, inputs, neurons) => {
  const [x, weight, bias] = inputs
  if (x?.shape.length !== 4 || weight?.shape.length !== 4) return notFollowed(op, out, inputs, neurons)
  const [channels, filters] = [x.axes[1] as Axis, weight.axes[0] as Axis]
  for (const axis of [x.axes[2], x.axes[3]]) neurons.fix(axis as Axis, pixels(op))
  for (const axis of [weight.axes[2], weight.axes[3]]) neurons.fix(axis as Axis, 'it is a tap of a kernel')
  if (bias) neurons.tie(filters, bias.axes[0] as Axis)
  const groups = (x.shape[1] as number) / (weight.shape[1] as number)
  if (groups === 1) neurons.tie(channels, weight.axes[1] as Axis)
  else {
    neurons.fix(weight.axes[1] as Axis, 'every group of a convolution reads as many channels')
    tieGroups(channels, filters, groups, neurons)
  }
  return (_, now) => [now[0]?.axes[0] as Axis, now[1]?.axes[0] as Axis, pixels(op), pixels(op)]
}

function tieGroups(channels: Axis, filters: Axis, groups: number, neurons: Neurons): void {
  if (typeof channels === 'string' || typeof filters === 'string') {
    neurons.tie(channels, filters)
    return
  }
  const [from, to] = [channels.length / groups, filters.length / groups]
  for (let g = 0; g < groups; g++) {
    neurons.merge(channels, g * from, (g + 1) * from)
    neurons.merge(filters, g * to, (g + 1) * to)
    neurons.tie(channels.subarray(g * from, g * from + 1), filters.subarray(g * to, g * to + 1))
  }
}

/** Windows over the last two axes, each channel by itself. */
export const pooled: Rule = (op, _out, inputs, neurons) => {
  for (const axis of inputs[0]?.axes.slice(-2) ?? []) neurons.fix(axis, pixels(op))
  return (_, now) => [...(now[0]?.axes.slice(0, -2) ?? []), pixels(op), pixels(op)]
}

/** Normalises each channel, axis 1, by itself; multiplies by a weight of it, adds a bias. */
export const normalisedChannels: Rule = (_op, _out, [x, ...parameters], neurons) => {
  for (const { axes } of parameters) neurons.tie(x?.axes[1] as Axis, axes[0] as Axis)
  return (_, now) => [...(now[0] as Traced).axes]
}
