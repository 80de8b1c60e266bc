/** Structured pruning: whole neurons and heads go, and the weights that they are made of become smaller. */
import { ArgumentError, KerfError, show } from '../core/errors'
import { Pauses } from '../core/pauses'
import { uniformGenerator } from '../core/rng'
import { checkInteger } from '../core/shape'
import { seedOr } from '../data/dataset'
import { WEIGHT_LAYERS, type WeightLayer, weightLayers } from '../nn/linear-layers'
import type { AnyModule } from '../nn/module'
import { Parameter } from '../nn/parameter'
import { copyTo, Tensor } from '../tensor/tensor'
import {
  checkValues,
  exchangeOf,
  type Group,
  groupsOf,
  type Importance,
  type Selection,
  selected,
  selectedParameter,
  selectionOf,
  worthOf,
} from './groups'
import { checkOptions, checkScope, checkSparsity, type LayerOptions, type Scope } from './layers'
import { type Axis, Neurons } from './neurons'
import { pruneSmallest } from './select'
import { Sizes, type StructuredReport } from './structured-report'
import { type Others, outputsWith, place, retrace, statisticsOf, type Trace, trace, withExample } from './trace'

export interface StructuredOptions extends LayerOptions<WeightLayer> {
  /** Part of the neurons to go, from 0 to 1; at least one of each group stays. */
  ratio: number
  /**
   * What the model is run on to see how its layers depend on each other: the input, or an array of the arguments of
   * forward(). One or two samples are enough. Its axes should differ in size.
   */
  exampleInput: Tensor | readonly unknown[]
  /**
   * 'layer' (default): each group loses the ratio of its neurons; 'global': all groups together do, compared by their worth
   * over the mean of their group.
   */
  scope?: Scope
  /** What stays of a group is a multiple of it along every axis, or all; default 1. Less is removed for it, never more. */
  multipleOf?: number
  /** What a neuron is worth: the L2 norm (default) or L1 norm of all weights that belong to it, or chance. */
  importance?: Importance
  /** Makes 'random' reproducible, a whole number >= 0; else it follows manualSeed. */
  seed?: number
}

interface Settings {
  ratio: number
  scope: Scope
  multipleOf: number
  importance: Importance
  seed: number
  args: readonly unknown[]
}

/** What is known about a model before it is decided what goes. */
interface Found {
  op: string
  model: AnyModule
  args: readonly unknown[]
  neurons: Neurons
  axes: ReadonlyMap<Parameter, Axis[]>
  /** float32 copies of the parameters. */
  copies: ReadonlyMap<Parameter, Parameter>
  trace: Trace
}

function checkSettings(op: string, options: StructuredOptions): Settings {
  checkOptions(op, options)
  const { exampleInput: example, importance = 'l2' } = options
  if (!(example instanceof Tensor) && !(Array.isArray(example) && example.length > 0))
    throw new ArgumentError(
      `${op}: exampleInput must be a tensor, or an array of the arguments of forward(), got ${show(example)}`,
    )
  if (importance !== 'l2' && importance !== 'l1' && importance !== 'random')
    throw new ArgumentError(`${op}: importance must be 'l2', 'l1' or 'random', got ${show(importance)}`)
  return {
    ratio: checkSparsity(op, 'ratio', options.ratio),
    scope: checkScope(op, options.scope ?? 'layer'),
    multipleOf: checkInteger(op, 'multipleOf', options.multipleOf ?? 1, 1),
    importance,
    seed: importance === 'random' || options.seed !== undefined ? seedOr(op, options.seed) : 0,
    args: Array.isArray(example) ? example : [example],
  }
}

/** Greatest common divisor. */
const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b))

/** How many neurons stay, when `kept` should: at least one, and multiples of `multipleOf` positions on every axis. */
function staying({ neurons, slices }: Group, kept: number, multipleOf: number): number {
  const step = slices.reduce((least, { positions }) => {
    const one = multipleOf / gcd(multipleOf, positions[0]?.length as number)
    return (least * one) / gcd(least, one)
  }, 1)
  return Math.min(neurons.length, Math.ceil(Math.max(kept, 1) / step) * step)
}

