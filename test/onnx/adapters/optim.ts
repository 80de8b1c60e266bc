// Optimizers: one step of each parameter from a given state.
import { optim, type Tensor } from 'kerf'
import { ulp } from '../../oracle/float'
import { type Adapter, type Adapters, within } from '../adapter'
import type { Call } from '../call'
import { Skip } from '../skip'

/** Inputs are R (learning rate), T (steps before), then parameters, gradients and states: X1 X2 G1 G2 V1 V2 ... */
function groups(call: Call): Tensor[][] {
  const list = call.inputs(2)
  const kinds = call.node.opType === 'Adam' ? 4 : 3
  const count = list.length / kinds
  return Array.from({ length: count }, (_, i) =>
    Array.from({ length: kinds }, (_, kind) => list[kind * count + i] as Tensor),
  )
}

/** X1 X2 V1 V2 ... from [X1, V1], [X2, V2]. */
function byKind(results: Tensor[][]): Tensor[] {
  return (results[0] ?? []).flatMap((_, kind) => results.map((one) => one[kind] as Tensor))
}

/** One step of an optimizer whose state is given; the parameter and the new state, by the state's names. */
function step(
  optimizer: optim.Adam | optim.SGD,
  x: Tensor,
  g: Tensor,
  state: optim.ParamState,
  names: string[],
): Tensor[] {
  optimizer.loadStateDict({ ...optimizer.stateDict(), state: { 0: state } })
  x.grad = g
  optimizer.step()
  const after = optimizer.stateDict().state[0] as optim.ParamState
  return [x, ...names.map((name) => after[name] as Tensor)]
}

function adam(call: Call): Tensor[] {
  if (call.number('norm_coefficient_post', 0) !== 0) throw new Skip('decay after the step')
  const [lr, t] = [call.scalar(0), call.scalar(1)]
  const betas = [call.number('alpha', 0.9), call.number('beta', 0.999)] as const
  // ONNX adds epsilon to the root before its bias correction, kerf (as PyTorch) after it. In step 0 ONNX does not
  // correct at all, which is the limit of many steps.
  const correction = t > 0 ? Math.sqrt(1 - betas[1] ** t) : 1
  const eps = call.number('epsilon', 1e-6) / correction
  const count = t > 0 ? t - 1 : 1e9
  return byKind(
    groups(call).map(([x, g, expAvg, expAvgSq]) => {
      const optimizer = new optim.Adam([x as Tensor], {
        lr,
        betas,
        eps,
        weightDecay: call.number('norm_coefficient', 0),
      })
      const state = { step: count, expAvg: expAvg as Tensor, expAvgSq: expAvgSq as Tensor }
      return step(optimizer, x as Tensor, g as Tensor, state, ['expAvg', 'expAvgSq'])
    }),
  )
}

function momentum(call: Call): Tensor[] {
  const [lr, t] = [call.scalar(0), call.scalar(1)]
  const options = {
    lr,
    momentum: call.number('alpha', 0),
    dampening: 1 - (t > 0 ? call.number('beta', 0) : 1),
    weightDecay: call.number('norm_coefficient', 0),
    nesterov: call.text('mode', 'standard') === 'nesterov',
  }
  return byKind(
    groups(call).map(([x, g, v]) => {
      const optimizer = new optim.SGD([x as Tensor], options)
      return step(optimizer, x as Tensor, g as Tensor, { momentumBuffer: v as Tensor }, ['momentumBuffer'])
    }),
  )
}

/** A dozen roundings a side at most, of numbers no larger than the result or the parameter (nothing cancels). */
const stepped = (run: (call: Call) => Tensor[]): Adapter =>
  within((call, want, output) => {
    const { data } = call.values(2 + (output % groups(call).length))
    return (flat) => 12 * ulp('float32', Math.max(Math.abs(want.data[flat] as number), Math.abs(data[flat] as number)))
  }, run)

export const optimizers: Adapters = { Adam: stepped(adam), Momentum: stepped(momentum) }
