/** Batch norms as part of the layers before them. */
import type { FloatDType } from '../core/dtype'
import { ArgumentError, ShapeError, show } from '../core/errors'
import { add, div, mul, sub } from '../ops/arithmetic'
import { converted } from '../ops/op'
import { reshape } from '../ops/shape'
import { sqrt } from '../ops/unary'
import { noGrad, scope } from '../tensor/context'
import { copyTo, type Tensor } from '../tensor/tensor'
import { Identity } from './activations'
import { BatchNorm1d, BatchNorm2d } from './batch-norm'
import { Sequential } from './containers'
import { Conv1d, Conv2d } from './conv'
import { Linear } from './linear'
import { assign, checkModel, sharing } from './model'
import { type AnyModule, joinPath } from './module'
import { own } from './parameter'

export interface FoldBatchNormOptions {
  /** The paths of a layer and of the batch norm that alone reads its output. Default: found in every Sequential. */
  pairs?: readonly (readonly [layer: string, batchNorm: string])[]
}

type Foldable = Linear | Conv1d | Conv2d
type BatchNorm = BatchNorm1d | BatchNorm2d

const kinds = [
  [Linear, BatchNorm1d],
  [Conv1d, BatchNorm1d],
  [Conv2d, BatchNorm2d],
] as const

/** Whether they are such a pair, each computing what its class says. */
const fits = (layer: AnyModule, norm: AnyModule): boolean =>
  kinds.some(
    ([a, b]) =>
      layer instanceof a &&
      norm instanceof b &&
      layer.forward === a.prototype.forward &&
      norm.forward === b.prototype.forward,
  )

/** Why a pair cannot become one layer, or null. */
function whyNot(layer: AnyModule, norm: AnyModule, shared: (layer: AnyModule) => boolean): string | null {
  if (!fits(layer, norm))
    return `a ${layer.constructor.name} and a ${norm.constructor.name} are no pair: BatchNorm1d after Linear or Conv1d, BatchNorm2d after Conv2d`
  if ((norm as BatchNorm).runningMean === null) return 'it normalises by the batch: it has no running statistics'
  if (shared(layer) || shared(norm)) return 'one of the two is used in another place too'
  return null
}

/** Neighbours in a Sequential. */
function findPairs(model: AnyModule, shared: (layer: AnyModule) => boolean): [string, string][] {
  const found: [string, string][] = []
  for (const [path, module] of model.namedModules()) {
    if (!(module instanceof Sequential) || module.forward !== Sequential.prototype.forward) continue
    const children = module.namedChildren()
    for (const [i, [name, norm]] of children.entries()) {
      const before = children[i - 1]
      if (before && whyNot(before[1], norm, shared) === null)
        found.push([joinPath(path, before[0]), joinPath(path, name)])
    }
  }
  return found
}

function checkPairs(
  op: string,
  model: AnyModule,
  pairs: unknown,
  shared: (layer: AnyModule) => boolean,
): [string, string][] {
  if (!Array.isArray(pairs))
    throw new ArgumentError(`${op}: pairs must be an array of [layer, batch norm], got ${show(pairs)}`)
  const seen = new Set<AnyModule>()
  return pairs.map((pair: unknown) => {
    const [layer, norm]: unknown[] = Array.isArray(pair) && pair.length === 2 ? pair : []
    if (typeof layer !== 'string' || typeof norm !== 'string')
      throw new ArgumentError(`${op}: pairs must hold [layer, batch norm], two paths, got ${show(pair)}`)
    const found = [layer, norm].map((path) => model.getModule(path)) as [AnyModule, AnyModule]
    for (const [i, path] of [layer, norm].entries()) {
      // The module, not the path: a block that is in two places gives it two.
      if (seen.has(found[i] as AnyModule)) throw new ArgumentError(`${op}: '${path}' is in two pairs`)
      seen.add(found[i] as AnyModule)
    }
    const why = whyNot(...found, shared)
    if (why !== null) throw new ArgumentError(`${op}: '${norm}' after '${layer}': ${why}`)
    return [layer, norm]
  })
}

/** Makes the layer's weight and bias those of both, in place. */
function fold(layer: Foldable, norm: BatchNorm): void {
  const { weight: gamma, bias: beta, runningMean, runningVar, eps } = norm
  const wide = (t: Tensor) => converted(t, 'float32')
  const deviation = sqrt(add(runningVar as Tensor, eps))
  const factor = gamma ? div(wide(gamma), deviation) : div(1, deviation)
  const { weight, bias } = layer
  const rows = reshape(factor, [factor.size, ...weight.shape.slice(1).map(() => 1)])
  const mean = runningMean as Tensor
  const centred = mul(bias ? sub(wide(bias), mean) : sub(0, mean), factor)
  const shifted = beta ? add(centred, wide(beta)) : centred
  assign(weight, mul(wide(weight), rows))
  if (bias) assign(bias, shifted)
  else layer.bias = own(copyTo(shifted, weight.dtype as FloatDType))
}

/**
 * Makes batch norms part of the layers before them, in place: the layer's weight becomes W * f and its bias
 * (b - mean) * f + beta for f = gamma / sqrt(var + eps), in float32, and an Identity takes the batch norm's place, so that
 * other paths stay. The model computes in eval() what it did before, up to rounding, and less of it; quantize it then.
 *
 * Folded are BatchNorm2d right after Conv2d and BatchNorm1d right after Linear or Conv1d, in a Sequential; others are left
 * alone, and so are those without running statistics, and layers or weights that the model uses in several places. A model
 * with a forward() of its own names its `pairs`. A Linear's input must be [n, inFeatures]: with three axes a batch norm's
 * channels are others than the Linear's outputs.
 *
 * A bias that the layer lacked is a new Parameter: make the optimizer afterwards.
 *
 * @returns what was folded, as pairs of paths
 * @throws ArgumentError for `pairs` that do not fit, and for a batch norm that is training: it would compute something else;
 * ShapeError when channels differ; nothing has been changed then
 */
export function foldBatchNorm(model: AnyModule, options: FoldBatchNormOptions = {}): [string, string][] {
  const op = 'foldBatchNorm'
  checkModel(op, model)
  const shared = sharing(model)
  const pairs = options.pairs === undefined ? findPairs(model, shared) : checkPairs(op, model, options.pairs, shared)
  const layers = pairs.map(([from, to]) => {
    const layer = model.getModule(from) as Foldable
    const norm = model.getModule(to) as BatchNorm
    const channels = layer.weight.shape[0]
    if (norm.numFeatures !== channels)
      throw new ShapeError(`${op}: '${from}' gives ${channels} channels, '${to}' takes ${norm.numFeatures}`)
    if (norm.training) throw new ArgumentError(`${op}: '${to}' is training: call eval() on the model first`)
    return [layer, norm] as const
  })
  noGrad(() =>
    scope(() => {
      for (const [layer, norm] of layers) fold(layer, norm)
    }),
  )
  for (const [, to] of pairs) {
    const identity = new Identity()
    identity.training = false
    model.setModule(to, identity)
  }
  return pairs
}
