/** Groups of neurons that can take each other's places, and parameters without some of them. */
import { ArgumentError, show } from '../core/errors'
import type { Pauses } from '../core/pauses'
import { Parameter } from '../nn/parameter'
import { tensor } from '../ops/create'
import { indexSelect } from '../ops/index'
import { noGrad, scope } from '../tensor/context'
import { keep, type Tensor } from '../tensor/tensor'
import type { Axis, Neurons } from './neurons'

/** What of an axis of a parameter belongs to the neurons of a group. */
export interface Slice {
  parameter: Parameter
  axis: number
  /** Of each neuron, in order: as many for one as for another. */
  positions: number[][]
}

export interface Group {
  /** Numbers of the neurons, in the order of their first positions. */
  neurons: number[]
  slices: Slice[]
  /** Why none of them may go; null when they may. */
  reason: string | null
}

/** Neurons with as many positions on the same axes, and the same reason to stay, are a group. */
export function groupsOf(axes: ReadonlyMap<Parameter, readonly Axis[]>, neurons: Neurons): Group[] {
  const places = new Map<number, Map<string, Slice & { own: number[] }>>()
  for (const [number, [parameter, own]] of [...axes].entries()) {
    for (const [axis, of] of own.entries()) {
      if (typeof of === 'string') continue
      for (const [position, neuron] of of.entries()) {
        const root = neurons.find(neuron)
        const slices = places.get(root) ?? new Map()
        const slice = slices.get(`${number}.${axis}`) ?? { parameter, axis, own: [] }
        slice.own.push(position)
        places.set(root, slices.set(`${number}.${axis}`, slice))
      }
    }
  }
  const groups = new Map<string, Group>()
  for (const [root, slices] of places) {
    const reason = neurons.reason(root)
    const key = [...[...slices].map(([name, { own }]) => `${name}x${own.length}`), reason].join(' ')
    const group = groups.get(key) ?? {
      neurons: [],
      slices: [...slices.values()].map(({ parameter, axis }): Slice => ({ parameter, axis, positions: [] })),
      reason,
    }
    group.neurons.push(root)
    for (const [n, { own }] of [...slices.values()].entries()) group.slices[n]?.positions.push(own)
    groups.set(key, group)
  }
  return [...groups.values()]
}

export type Importance = 'l2' | 'l1' | 'random'

/**
 * What each neuron of a group is worth: the L2 or L1 norm of all that belongs to it in parameters of two axes or more.
 *
 * @param values of the parameters
 */
export async function worthOf(
  { neurons, slices }: Group,
  values: ReadonlyMap<Parameter, Float32Array>,
  norm: 'l1' | 'l2',
  pauses: Pauses,
): Promise<Float64Array> {
  const sums = new Float64Array(neurons.length)
  for (const { parameter, axis, positions } of slices) {
    const { shape } = parameter
    if (shape.length < 2) continue
    const all = values.get(parameter) as Float32Array
    const inner = shape.slice(axis + 1).reduce((n, size) => n * size, 1)
    const step = inner * (shape[axis] as number)
    for (const [n, own] of positions.entries()) {
      let sum = 0
      for (const position of own) {
        for (let first = position * inner; first < all.length; first += step) {
          for (let i = first; i < first + inner; i++) {
            const w = all[i] as number
            sum += norm === 'l1' ? Math.abs(w) : w * w
          }
        }
      }
      sums[n] = (sums[n] as number) + sum
      if (pauses.due()) await pauses.take()
    }
  }
  return norm === 'l1' ? sums : sums.map(Math.sqrt)
}

/** Throws for the first value of a group's parameters that is not finite. */
export function checkValues(
  op: string,
  groups: readonly Group[],
  names: ReadonlyMap<Parameter, string>,
  values: ReadonlyMap<Parameter, Float32Array>,
): void {
  for (const parameter of new Set(groups.flatMap(({ slices }) => slices.map((slice) => slice.parameter)))) {
    const all = values.get(parameter) as Float32Array
    const bad = all.findIndex((value) => !Number.isFinite(value))
    if (bad >= 0)
      throw new ArgumentError(
        `${op}: '${names.get(parameter)}': its values must be finite, got ${show(all[bad])} at ${bad}`,
      )
  }
}

/** Positions along each axis of a parameter; null for all of them, in order. */
export type Selection = Map<Parameter, (number[] | null)[]>

/** What is left of parameters when of each group the neurons with `keep` 0 are gone. */
export function selectionOf(groups: ReadonlyMap<Group, Uint8Array>): Selection {
  const gone = new Map<Parameter, (Set<number> | null)[]>()
  for (const [{ slices }, keep] of groups) {
    for (const { parameter, axis, positions } of slices) {
      const axes = gone.get(parameter) ?? parameter.shape.map(() => null)
      const here = axes[axis] ?? new Set()
      for (const [n, own] of positions.entries()) if (keep[n] === 0) for (const position of own) here.add(position)
      axes[axis] = here
      gone.set(parameter, axes)
    }
  }
  return new Map(
    [...gone].map(([parameter, axes]) => [
      parameter,
      axes.map((lost, axis) =>
        lost && lost.size > 0
          ? Array.from({ length: parameter.shape[axis] as number }, (_, p) => p).filter((p) => !lost.has(p))
          : null,
      ),
    ]),
  )
}

/** Every neuron of the groups in the place of another one: no neuron stays where it is. */
export function exchangeOf(groups: readonly Group[], random: () => number): Selection {
  const moved: Selection = new Map()
  for (const { neurons, slices } of groups) {
    // Sattolo's shuffle: one cycle through all of them.
    const order = neurons.map((_, n) => n)
    for (let i = order.length - 1; i > 0; i--) {
      const j = Math.floor(random() * i)
      ;[order[i], order[j]] = [order[j] as number, order[i] as number]
    }
    for (const { parameter, axis, positions } of slices) {
      const axes = moved.get(parameter) ?? parameter.shape.map(() => null)
      const here = axes[axis] ?? Array.from({ length: parameter.shape[axis] as number }, (_, p) => p)
      for (const [n, own] of positions.entries())
        for (const [i, position] of own.entries()) here[position] = positions[order[n] as number]?.[i] as number
      axes[axis] = here
      moved.set(parameter, axes)
    }
  }
  return moved
}

/** The selected positions of a tensor, a copy; no scope disposes it. */
export function selected<T extends Tensor>(x: T, axes: readonly (readonly number[] | null)[]): Tensor<T['dtype']> {
  return scope(() =>
    noGrad(() => {
      let out: Tensor = x
      for (const [axis, positions] of axes.entries())
        if (positions) out = indexSelect(out, axis, tensor([...positions], { dtype: 'int64', device: x.device }))
      return keep(out)
    }),
  ) as Tensor<T['dtype']>
}

/** A parameter of the selected positions, which is as the old one otherwise: its mask too. */
export function selectedParameter(old: Parameter, axes: readonly (readonly number[] | null)[]): Parameter {
  const values = selected(old, axes)
  const parameter = new Parameter(values, { requiresGrad: old.requiresGrad })
  values.dispose()
  if (old.mask) {
    const mask = selected(old.mask, axes)
    parameter.mask = mask
    mask.dispose()
  }
  return parameter
}
