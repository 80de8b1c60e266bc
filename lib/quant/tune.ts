/** An accuracy-driven search: quantizes what the model can bear and keeps the rest in float. */
import { ArgumentError, show } from '../core/errors'
import { checkInteger } from '../core/shape'
import { replaceLayer } from '../nn/model'
import type { AnyModule } from '../nn/module'
import { checkConfig, int8Dynamic, int8Static, type QuantConfig } from './config'
import { type Quantizable, quantizableLayers } from './quantizable'
import { convertLayers, type QuantizeModelOptions } from './quantize-model'

export interface TuneOptions extends QuantizeModelOptions {
  /** How layers are quantized; default int8Static() with calibrationData, int8Dynamic() without. */
  config?: QuantConfig
  /** Largest loss relative to the float model's score; default 0.01. */
  tolerableLoss?: number
  /** Evaluations of a quantized model; default 100. */
  maxTrials?: number
  /** The score is a loss or an error: less is better. */
  lowerIsBetter?: boolean
}

export interface TunedLayer {
  path: string
  quantized: boolean
  why: string
}

export interface TuneReport {
  /** Scores of the float model and of the model as it is left. */
  baseline: number
  score: number
  /** Relative loss of the score. */
  loss: number
  /** Whether the loss is tolerable. */
  met: boolean
  trials: number
  layers: TunedLayer[]
}

interface Candidate {
  path: string
  float: Quantizable
  quantized: AnyModule
  kept: boolean
  why: string
}

const percent = (x: number) => `${(100 * x).toFixed(2)} %`

/**
 * Quantizes a model as far as its score allows. All Linear and Conv2d layers are quantized first; if that costs too much, each
 * layer is put back to float alone to see what it is to blame for, and then layers go back to float one after the other,
 * the most harmful first, until the loss is tolerable (Intel Neural Compressor's strategy). The model is left in the best
 * state found.
 *
 * @param model changed in place; not itself a layer
 * @param evaluate the model's score on validation data (never the test set), higher is better
 * @returns what was kept in float, and why
 * @throws ArgumentError when a score is not a finite number or quantizeModel's; the model is float again then, and also when
 * `evaluate` throws
 */
export async function tune(
  model: AnyModule,
  evaluate: (model: AnyModule) => number | Promise<number>,
  options: TuneOptions = {},
): Promise<TuneReport> {
  const op = 'tune'
  if (typeof evaluate !== 'function')
    throw new ArgumentError(`${op}: evaluate must be a function, got ${show(evaluate)}`)
  const { tolerableLoss = 0.01, lowerIsBetter = false } = options
  if (!(typeof tolerableLoss === 'number' && tolerableLoss >= 0))
    throw new ArgumentError(`${op}: tolerableLoss must be a number >= 0, got ${show(tolerableLoss)}`)
  const maxTrials = checkInteger(op, 'maxTrials', options.maxTrials ?? 100, 1)
  const config = options.config ?? (options.calibrationData === undefined ? int8Dynamic() : int8Static())
  checkConfig(op, config)
  const layers = quantizableLayers(op, model, options.skip)
  if (layers.some(([path]) => path === ''))
    throw new ArgumentError(`${op}: the model is itself a ${model.constructor.name}: put it into a Sequential`)

  const score = async (): Promise<number> => {
    const value = await evaluate(model)
    if (typeof value !== 'number' || !Number.isFinite(value))
      throw new ArgumentError(`${op}: evaluate must return a finite number, got ${show(value)}`)
    return value
  }
  const baseline = await score()
  const lossOf = (value: number) => {
    const lost = lowerIsBetter ? value - baseline : baseline - value
    return baseline === 0 ? lost : lost / Math.abs(baseline)
  }
  const put = (path: string, layer: AnyModule) => {
    const now = model.getModule(path)
    if (now !== layer) replaceLayer(model, now, layer)
  }

  let trials = 0
  const trial = async () => {
    trials++
    return score()
  }
  try {
    await convertLayers(op, model, layers, config, options)
    const candidates: Candidate[] = layers.map(([path, float]) => {
      return { path, float, quantized: model.getModule(path), kept: true, why: 'within the tolerable loss' }
    })
    let value = await trial()
    if (lossOf(value) > tolerableLoss) {
      const all = value
      const blamed: { candidate: Candidate; value: number }[] = []
      for (const candidate of candidates) {
        if (trials >= maxTrials) break
        put(candidate.path, candidate.float)
        blamed.push({ candidate, value: await trial() })
        put(candidate.path, candidate.quantized)
      }
      blamed.sort((a, b) => lossOf(a.value) - lossOf(b.value))
      for (const { candidate, value: alone } of blamed) {
        put(candidate.path, candidate.float)
        candidate.kept = false
        candidate.why = `kept in float: alone it takes the loss from ${percent(lossOf(all))} to ${percent(lossOf(alone))}`
        // The first one alone has been measured already.
        value = candidate === blamed[0]?.candidate ? alone : trials < maxTrials ? await trial() : value
        if (lossOf(value) <= tolerableLoss || trials >= maxTrials) break
      }
      // Out of trials, or nothing left to put back: float is always tolerable.
      if (lossOf(value) > tolerableLoss) {
        for (const candidate of candidates) {
          if (!candidate.kept) continue
          put(candidate.path, candidate.float)
          candidate.kept = false
          candidate.why = `kept in float: no tolerable model within ${maxTrials} trials`
        }
        value = baseline
      }
    }
    return {
      baseline,
      score: value,
      loss: lossOf(value),
      met: lossOf(value) <= tolerableLoss,
      trials,
      layers: candidates.map(({ path, kept, why }) => ({ path, quantized: kept, why })),
    }
  } catch (error) {
    for (const [path, float] of layers) put(path, float)
    throw error
  }
}
