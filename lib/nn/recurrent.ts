/** Recurrent layers: LSTM, GRU and Elman's RNN, in PyTorch's parameters and gate order. */
import type { FloatDType } from '../core/dtype'
import { ArgumentError, ShapeError, show } from '../core/errors'
import { checkInteger, sameShape, showShape } from '../core/shape'
import { zeros } from '../ops/create'
import { dropout } from '../ops/dropout'
import { cat, stack } from '../ops/join'
import { linear } from '../ops/matmul'
import { gru, lstm, type Recurrence, rnn } from '../ops/recurrent'
import { reshape, slice, transpose, unsqueeze } from '../ops/shape'
import { checkTensor, empty, type Tensor } from '../tensor/tensor'
import { uniform } from './init'
import { Module } from './module'
import { own, type Parameter } from './parameter'

export interface RecurrentOptions {
  /** Layers, each reading the outputs of the one below; default 1. */
  numLayers?: number
  /** Adds learned biases, one to each of the two products; default true. */
  bias?: boolean
  /** Inputs and outputs are [batch, steps, features] instead of [steps, batch, features]; default false. */
  batchFirst?: boolean
  /** Probability with which the outputs of every layer but the last are dropped in training; default 0. */
  dropout?: number
  /** A second direction goes from the last step to the first, and outputs are both, side by side; default false. */
  bidirectional?: boolean
  /** Of the parameters; default 'float32'. */
  dtype?: FloatDType
}
export interface RNNOptions extends RecurrentOptions {
  /** Default 'tanh'. */
  nonlinearity?: 'tanh' | 'relu'
}
export type RecurrentCellOptions = Pick<RecurrentOptions, 'bias' | 'dtype'>

export interface HiddenState {
  /** [numLayers * directions, batch, hiddenSize], the directions of a layer next to each other; without batch for one sequence. */
  hidden: Tensor
}
export interface LSTMState extends HiddenState {
  /** As hidden. */
  cell: Tensor
}

type Kind = 'LSTM' | 'GRU' | 'RNN'
const GATES: Record<Kind, number> = { LSTM: 4, GRU: 3, RNN: 1 }

/** Far above any use: a mistake is an error, not a full memory. */
const MOST_LAYERS = 4096

/** A parameter as all of them start: uniform in +-1 / sqrt(hiddenSize). */
function start(dtype: FloatDType, shape: readonly number[], hiddenSize: number): Parameter {
  const bound = 1 / Math.sqrt(hiddenSize)
  return own(uniform(empty(dtype, shape), -bound, bound))
}

/** A checked state, or zeros. */
function stateOf(op: string, name: string, given: unknown, shape: readonly number[], x: Tensor): Tensor {
  if (given === undefined) return zeros(shape, { dtype: x.dtype, device: x.device })
  const state = checkTensor(op, `state.${name}`, given)
  if (!sameShape(state.shape, shape))
    throw new ShapeError(`${op}: state.${name} must be ${showShape(shape)}, it is ${showShape(state.shape)}`)
  return state
}

function checkState(op: string, state: unknown): void {
  if (state !== undefined && (typeof state !== 'object' || state === null))
    throw new ArgumentError(`${op}: state must be an object of tensors, got ${show(state)}`)
}

/**
 * What the layers share. Parameters are weightIhL0 [gates * hiddenSize, inputSize], weightHhL0 [gates * hiddenSize,
 * hiddenSize], biasIhL0 and biasHhL0 [gates * hiddenSize], and so for layers L1, L2, ...; those of the other direction end in
 * Reverse. A layer above the first reads directions * hiddenSize features.
 */
abstract class Recurrent<State extends HiddenState> extends Module<
  [input: Tensor, state?: Partial<State>],
  State & { output: Tensor }
