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
import { io, manualSeed, quant } from 'kerf'
import { type Format, formats, type Trained } from './digits-formats'
import {
  type Digits,
  digits,
  type Evaluation,
  evaluate,
  exitWith,
  lenet,
  percent,
  progress,
  textTable,
  trainBest,
} from './digits-training'

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

function table(rows: readonly Row[]): string {
  const cells = ({ name, accuracy, bytes, msPer1000, same }: Row) => [
    ...[name, percent(accuracy), bytes.toLocaleString('en'), msPer1000.toFixed(2), same ? 'identical' : 'DIFFERENT'],
  ]
  const head = ['format', 'test accuracy', 'bytes', 'ms / 1,000 images', 'loaded back']
  return textTable(head, ['format', 'loaded back'], rows.map(cells))
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
  const { training, validation, test } = await digits()
  const maxSteps = values.quick ? 200 : Number.POSITIVE_INFINITY
  const weights = await trainBest(lenet(), training, validation, { epochs, maxSteps, lr: 2e-3, show })

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

exitWith('digits', main)