/** Decides what stays of each group. */
async function choose(
  groups: readonly Group[],
  worth: ReadonlyMap<Group, Float64Array>,
  { ratio, scope, multipleOf }: Settings,
  pauses: Pauses,
): Promise<Map<Group, Uint8Array>> {
  const part = (group: Group) => ({
    scores: worth.get(group) as Float64Array,
    keep: new Uint8Array(group.neurons.length).fill(1),
  })
  const counts = new Map(
    groups.map((group) => [group, group.neurons.length - Math.round(ratio * group.neurons.length)]),
  )
  if (scope === 'global') {
    const parts = groups.map((group) => {
      const { scores, keep } = part(group)
      const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length
      return { scores: mean > 0 ? scores.map((score) => score / mean) : scores, keep }
    })
    const total = groups.reduce((n, { neurons }) => n + neurons.length, 0)
    await pruneSmallest(parts, Math.round(ratio * total), pauses)
    for (const [i, group] of groups.entries()) counts.set(group, parts[i]?.keep.reduce((n, k) => n + k, 0) as number)
  }
  const chosen = new Map<Group, Uint8Array>()
  for (const group of groups) {
    const one = part(group)
    const count = group.neurons.length - staying(group, counts.get(group) as number, multipleOf)
    await pruneSmallest([one], count, pauses)
    chosen.set(group, one.keep)
  }
  return chosen
}

/** Runs `fn` with selected positions of the copies in the places of the parameters. */
async function withSelected<R>(
  { model, copies }: Found,
  selection: Selection,
  fn: (others: Others) => Promise<R>,
): Promise<R> {
  const made = selectedStatistics(model, selection)
  try {
    for (const [parameter, axes] of selection)
      made.set(parameter, selectedParameter(copies.get(parameter) as Parameter, axes))
    return await fn(new Map<Tensor, Tensor>([...copies, ...made]))
  } finally {
    for (const one of made.values()) one.dispose()
  }
}

/** Running statistics of the channels whose weights are selected. */
function selectedStatistics(model: AnyModule, selection: Selection): Map<Tensor, Tensor> {
  const made = new Map<Tensor, Tensor>()
  for (const [statistics, weight] of statisticsOf(model)) {
    const axes = selection.get(weight)
    if (axes?.some((positions) => positions !== null)) made.set(statistics, selected(statistics, axes))
  }
  return made
}

/**
 * How far outputs may lie apart, in parts of the largest, when neurons change places: far above what another order of float32
 * sums makes of it, far below what a neuron in a wrong place does.
 */
const TOLERANCE = 2 ** -10

function sameOutputs(a: readonly Float32Array[], b: readonly Float32Array[]): boolean {
  return a.every((values, n) => {
    const others = b[n]
    if (others?.length !== values.length) return false
    let most = 0
    for (const value of values) if (Number.isFinite(value)) most = Math.max(most, Math.abs(value))
    return values.every((value, i) => {
      const other = others[i] as number
      return Object.is(value, other) || Math.abs(value - other) <= TOLERANCE * most
    })
  })
}

/**
 * Why not what was chosen: null when the model runs with fewer neurons and every op still ties what it tied, and when its
 * output stays what it is while neurons change places. The second also sees what the tape does not.
 */
async function objection(found: Found, chosen: ReadonlyMap<Group, Uint8Array>): Promise<string | null> {
  const { model, args, neurons, axes, trace: first } = found
  const groups = [...chosen.keys()]
  try {
    const exchanged = await withSelected(found, exchangeOf(groups, uniformGenerator(1)), (others) =>
      outputsWith(model, others, args),
    )
    if (!sameOutputs(first.outputs, exchanged))
      return "the model's output changes when its neurons change places: something besides its parameters tells them apart"
    const selection = selectionOf(chosen)
    const smaller = new Map(
      [...axes].map(([parameter, own]): [Parameter, Axis[]] => [
        parameter,
        own.map((axis, i) => {
          const positions = selection.get(parameter)?.[i]
          return positions ? Int32Array.from(positions, (p) => (axis as Int32Array)[p] as number) : axis
        }),
      ]),
    )
    const gone = new Set(groups.flatMap((group) => group.neurons.filter((_, n) => chosen.get(group)?.[n] === 0)))
    await withSelected(found, selection, (others) =>
      retrace(model, others, smaller, args, neurons, first, (neuron) => !gone.has(neuron)),
    )
    return null
  } catch (error) {
    if (error instanceof KerfError) return `with fewer neurons: ${error.message}`
    throw error
  }
}

/** Decides what stays of the groups that bear it, and gives the others a reason to be left alone. */
async function decide(
  found: Found,
  groups: readonly Group[],
  worth: ReadonlyMap<Group, Float64Array>,
  settings: Settings,
  pauses: Pauses,
): Promise<Map<Group, Uint8Array>> {
  for (let left = groups; ; left = left.filter(({ reason }) => reason === null)) {
    if (left.length === 0) return new Map()
    const chosen = await choose(left, worth, settings, pauses)
    const together = await objection(found, chosen)
    if (together === null) return chosen
    for (const group of left) group.reason = await objection(found, new Map([[group, chosen.get(group) as Uint8Array]]))
    if (left.every(({ reason }) => reason === null)) for (const group of left) group.reason = together
  }
}

