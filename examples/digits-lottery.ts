/** The lottery-ticket curve of the digits model: what sparse networks can learn from a lucky start, and from another. */
import { manualSeed, type nn, prune } from 'kerf'
import { type Digits, evaluate, lenet, type Progress, percent, type Training, train } from './digits-training'

export interface Lottery extends Training {
  /** Starts from different random weights. */
  trials: number
  /** Prunings; each takes a fifth of the weights that are left, as Frankle and Carbin do. */
  rounds: number
}

/** Networks of one sparsity. */
export interface Point {
  /** The part of the weights that is not pruned. */
  left: number
  /** Accuracy on the validation and on the test set, one for each trial. */
  ticket: { validation: number[]; test: number[] }
  /** The same masks on other random weights. */
  reinit: { validation: number[]; test: number[] }
}

const TAKEN = 0.2

/** The ticket's masks on new random weights. */
function reinitialised(ticket: nn.Module): nn.Module {
  const model = lenet()
  const masks = Object.entries(ticket.stateDict()).filter(([name]) => name.endsWith('.mask'))
  model.loadStateDict({ ...model.stateDict(), ...Object.fromEntries(masks) })
  return model
}

/** Finds tickets (iterative magnitude pruning with rewinding to the first weights) and trains both kinds of networks. */
export async function lottery(
  { training, validation, test }: { training: Digits; validation: Digits; test: Digits },
  { trials, rounds, ...schedule }: Lottery,
  show: Progress,
): Promise<Point[]> {
  const none = () => ({ validation: [], test: [] })
  const points: Point[] = Array.from({ length: rounds + 1 }, () => ({ left: 1, ticket: none(), reinit: none() }))
  const score = async (model: nn.Module, into: Point['ticket']) => {
    into.validation.push((await evaluate(model, validation)).accuracy)
    into.test.push((await evaluate(model, test)).accuracy)
    return into.validation.at(-1) as number
  }
  show.start(trials * (rounds + 1))
  for (let trial = 1; trial <= trials; trial++) {
    manualSeed(trial)
    await prune.lotteryTicket(lenet(), {
      sparsity: 1 - (1 - TAKEN) ** rounds,
      rounds,
      train: (model) => train(model as nn.Module, training, schedule),
      async evaluate(model, round) {
        const ticket = model as nn.Module
        const point = points[round] as Point
        point.left = 1 - prune.report(ticket).total.sparsity
        const won = await score(ticket, point.ticket)
        const other = reinitialised(ticket)
        await train(other, training, schedule)
        const lost = await score(other, point.reinit)
        show.say(
          `trial ${trial}, ${percent(point.left)} of the weights: validation ${percent(won)}, others ${percent(lost)}`,
        )
        show.step(Number.NaN)
        return won
      },
    })
  }
  show.stop()
  return points
}

export const mean = (values: readonly number[]) => values.reduce((sum, x) => sum + x, 0) / values.length
