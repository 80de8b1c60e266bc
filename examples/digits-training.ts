/** What the jobs on digits share: images, network, training, evaluation, and how they show it. */
import { SingleBar } from 'cli-progress'
import Table from 'cli-table3'
import { crossEntropy, data, info, nn, noGrad, optim, scope, type Tensor } from 'kerf'

export type Digits = data.Dataset<[Tensor<'float32'>, Tensor<'int64'>]>
export type Weights = Record<string, Tensor>

/** The training set in two parts: the validation set chooses, the test set is for the tables alone. */
export async function digits(): Promise<{ training: Digits; validation: Digits; test: Digits }> {
  const all = await data.mnist({ split: 'train' })
  const [training, validation] = data.split(all, [0.9, 0.1], { seed: 1 }) as Digits[] as [Digits, Digits]
  return { training, validation, test: await data.mnist({ split: 'test' }) }
}

/** LeNet-300-100, or with other widths in the place of 300 and 100. */
export function lenet([first, second]: readonly [number, number] = [300, 100]): nn.Module {
  return new nn.Sequential(
    new nn.Linear(784, first),
    new nn.ReLU(),
    new nn.Linear(first, second),
    new nn.ReLU(),
    new nn.Linear(second, 10),
  )
}

/** A LeNet of the widths that these weights have. */
export function lenetFor(weights: Weights): nn.Module {
  const width = (bias: string) => (weights[bias] as Tensor).size
  return lenet([width('0.bias'), width('2.bias')])
}

/** A model of its own with these weights, and masks if they have any. */
export function copyOf(weights: Weights): nn.Module {
  const model = lenetFor(weights).eval()
  model.loadStateDict(weights)
  return model
}

/** Copies of a model's weights and masks. */
export function weightsOf(model: nn.Module): Weights {
  return Object.fromEntries(
    Object.entries(model.stateDict()).map(([name, value]) => [name, value.detach().clone()] as const),
  )
}

export interface Training {
  epochs: number
  /** Stops an epoch early. */
  maxSteps: number
  lr: number
  /** Of AdamW; default 0.01. */
  weightDecay?: number
}

interface Steps extends Training {
  begin?(steps: number): void
  /** Before each step, which are counted through all epochs. */
  before?(step: number, steps: number): Promise<void> | void
  step?(loss: number): void
  epoch?(epoch: number, steps: number, loss: number): Promise<void>
}

/** Trains with AdamW on a cosine schedule. */
export async function train(model: nn.Module, digits: Digits, options: Steps): Promise<void> {
  const batches = data.loader(digits, { batchSize: 64, shuffle: true, seed: 1, dropLast: true, recycle: true })
  const steps = Math.min(batches.length, options.maxSteps)
  const optimizer = new optim.AdamW(model.parameters(), { lr: options.lr, weightDecay: options.weightDecay ?? 0.01 })
  const schedule = new optim.CosineAnnealingLR(optimizer, steps * options.epochs)
  options.begin?.(steps * options.epochs)
  let shown = Number.NaN
  for (let epoch = 0; epoch < options.epochs; epoch++) {
    let step = 0
    model.train()
    for await (const [x, y] of batches) {
      await options.before?.(epoch * steps + step, options.epochs * steps)
      const loss = scope(() => {
        const loss = crossEntropy(model.forward(x), y)
        optimizer.zeroGrad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss
      })
      if (step % 50 === 0) shown = (await loss.data())[0] as number
      loss.dispose()
      options.step?.(shown)
      if (++step === steps) break
    }
    model.eval()
    await options.epoch?.(epoch, steps, shown)
  }
}

const EVALUATION_BATCH = 1000

export interface Evaluation {
  accuracy: number
  msPer1000: number
}

/** Half-precision weights take inputs of their own dtype; quantized layers take float32. */
function inputDType(model: nn.Module): 'float32' | 'float16' | 'bfloat16' {
  return (model.parameters()[0]?.dtype ?? 'float32') as 'float32'
}

