/** What structured pruning has done to a model. */
import { showShape } from '../core/shape'
import { showPercent, textTable } from '../core/text-table'
import { Conv1d, Conv2d } from '../nn/conv'
import { Embedding } from '../nn/layers'
import { Linear } from '../nn/linear'
import type { AnyModule } from '../nn/module'
import type { Parameter } from '../nn/parameter'
import type { Group } from './groups'

export interface ResizedLayer {
  /** Where it is in the model: '' for the model itself. */
  path: string
  type: string
  /** Shape of its weight, or of the first parameter that it has. */
  before: readonly number[]
  after: readonly number[]
  parametersBefore: number
  parametersAfter: number
}

export interface LeftAlone {
  /** Layers whose outputs they are. */
  layers: string[]
  /** How many neurons have stayed for this reason. */
  neurons: number
  reason: string
}

export interface StructuredReport {
  /** Modules with parameters of their own, in order; a parameter that several share is in the first. */
  layers: ResizedLayer[]
  total: { parametersBefore: number; parametersAfter: number }
  leftAlone: LeftAlone[]
  /** The table as text. */
  toString(): string
}

/** Layers whose outputs are the first axis of their weights. */
const MAKERS = [Linear, Conv1d, Conv2d]

/** Parameters of a model's layers as they were. */
export class Sizes {
  readonly #rows: { path: string; type: string; names: string[]; shape: readonly number[]; parameters: number }[] = []
  readonly #makers: { path: string; parameter: Parameter; axis: number }[] = []

  constructor(readonly model: AnyModule) {
    const seen = new Set<Parameter>()
    for (const [path, module] of model.namedModules()) {
      const own = module.namedParameters().filter(([name, p]) => !name.includes('.') && !seen.has(p))
      for (const [, parameter] of own) seen.add(parameter)
      if (MAKERS.some((kind) => (module as unknown) instanceof kind))
        this.#makers.push({ path, parameter: (module as unknown as Linear).weight, axis: 0 })
      if ((module as unknown) instanceof Embedding)
        this.#makers.push({ path, parameter: (module as unknown as Embedding).weight, axis: 1 })
      const [first] = own
      if (!first) continue
      const parameters = own.reduce((n, [, { size }]) => n + size, 0)
      const names = own.map(([name]) => name)
      this.#rows.push({ path, type: module.constructor.name, names, shape: first[1].shape, parameters })
    }
  }

  report(groups: readonly Group[]): StructuredReport {
    const layers = this.#rows.map(({ path, type, names, shape, parameters }): ResizedLayer => {
      const module = this.model.getModule(path) as unknown as Record<string, Parameter>
      const now = names.map((name) => module[name] as Parameter)
      return {
        path,
        type,
        before: shape,
        after: now[0]?.shape as readonly number[],
        parametersBefore: parameters,
        parametersAfter: now.reduce((n, { size }) => n + size, 0),
      }
    })
    const leftAlone = groups.flatMap(({ neurons, slices, reason }): LeftAlone[] => {
      const made = this.#makers.filter(({ parameter, axis }) =>
        slices.some((slice) => slice.parameter === parameter && slice.axis === axis),
      )
      if (reason === null || made.length === 0) return []
      return [{ layers: made.map(({ path }) => path), neurons: neurons.length, reason }]
    })
    const add = (value: (layer: ResizedLayer) => number) => layers.reduce((sum, layer) => sum + value(layer), 0)
    const total = {
      parametersBefore: add((layer) => layer.parametersBefore),
      parametersAfter: add((layer) => layer.parametersAfter),
    }
    return { layers, total, leftAlone, toString: () => table(layers, total, leftAlone) }
  }
}

function table(
  layers: readonly ResizedLayer[],
  total: StructuredReport['total'],
  leftAlone: readonly LeftAlone[],
): string {
  const counts = ({ parametersBefore: before, parametersAfter: after }: StructuredReport['total']) => [
    before.toLocaleString('en'),
    after.toLocaleString('en'),
    showPercent(before === 0 ? 1 : after / before),
  ]
  const lines = textTable(
    [
      ['layer', 'type', 'before', 'after', 'parameters', 'after', 'left'],
      ...layers.map((l) => [l.path || '(model)', l.type, showShape(l.before), showShape(l.after), ...counts(l)]),
      ['total', '', '', '', ...counts(total)],
    ],
    4,
  )
  const left = leftAlone.map(
    ({ layers: paths, neurons, reason }) =>
      `left alone: ${neurons} of ${paths.map((path) => path || '(model)').join(', ')}: ${reason}`,
  )
  return [lines, ...left].join('\n')
}
