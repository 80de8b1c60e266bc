/**
 * Losses. All are computed and returned in float32 whatever the inputs' dtypes: a float16 loss would overflow as soon
 * as it is scaled. `reduction` is 'mean' unless given.
 */
import { isFloat } from '../core/dtype'
import { ArgumentError, ShapeError, show } from '../core/errors'
import { checkInteger, type Shape, sameShape, showShape, sizeOf } from '../core/shape'
import { native } from '../native/call'
import { noGrad } from '../tensor/context'
import { abs, add, div, eq, lt, mul, ne, neg, sub, where } from './arithmetic'
import { gather, positions } from './index'
import { arg, converted, empty, emptyLike, expandView, type Tensor, taped } from './op'
import { mean, sum } from './reduce'
import { permute, reshape, squeeze, unsqueeze } from './shape'
import { logSoftmax } from './softmax'
import { cast, exp, log, log1p, relu, sigmoid } from './unary'

/** 'mean' over the elements (for class labels: those not ignored), 'sum', or 'none' for one value an element. */
export type Reduction = 'mean' | 'sum' | 'none'

export interface LossOptions {
  reduction?: Reduction
}

export interface LabelOptions extends LossOptions {
  /** The label that counts nothing: no loss, no gradient, no part in the mean. Default -100. */
  ignoreIndex?: number
}

export interface CrossEntropyOptions extends LabelOptions {
  /** Share of the target spread evenly over all classes, from 0 to 1 (Szegedy et al. 2016). Default 0. */
  labelSmoothing?: number
}

function checkReduction<R extends string>(op: string, given: R | undefined, allowed: readonly R[]): R {
  const reduction = given ?? ('mean' as R)
  if (!allowed.includes(reduction))
    throw new ArgumentError(`${op}: reduction must be ${allowed.join(', ')}, got ${show(given)}`)
  return reduction
}

const reductions: readonly Reduction[] = ['mean', 'sum', 'none']

function reduced(loss: Tensor, reduction: Reduction): Tensor<'float32'> {
  return (reduction === 'none' ? loss : reduction === 'sum' ? sum(loss) : mean(loss)) as Tensor<'float32'>
}

function inFloat32(op: string, name: string, value: Tensor): Tensor<'float32'> {
  const t = arg(op, name, value)
  return t.dtype === 'float32' ? (t as Tensor<'float32'>) : cast(t, 'float32')
}

function pair(op: string, input: Tensor, target: Tensor): [Tensor<'float32'>, Tensor<'float32'>] {
  const x = inFloat32(op, 'input', input)
  const y = inFloat32(op, 'target', target)
  if (!sameShape(x.shape, y.shape))
    throw new ShapeError(`${op}: input ${showShape(x.shape)} and target ${showShape(y.shape)} must have one shape`)
  return [x, y]
}

/** Classes on axis 1, or on the only axis: [c], [n, c], [n, c, d1, ...]. As rows [positions, c]. */
function classRows(op: string, name: string, a: Tensor): { rows: Tensor; lead: Shape } {
  if (a.rank === 0) throw new ShapeError(`${op}: ${name} must have an axis of classes, its shape is []`)
  if (a.rank === 1) return { rows: unsqueeze(a, 0), lead: [] }
  if (a.rank === 2) return { rows: a, lead: [a.shape[0] as number] }
  const order = [0, ...a.shape.map((_, i) => i).slice(2), 1]
  const lead = order.slice(0, -1).map((i) => a.shape[i] as number)
  return { rows: reshape(permute(a, order), [sizeOf(lead), a.shape[1] as number]), lead }
}

function labelLine(op: string, labels: Tensor, lead: Shape): Tensor<'int64'> {
  const given = positions(op, 'labels', labels)
  if (!sameShape(given.shape, lead))
    throw new ShapeError(`${op}: labels must have shape ${showShape(lead)}, got ${showShape(given.shape)}`)
  return reshape(given, [given.size])
}

/** How many labels count, as a tensor: nothing waits for it. */
function counted(labels: Tensor<'int64'>, ignoreIndex: number): Tensor {
  return cast(sum(ne(labels, ignoreIndex)), 'float32')
}

