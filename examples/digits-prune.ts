/**
 * Handwritten digits, pruned: trains LeNet-300-100 on MNIST until it is as good as it gets, prunes it in several ways and
 * weighs accuracy against what is left and what the file takes, from three starts; then draws lottery tickets.
 *
 *   npm run demo:prune [-- --quick --json --folder digits-model]
 *
 * Everything is chosen on the validation set, which is cut from the training set; the test set is used once a model, for
 * the table. Exit code 1 when a row loses more than it may, has other zeros or a larger file than it must have, or does
 * not come back from its file as it was.
 */
import { createHash } from 'node:crypto'
import { mkdir, stat } from 'node:fs/promises'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { data, manualSeed, type nn, noGrad, scope } from 'kerf'
import { type Lottery, lottery, mean, type Point } from './digits-lottery'
import { DENSE, load, makeAll, type Row, rows, save } from './digits-pruned'
import {
  type Digits,
  digits,
  evaluate,
  exitWith,
  lenet,
  percent,
  progress,
  reportHead,
  type Training,
  textTable,
  trainBest,
} from './digits-training'

/** How much is done. */
interface Form {
  name: 'full' | 'quick'
  /** Dense models, from different random weights; all rows are made of each. */
  starts: number
  schedule: Training
  lottery: Lottery
  /** What the dense model must reach on the test set. */
  required: number
  /** What a row may lose that names no limit of its own; in the short form, what any may. */
  tolerated: number
}

/**
 * 20 epochs: on the validation set 40 are no better, nor are other rates and decays. Tickets are trained for fewer, as
 * there are a hundred networks of them.
 */
const full: Form = {
  name: 'full',
  starts: 3,
  schedule: { epochs: 20, maxSteps: Number.POSITIVE_INFINITY, lr: 2e-3, weightDecay: 0.1 },
  lottery: { trials: 3, rounds: 17, epochs: 8, maxSteps: Number.POSITIVE_INFINITY, lr: 2e-3, weightDecay: 0.1 },
  required: 0.983,
  tolerated: 0.005,
}

const quick: Form = {
  name: 'quick',
  starts: 1,
  schedule: { epochs: 2, maxSteps: 250, lr: 2e-3, weightDecay: 0.1 },
  lottery: { trials: 1, rounds: 2, epochs: 1, maxSteps: 120, lr: 2e-3, weightDecay: 0.1 },
  required: 0.94,
  tolerated: 0.03,
}

/** A row made of one dense model. */
interface Made {
  /** On the test set. */
  accuracy: number
  /** accuracy - the dense model's, in percentage points. */
  difference: number
  /** Of the weights of linear layers, biases not counted. */
  weights: number
  zeros: number
  /** Parameters that are not 0, biases included. */
  kept: number
  bytes: number
  /** The dense model's bytes / these. */
  smaller: number
  /** In the folder. */
  file: string
  /** The model that comes back from the file gives the same bits for all validation images. */
  same: boolean
}

/** A row of the table: means of accuracies and differences, all else of the first start. */
interface Result extends Made {
  name: string
  /** One for each start. */
  accuracies: number[]
  differences: number[]
  /** Epochs after those of the dense model, of the row that this one starts from if it trains none itself. */
  epochs: number
}

/** A digest of what a model answers, bit for bit. */
async function answers(model: nn.Module, dataset: Digits): Promise<string> {
  const hash = createHash('sha256')
  for await (const [x] of data.loader(dataset, { batchSize: 1000, recycle: true })) {
    const logits = await scope(() => noGrad(() => model.forward(x))).data()
    hash.update(new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength))
  }
  return hash.digest('hex')
}

/** Weights of linear layers and those of them that are 0, and biases. */
async function count(model: nn.Module): Promise<{ weights: number; zeros: number; biases: number }> {
  const sum = { weights: 0, zeros: 0, biases: 0 }
  for (const [name, tensor] of Object.entries(model.stateDict())) {
    if (name.endsWith('.bias')) sum.biases += tensor.size
    if (!name.endsWith('.weight')) continue
    sum.weights += tensor.size
    for (const value of (await tensor.data()) as Float32Array) if (value === 0) sum.zeros++
  }
  return sum
}

/** What every model of a row has to be and is not. */
function wrongWith(row: Row, { zeros, weights, smaller, same }: Made): string[] {
  const failures: string[] = []
  const wanted = row.zeros?.(weights)
  if (wanted !== undefined && (row.moreZeros ? zeros < wanted : zeros !== wanted))
    failures.push(`${zeros} zeros instead of ${wanted}`)
  if (smaller < (row.smaller ?? 0)) failures.push(`${smaller.toFixed(1)} times smaller, not ${row.smaller}`)
  if (!same) failures.push('the saved model came back different')
  return failures.map((failure) => `${row.name}: ${failure}`)
}

