/** SmoothQuant on a float model: outliers move from activations into weights, the output stays what it was. */
import { ArgumentError, show } from '../core/errors'
import { native } from '../native/call'
import { ReLU } from '../nn/activations'
import { ModuleList, Sequential } from '../nn/containers'
import { LayerNorm, RMSNorm } from '../nn/layers'
import { Linear } from '../nn/linear'
import type { AnyModule } from '../nn/module'
import { div, mul } from '../ops/arithmetic'
import { tensor } from '../ops/create'
import { converted } from '../ops/op'
import { unsqueeze } from '../ops/shape'
import { noGrad, scope } from '../tensor/context'
import type { Tensor } from '../tensor/tensor'
import { atLayer, type CalibrationData, observe, type RunBatch } from './calibrate'
import { smoothScales } from './smooth'

export interface SmoothModelOptions {
  calibrationData: CalibrationData
  /** How much of the spread moves, 0 to 1; default 0.5. */
  alpha?: number
  /**
   * What feeds what: the paths of a LayerNorm, RMSNorm or Linear and of the Linear layers that read its output, with
   * nothing but a ReLU between. Default: found in every Sequential.
   */
  pairs?: readonly (readonly [from: string, to: string | readonly string[]])[]
  run?: RunBatch
}

type Source = LayerNorm | RMSNorm | Linear

const join = (path: string, name: string) => (path === '' ? name : `${path}.${name}`)

/** Neighbours in a Sequential; a ReLU between them does not matter, since relu(x / s) = relu(x) / s for s > 0. */
function findPairs(model: AnyModule): [string, string[]][] {
  const found: [string, string[]][] = []
  for (const [path, module] of model.namedModules()) {
    if (!(module instanceof Sequential) || module instanceof ModuleList) continue
    let source: string | null = null
    for (const [name, layer] of module.namedChildren()) {
      const at = join(path, name)
      if (layer instanceof Linear && source !== null) found.push([source, [at]])
      if (layer instanceof Linear || isNorm(layer)) source = at
      else if (!(layer instanceof ReLU)) source = null
    }
  }
  return found
}

const isNorm = (layer: AnyModule): layer is LayerNorm | RMSNorm =>
  layer instanceof LayerNorm || layer instanceof RMSNorm

function checkPair(op: string, model: AnyModule, from: string, to: readonly string[]): [Source, Linear[]] {
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
  return [source, targets]
}

/** parameter = value, in place. */
function assign(parameter: Tensor, value: Tensor): void {
  native.copy(parameter, value)
}

/**
 * Moves outliers of the activations into the weights (SmoothQuant): channel j of what a layer reads is divided by s_j
 * in the layer before, and the layer's weights are multiplied by it. The model's output does not change but for rounding;
 * its inputs to Linear layers become easier to quantize. Works in place; then call quantizeModel.
 *
 * Layers without a fitting one before them are left alone: `int8Static({ smoothQuant })` scales their inputs instead.
 *
 * @returns the pairs that were smoothed, as paths
 */
export async function smoothQuant(model: AnyModule, options: SmoothModelOptions): Promise<[string, string[]][]> {
  const op = 'smoothQuant'
  const given = options?.pairs
  if (given !== undefined && !Array.isArray(given))
    throw new ArgumentError(`${op}: pairs must be an array of [from, to], got ${show(given)}`)
  const pairs = given
    ? given.map(([from, to]): [string, string[]] => [from, typeof to === 'string' ? [to] : [...to]])
    : findPairs(model)
  const checked = pairs.map(([from, to]) => checkPair(op, model, from, to))
  if (pairs.length === 0) return []
  const wanted = new Map(
    pairs.flatMap(([, to]) =>
      to.map((path) => [path, { observer: null, channels: true, gram: false, multiplier: null }]),
    ),
  )
  const seen = await observe(op, model, wanted, options?.calibrationData, options?.run)
  for (const [i, [, to]] of pairs.entries()) {
    const [source, targets] = checked[i] as [Source, Linear[]]
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
    const s = await atLayer(op, to.join(', '), () =>
      smoothScales(most, stacked, stacked.length / inputs, inputs, options),
    )
    noGrad(() =>
      scope(() => {
        const scales = tensor(s)
        const weight = source.weight as Tensor
        assign(weight, div(weight, source instanceof Linear ? unsqueeze(scales, 1) : scales))
        if (!(source instanceof RMSNorm) && source.bias) assign(source.bias, div(source.bias, scales))
        for (const layer of targets) assign(layer.weight, mul(layer.weight, scales))
      }),
    )
  }
  return pairs
}
