/** What every optimizer does the same way: parameter groups, states, saving and loading them. */
import { isFloat } from '../core/dtype'
import { ArgumentError, DTypeError, ShapeError, show } from '../core/errors'
import { sameShape, showShape } from '../core/shape'
import { native } from '../native/call'
import { applyMask } from '../tensor/mask'
import { assignFrom, changed, checkTensor, empty, keep, Tensor } from '../tensor/tensor'

/** What every group has; each optimizer adds its own. */
export interface GroupOptions {
  lr: number
  weightDecay: number
}

/** Parameters with options of their own; what is left out is the optimizer's. */
export type ParamGroup<O> = { params: Iterable<Tensor> } & Partial<O>
/** A group of an optimizer, complete; schedules write `lr`, and so may you. */
export type Group<O> = { params: Tensor[] } & O
/** Tensors to optimize, or groups of them. */
export type Params<O> = Iterable<Tensor> | Iterable<ParamGroup<O>>

/** What an optimizer keeps for one parameter: tensors, and counts. */
export type ParamState = Record<string, Tensor | number>

export interface OptimizerState {
  /** By the parameter's position over all groups. */
  state: Record<number, ParamState>
  /** Options of every group; `params` are positions. */
  paramGroups: Record<string, unknown>[]
}

export interface StepOptions {
  /** Multiplies every gradient first (1 / loss scale, in mixed precision); default 1. */
  gradScale?: number
}

export abstract class Optimizer<O extends GroupOptions = GroupOptions> {
  /** The groups, in order. */
  readonly paramGroups: Group<O>[] = []
  protected readonly states = new Map<Tensor, ParamState>()
  readonly #defaults: O

  protected constructor(params: Params<O>, defaults: O) {
    this.#defaults = defaults
    this.check(defaults)
    if (params instanceof Tensor || typeof params?.[Symbol.iterator] !== 'function') {
      throw new ArgumentError(`${this.name}: params must be a list of tensors or of groups, got ${show(params)}`)
    }
    const list = [...(params as Iterable<Tensor | ParamGroup<O>>)]
    if (list.length === 0) throw new ArgumentError(`${this.name}: there is nothing to optimize: params is empty`)
    if (list.some((p) => p instanceof Tensor)) this.addParamGroup({ params: list } as unknown as ParamGroup<O>)
    else for (const group of list as ParamGroup<O>[]) this.addParamGroup(group)
  }

  /** Moves every parameter of a group that has a gradient. */
  protected abstract update(parameter: Tensor, grad: Tensor, group: Group<O>, gradScale: number): void

  /** Throws when a group's options make no sense. */
  protected check(options: O): void {
    this.atLeast0(options, 'lr')
    this.atLeast0(options, 'weightDecay')
  }

