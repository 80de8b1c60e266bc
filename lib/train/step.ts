/** One batch through the model, and one step of the optimizer. */
import { autocast } from '../amp/autocast'
import { ShapeError } from '../core/errors'
import { showShape } from '../core/shape'
import { checkBatch } from '../data/dataset'
import { besideModel } from '../nn/model'
import { mul } from '../ops/arithmetic'
import { detach } from '../ops/clone'
import { stack } from '../ops/join'
import { reshape } from '../ops/shape'
import { cast } from '../ops/unary'
import { clipGradNorm, scaleGrad } from '../optim/clip'
import { noGrad, scope } from '../tensor/context'
import { checkTensor, type Tensor } from '../tensor/tensor'
import type { Plan } from './options'

/** Inputs, targets, and how many samples they are of. */
export function fieldsOf(op: string, batch: unknown): { input: Tensor; target: Tensor; samples: number } {
  const [input, target] = checkBatch(op, batch) as [Tensor, Tensor?]
  if (target === undefined || input.rank === 0 || input.shape[0] === 0)
    throw new ShapeError(`${op}: a batch must be [input, target] of at least one sample, got [${batch}]`)
  return { input, target, samples: input.shape[0] as number }
}

function scalar(op: string, name: string, value: unknown): Tensor {
  const given = checkTensor(op, name, value)
  if (given.size !== 1)
    throw new ShapeError(`${op}: ${name} must have one element, its shape is ${showShape(given.shape)}`)
  return reshape(given.dtype === 'float32' ? given : cast(given, 'float32'), []) as Tensor
}

/** Loss and metrics of a batch, brought to the model's device, in one tensor, read at once; `learn` gets the loss before the graph is let go. */
export function run(
  op: string,
  plan: Plan,
  input: Tensor,
  target: Tensor,
  learn: ((loss: Tensor) => void) | null,
): Tensor {
  const { model, loss: lossOf, metrics } = plan
  return scope(() => {
    const [x, y] = besideModel(model, input, target)
    const forward = () => {
      const output = model.forward(x)
      return { output, loss: scalar(op, 'loss', lossOf(output, y)) }
    }
    const { output, loss } = plan.autocast === null ? forward() : autocast(plan.autocast, forward)
    const values = noGrad(() => {
      const plain = detach(output)
      return stack([detach(loss), ...metrics.map(([name, metric]) => scalar(op, `metrics.${name}`, metric(plain, y)))])
    })
    learn?.(loss)
    return values
  })
}

/** The batches of one step: how much each of them counts. */
export class Accumulation {
  batches = 0
  #samples = 0
  #first = 0

  /** Adds the gradients of a batch; answers its loss and metrics. */
  add(op: string, plan: Plan, batch: unknown): { values: Tensor; samples: number } {
    const { input, target, samples } = fieldsOf(op, batch)
    if (this.batches === 0) this.#first = samples
    this.batches++
    this.#samples += samples
    // As if all batches were of the first one's size: mostly they are, and 1 / accumulate is what counts.
    const weight = samples / (plan.accumulate * this.#first)
    const values = run(op, plan, input, target, (loss) => {
      const part = weight === 1 ? loss : mul(loss, weight)
      const scaled = plan.scaler ? plan.scaler.scale(part as Tensor) : (part as Tensor)
      scaled.backward()
    })
    return { values, samples }
  }

  /** Moves the model by what was added; false when the scaler skipped it. */
  async step({ model, optimizer, scaler, clipNorm, accumulate, ema }: Plan): Promise<boolean> {
    const parameters = optimizer.paramGroups.flatMap((group) => group.params)
    const correction = (accumulate * this.#first) / this.#samples
    if (correction !== 1 || clipNorm !== null) {
      scaler?.unscale(optimizer)
      if (correction !== 1) scaleGrad(parameters, correction)
      if (clipNorm !== null) clipGradNorm(parameters, clipNorm).dispose()
    }
    let stepped = true
    if (scaler) {
      stepped = await scaler.step(optimizer)
      scaler.update()
    } else optimizer.step()
    if (stepped) ema?.update()
    optimizer.zeroGrad()
    model.zeroGrad() // of parameters that the optimizer lacks
    this.batches = 0
    this.#samples = 0
    return stepped
  }
}
