/** What the jobs on Fashion-MNIST share: images, network, training. */
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { type amp, crossEntropy, data, io, nn, optim, train } from 'kerf'
import { type Digits, exitWith, percent, progress, reportHead, type Weights, weightsOf } from './digits-training'

/** Where Debian's package dataset-fashion-mnist puts the files. */
export const FOLDER = '/usr/share/datasets/fashion-mnist'
const [MEAN, STD] = [0.286, 0.353]
/** A black pixel, normalised. */
const BLACK = -MEAN / STD

export interface Images {
  training: Digits
  validation: Digits
  test: Digits
}

/** Images [n, 1, 28, 28]: `sizes` of the 60,000 for training and for validation, and so many of the 10,000 for testing. */
export async function fashion(folder: string, sizes: Record<keyof Images, number>): Promise<Images> {
  if (!['train-images-idx3-ubyte', 'train-images-idx3-ubyte.gz'].some((name) => existsSync(path.join(folder, name))))
    throw new Error(`no Fashion-MNIST in ${folder}: apt-get install dataset-fashion-mnist, or pass --data FOLDER`)
  const files = { folder, layout: 'image', mean: MEAN, std: STD } as const
  const [all, tests] = [await data.mnist({ split: 'train', ...files }), await data.mnist({ split: 'test', ...files })]
  const rest = all.length - sizes.training - sizes.validation
  const [training, validation] = data.split(all, [sizes.training, sizes.validation, rest], { seed: 1 }) as Digits[] as [
    Digits,
    Digits,
  ]
  const test = new data.Subset(
    tests,
    Array.from({ length: sizes.test }, (_, i) => i),
  ) as Digits
  return { training, validation, test }
}

/** Shuffled batches; `augment` mirrors half of the images and moves all by up to a pixel. */
export function batchesOf(training: Digits, { batchSize, augment }: Pick<Plan, 'batchSize' | 'augment'>) {
  const changes = [data.randomShift({ pixels: 1, fill: BLACK }), data.randomHorizontalFlip()]
  const transform = augment ? data.augment(changes) : undefined
  return data.loader(training, { ...{ batchSize, shuffle: true, seed: 1, transform }, dropLast: true, recycle: true })
}

const block = (from: number, to: number) => [
  new nn.Conv2d(from, to, 3, { padding: 1, bias: false }),
  new nn.BatchNorm2d(to),
  new nn.ReLU(),
]

/** Three resolutions of 3x3 convolutions, each with batch norm and ReLU, and one linear layer; lists of channels. */
export function cnn(stages: readonly (readonly number[])[]): nn.Module {
  const layers: nn.Module[] = []
  let from = 1
  for (const stage of stages) {
    for (const to of stage) {
      layers.push(...block(from, to))
      from = to
    }
    layers.push(new nn.MaxPool2d(2))
  }
  const side = 28 >> stages.length
  return new nn.Sequential(...layers, new nn.Flatten(), new nn.Linear(from * side * side, 10))
}

export const parametersOf = (model: nn.Module) => model.parameters().reduce((sum, parameter) => sum + parameter.size, 0)

export interface Plan {
  epochs: number
  batchSize: number
  maxLr: number
  weightDecay: number
  labelSmoothing: number
  augment: boolean
}

/** The network of `npm run paper:fashion`, and how it is trained. */
export const CNN = {
  stages: [[16], [32, 32], [64, 64]] as readonly (readonly number[])[],
  plan: { epochs: 12, batchSize: 128, maxLr: 5e-3, weightDecay: 0.02, labelSmoothing: 0.05, augment: true } as Plan,
}

export interface Extras {
  /** Where to write curves. */
  report?: string
  autocast?: 'bfloat16' | 'float16' | null
  scaler?: amp.GradScaler
  say?(line: string): void
}

/** A model in training: AdamW, one cycle of the learning rate; it keeps the weights that the validation set liked best. */
export class Run {
  readonly trainer: train.Trainer
  /** The share of right answers on the validation set, and the weights. */
  best = { accuracy: -1, weights: {} as Weights }
  readonly #batches: data.Loader
  readonly #validation: data.Loader