> {
  readonly hiddenSize: number
  readonly numLayers: number
  readonly batchFirst: boolean
  readonly dropout: number
  readonly bidirectional: boolean
  declare weightIhL0: Parameter
  declare weightHhL0: Parameter
  declare biasIhL0?: Parameter
  declare biasHhL0?: Parameter
  readonly #kind: Kind

  constructor(kind: Kind, inputSize: number, hiddenSize: number, options: RecurrentOptions) {
    super()
    this.#kind = kind
    checkInteger(kind, 'inputSize', inputSize, 1)
    this.hiddenSize = checkInteger(kind, 'hiddenSize', hiddenSize, 1)
    this.numLayers = checkInteger(kind, 'numLayers', options.numLayers ?? 1, 1, MOST_LAYERS)
    this.batchFirst = options.batchFirst ?? false
    this.dropout = options.dropout ?? 0
    if (typeof this.dropout !== 'number' || !(this.dropout >= 0 && this.dropout <= 1))
      throw new ArgumentError(`${kind}: dropout must be a number from 0 to 1, got ${show(this.dropout)}`)
    this.bidirectional = options.bidirectional ?? false
    const rows = GATES[kind] * hiddenSize
    const fields = this as unknown as Record<string, Parameter>
    for (let layer = 0; layer < this.numLayers; layer++) {
      for (const suffix of this.#suffixes(layer)) {
        const columns = layer === 0 ? inputSize : hiddenSize * this.directions
        const make = (shape: number[]) => start(options.dtype ?? 'float32', shape, hiddenSize)
        fields[`weightIh${suffix}`] = make([rows, columns])
        fields[`weightHh${suffix}`] = make([rows, hiddenSize])
        if (options.bias === false) continue
        fields[`biasIh${suffix}`] = make([rows])
        fields[`biasHh${suffix}`] = make([rows])
      }
    }
  }

  // The weight's own: structured pruning of what comes before replaces it by a narrower one.
  get inputSize(): number {
    return this.weightIhL0.shape[1] as number
  }

  get directions(): number {
    return this.bidirectional ? 2 : 1
  }

  #suffixes(layer: number): string[] {
    return this.bidirectional ? [`L${layer}`, `L${layer}Reverse`] : [`L${layer}`]
  }

  /** The recurrence of one layer and direction. */
  protected abstract run(r: Recurrence): Tensor

  /** Outputs of the last layer, and the last state of every layer: one tensor, or two, of [layers * directions, batch, hidden]. */
  protected sequence(input: Tensor, names: readonly string[], state: Partial<State> | undefined) {
    const op = this.#kind
    const given = checkTensor(op, 'input', input)
    checkState(op, state)
    if (given.rank !== 2 && given.rank !== 3)
      throw new ShapeError(
        `${op}: input must be ${this.batchFirst ? '[batch, steps, features]' : '[steps, batch, features]'} or [steps, features], it is ${showShape(given.shape)}`,
      )
    const single = given.rank === 2
    if (given.shape[given.rank - 1] !== this.inputSize)
      throw new ShapeError(`${op}: input ${showShape(given.shape)} does not end in the ${this.inputSize} features`)
    let x = single ? unsqueeze(given, 1) : this.batchFirst ? transpose(given, 0, 1) : given
    const batch = x.shape[1] as number
    const slots = this.numLayers * this.directions
    const own = single ? [slots, this.hiddenSize] : [slots, batch, this.hiddenSize]
    const initial = names.map((name) => {
      const tensor = stateOf(op, name, (state as Record<string, unknown> | undefined)?.[name], own, x)
      return single ? unsqueeze(tensor, 1) : tensor
    })
    const last: Tensor[][] = names.map(() => [])
    for (let layer = 0; layer < this.numLayers; layer++) {
      if (layer > 0 && this.training) x = dropout(x, this.dropout)
      const steps = x.shape[0] as number
      const outputs = this.#suffixes(layer).map((suffix, direction) => {
        const at = layer * this.directions + direction
        const states = this.run({
          projected: linear(x, this.#parameter(`weightIh${suffix}`) as Tensor, this.#parameter(`biasIh${suffix}`)),
          weight: this.#parameter(`weightHh${suffix}`) as Tensor,
          bias: this.#parameter(`biasHh${suffix}`),
          initial: initial.map((s) => slice(s, [at])),
          reverse: direction === 1,
        })
        for (let s = 0; s < names.length; s++) last[s]?.push(slice(states, [s, direction === 1 ? 0 : steps]))
        return slice(states, [0, direction === 1 ? [0, steps] : [1, steps + 1]])
      })
      x = outputs.length === 1 ? (outputs[0] as Tensor) : cat(outputs, -1)
    }
    const states = last.map((slices) => stack(slices)).map((s) => (single ? reshape(s, own) : s))
    const output = single ? reshape(x, [x.shape[0] as number, x.shape[2] as number]) : x
    return { output: this.batchFirst && !single ? transpose(output, 0, 1) : output, states }
  }

  #parameter(name: string): Parameter | null {
    return (this as unknown as Record<string, Parameter | undefined>)[name] ?? null
  }

  override describe(): string {
    const { numLayers, batchFirst, dropout, bidirectional } = this
    const all = { numLayers, bias: this.biasIhL0 !== undefined, batchFirst, dropout, bidirectional }
    const usual: Record<string, unknown> = {
      numLayers: 1,
      bias: true,
      batchFirst: false,
      dropout: 0,
      bidirectional: false,
    }
    const others = Object.entries(all).filter(([name, value]) => value !== usual[name])
    return [`${this.inputSize}, ${this.hiddenSize}`, ...others.map(([name, value]) => `${name}=${value}`)].join(', ')
  }
}

