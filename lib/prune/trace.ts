/** Runs a model once and finds in its tape which axes of its parameters belong together. */
import { ArgumentError, KerfError } from '../core/errors'
import { sameShape } from '../core/shape'
import { Conv1d, Conv2d } from '../nn/conv'
import { keepingModes } from '../nn/model'
import type { AnyModule, Module } from '../nn/module'
import { Parameter } from '../nn/parameter'
import { converted } from '../ops/op'
import { enableGrad, scope } from '../tensor/context'
import { Tensor } from '../tensor/tensor'
import { carryOf } from './dependencies'
import type { Axis, Neurons } from './neurons'
import type { Carry, Traced } from './rule'

/** An op of the tape, in the order of recording. */
interface Step {
  op: string
  carry: Carry
  /** Of its result. */
  axes: Axis[]
  shape: readonly number[]
}

export interface Trace {
  steps: Step[]
  /** The values of all tensors that forward() returned, as float32. */
  outputs: Float32Array[]
}

/** What runs in the places of a model's parameters and buffers. */
export type Others = ReadonlyMap<Tensor, Tensor>

/**
 * Puts others in the places of a model's parameters and buffers; a convolution in groups that lost filters has fewer groups of
 * as many. Answers what puts everything back.
 */
export function place(model: AnyModule, others: Others): () => void {
  const undo: (() => void)[] = []
  const set = (fields: Record<string, unknown>, name: string, to: unknown) => {
    const before = fields[name]
    fields[name] = to
    undo.push(() => {
      fields[name] = before
    })
  }
  for (const module of model.modules()) {
    const fields = module as unknown as Record<string, unknown>
    const inGroups = isConvolution(module) && module.groups > 1 ? module : null
    const filters = inGroups && (inGroups.weight.shape[0] as number) / inGroups.groups
    for (const [name, value] of Object.entries(module)) {
      const other = value instanceof Tensor ? others.get(value) : undefined
      if (other !== undefined) set(fields, name, other)
    }
    if (inGroups && filters)
      set(fields, 'options', { ...inGroups.options, groups: (inGroups.weight.shape[0] as number) / filters })
  }
  return () => {
    for (const back of undo.reverse()) back()
  }
}

/** Those whose first axis of weights are the filters. */
const isConvolution = (module: AnyModule): module is Conv1d | Conv2d =>
  (module as unknown) instanceof Conv1d || (module as unknown) instanceof Conv2d

/** Running statistics of channels and the weight that goes with them: an element of it for each, of the same module. */
export function statisticsOf(model: AnyModule): [statistics: Tensor, weight: Parameter][] {
  return model.modules().flatMap((module): [Tensor, Parameter][] => {
    const { weight, runningMean, runningVar } = module as unknown as Record<string, unknown>
    if (!(weight instanceof Parameter)) return []
    const own = [runningMean, runningVar].filter((x): x is Tensor => x instanceof Tensor)
    return own.filter(({ shape }) => sameShape(shape, weight.shape)).map((x): [Tensor, Parameter] => [x, weight])
  })
}

/** Tensors in what forward() returned: in arrays, plain objects and Maps too. */
function tensorsIn(value: unknown, into = new Set<Tensor>()): Set<Tensor> {
  if (value instanceof Tensor) into.add(value)
  else if (Array.isArray(value) || value instanceof Map) for (const item of value.values()) tensorsIn(item, into)
  else if (typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype)
    for (const item of Object.values(value)) tensorsIn(item, into)
  return into
}

/**
 * Runs the model in evaluation mode with `others` in the places of its parameters, and lets `look` see the tensors that it
 * returned while the tape is there. The model is as before afterwards, also when this throws.
 */
async function run<R>(
  model: AnyModule,
  others: Others,
  args: readonly unknown[],
  look: (outputs: Tensor[]) => R | Promise<R>,
): Promise<R> {
  const back = place(model, others)
  try {
    return await keepingModes([model], () => {
      model.eval()
      return scope(() =>
        enableGrad(async () => {
          const outputs = [...tensorsIn(await (model as unknown as Module<unknown[], unknown>).forward(...args))]
          if (outputs.length === 0) throw new ArgumentError('forward() returned no tensor')
          return await look(outputs)
        }),
      )
    })
  } finally {
    back()
  }
}

const read = (outputs: readonly Tensor[]): Promise<Float32Array[]> =>
  Promise.all(outputs.map(async (x) => (await converted(x, 'float32').data()) as Float32Array))

/** What the model returns with `others` in the places of its parameters. */
export function outputsWith(model: AnyModule, others: Others, args: readonly unknown[]): Promise<Float32Array[]> {
  return run(model, others, args, read)
}

