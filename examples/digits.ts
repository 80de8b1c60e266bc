/**
 * Handwritten digits, start to end: trains LeNet-300-100 on MNIST, then weighs the same weights in several formats
 * against each other: accuracy, bytes, speed.
 *
 *   npm run demo [-- --epochs 5 --quick --json --folder digits-model]
 *
 * The validation set is cut from the training set and chooses the weights; the test set is used once, for the table.
 * Exit code 1 when the float32 model stays below the required accuracy, or a saved model does not come back the same.
 */
import { mkdir, stat } from 'node:fs/promises'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { SingleBar } from 'cli-progress'
import Table from 'cli-table3'
import { crossEntropy, data, io, manualSeed, nn, noGrad, optim, scope, type Tensor } from 'kerf'

type Digits = data.Dataset<[Tensor<'float32'>, Tensor<'int64'>]>
type Weights = Record<string, Tensor>

const BATCH_SIZE = 64
const EVALUATION_BATCH = 1000

/** A way to keep and run the trained weights; every entry is a row of the table. */
interface Format {
  name: string
  /** An untrained model of this format: what a saved file is loaded into. */
  model: () => nn.Module
}

const formats: Format[] = [
  { name: 'float32', model: lenet },
  { name: 'float16', model: () => lenet().to('float16') },
  { name: 'bfloat16', model: () => lenet().to('bfloat16') },
]

function lenet(): nn.Module {
  return new nn.Sequential(
    new nn.Linear(784, 300),
    new nn.ReLU(),
    new nn.Linear(300, 100),
    new nn.ReLU(),
    new nn.Linear(100, 10),
  )
}

interface Evaluation {
  accuracy: number
  msPer1000: number
}