/**
 * Long short-term memory. With i, f, o = sigmoid and g = tanh of Wih x + bih + Whh h + bhh, in the order i f g o:
 * c' = f c + i g, h' = o tanh(c'). As PyTorch's LSTM without projection; parameters are named as Recurrent says (docs/recurrent.md).
 */
export class LSTM extends Recurrent<LSTMState> {
  constructor(inputSize: number, hiddenSize: number, options: RecurrentOptions = {}) {
    super('LSTM', inputSize, hiddenSize, options)
  }

  protected run(r: Recurrence): Tensor {
    return lstm(r)
  }

  /**
   * @param input [steps, batch, inputSize], [batch, steps, inputSize] with batchFirst, or [steps, inputSize]
   * @param state what to start from, an earlier result say; zeros for what is left out
   * @returns output [steps, batch, directions * hiddenSize] (or as the input is laid out), h of the last layer after every
   * step; hidden and cell, both states of every layer after its last step. No steps leave the state as it was.
   */
  forward(input: Tensor, state?: Partial<LSTMState>): LSTMState & { output: Tensor } {
    const { output, states } = this.sequence(input, ['hidden', 'cell'], state)
    return { output, hidden: states[0] as Tensor, cell: states[1] as Tensor }
  }
}

/**
 * Gated recurrent unit: r, z = sigmoid(Wih x + bih + Whh h + bhh), n = tanh(Wih x + bih + r (Whh h + bhh)), in the order
 * r z n; h' = (1 - z) n + z h. As PyTorch's GRU.
 */
export class GRU extends Recurrent<HiddenState> {
  constructor(inputSize: number, hiddenSize: number, options: RecurrentOptions = {}) {
    super('GRU', inputSize, hiddenSize, options)
  }

  protected run(r: Recurrence): Tensor {
    return gru(r)
  }

  /** As LSTM's, with one state. */
  forward(input: Tensor, state?: Partial<HiddenState>): HiddenState & { output: Tensor } {
    const { output, states } = this.sequence(input, ['hidden'], state)
    return { output, hidden: states[0] as Tensor }
  }
}

/** Elman's network: h' = tanh(Wih x + bih + Whh h + bhh), or relu. As PyTorch's RNN. */
export class RNN extends Recurrent<HiddenState> {
  readonly nonlinearity: 'tanh' | 'relu'

  constructor(inputSize: number, hiddenSize: number, options: RNNOptions = {}) {
    const { nonlinearity = 'tanh', ...rest } = options
    super('RNN', inputSize, hiddenSize, rest)
    if (nonlinearity !== 'tanh' && nonlinearity !== 'relu')
      throw new ArgumentError(`RNN: nonlinearity must be tanh or relu, got ${show(nonlinearity)}`)
    this.nonlinearity = nonlinearity
  }

  protected run(r: Recurrence): Tensor {
    return rnn({ ...r, nonlinearity: this.nonlinearity })
  }

