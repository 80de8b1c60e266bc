/** The ways to prune the digits model: every entry is a row of the table of `npm run demo:prune`. */
import path from 'node:path'
import { io, type nn, prune, quant, zeros } from 'kerf'
import {
  copyOf,
  type Digits,
  lenetFor,
  type Progress,
  type Training,
  trainBest,
  type Weights,
  weightsOf,
} from './digits-training'

/** What a row starts from, and what it may read: never the test set. */
export interface Job {
  /** Of the dense model. */
  weights: Weights
  training: Digits
  validation: Digits
  /** How the dense model was trained. Whatever is retrained goes through this schedule once more. */
  schedule: Training
  show: Progress
}

export interface Row {
  name: string
  /** Without masks: the zeros are in the weights. */
  make(job: Job, made: ReadonlyMap<string, Weights>): Promise<nn.Module>
  /** Weights that must be 0, of so many. */
  zeros?: (weights: number) => number
  /** 0 in each of these is one more than the rule counts: rounding makes zeros of its own. */
  moreZeros?: boolean
  /** The full form fails when accuracy is lower than the dense model's by more than this. */
  tolerated?: number
  /** The form, full or short, fails unless the file is so many times smaller than the dense model's. */
  smaller?: number
}

/** Steps from one pruning to the next: a dozen for each epoch of the full form. */
const PRUNE_EVERY = 70

/**
 * Trains a copy of the dense model by its own schedule again. Sparsity grows by the cubic schedule in the first half of
 * the steps; without a sparsity, all is pruned before the first one. The weights are those of the epoch, among those that
 * saw no more pruning, that the validation set likes best.
 */
async function retrain(
  { weights, training, validation, schedule, show }: Job,
  pruneTo: (model: nn.Module, sparsity: number) => Promise<void>,
  sparsity?: number,
): Promise<nn.Module> {
  const model = copyOf(weights)
  let ramp: prune.SparsitySchedule = new prune.OneShotSchedule({ to: 1 })
  let end = 0
  const best = await trainBest(model, training, validation, {
    ...schedule,
    show,
    async before(step, steps) {
      if (step === 0 && sparsity !== undefined) {
        end = Math.floor(steps / 2)
        ramp = new prune.CubicSchedule({ to: sparsity, end })
      }
      if (step <= end && (step % PRUNE_EVERY === 0 || step === end)) await pruneTo(model, ramp.sparsityAt(step))
    },
    eligible: (stepsDone) => stepsDone > end,
  })
  const result = copyOf(best)
  prune.removeMasks(result)
  return result
}

/** The dense model without a part of the neurons of each hidden layer, trained by its own schedule again. */
async function retrainSmaller(
  { weights, training, validation, schedule, show }: Job,
  ratio: number,
): Promise<nn.Module> {
  const model = copyOf(weights)
  await prune.structured(model, { ratio, exampleInput: zeros([1, 784]) })
  return copyOf(await trainBest(model, training, validation, { ...schedule, show }))
}

/** Exactly so many of all weights, the smallest. */
function magnitude(name: string, sparsity: number, requirement: Partial<Row> = {}): Row {
  return {
    name,
    make: (job) => retrain(job, (model, now) => prune.magnitude(model, { sparsity: now, scope: 'global' }), sparsity),
    zeros: (weights) => Math.round(sparsity * weights),
    ...requirement,
  }
}

/** The weights that an earlier row has made. */
function after(made: ReadonlyMap<string, Weights>, name: string): nn.Module {
  const weights = made.get(name)
  if (!weights) throw new Error(`no row ${name} before this one`)
  return copyOf(weights)
}

/** What Deep Compression does after pruning: few distinct weights; `saveCompressed` codes them. */
function shared(name: string, pruned: Row, bits: number, requirement: Partial<Row>): Row {
  return {
    name,
    async make(_job, made) {
      const model = after(made, pruned.name)
      await io.shareWeights(model, { bits })
      return model
    },
    zeros: pruned.zeros,
    ...requirement,
  }
}

const ninety = magnitude('90 % magnitude', 0.9)
const ninetyFive = magnitude('95 % magnitude', 0.95)
/** Han et al. 2015, table 1: 1.64 % error before, 1.59 % after, of LeNet-300-100. */
const twelfth = magnitude('12x fewer weights', 1 - 1 / 12, { tolerated: 0.0015 })

export const DENSE = 'dense float32'

export const rows: Row[] = [
  { name: DENSE, make: async ({ weights }) => copyOf(weights) },
  // The control: what the extra epochs alone are worth.
  { name: 'dense, trained again', make: (job) => retrain(job, async () => {}) },
  ninety,
  ninetyFive,
  twelfth,
  {
    name: '2:4',
    make: (job) => retrain(job, (model) => prune.semiStructured(model)),
    zeros: (weights) => weights / 2,
    tolerated: 0.001,
  },
  {
    // Blocks are counted, not weights: those at the end of a row of 300 or 100 are smaller.
    name: 'blocks 1x16, 80 %',
    make: (job) => retrain(job, (model, sparsity) => prune.block(model, { block: [1, 16], sparsity }), 0.8),
  },
  {
    name: 'half the neurons',
    // The file takes the smaller widths along: all weights that are left count, and none has to be 0.
    make: (job) => retrainSmaller(job, 0.5),
    zeros: () => 0,
    smaller: 2.1,
  },
  {
    name: '90 % magnitude, int8',
    make: (_job, made) => quant.quantizeModel(after(made, ninety.name), quant.int8Dynamic()),
    zeros: ninety.zeros,
    moreZeros: true,
    smaller: 15,
  },
  shared('Deep Compression, 12x, 5 bits', twelfth, 5, { tolerated: 0.003, smaller: 30 }),
  shared('Deep Compression, 95 %, 4 bits', ninetyFive, 4, { tolerated: 0.003, smaller: 50 }),
]

/** Makes all rows, in order, and tells of each. */
export async function makeAll(job: Job, each: (row: Row, model: nn.Module) => Promise<void>): Promise<void> {
  const made = new Map<string, Weights>()
  for (const row of rows) {
    const model = (await row.make(job, made)).eval()
    made.set(row.name, weightsOf(model))
    await each(row, model)
  }
}

/** Writes a row's model: the dense one as it is, the others compressed. Answers the file. */
export async function save(folder: string, { name }: Row, model: nn.Module): Promise<string> {
  const words = name.toLowerCase().match(/[a-z0-9]+/g) as string[]
  const file = path.join(folder, `${words.join('-')}.${name === DENSE ? 'safetensors' : 'kerf'}`)
  const options = { metadata: { architecture: 'lenet-300-100', ...quant.metadata(model) } }
  if (name === DENSE) await io.saveSafetensors(file, model.stateDict(), options)
  else await io.saveCompressed(file, model.stateDict(), options)
  return file
}

/** The model in a file of `save`. */
export async function load(file: string): Promise<nn.Module> {
  const plain = file.endsWith('.safetensors')
  const { metadata } = await (plain ? io.readSafetensorsInfo(file) : io.compressedReport(file))
  const tensors = await (plain ? io.loadSafetensors(file) : io.loadCompressed(file))
  const model = quant.applyMetadata(lenetFor(tensors), metadata).eval()
  model.loadStateDict(tensors)
  return model
}