/** The share of right answers, and the time of the fastest batch: the machine's noise only ever adds. */
async function evaluate(model: nn.Module, dataset: Digits): Promise<Evaluation> {
  const dtype = model.parameters()[0]?.dtype ?? 'float32'
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

interface Progress {
  start(steps: number): void
  step(loss: number): void
  say(line: string): void
  stop(): void
}

/** A bar on a terminal, plain lines elsewhere, nothing for --json. */
function progress(quiet: boolean): Progress {
  const ignore = () => {}
  if (quiet) return { start: ignore, step: ignore, say: ignore, stop: ignore }
  if (!process.stdout.isTTY) return { start: ignore, step: ignore, say: (line) => console.log(line), stop: ignore }
  const bar = new SingleBar({
    format: 'training {bar} {percentage}% | {value}/{total} | loss {loss} | {eta} s',
    stream: process.stdout,
  })
  return {
    start: (steps) => bar.start(steps, 0, { loss: '-' }),
    step: (loss) => bar.increment(1, { loss: loss.toFixed(3) }),
    say: ignore,
    stop: () => bar.stop(),
  }
}

interface Training {
  epochs: number
  /** Stops an epoch early. */
  maxSteps: number
  show: Progress
}

/** Trains with AdamW on a cosine schedule; returns the weights of the epoch that the validation set liked best. */
async function train(model: nn.Module, training: Digits, validation: Digits, options: Training): Promise<Weights> {
  const batches = data.loader(training, {
    batchSize: BATCH_SIZE,
    shuffle: true,
    seed: 1,
    dropLast: true,
    recycle: true,
  })
  const steps = Math.min(batches.length, options.maxSteps)
  const optimizer = new optim.AdamW(model.parameters(), { lr: 2e-3, weightDecay: 0.01 })
  const schedule = new optim.CosineAnnealingLR(optimizer, steps * options.epochs)
  options.show.start(steps * options.epochs)
  let best = { accuracy: -1, weights: {} as Weights }
  let shown = Number.NaN
  for (let epoch = 0; epoch < options.epochs; epoch++) {
    const start = performance.now()
    let step = 0
    model.train()
    for await (const [x, y] of batches) {
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
      options.show.step(shown)
      if (++step === steps) break
    }
    model.eval()
    const seconds = (performance.now() - start) / 1000
    const { accuracy } = await evaluate(model, validation)
    options.show.say(
      `epoch ${epoch + 1}: ${step} steps in ${seconds.toFixed(1)} s, loss ${shown.toFixed(3)}, validation ${percent(accuracy)}`,
    )
    if (accuracy > best.accuracy) {
      const copies = Object.entries(model.stateDict()).map(([name, value]) => [name, value.detach().clone()] as const)
      best = { accuracy, weights: Object.fromEntries(copies) }
    }
  }
  options.show.stop()
  return best.weights
}

interface Row extends Evaluation {
  name: string
  bytes: number
  file: string
  /** The saved model, loaded again, answers with the same accuracy. */
  same: boolean
}

/** Puts the weights into a format, measures it on the test set, saves it, and measures what comes back. */
async function weigh(format: Format, weights: Weights, test: Digits, folder: string): Promise<Row> {
  const model = format.model().eval()
  model.loadStateDict(weights)
  await evaluate(model, test) // warm up
  const result = await evaluate(model, test)
  const file = path.join(folder, `${format.name}.safetensors`)
  await io.saveSafetensors(file, model.stateDict(), {
    metadata: { architecture: 'lenet-300-100', format: format.name },
  })

  const loaded = format.model().eval()
  loaded.loadStateDict(await io.loadSafetensors(file))
  const again = await evaluate(loaded, test)
  return {
    name: format.name,
    ...result,
    bytes: (await stat(file)).size,
    file,
    same: again.accuracy === result.accuracy,
  }
}

const percent = (share: number) => `${(100 * share).toFixed(2)} %`

function table(rows: readonly Row[]): string {
  const out = new Table({
    head: ['format', 'test accuracy', 'bytes', 'ms / 1,000 images', 'loaded back'],
    colAligns: ['left', 'right', 'right', 'right', 'left'],
    style: process.stdout.isTTY ? {} : { head: [], border: [] },
  })
  for (const row of rows) {
    const loaded = row.same ? 'identical' : 'DIFFERENT'
    out.push([row.name, percent(row.accuracy), row.bytes.toLocaleString('en'), row.msPer1000.toFixed(2), loaded])
  }
  return out.toString()
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      epochs: { type: 'string', default: '5' },
      quick: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      folder: { type: 'string', default: 'digits-model' },
    },
  })
  const epochs = values.quick ? 1 : Number(values.epochs)
  if (!Number.isInteger(epochs) || epochs < 1) {
    console.error(`digits: --epochs must be a whole number >= 1, got '${values.epochs}'`)
    return 2
  }
  const required = values.quick ? 0.85 : 0.98
  manualSeed(1)
  const show = progress(values.json)
  const all = await data.mnist({ split: 'train' })
  const [training, validation] = data.split(all, [0.9, 0.1], { seed: 1 }) as Digits[] as [Digits, Digits]
  const model = lenet()
  const maxSteps = values.quick ? 200 : Number.POSITIVE_INFINITY
  const weights = await train(model, training, validation, { epochs, maxSteps, show })

  const test = await data.mnist({ split: 'test' })
  await mkdir(values.folder, { recursive: true })
  const rows: Row[] = []
  for (const format of formats) rows.push(await weigh(format, weights, test, values.folder))

  const accuracy = rows[0]?.accuracy ?? 0
  const passed = accuracy >= required && rows.every((row) => row.same)
  if (values.json) console.log(JSON.stringify({ epochs, required, passed, rows }, null, 2))
  else {
    console.log(table(rows))
    console.log(`float32: ${percent(accuracy)} of 10,000 test images, required ${percent(required)}`)
    console.log(`saved in ${path.resolve(values.folder)}`)
  }
  if (!passed) console.error('digits: below the required accuracy, or a saved model came back different')
  return passed ? 0 : 1
}

main().then(
  (code) => {
    process.exitCode = code
  },
  (error) => {
    console.error(`digits: ${error.message}`)
    process.exitCode = 1
  },
)