  /** As LSTM's, with one state. */
  forward(input: Tensor, state?: Partial<HiddenState>): HiddenState & { output: Tensor } {
    const { output, states } = this.sequence(input, ['hidden'], state)
    return { output, hidden: states[0] as Tensor }
  }

  override describe(): string {
    return `${super.describe()}${this.nonlinearity === 'tanh' ? '' : `, nonlinearity=${this.nonlinearity}`}`
  }
}

/** One step of one layer: weightIh, weightHh, biasIh, biasHh as the layer's. */
abstract class Cell<State extends HiddenState> extends Module<[input: Tensor, state?: Partial<State>], State> {
  weightIh: Parameter
  weightHh: Parameter
  biasIh: Parameter | null
  biasHh: Parameter | null
  readonly #kind: string

  constructor(kind: 'LSTM' | 'GRU', inputSize: number, hiddenSize: number, options: RecurrentCellOptions) {
    super()
    this.#kind = `${kind}Cell`
    checkInteger(this.#kind, 'inputSize', inputSize, 1)
    checkInteger(this.#kind, 'hiddenSize', hiddenSize, 1)
    const rows = GATES[kind] * hiddenSize
    const make = (shape: number[]) => start(options.dtype ?? 'float32', shape, hiddenSize)
    this.weightIh = make([rows, inputSize])
    this.weightHh = make([rows, hiddenSize])
    const bias = options.bias ?? true
    this.biasIh = bias ? make([rows]) : null
    this.biasHh = bias ? make([rows]) : null
  }

  get inputSize(): number {
    return this.weightIh.shape[1] as number
  }

  get hiddenSize(): number {
    return this.weightHh.shape[1] as number
  }

  /** The states after the step. */
  protected step(
    input: Tensor,
    names: readonly string[],
    state: Partial<State> | undefined,
    run: (r: Recurrence) => Tensor,
  ) {
    const op = this.#kind
    const given = checkTensor(op, 'input', input)
    checkState(op, state)
    if ((given.rank !== 1 && given.rank !== 2) || given.shape[given.rank - 1] !== this.inputSize)
      throw new ShapeError(
        `${op}: input must be [batch, ${this.inputSize}] or [${this.inputSize}], it is ${showShape(given.shape)}`,
      )
    const lead = given.shape.slice(0, -1)
    const rows = reshape(given, [1, lead[0] ?? 1, this.inputSize])
    const initial = names.map((name) => {
      const value = (state as Record<string, unknown> | undefined)?.[name]
      const tensor = stateOf(op, name, value, [...lead, this.hiddenSize], given)
      return lead.length === 0 ? unsqueeze(tensor, 0) : tensor
    })
    const projected = linear(rows, this.weightIh, this.biasIh)
    const states = run({ projected, weight: this.weightHh, bias: this.biasHh, initial })
    return names.map((_, s) => reshape(slice(states, [s, 1]), [...lead, this.hiddenSize]))
  }

  override describe(): string {
    return `${this.inputSize}, ${this.hiddenSize}${this.biasIh ? '' : ', bias=false'}`
  }
}

/** One step of an LSTM. */
export class LSTMCell extends Cell<LSTMState> {
  constructor(inputSize: number, hiddenSize: number, options: RecurrentCellOptions = {}) {
    super('LSTM', inputSize, hiddenSize, options)
  }

  /**
   * @param input [batch, inputSize] or [inputSize]
   * @param state hidden and cell, each [batch, hiddenSize] or [hiddenSize]; zeros for what is left out
   * @returns the state after the step
   */
  forward(input: Tensor, state?: Partial<LSTMState>): LSTMState {
    const [hidden, cell] = this.step(input, ['hidden', 'cell'], state, lstm) as [Tensor, Tensor]
    return { hidden, cell }
  }
}

/** One step of a GRU. */
export class GRUCell extends Cell<HiddenState> {
  constructor(inputSize: number, hiddenSize: number, options: RecurrentCellOptions = {}) {
    super('GRU', inputSize, hiddenSize, options)
  }

  /** As LSTMCell's, with one state. */
  forward(input: Tensor, state?: Partial<HiddenState>): HiddenState {
    const [hidden] = this.step(input, ['hidden'], state, gru) as [Tensor]
    return { hidden }
  }
}
