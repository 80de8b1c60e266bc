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
import { data, io, manualSeed, type nn, noGrad, quant, scope } from 'kerf'
import {
  type Digits,
  type Format,
  formats,
  lenet,
  type Trained,
  type Training,
  train,
  type Weights,
} from './digits-formats'

const EVALUATION_BATCH = 1000

interface Evaluation {
  accuracy: number
  msPer1000: number
}

/** Half-precision weights take inputs of their own dtype; quantized layers take float32. */
function inputDType(model: nn.Module): 'float32' | 'float16' | 'bfloat16' {
  return (model.parameters()[0]?.dtype ?? 'float32') as 'float32'
}

/** The share of right answers, and the time of the fastest batch: the machine's noise only ever adds. */
async function evaluate(model: nn.Module, dataset: Digits): Promise<Evaluation> {
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

/** Trains from scratch; returns the weights of the epoch that the validation set liked best. */
async function trainBest(
  training: Digits,
  validation: Digits,
  options: Omit<Training, 'lr'> & { show: Progress },
): Promise<Weights> {
  const { show } = options
  const model = lenet()
  let best = { accuracy: -1, weights: {} as Weights }
  let start = performance.now()
  await train(model, training, {
    ...options,
    lr: 2e-3,
    begin: (steps) => show.start(steps),
    step: (loss) => show.step(loss),
    async epoch(epoch, steps, loss) {
      const seconds = (performance.now() - start) / 1000
      const { accuracy } = await evaluate(model, validation)
      show.say(
        `epoch ${epoch + 1}: ${steps} steps in ${seconds.toFixed(1)} s, loss ${loss.toFixed(3)}, validation ${percent(accuracy)}`,
      )
      if (accuracy > best.accuracy) {
        const copies = Object.entries(model.stateDict()).map(([name, value]) => [name, value.detach().clone()] as const)
        best = { accuracy, weights: Object.fromEntries(copies) }
      }
      start = performance.now()
    },
  })
  show.stop()
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
async function weigh(format: Format, trained: Trained, test: Digits, folder: string): Promise<Row> {
  const model = (await format.make(trained)).eval()
  await evaluate(model, test) // warm up
  const result = await evaluate(model, test)
  const file = path.join(folder, `${format.name.replaceAll(' ', '-')}.safetensors`)
  await io.saveSafetensors(file, model.stateDict(), {
    metadata: { architecture: 'lenet-300-100', ...quant.metadata(model) },
  })

  const { metadata } = await io.readSafetensorsInfo(file)
  const loaded = quant.applyMetadata(format.empty(), metadata).eval()
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
  const maxSteps = values.quick ? 200 : Number.POSITIVE_INFINITY
  const weights = await trainBest(training, validation, { epochs, maxSteps, show })

  const test = await data.mnist({ split: 'test' })
  await mkdir(values.folder, { recursive: true })
  const rows: Row[] = []
  for (const format of formats) rows.push(await weigh(format, { weights, training, maxSteps }, test, values.folder))

  const accuracy = rows[0]?.accuracy ?? 0
  const failures = rows.flatMap((row) => [
    ...(row.same ? [] : [`${row.name}: the saved model came back different`]),
    ...(accuracy - row.accuracy > (formats.find((f) => f.name === row.name)?.tolerated ?? 0)
      ? [`${row.name}: lost more than it may`]
      : []),
  ])
  if (accuracy < required) failures.push(`float32: ${percent(accuracy)} is below ${percent(required)}`)
  const passed = failures.length === 0
  if (values.json) console.log(JSON.stringify({ epochs, required, passed, rows }, null, 2))
  else {
    console.log(table(rows))
    console.log(`float32: ${percent(accuracy)} of 10,000 test images, required ${percent(required)}`)
    console.log(`saved in ${path.resolve(values.folder)}`)
  }
  for (const failure of failures) console.error(`digits: ${failure}`)
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