  constructor(
    readonly model: nn.Module,
    images: Images,
    plan: Plan,
    { say = () => {}, ...others }: Extras = {},
  ) {
    const { epochs, maxLr, weightDecay, labelSmoothing } = plan
    this.#batches = batchesOf(images.training, plan)
    this.#validation = data.loader(images.validation, { batchSize: 500 })
    const optimizer = new optim.AdamW(model.parameters(), { lr: maxLr, weightDecay })
    this.trainer = new train.Trainer({
      ...{ model, optimizer, metrics: { accuracy: train.accuracy }, seed: 1, ...others },
      loss: (output, target) => crossEntropy(output, target, { labelSmoothing }),
      schedule: new optim.OneCycleLR(optimizer, { maxLr, totalSteps: epochs * this.#batches.length }),
      onEpoch: ({ epoch, training, validation, seconds }) => {
        const accuracy = validation?.accuracy ?? 0
        const shown = `loss ${training.loss.toFixed(3)}, validation ${percent(accuracy)}`
        say(`epoch ${epoch + 1}: ${seconds.toFixed(1)} s, ${shown}`)
        if (accuracy > this.best.accuracy) this.best = { accuracy, weights: weightsOf(model) }
      },
    })
  }

  /** Trains until so many epochs are done. */
  async until(epochs: number): Promise<this> {
    await this.trainer.fit(this.#batches, { epochs, validation: this.#validation })
    return this
  }

  /** The model with its best weights, to be evaluated. */
  chosen(): nn.Module {
    this.model.loadStateDict(this.best.weights)
    return this.model.eval()
  }
}

/**
 * Weights that an earlier job left in a file with the same settings, or new ones, which are left there: training takes
 * minutes. `loaded` is told of the former.
 */
export async function once(
  file: string,
  settings: unknown,
  loaded: (file: string) => void,
  make: () => Promise<Weights>,
): Promise<Weights> {
  const metadata = { settings: JSON.stringify(settings) }
  if (existsSync(file) && (await io.readSafetensorsInfo(file)).metadata.settings === metadata.settings) {
    loaded(file)
    return io.loadSafetensors(file)
  }
  const weights = await make()
  await io.saveSafetensors(file, weights, { metadata })
  return weights
}

/** What the results say of every epoch. */
export const epochsOf = ({ trainer }: Run) =>
  trainer.history.map(({ epoch, training, validation, seconds }) => ({
    ...{ epoch: epoch + 1, loss: training.loss, training: training.accuracy },
    ...{ validation: validation?.accuracy, seconds },
  }))

interface Form {
  name: string
  images: Record<keyof Images, number>
}

export interface Given<F extends Form> {
  form: F
  images: Images
  /** --folder, which is there; only for a job that leaves files. */
  folder: string
  say(line: string): void
}

export interface Outcome {
  failures: string[]
  /** What the result says beside its head. */
  result: object
  /** For a terminal. */
  text(seconds: number): string
}

/** Runs a job as a program: --quick, --json, --data and, where it leaves files, --folder; exit code 1 when it failed. */
export function asProgram<F extends Form>(
  name: string,
  forms: { full: F; quick: F; leavesFiles: boolean },
  job: (given: Given<F>) => Promise<Outcome>,
): void {
  exitWith(name, async () => {
    const flag = { type: 'boolean', default: false } as const
    const options = { quick: flag, json: flag, data: { type: 'string', default: FOLDER } } as const
    const withFolder = { ...options, folder: { type: 'string', default: 'fashion-model' } } as const
    const { leavesFiles } = forms
    const { values } = parseArgs({ options: (leavesFiles ? withFolder : options) as typeof withFolder })
    const { folder } = values
    const form = values.quick ? forms.quick : forms.full
    const started = performance.now()
    const images = await fashion(values.data, form.images)
    if (leavesFiles) await mkdir(folder, { recursive: true })
    const outcome = await job({ form, images, folder, say: progress(values.json).say })
    const { failures } = outcome
    const passed = failures.length === 0
    const seconds = Math.round((performance.now() - started) / 1000)
    const result = { ...reportHead(name), ...{ form: form.name, seconds, passed, failures }, ...outcome.result }
    console.log(values.json ? JSON.stringify(result, null, 2) : outcome.text(seconds))
    for (const failure of failures) console.error(`${name}: ${failure}`)
    return passed ? 0 : 1
  })
}
