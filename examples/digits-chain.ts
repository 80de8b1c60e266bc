/** The chain of the demo: a network learns digits, teaches a smaller one, and that one loses most of its weights. */
import { crossEntropy, data, distill, type nn, optim, prune, train } from 'kerf'
import {
  type Digits,
  evaluate,
  lenet,
  type Progress,
  percent,
  type Training,
  type Weights,
  weightsOf,
} from './digits-training'

/** Widths of the student, in the place of LeNet's 300 and 100. */
export const STUDENT = [100, 50] as const
export const SPARSITY = 0.8
const [TEMPERATURE, ALPHA] = [4, 0.1]
/** Steps from one pruning to the next. */
const PRUNE_EVERY = 50

/** Weights, and the validation accuracy after each epoch. */
export interface Learned {
  name: string
  weights: Weights
  accuracies: number[]
}

export interface Task {
  training: Digits
  validation: Digits
  plan: Pick<Training, 'epochs' | 'lr'>
  show: Progress
}

const batchesOf = (training: Digits) =>
  data.loader(training, { batchSize: 64, shuffle: true, seed: 1, dropLast: true, recycle: true })

/** Keeps the weights that the validation set liked best. */
class Best {
  readonly accuracies: number[] = []
  #accuracy = -1
  weights: Weights = {}

  /** @param eligible whether these may be chosen */
  see(model: nn.Module, accuracy: number, eligible = true): void {
    this.accuracies.push(accuracy)
    if (!eligible || accuracy <= this.#accuracy) return
    this.#accuracy = accuracy
    this.weights = weightsOf(model)
  }
}

/** Trains LeNet-300-100 on the labels. `quiet`: without a bar. */
export async function learn({ training, validation, plan, show }: Task, quiet: boolean): Promise<Learned> {
  const model = lenet()
  const batches = batchesOf(training)
  const optimizer = new optim.AdamW(model.parameters(), { lr: plan.lr })
  const best = new Best()
  const trainer = new train.Trainer({
    ...{ model, optimizer, loss: crossEntropy, metrics: { accuracy: train.accuracy } },
    schedule: new optim.CosineAnnealingLR(optimizer, plan.epochs * batches.length),
    progress: quiet ? false : 'auto',
    onEpoch({ epoch, training, validation, seconds }) {
      const accuracy = validation?.accuracy as number
      best.see(model, accuracy)
      const took = `${batches.length} steps in ${seconds.toFixed(1)} s`
      show.say(`epoch ${epoch + 1}: ${took}, loss ${training.loss.toFixed(3)}, validation ${percent(accuracy)}`)
    },
  })
  await trainer.fit(batches, { epochs: plan.epochs, validation: data.loader(validation, { batchSize: 1000 }) })
  return { name: 'LeNet-300-100', weights: best.weights, accuracies: best.accuracies }
}

/** Teaches the student; with a sparsity, its least weights go in the first half of the steps, and only what comes after counts. */
export async function teach(
  name: string,
  teacher: nn.Module,
  student: nn.Module,
  { training, validation, plan, show }: Task,
  sparsity = 0,
): Promise<Learned> {
  const batches = batchesOf(training)
  const steps = plan.epochs * batches.length
  const ramp = new prune.CubicSchedule({ to: sparsity, end: Math.ceil(steps / 2) })
  const optimizer = new optim.AdamW(student.parameters(), { lr: plan.lr })
  const best = new Best()
  let done = 0
  show.start(steps)
  await distill.distill({
    ...{ teacher, student, data: batches, optimizer, epochs: plan.epochs, cache: 'memory' },
    ...{ temperature: TEMPERATURE, alpha: ALPHA },
    schedule: new optim.CosineAnnealingLR(optimizer, steps),
    async progress({ totalSteps, loss }) {
      done = totalSteps
      show.step(loss)
      const due = done === ramp.end || (done < ramp.end && done % PRUNE_EVERY === 0)
      if (sparsity > 0 && due) await prune.magnitude(student, { sparsity: ramp.sparsityAt(done) })
    },
    async validate(model, epoch) {
      const { accuracy } = await evaluate(model, validation)
      best.see(model, accuracy, sparsity === 0 || done >= ramp.end)
      show.say(`${name}, epoch ${epoch + 1}: validation ${percent(accuracy)}`)
      return accuracy
    },
  })
  show.stop()
  return { name, weights: best.weights, accuracies: best.accuracies }
}