/** All tensors on the way to the outputs, inputs first. */
function recorded(outputs: readonly Tensor[]): { results: Tensor[]; leaves: Set<Tensor> } {
  const seen = new Set<Tensor>(outputs)
  for (const tensor of seen) for (const input of tensor.node?.inputs ?? []) seen.add(input)
  const all = [...seen]
  const results = all.filter(({ node }) => node !== null)
  results.sort((a, b) => (a.node?.sequence ?? 0) - (b.node?.sequence ?? 0))
  return { results, leaves: new Set(all.filter(({ node }) => node === null)) }
}

const OUTSIDE = 'it meets a tensor that is no parameter, such as the input'

/** Follows the tape; `next` decides what an op does. */
function follow(
  results: readonly Tensor[],
  parameters: ReadonlyMap<Tensor, Axis[]>,
  next: (n: number, out: Tensor, inputs: Traced[]) => Axis[],
): Map<Tensor, Axis[]> {
  const axes = new Map(parameters)
  for (const [n, out] of results.entries()) {
    const inputs = (out.node?.inputs ?? []).map((tensor): Traced => {
      const { shape } = tensor
      return { tensor, shape, axes: axes.get(tensor) ?? shape.map(() => OUTSIDE) }
    })
    axes.set(out, next(n, out, inputs))
  }
  return axes
}

/**
 * Ties the neurons of all parameters that the model ties, and fixes those that must stay.
 *
 * @param others what runs in the places of the parameters, which must want gradients
 * @param axes of each of the parameters
 */
export function trace(
  model: AnyModule,
  others: Others,
  axes: ReadonlyMap<Parameter, Axis[]>,
  args: readonly unknown[],
  neurons: Neurons,
): Promise<Trace> {
  return run(model, others, args, async (outputs) => {
    const { results, leaves } = recorded(outputs)
    const known = new Map([...axes].map(([parameter, own]) => [others.get(parameter) as Tensor, own]))
    const steps: Step[] = []
    const found = follow(results, known, (_, out, inputs) => {
      const op = out.node?.op as string
      const carry = carryOf(op, out, inputs, neurons)
      const carried = carry(out, inputs) as Axis[]
      steps.push({ op, carry, axes: carried, shape: out.shape })
      return carried
    })
    for (const output of outputs)
      for (const axis of found.get(output) ?? []) neurons.fix(axis, "it is in the model's output")
    for (const [tensor, own] of known)
      if (!leaves.has(tensor)) for (const axis of own) neurons.fix(axis, "it has no part in the model's output")
    return { steps, outputs: await read(outputs) }
  })
}

/**
 * Runs the model with parameters that have lost neurons, and throws unless every op carries those that are left to where
 * the first trace had them.
 *
 * @param axes of the smaller parameters, without what they have lost
 * @param kept whether a neuron, by its number, is left
 */
export function retrace(
  model: AnyModule,
  others: Others,
  axes: ReadonlyMap<Parameter, Axis[]>,
  args: readonly unknown[],
  neurons: Neurons,
  { steps }: Trace,
  kept: (neuron: number) => boolean,
): Promise<void> {
  const different = (op: string | undefined) => new ArgumentError(`op '${op}' does not do what it did before`)
  const stays = (axis: Axis) => (typeof axis === 'string' ? axis : axis.filter((n) => kept(neurons.find(n))))
  const sameAxis = (a: Axis, sizeBefore: number, b: Axis, size: number) => {
    if (typeof b === 'object' && b.length !== size) return false
    const before = stays(a)
    if (neurons.fixed(a) && neurons.fixed(b)) return sizeBefore === size
    if (typeof before === 'string' || typeof b === 'string') return false
    const label = (n: number) => (neurons.reason(n) === null ? neurons.find(n) : -1)
    return before.length === b.length && before.every((n, p) => label(n) === label(b[p] as number))
  }
  return run(model, others, args, (outputs) => {
    const { results } = recorded(outputs)
    const known = new Map([...axes].map(([parameter, own]) => [others.get(parameter) as Tensor, own]))
    follow(results, known, (n, out, inputs) => {
      const step = steps[n]
      const carried = step?.op === out.node?.op ? step?.carry(out, inputs) : null
      if (!step || !carried || step.axes.length !== out.rank) throw different(out.node?.op)
      const same = step.axes.every((axis, i) =>
        sameAxis(axis, step.shape[i] as number, carried[i] as Axis, out.shape[i] as number),
      )
      if (!same) throw different(step.op)
      return carried
    })
    if (results.length !== steps.length) throw different(steps[results.length]?.op)
  })
}

/** An error about the run of exampleInput says so. */
export async function withExample<R>(op: string, fn: () => Promise<R>): Promise<R> {
  try {
    return await fn()
  } catch (error) {
    if (error instanceof KerfError) error.message = `${op}: exampleInput: ${error.message}`
    throw error
  }
}