/** Checks the filters; answers what gives groups with neurons of layers that are not to be pruned a reason to stay. */
function leavingOut(
  op: string,
  model: AnyModule,
  options: LayerOptions<WeightLayer>,
): (groups: readonly Group[]) => void {
  const all = weightLayers(op, model)
  if (all.length === 0) throw new ArgumentError(`${op}: the model has no ${WEIGHT_LAYERS} layer to prune`)
  const wanted = new Set(weightLayers(op, model, options).map(([, layer]) => layer))
  const left = new Set(all.flatMap(([, layer]) => (wanted.has(layer) ? [] : [layer.weight])))
  const included = new Set([...wanted].map(({ weight }) => weight))
  return (groups) => {
    for (const group of groups) {
      const own = group.slices.filter(({ axis }) => axis === 0).map(({ parameter }) => parameter)
      if (own.some((p) => left.has(p)) || (options.include && !own.some((p) => included.has(p))))
        group.reason ??= 'include or skip leaves it out'
    }
  }
}

/**
 * Removes whole neurons of Linear layers, channels of convolutions and whole heads of attention, with all that depends on them: rows of the weights
 * that make them, columns of those that read them, biases, parameters of norms, residual branches (Fang et al., "DepGraph:
 * Towards Any Structural Pruning", 2023). The model is smaller and faster at once, in place: layers stay the same objects and
 * get new parameters. Make the optimizer afterwards; the old parameters are disposed.
 *
 * What belongs together is read off the tape of one run on `exampleInput`, whatever the modules are. A neuron stays when it
 * is in the model's output, meets a tensor that is no parameter, or goes through an op that is not followed; the report says
 * so. What was found is put to the test before anything changes: the output must not depend on the order of the neurons, and
 * every op of the smaller model must tie what it tied before. A mean, norm or softmax over neurons is over those that are
 * left.
 *
 * Each group of neurons that depend on each other, such as the features of a residual stream, is pruned as one. It loses
 * round(ratio * neurons), those that are worth least, of equal ones the last. `include` and `skip` name the layers that lose
 * outputs; every layer loses the inputs that are gone.
 *
 * @param model float32, float16 or bfloat16 parameters
 * @returns sizes before and after, and what was left alone and why
 * @throws ArgumentError for options out of range, for a model without such layers or with values that are not finite, and
 * what the model throws for `exampleInput`; nothing has changed then
 * @example console.log(String(await prune.structured(model, { ratio: 0.5, exampleInput: images })))
 */
export async function structured(model: AnyModule, options: StructuredOptions): Promise<StructuredReport> {
  const op = 'structured'
  const settings = checkSettings(op, options)
  const leaveOut = leavingOut(op, model, options)
  const sizes = new Sizes(model)
  const names = new Map(model.namedParameters().map(([name, parameter]) => [parameter, name]))
  const copies = new Map<Parameter, Parameter>()
  const pauses = new Pauses()
  try {
    for (const parameter of names.keys()) {
      const copy = copyTo(parameter, 'float32')
      copies.set(parameter, new Parameter(copy))
      copy.dispose()
    }
    const neurons = new Neurons()
    const axes = new Map([...names.keys()].map((p): [Parameter, Axis[]] => [p, p.shape.map((n) => neurons.make(n))]))
    const { args } = settings
    const first = await withExample(op, () => trace(model, copies, axes, args, neurons))
    const groups = groupsOf(axes, neurons)
    leaveOut(groups)
    const open = groups.filter(({ reason }) => reason === null)
    const values = new Map<Parameter, Float32Array>()
    for (const [parameter, copy] of copies) values.set(parameter, (await copy.data()) as Float32Array)
    checkValues(op, open, names, values)
    const random = uniformGenerator(settings.seed)
    const worth = new Map<Group, Float64Array>()
    for (const group of open)
      worth.set(
        group,
        settings.importance === 'random'
          ? new Float64Array(group.neurons.length).map(random)
          : await worthOf(group, values, settings.importance, pauses),
      )
    const chosen = await decide({ op, model, args, neurons, axes, copies, trace: first }, open, worth, settings, pauses)
    shrink(model, selectionOf(chosen))
    return sizes.report(groups)
  } finally {
    for (const copy of copies.values()) copy.dispose()
  }
}

/** Puts smaller parameters in the places of those that have lost something. */
function shrink(model: AnyModule, selection: Selection): void {
  const smaller = selectedStatistics(model, selection)
  for (const [old, axes] of selection)
    if (axes.some((positions) => positions !== null)) smaller.set(old, selectedParameter(old, axes))
  place(model, smaller)
  for (const old of smaller.keys()) old.dispose()
}
