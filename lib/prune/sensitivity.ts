/** Which layers bear pruning: each is pruned alone, and the model's score is looked at. */
import { ArgumentError, show } from '../core/errors'
import { showPercent, textTable } from '../core/text-table'
import type { WeightLayer } from '../nn/linear-layers'
import type { AnyModule } from '../nn/module'
import { checkOptions, checkSparsity, type LayerOptions, prunable, Saved } from './layers'
import { magnitude } from './unstructured'

export interface SensitivityOptions extends LayerOptions<WeightLayer> {
  /** What every layer is pruned to, one after the other; default [0.5, 0.6, 0.7, 0.8, 0.9]. */
  sparsities?: readonly number[]
  /** Told before each evaluation of a pruned model. */
  progress?: (done: number, total: number, path: string) => void
}

export interface LayerSensitivity {
  path: string
  /** Of the model with this layer pruned, one a sparsity. */
  scores: number[]
}

export interface SensitivityReport {
  /** The score of the model as it is. */
  baseline: number
  sparsities: number[]
  layers: LayerSensitivity[]
  /** A bar for every layer and sparsity, from the least score to the most. */
  toString(): string
}

const DEFAULT_SPARSITIES = [0.5, 0.6, 0.7, 0.8, 0.9]
const BAR = 40

/**
 * Prunes every Linear layer and convolution alone by magnitude, to each sparsity, and evaluates the model (the sensitivity scan of Han et al.,
 * "Learning both Weights and Connections for Efficient Neural Networks", 2015, section 4). The model is as before afterwards,
 * bit for bit, also when `evaluate` throws.
 *
 * @param evaluate the model's score on validation data, a finite number; must not change the model
 * @throws ArgumentError as `magnitude`, and for a score that is not a finite number
 * @example console.log(String(await prune.sensitivity(model, accuracy)))
 */
export async function sensitivity(
  model: AnyModule,
  evaluate: (model: AnyModule) => number | Promise<number>,
  options: SensitivityOptions = {},
): Promise<SensitivityReport> {
  const op = 'sensitivity'
  checkOptions(op, options)
  if (typeof evaluate !== 'function')
    throw new ArgumentError(`${op}: evaluate must be a function, got ${show(evaluate)}`)
  const { sparsities = DEFAULT_SPARSITIES } = options
  if (!Array.isArray(sparsities) || sparsities.length === 0)
    throw new ArgumentError(`${op}: sparsities must be an array of numbers, got ${show(sparsities)}`)
  for (const [i, sparsity] of sparsities.entries()) checkSparsity(op, `sparsities[${i}]`, sparsity)
  const weights = prunable(op, model, options)
  const score = async (): Promise<number> => {
    const value = await evaluate(model)
    if (typeof value === 'number' && Number.isFinite(value)) return value
    throw new ArgumentError(`${op}: evaluate must return a finite number, got ${show(value)}`)
  }
  const baseline = await score()
  const layers: LayerSensitivity[] = []
  for (const [i, [path, weight]] of weights.entries()) {
    const saved = new Saved(weight)
    const scores: number[] = []
    try {
      for (const [j, sparsity] of sparsities.entries()) {
        options.progress?.(i * sparsities.length + j, weights.length * sparsities.length, path)
        await magnitude(model, { sparsity, include: (at) => at === path })
        scores.push(await score())
        saved.restore()
      }
    } finally {
      saved.restore()
      saved.dispose()
    }
    layers.push({ path, scores })
  }
  return { baseline, sparsities: [...sparsities], layers, toString: () => chart(baseline, sparsities, layers) }
}

function chart(baseline: number, sparsities: readonly number[], layers: readonly LayerSensitivity[]): string {
  const all = [baseline, ...layers.flatMap(({ scores }) => scores)]
  const least = Math.min(...all)
  const most = Math.max(...all)
  const text = (score: number) => score.toPrecision(4)
  const bar = (score: number) => {
    const length = most === least ? BAR : Math.round((BAR * (score - least)) / (most - least))
    return `|${'#'.repeat(length)}${' '.repeat(BAR - length)}|`
  }
  const rows = layers.flatMap(({ path, scores }) =>
    scores.map((score, i) => [
      i === 0 ? path || '(model)' : '',
      bar(score),
      showPercent(sparsities[i] as number),
      text(score),
    ]),
  )
  const title = `${text(least)}${text(most).padStart(BAR + 2 - text(least).length)}`
  return textTable([['layer', title, 'sparsity', 'score'], ['', bar(baseline), 'as it is', text(baseline)], ...rows], 2)
}
