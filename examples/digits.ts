/**
 * Handwritten digits, start to end: trains LeNet-300-100 on MNIST, lets it teach a smaller network, prunes that one, then
 * weighs both in several formats against each other: accuracy, bytes, speed. All is saved, loaded again, and put into a
 * report, `report.html` in --folder.
 *
 *   npm run demo [-- --epochs 5 --quick --json --folder digits-model]
 *
 * The validation set is cut from the training set and chooses the weights; the test set is used once, for the table.
 * Exit code 1 when the float32 model stays below the required accuracy, another loses more than it may, or a saved model
 * does not come back the same.
 */
import { mkdir, stat } from 'node:fs/promises'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { data, io, manualSeed, quant, train } from 'kerf'
import { type Learned, learn, SPARSITY, STUDENT, teach } from './digits-chain'
import { type Format, formats, type Trained } from './digits-formats'
import {
  copyOf,
  type Digits,
  digits,
  type Evaluation,
  evaluate,
  exitWith,
  lenet,
  percent,
  progress,
  textTable,
} from './digits-training'

/** Of the short form: 200 batches. */
const QUICK_IMAGES = 12_800
/** What a student may lose in the short form, which hardly teaches it. */
const QUICK_TOLERATED = 0.1

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
  const words = format.name.match(/[a-z0-9]+/g) as string[]
  const file = path.join(folder, `${words.join('-')}.${format.student ? 'kerf' : 'safetensors'}`)
  const metadata = { architecture: `lenet-${format.student ? STUDENT.join('-') : '300-100'}`, ...quant.metadata(model) }
  const [save, info, load] = format.student
    ? ([io.saveCompressed, io.compressedReport, io.loadCompressed] as const)
    : ([io.saveSafetensors, io.readSafetensorsInfo, io.loadSafetensors] as const)
  await save(file, model.stateDict(), { metadata })
  const loaded = quant.applyMetadata(format.empty(), (await info(file)).metadata).eval()
  loaded.loadStateDict(await load(file))
  const again = await evaluate(loaded, test)
  return {
    name: format.name,
    ...result,
    bytes: (await stat(file)).size,
    file,
    same: again.accuracy === result.accuracy,
  }
}

const HEAD = ['format', 'test accuracy', 'bytes', 'ms / 1,000 images', 'loaded back']

const cells = ({ name, accuracy, bytes, msPer1000, same }: Row) => [
  ...[name, percent(accuracy), bytes.toLocaleString('en'), msPer1000.toFixed(2), same ? 'identical' : 'DIFFERENT'],
]

/** The curves of all three networks and the table, in one file. */
async function report(file: string, learned: readonly Learned[], rows: readonly Row[]): Promise<void> {
  const series = learned.map(({ name, accuracies }) => ({ name, x: accuracies.map((_, i) => i + 1), y: accuracies }))
  await train.writeReport(file, {
    title: 'Handwritten digits',
    subtitle: `LeNet-300-100 on MNIST, a student of ${STUDENT.join(' and ')} units, and ${100 * SPARSITY} % of its weights gone`,
    curves: [{ title: 'validation accuracy', x: 'epoch', series }],
    tables: [{ title: '10,000 test images', head: HEAD, rows: rows.map(cells) }],
  })
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
  const { training: all, validation, test } = await digits()
  const some = values.quick ? QUICK_IMAGES : all.length
  const training = data.split(all, [some, all.length - some], { seed: 3 })[0] as Digits
  const task = { training, validation, plan: { epochs, lr: 2e-3 }, show }
  const teacher = await learn(task, values.json)
  const taught = await teach('student', copyOf(teacher.weights), lenet(STUDENT), task)
  const shorter = { ...task, plan: { epochs: Math.max(1, epochs - 1), lr: 1e-3 } }
  const sparse = await teach('student, pruned', copyOf(teacher.weights), copyOf(taught.weights), shorter, SPARSITY)
  const trained = { weights: teacher.weights, student: taught.weights, pruned: sparse.weights, training }

  await mkdir(values.folder, { recursive: true })
  const rows: Row[] = []
  for (const format of formats) rows.push(await weigh(format, trained, test, values.folder))
  const page = path.join(values.folder, 'report.html')
  await report(page, [teacher, taught, sparse], rows)

  const accuracy = rows[0]?.accuracy ?? 0
  const failures = rows.flatMap((row, i) => {
    const { student, tolerated } = formats[i] as Format
    const most = student && values.quick ? QUICK_TOLERATED : tolerated
    return [
      ...(row.same ? [] : [`${row.name}: the saved model came back different`]),
      ...(accuracy - row.accuracy > most ? [`${row.name}: lost more than it may`] : []),
    ]
  })
  if (accuracy < required) failures.push(`float32: ${percent(accuracy)} is below ${percent(required)}`)
  const passed = failures.length === 0
  if (values.json) console.log(JSON.stringify({ epochs, required, passed, rows }, null, 2))
  else {
    console.log(textTable(HEAD, ['format', 'loaded back'], rows.map(cells)))
    console.log(`float32: ${percent(accuracy)} of 10,000 test images, required ${percent(required)}`)
    console.log(`curves: ${path.resolve(page)}`)
    console.log(`saved in ${path.resolve(values.folder)}`)
  }
  for (const failure of failures) console.error(`digits: ${failure}`)
  return passed ? 0 : 1
}

exitWith('digits', main)
