/** Iterative pruning with rewinding: the search for lottery tickets. */
import { ArgumentError, show } from '../core/errors'
import { checkInteger } from '../core/shape'
import { checkModel } from '../nn/model'
import { type AnyModule, MASK, type StateDict } from '../nn/module'
import { copyTo, keep } from '../tensor/tensor'
import { checkOptions, checkScope, checkSparsity, prunable, type SparsityOptions } from './layers'
import { report } from './report'
import { magnitude } from './unstructured'

/** The masks in a model's state, or all but them. */
function stateOf(model: AnyModule, masks: boolean): StateDict {
  const state = model.stateDict()
  const isMask = (name: string) => name.endsWith(MASK) && Object.hasOwn(state, name.slice(0, -MASK.length))
  return Object.fromEntries(Object.entries(state).filter(([name]) => isMask(name) === masks))
}

/**
 * Copies of a model's parameters and persistent buffers, without masks, for `rewind`. No scope() disposes them.
 *
 * @throws ArgumentError when the model is no Module
 */
export function snapshot(model: AnyModule): StateDict {
  checkModel('snapshot', model)
  const state = Object.entries(stateOf(model, false))
  return Object.fromEntries(state.map(([name, value]) => [name, keep(copyTo(value, value.dtype))]))
}

/**
 * Puts parameters and buffers back to what they were at the snapshot, but for the weights that masks prune: those stay 0.
 * An optimizer's momentum is not reset: make a new one.
 *
 * @throws ArgumentError, ShapeError for a snapshot of another model; nothing has changed then
 */
export function rewind(model: AnyModule, snapshot: Readonly<StateDict>): void {
  checkModel('rewind', model)
  if (typeof snapshot !== 'object' || snapshot === null)
    throw new ArgumentError(`rewind: expected what snapshot() returns, got ${show(snapshot)}`)
  model.loadStateDict({ ...snapshot, ...stateOf(model, true) })
}

export interface LotteryOptions extends SparsityOptions {
  /** How often is pruned: n rounds to sparsity s leave (1 - s)^(1 / n) of the surviving weights each time; default 5. */
  rounds?: number
  /** Trains the model from the weights that it has, with a new optimizer; round 0 is the dense one. */
  train: (model: AnyModule, round: number) => void | Promise<void>
  /** The score of the model after each training. */
  evaluate?: (model: AnyModule, round: number) => number | Promise<number>
  /**
   * What surviving weights go back to after pruning: a snapshot, or null to train on from the weights that they have.
   * Default: the weights at the call, as in the first paper; a snapshot from early in training suits larger models
   * (Frankle et al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis", 2020).
   */
  rewindTo?: Readonly<StateDict> | null
}

export interface LotteryRound {
  round: number
  /** Part of the weights of all Linear layers and convolutions that was 0 in this round's training. */
  sparsity: number
  /** What `evaluate` said; null without it. */
  score: number | null
}

/**
 * Iterative magnitude pruning with rewinding (Frankle and Carbin, "The Lottery Ticket Hypothesis", 2019): trains; then, every
 * round, prunes a part of what is left, puts the rest back to the weights it had at first, and trains again. The model is left
 * trained at the last sparsity.
 *
 * @returns a line for every training: the curve of score over sparsity
 * @throws ArgumentError for options out of range, before any training; what `magnitude`, `rewind`, `train` and
 * `evaluate` throw, with the model as it is then
 * @example
 * const curve = await prune.lotteryTicket(model, { sparsity: 0.9, rounds: 5, train, evaluate })
 */
export async function lotteryTicket(model: AnyModule, options: LotteryOptions): Promise<LotteryRound[]> {
  const op = 'lotteryTicket'
  checkOptions(op, options)
  const { train, evaluate, include, skip } = options
  const sparsity = checkSparsity(op, 'sparsity', options.sparsity)
  const scope = checkScope(op, options.scope)
  const rounds = checkInteger(op, 'rounds', options.rounds ?? 5, 1)
  if (typeof train !== 'function') throw new ArgumentError(`${op}: train must be a function, got ${show(train)}`)
  if (evaluate !== undefined && typeof evaluate !== 'function')
    throw new ArgumentError(`${op}: evaluate must be a function, got ${show(evaluate)}`)
  prunable(op, model, { include, skip })
  const start = options.rewindTo === undefined ? snapshot(model) : options.rewindTo
  const curve: LotteryRound[] = []
  for (let round = 0; round <= rounds; round++) {
    if (round > 0) {
      const now = 1 - (1 - sparsity) ** (round / rounds)
      await magnitude(model, { sparsity: now, scope, include, skip })
      if (start !== null) rewind(model, start)
    }
    const { total } = report(model)
    await train(model, round)
    const score = evaluate ? await evaluate(model, round) : null
    curve.push({ round, sparsity: total.sparsity, score })
  }
  return curve
}