/** The share of right answers, and the time of the fastest batch: the machine's noise only ever adds. */
export async function evaluate(model: nn.Module, dataset: Digits): Promise<Evaluation> {
  const dtype = inputDType(model)
  let right = 0
  let fastest = Number.POSITIVE_INFINITY
  for await (const [x, y] of data.loader(dataset, { batchSize: EVALUATION_BATCH, recycle: true })) {
    await scope(() =>
      noGrad(async () => {
        const input = x.to(dtype)
        await input.data() // the conversion is not the model's time
        const start = performance.now()
        const guesses = model.forward(input).argmax(1)
        const guessed = await guesses.data()
        fastest = Math.min(fastest, ((performance.now() - start) * 1000) / y.size)
        const labels = await y.data()
        for (let i = 0; i < labels.length; i++) if (labels[i] === guessed[i]) right++
      }),
    )
  }
  return { accuracy: right / dataset.length, msPer1000: fastest }
}

export interface Progress {
  start(steps: number): void
  step(loss: number): void
  say(line: string): void
  stop(): void
}

/** A bar on a terminal, plain lines elsewhere, nothing for --json. */
export function progress(quiet: boolean): Progress {
  const ignore = () => {}
  if (quiet) return { start: ignore, step: ignore, say: ignore, stop: ignore }
  if (!process.stdout.isTTY) return { start: ignore, step: ignore, say: (line) => console.log(line), stop: ignore }
  const bar = new SingleBar({
    format: 'training {bar} {percentage}% | {value}/{total} | loss {loss} | {eta} s',
    stream: process.stdout,
  })
  return {
    start: (steps) => bar.start(steps, 0, { loss: '-' }),
    step: (loss) => bar.increment(1, { loss: Number.isNaN(loss) ? '-' : loss.toFixed(3) }),
    say: ignore,
    stop: () => bar.stop(),
  }
}

interface BestOf extends Training {
  before?: Steps['before']
  /** Whether the weights after so many steps may be chosen; default always. */
  eligible?(stepsDone: number): boolean
  show: Progress
}

/** Trains; returns the weights of the epoch that the validation set liked best. */
export async function trainBest(
  model: nn.Module,
  training: Digits,
  validation: Digits,
  options: BestOf,
): Promise<Weights> {
  const { show, eligible = () => true } = options
  let best = { accuracy: -1, weights: {} as Weights }
  let start = performance.now()
  await train(model, training, {
    ...options,
    begin: (steps) => show.start(steps),
    step: (loss) => show.step(loss),
    async epoch(epoch, steps, loss) {
      const seconds = (performance.now() - start) / 1000
      const { accuracy } = await evaluate(model, validation)
      show.say(
        `epoch ${epoch + 1}: ${steps} steps in ${seconds.toFixed(1)} s, loss ${loss.toFixed(3)}, validation ${percent(accuracy)}`,
      )
      if (accuracy > best.accuracy && eligible((epoch + 1) * steps)) best = { accuracy, weights: weightsOf(model) }
      start = performance.now()
    },
  })
  show.stop()
  return best.weights
}

/** A table for the terminal; columns are to the right but for those named. */
export function textTable(
  head: readonly string[],
  left: readonly string[],
  rows: readonly (string | number)[][],
): string {
  const out = new Table({
    head: [...head],
    colAligns: head.map((name) => (left.includes(name) ? 'left' : 'right')),
    style: process.stdout.isTTY ? {} : { head: [], border: [] },
  })
  out.push(...rows)
  return out.toString()
}

/** What every result says first: which job it is of, and what it ran on. */
export function reportHead(example: string) {
  const { cpu, cores, platform, node, target, threads, version } = info()
  return {
    ...{ example, kerf: version, date: new Date().toISOString() },
    machine: { cpu, cores, platform, node, target, threads },
  }
}

export const percent = (share: number) => `${(100 * share).toFixed(2)} %`

/** Ends the process with the exit code that a job answers, 1 when it throws. */
export function exitWith(name: string, job: () => Promise<number>): void {
  job().then(
    (code) => {
      process.exitCode = code
    },
    (error) => {
      console.error(`${name}: ${error.message}`)
      process.exitCode = 1
    },
  )
}
