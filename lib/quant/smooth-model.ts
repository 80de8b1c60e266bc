/** SmoothQuant on a float model: outliers move from activations into weights, the output stays what it was. */
import { ArgumentError, show } from '../core/errors'
import { ReLU } from '../nn/activations'
import { atLayer, type CalibrationData, observe, type RunBatch } from '../nn/calibrate'
import { Sequential } from '../nn/containers'
import { LayerNorm, RMSNorm } from '../nn/layers'
import { Linear } from '../nn/linear'
import { assign, checkModel, sharing } from '../nn/model'
import { type AnyModule, joinPath } from '../nn/module'
import { div, mul } from '../ops/arithmetic'
import { tensor } from '../ops/create'
import { converted } from '../ops/op'
import { unsqueeze } from '../ops/shape'
import { noGrad, scope } from '../tensor/context'
import type { Tensor } from '../tensor/tensor'
import { smoothScales } from './smooth'

export interface SmoothModelOptions {
  calibrationData: CalibrationData
  /** How much of the spread moves, 0 to 1; default 0.5. */
  alpha?: number
  /**
   * What feeds what: the paths of a LayerNorm, RMSNorm or Linear and of the Linear layers that read its output, with
   * nothing but a ReLU between; all that read one output in one pair. Default: found in every Sequential.
   */
  pairs?: readonly (readonly [from: string, to: string | readonly string[]])[]
  run?: RunBatch
}

type Source = LayerNorm | RMSNorm | Linear

/** Neighbours in a Sequential; a ReLU between them does not matter, since relu(x / s) = relu(x) / s for s > 0. */
function findPairs(model: AnyModule, shared: (layer: AnyModule) => boolean): [string, string[]][] {
  const found: [string, string[]][] = []
  for (const [path, module] of model.namedModules()) {
    if (!(module instanceof Sequential) || module.forward !== Sequential.prototype.forward) continue
    let source: string | null = null
    for (const [name, layer] of module.namedChildren()) {
      const at = joinPath(path, name)
      const movable = (layer instanceof Linear || (isNorm(layer) && layer.weight !== null)) && !shared(layer)
      if (layer instanceof Linear && movable && source !== null) found.push([source, [at]])
      if (movable) source = at
      else if (!(layer instanceof ReLU)) source = null
    }
  }
  return found
}

const isNorm = (layer: AnyModule): layer is LayerNorm | RMSNorm =>
  layer instanceof LayerNorm || layer instanceof RMSNorm

function checkPair(
  op: string,
  model: AnyModule,
  shared: (layer: AnyModule) => boolean,
  from: string,
  to: readonly string[],
): [Source, Linear[]] {
  const source = model.getModule(from)
  if (!(source instanceof Linear) && !isNorm(source))
    throw new ArgumentError(
      `${op}: '${from}' must be a LayerNorm, an RMSNorm or a Linear, it is a ${source.constructor.name}`,
    )
  if (isNorm(source) && source.weight === null)
    throw new ArgumentError(`${op}: '${from}' has no weight to divide: it was made without elementwiseAffine`)
  const channels =
    source instanceof Linear ? source.outFeatures : source.normalizedShape[source.normalizedShape.length - 1]
  const targets = to.map((path) => {
    const layer = model.getModule(path)
    if (!(layer instanceof Linear))
      throw new ArgumentError(`${op}: '${path}' must be a Linear, it is a ${layer.constructor.name}`)
    if (layer.inFeatures !== channels)
      throw new ArgumentError(`${op}: '${from}' gives ${channels} channels, '${path}' takes ${layer.inFeatures}`)
    return layer
  })
  if (targets.length === 0) throw new ArgumentError(`${op}: '${from}' feeds no layer`)
  for (const path of [from, ...to])
    if (shared(model.getModule(path))) throw new ArgumentError(`${op}: '${path}' is used in another place too`)
  return [source, targets]
}