/**
 * Cross entropy of softmax(logits) against class labels or class probabilities, as PyTorch's cross_entropy.
 *
 * @param logits [n, c], [c], or [n, c, d1, ...] with the classes on axis 1
 * @param labels integers of logits' shape without the class axis; or floats of logits' shape, each line a distribution
 * @returns float32: a scalar, or one value a label for reduction 'none'. The mean over no counted label is NaN.
 * @throws an error with code ERR_RANGE from the next barrier when a label is neither in [0, c) nor ignoreIndex
 */
export function crossEntropy(logits: Tensor, labels: Tensor, options: CrossEntropyOptions = {}): Tensor<'float32'> {
  const op = 'crossEntropy'
  const reduction = checkReduction(op, options.reduction, reductions)
  const ignoreIndex = checkInteger(op, 'ignoreIndex', options.ignoreIndex ?? -100)
  const smoothing = options.labelSmoothing ?? 0
  if (typeof smoothing !== 'number' || !(smoothing >= 0 && smoothing <= 1)) {
    throw new ArgumentError(`${op}: labelSmoothing must be a number from 0 to 1, got ${show(smoothing)}`)
  }
  const x = arg(op, 'logits', logits)
  if (isFloat(arg(op, 'labels', labels).dtype)) return probabilityLoss(x, labels, smoothing, reduction)

  const { rows, lead } = classRows(op, 'logits', isFloat(x.dtype) ? x : cast(x, 'float32'))
  const line = labelLine(op, labels, lead)
  const loss = empty('float32', line.shape, rows.device)
  const logsum = empty('float32', line.shape, rows.device)
  native.crossEntropy(loss, logsum, rows, line, ignoreIndex, smoothing)
  const count = reduction === 'mean' ? counted(line, ignoreIndex) : null
  const out = count ? div(sum(loss), count) : reduction === 'sum' ? sum(loss) : loss
  taped(op, out, [rows], (grad) => {
    const each = count ? div(grad, count) : grad
    const dlogits = emptyLike(rows, rows.dtype)
    native.crossEntropyGrad(dlogits, expandView(each, line.shape), rows, logsum, line, ignoreIndex, smoothing)
    return [dlogits]
  })
  return reduction === 'none' && lead.length !== 1 ? reshape(out, lead) : out
}

function probabilityLoss(logits: Tensor, target: Tensor, smoothing: number, reduction: Reduction): Tensor<'float32'> {
  const [x, given] = pair('crossEntropy', logits, target)
  if (x.rank === 0) throw new ShapeError('crossEntropy: logits must have an axis of classes, its shape is []')
  const axis = x.rank === 1 ? 0 : 1
  const classes = x.shape[axis] as number
  const y = smoothing > 0 ? add(mul(given, 1 - smoothing), smoothing / classes) : given
  const loss = neg(sum(mul(y, logSoftmax(x, axis)), axis))
  return reduced(loss, reduction)
}

/**
 * Negative log likelihood: -logProbs at each label.
 *
 * @param logProbs log probabilities, [n, c], [c], or [n, c, d1, ...] with the classes on axis 1
 * @param labels integers of logProbs' shape without the class axis
 * @throws an error with code ERR_RANGE from the next barrier when a label is neither in [0, c) nor ignoreIndex
 */
export function nllLoss(logProbs: Tensor, labels: Tensor, options: LabelOptions = {}): Tensor<'float32'> {
  const op = 'nllLoss'
  const reduction = checkReduction(op, options.reduction, reductions)
  const ignoreIndex = checkInteger(op, 'ignoreIndex', options.ignoreIndex ?? -100)
  const { rows, lead } = classRows(op, 'logProbs', inFloat32(op, 'logProbs', logProbs))
  const line = labelLine(op, labels, lead)
  const ignored = eq(line, ignoreIndex)
  // gather counts negative positions from the end; a negative label is an error, like one that is too large.
  const strict = where(lt(line, 0), rows.shape[1] as number, line)
  const picked = gather(rows, 1, unsqueeze(where(ignored, 0, strict), 1))
  const loss = where(ignored, 0, neg(squeeze(picked, 1)))
  if (reduction === 'none') return (lead.length === 1 ? loss : reshape(loss, lead)) as Tensor<'float32'>
  const total = sum(loss)
  return (reduction === 'sum' ? total : div(total, counted(line, ignoreIndex))) as Tensor<'float32'>
}

/**
 * (input - target)^2.
 *
 * @throws ShapeError when the shapes differ (broadcasting [n, 1] against [n] is a common mistake)
 */