/** What a row's mean accuracy has to be and is not. */
function missedBy(row: Row, { accuracy, difference }: Result, form: Form): string[] {
  if (row.name === DENSE)
    return accuracy < form.required ? [`${DENSE}: ${percent(accuracy)} is below ${percent(form.required)}`] : []
  const may = 100 * (form.name === 'full' ? (row.tolerated ?? form.tolerated) : form.tolerated)
  // The mean of whole images: 1e-6 is for the rounding of sums and products.
  return -difference > may + 1e-6 ? [`${row.name}: lost ${points(-difference)} points, it may lose ${points(may)}`] : []
}

const points = (x: number) => x.toFixed(2)

function table(results: readonly Result[]): string {
  const head = ['model', 'test accuracy', 'points', 'zeros', 'kept', 'bytes', 'smaller', 'epochs', 'loaded back']
  const cells = ({ name, accuracy, difference, zeros, weights, kept, bytes, smaller, epochs, same }: Result) => [
    ...[name, percent(accuracy), points(difference), percent(zeros / weights), kept.toLocaleString('en')],
    ...[bytes.toLocaleString('en'), `${smaller.toFixed(1)}x`, epochs, same ? 'identical' : 'DIFFERENT'],
  ]
  return textTable(head, ['model', 'loaded back'], results.map(cells))
}

function curve(curve: readonly Point[]): string {
  const cells = ({ left, ticket, reinit }: Point) => [left, mean(ticket.test), mean(reinit.test)].map(percent)
  return textTable(['weights left', 'winning ticket', 'other start'], [], curve.map(cells))
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      folder: { type: 'string', default: 'digits-model' },
    },
  })
  const started = performance.now()
  const form = values.quick ? quick : full
  const { schedule } = form
  const show = progress(values.json)
  const { training, validation, test } = await digits()
  const all = new Map<string, Made[]>()
  const failures: string[] = []
  for (let start = 1; start <= form.starts; start++) {
    manualSeed(start)
    show.say(`start ${start}: dense`)
    const weights = await trainBest(lenet(), training, validation, { ...schedule, show })
    const folder = start === 1 ? values.folder : path.join(values.folder, `start-${start}`)
    await mkdir(folder, { recursive: true })
    let dense: { accuracy: number; bytes: number } | undefined
    await makeAll({ weights, training, validation, schedule, show }, async (row, model) => {
      const file = await save(folder, row, model)
      const same = (await answers(await load(file), validation)) === (await answers(model, validation))
      const { accuracy } = await evaluate(model, test)
      const { weights, zeros, biases } = await count(model)
      const { size: bytes } = await stat(file)
      dense ??= { accuracy, bytes }
      const made: Made = {
        ...{ accuracy, difference: 100 * (accuracy - dense.accuracy), weights, zeros, kept: weights + biases - zeros },
        ...{ bytes, smaller: dense.bytes / bytes, file: path.basename(file), same },
      }
      all.set(row.name, [...(all.get(row.name) ?? []), made])
      failures.push(...wrongWith(row, made))
      show.say(`${row.name}: done`)
    })
  }
  const results = rows.map((row): Result => {
    const made = all.get(row.name) as [Made, ...Made[]]
    const accuracies = made.map(({ accuracy }) => accuracy)
    const differences = made.map(({ difference }) => difference)
    const means = { accuracy: mean(accuracies), difference: mean(differences) }
    const epochs = row.name === DENSE ? 0 : schedule.epochs
    return { name: row.name, ...made[0], ...means, accuracies, differences, epochs, same: made.every((m) => m.same) }
  })
  failures.push(...rows.flatMap((row, i) => missedBy(row, results[i] as Result, form)))
  const tickets = await lottery({ training, validation, test }, form.lottery, show)
  const last = tickets.at(-1) as Point
  if (form.name === 'full' && mean(last.ticket.test) <= mean(last.reinit.test))
    failures.push(`lottery: at ${percent(last.left)} of the weights the tickets are no better than other starts`)

  const passed = failures.length === 0
  const seconds = Math.round((performance.now() - started) / 1000)
  const report = {
    ...reportHead('digits-prune'),
    ...{
      form: form.name,
      starts: form.starts,
      seconds,
      epochs: schedule.epochs,
      required: form.required,
      passed,
      failures,
    },
    ...{ rows: results, lottery: { epochs: form.lottery.epochs, trials: form.lottery.trials, points: tickets } },
  }
  if (values.json) console.log(JSON.stringify(report, null, 2))
  else {
    console.log(table(results))
    console.log(`Lottery tickets, mean test accuracy of ${form.lottery.trials} starts:`)
    console.log(curve(tickets))
    console.log(`${seconds} s, saved in ${path.resolve(values.folder)}`)
  }
  for (const failure of failures) console.error(`digits-prune: ${failure}`)
  return passed ? 0 : 1
}

exitWith('digits-prune', main)