/** The pairs that a user gave: all that reads a layer's output in one of them, since its scales are one vector. */
function checkPairs(op: string, given: unknown): [string, string[]][] {
  if (!Array.isArray(given)) throw new ArgumentError(`${op}: pairs must be an array of [from, to], got ${show(given)}`)
  const feeding = new Set<string>()
  const reading = new Set<string>()
  return given.map((pair: unknown) => {
    const [from, to]: unknown[] = Array.isArray(pair) ? pair : []
    const paths: unknown = typeof to === 'string' ? [to] : to
    if (typeof from !== 'string' || !Array.isArray(paths) || paths.some((path) => typeof path !== 'string'))
      throw new ArgumentError(`${op}: pairs must hold [from, to], got ${show(pair)}`)
    if (feeding.has(from)) throw new ArgumentError(`${op}: '${from}' feeds several: name all that read it in one pair`)
    feeding.add(from)
    for (const path of paths as string[]) {
      if (reading.has(path)) throw new ArgumentError(`${op}: '${path}' reads from two`)
      reading.add(path)
    }
    return [from, [...paths]]
  })
}

/** Divides what the source gives by s and multiplies the columns of its readers by it. */
function move(source: Source, targets: readonly Linear[], s: Float32Array): void {
  const weight = source.weight as Tensor
  const scales = tensor(s, { device: weight.device })
  assign(weight, div(weight, source instanceof Linear ? unsqueeze(scales, 1) : scales))
  if (!(source instanceof RMSNorm) && source.bias) assign(source.bias, div(source.bias, scales))
  for (const layer of targets) assign(layer.weight, mul(layer.weight, scales))
}

/**
 * Moves outliers of the activations into the weights (SmoothQuant): channel j of what a layer reads is divided by s_j
 * in the layer before, and the layer's weights are multiplied by it. The model's output does not change but for rounding;
 * its inputs to Linear layers become easier to quantize. Works in place; then call quantizeModel.
 *
 * Layers without a fitting one before them are left alone, and so are layers and weights that the model uses in several
 * places: `int8Static({ smoothQuant })` scales their inputs instead.
 *
 * @returns the pairs that were smoothed, as paths
 * @throws ArgumentError for pairs that do not fit, and for calibration data that is missing, empty or not finite; nothing
 * has been changed then
 */
export async function smoothQuant(model: AnyModule, options: SmoothModelOptions): Promise<[string, string[]][]> {
  const op = 'smoothQuant'
  checkModel(op, model)
  const shared = sharing(model)
  const pairs = options?.pairs === undefined ? findPairs(model, shared) : checkPairs(op, options.pairs)
  const checked = pairs.map(([from, to]) => checkPair(op, model, shared, from, to))
  if (pairs.length === 0) return []
  const wanted = new Map(pairs.flatMap(([, to]) => to.map((path) => [path, { channels: true }])))
  const seen = await observe(op, model, wanted, options?.calibrationData, options?.run)
  const scales: Float32Array[] = []
  for (const [i, [, to]] of pairs.entries()) {
    const [, targets] = checked[i] as [Source, Linear[]]
    const inputs = targets[0]?.inFeatures as number
    // Layers that read the same input share their scales: their rows stand below each other.
    const rows = await Promise.all(
      targets.map(async (layer) => (await converted(layer.weight, 'float32').data()) as Float32Array),
    )
    const stacked = new Float32Array(rows.reduce((n, w) => n + w.length, 0))
    let at = 0
    for (const w of rows) {
      stacked.set(w, at)
      at += w.length
    }
    const most = new Float32Array(inputs)
    for (const path of to) {
      const found = seen.get(path)?.channelMax as Float32Array
      for (let j = 0; j < inputs; j++) most[j] = Math.max(most[j] as number, found[j] as number)
    }
    scales.push(
      await atLayer(op, to.join(', '), () => smoothScales(most, stacked, stacked.length / inputs, inputs, options)),
    )
  }
  noGrad(() =>
    scope(() => {
      for (const [i, [source, targets]] of checked.entries()) move(source, targets, scales[i] as Float32Array)
    }),
  )
  return pairs
}