export function mseLoss(input: Tensor, target: Tensor, options: LossOptions = {}): Tensor<'float32'> {
  const reduction = checkReduction('mseLoss', options.reduction, reductions)
  const [x, y] = pair('mseLoss', input, target)
  const difference = sub(x, y)
  return reduced(mul(difference, difference), reduction)
}

/**
 * |input - target|. Its gradient is 0 where they are equal.
 *
 * @throws ShapeError when the shapes differ
 */
export function l1Loss(input: Tensor, target: Tensor, options: LossOptions = {}): Tensor<'float32'> {
  const reduction = checkReduction('l1Loss', options.reduction, reductions)
  const [x, y] = pair('l1Loss', input, target)
  return reduced(abs(sub(x, y)), reduction)
}

export interface KlDivOptions {
  /**
   * 'batchmean' divides the sum by the size of axis 0 and is the Kullback-Leibler divergence per sample. The default is
   * PyTorch's 'mean', which divides by the number of elements, classes included: a trap when the classes are many.
   */
  reduction?: Reduction | 'batchmean'
  /** True when target holds log probabilities too. Default false. */
  logTarget?: boolean
}

/**
 * Kullback-Leibler divergence of `target` from `input`: target * (log(target) - input), 0 where target is 0.
 *
 * @param input log probabilities
 * @param target probabilities of input's shape, or their logarithms with logTarget
 */
export function klDiv(input: Tensor, target: Tensor, options: KlDivOptions = {}): Tensor<'float32'> {
  const reduction = checkReduction('klDiv', options.reduction, [...reductions, 'batchmean'] as const)
  const [x, y] = pair('klDiv', input, target)
  let loss: Tensor
  if (options.logTarget) {
    loss = mul(exp(y), sub(y, x))
  } else {
    const logarithm = log(where(eq(y, 0), 1, y)) // 0 * log(0) is 0 here, and so is its gradient
    loss = mul(y, sub(logarithm, x))
  }
  if (reduction !== 'batchmean') return reduced(loss, reduction)
  if (x.rank === 0) throw new ShapeError("klDiv: reduction 'batchmean' needs a batch axis, input's shape is []")
  return div(sum(loss), x.shape[0] as number) as Tensor<'float32'>
}

export interface BinaryCrossEntropyOptions extends LossOptions {
  /** Weight of the positive part, broadcast to the input (a constant: it gets no gradient). */
  posWeight?: Tensor
}

/**
 * Binary cross entropy of sigmoid(input) against target, without overflow:
 * (1 - target) * input + (1 + (posWeight - 1) * target) * (log(1 + e^-|input|) + max(-input, 0)).
 *
 * @param target from 0 to 1, of input's shape
 */
export function binaryCrossEntropyWithLogits(
  input: Tensor,
  target: Tensor,
  options: BinaryCrossEntropyOptions = {},
): Tensor<'float32'> {
  const op = 'binaryCrossEntropyWithLogits'
  const reduction = checkReduction(op, options.reduction, reductions)
  const [x, y] = pair(op, input, target)
  const p = options.posWeight === undefined ? null : converted(arg(op, 'posWeight', options.posWeight), 'float32')
  const loss = withLogits(x, y, p)
  if (!sameShape(loss.shape, x.shape))
    throw new ShapeError(`${op}: posWeight ${showShape(p?.shape ?? [])} does not broadcast to ${showShape(x.shape)}`)
  return reduced(loss, reduction)
}

/** log(1 + e^x), without overflow. */
function softplus(x: Tensor): Tensor {
  return add(log1p(exp(neg(abs(x)))), relu(x))
}

// One node: the gradient of the pieces would be wrong at input = 0, where |input| and max(-input, 0) have corners.
function withLogits(x: Tensor<'float32'>, y: Tensor<'float32'>, p: Tensor<'float32'> | null): Tensor<'float32'> {
  const weighted = (positive: Tensor) => (p ? mul(add(mul(sub(p, 1), y), 1), positive) : positive)
  const out = noGrad(() => add(mul(sub(1, y), x), weighted(softplus(neg(x)))))
  return taped('binaryCrossEntropyWithLogits', out, [x, y], (grad) => {
    const byInput = () => sub(sub(1, y), weighted(sigmoid(neg(x))))
    const byTarget = () => (p ? sub(mul(sub(p, 1), softplus(neg(x))), x) : neg(x))
    return [x.requiresGrad ? mul(grad, byInput()) : null, y.requiresGrad ? mul(grad, byTarget()) : null]
  }) as Tensor<'float32'>
}