  /** Adds parameters with options of their own. */
  addParamGroup(group: ParamGroup<O>): void {
    const { params, ...options } = group
    if (typeof params?.[Symbol.iterator] !== 'function') {
      throw new ArgumentError(`${this.name}: a group's params must be a list of tensors, got ${show(params)}`)
    }
    const list = [...params]
    const known = new Set(this.paramGroups.flatMap((g) => g.params))
    for (const [i, parameter] of list.entries()) {
      checkTensor(this.name, `params[${i}]`, parameter)
      const what = `${this.name}: params[${i}] of shape ${showShape(parameter.shape)}`
      if (!isFloat(parameter.dtype)) throw new DTypeError(`${what} must be a float tensor, it is ${parameter.dtype}`)
      if (parameter.node) throw new ArgumentError(`${what} is the result of an op; only leaves can be optimized`)
      if (!parameter.contiguous) throw new ArgumentError(`${what} must be contiguous`)
      if (known.has(parameter)) throw new ArgumentError(`${what} is in the optimizer twice`)
      known.add(parameter)
    }
    const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
    const full = { ...this.#defaults, ...given, params: list } as Group<O>
    this.check(full)
    this.paramGroups.push(full)
  }

  /**
   * Changes the parameters, in place. Those without a gradient stay as they are; the gradients stay too (zeroGrad()
   * drops them). What a Parameter's mask prunes is exactly 0 afterwards, whatever the optimizer.
   */
  step(options: StepOptions = {}): void {
    const scale = options.gradScale ?? 1
    if (typeof scale !== 'number' || Number.isNaN(scale))
      throw new ArgumentError(`step: gradScale must be a number, got ${show(scale)}`)
    for (const group of this.paramGroups) {
      this.check(group)
      for (const parameter of group.params) {
        const { grad } = parameter
        if (grad === null) continue
        this.update(parameter, checkGrad('step', parameter, grad), group, scale)
        changed(parameter)
        // Momentum and what else a step adds would move pruned weights away from 0.
        applyMask(parameter)
      }
    }
  }

  /** Forgets every gradient and gives its memory back: clone() one that you want to keep. */
  zeroGrad(): void {
    for (const { params } of this.paramGroups) {
      for (const parameter of params) {
        parameter.grad?.dispose()
        parameter.grad = null
      }
    }
  }

  /** Options and states; the states' tensors themselves, not copies. */
  stateDict(): OptimizerState {
    const state: Record<number, ParamState> = {}
    let position = 0
    const paramGroups = this.paramGroups.map(({ params, ...options }) => ({
      ...options,
      params: params.map((parameter) => {
        const own = this.states.get(parameter)
        if (own) state[position] = { ...own }
        return position++
      }),
    }))
    return { state, paramGroups }
  }

  /**
   * Takes over options and copies of the states from a stateDict() of the same optimizer over parameters of the same
   * shapes in the same order.
   */
  loadStateDict(dict: OptimizerState): void {
    const sizes = (groups: readonly { params?: unknown }[]) =>
      groups.map((g) => (g.params as unknown[])?.length).join(', ')
    if (!Array.isArray(dict?.paramGroups) || typeof dict.state !== 'object' || dict.state === null) {
      throw new ArgumentError(`${this.name}: loadStateDict: expected what stateDict() returns, got ${show(dict)}`)
    }
    if (sizes(dict.paramGroups) !== sizes(this.paramGroups)) {
      throw new ArgumentError(
        `${this.name}: loadStateDict: its groups have ${sizes(dict.paramGroups)} parameters, ours ${sizes(this.paramGroups)}`,
      )
    }
    const loaded = new Map<Tensor, ParamState>()
    for (const [i, parameter] of this.paramGroups.flatMap((g) => g.params).entries()) {
      const given = dict.state[i]
      if (given) loaded.set(parameter, copyState(`${this.name}: loadStateDict: state ${i}`, given, parameter))
    }
    const options = dict.paramGroups.map(({ params, ...rest }) => rest)
    for (const [i, group] of this.paramGroups.entries()) this.check({ ...group, ...options[i] })
    for (const [i, group] of this.paramGroups.entries()) Object.assign(group, options[i])
    this.states.clear()
    for (const [parameter, state] of loaded) this.states.set(parameter, state)
  }

  protected get name(): string {
    return this.constructor.name
  }

  protected atLeast0(options: object, key: string): void {
    const value = (options as Record<string, unknown>)[key]
    if (typeof value !== 'number' || !(value >= 0))
      throw new ArgumentError(`${this.name}: ${key} must be a number >= 0, got ${show(value)}`)
  }
}

/** A float32 tensor of zeros beside a parameter, that no scope() disposes. */
export function zerosBeside(parameter: Tensor): Tensor<'float32'> {
  const state = keep(empty('float32', parameter.shape, parameter.device))
  native.fill(state, 0)
  return state
}

/** The gradient, once it is sure that it goes with the parameter. */
export function checkGrad(op: string, parameter: Tensor, grad: Tensor): Tensor {
  checkTensor(op, 'a grad', grad)
  parameter.storage(op)
  if (!sameShape(grad.shape, parameter.shape) || grad.dtype !== parameter.dtype || !grad.contiguous) {
    throw new ShapeError(
      `${op}: a parameter ${parameter} has a grad ${grad}; shape and dtype must agree, and it must be contiguous`,
    )
  }
  return grad
}

function copyState(what: string, given: ParamState, parameter: Tensor): ParamState {
  return Object.fromEntries(
    Object.entries(given).map(([name, value]) => {
      if (typeof value === 'number') return [name, value]
      checkTensor(what, name, value)
      if (!sameShape(value.shape, parameter.shape)) {
        throw new ShapeError(
          `${what}: ${name} has shape ${showShape(value.shape)}, its parameter ${showShape(parameter.shape)}`,
        )
      }
      const copy = zerosBeside(parameter)
      assignFrom(copy, value)
      return [name, copy]
    }),
  )
}
