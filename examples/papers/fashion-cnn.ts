/**
 * A small convolutional network on Fashion-MNIST: published figures for two or more convolutions and fewer than 100,000
 * parameters are from 92 to 93.5 % of the 10,000 test images.
 *
 *   npm run paper:fashion [-- --quick --json --data FOLDER --folder fashion-model]
 *
 * What this must show, written down before it was run (exit code 1 otherwise): fewer than 100,000 parameters and at least
 * 92.5 % of the test images, in one run with one seed. The standard error of such a count is 0.26 points.
 *
 * Data: Debian's package dataset-fashion-mnist, or --data. The network is five 3x3 convolutions with batch norm and one linear
 * layer; images are mirrored and moved by up to a pixel, labels smoothed by 0.05. Weights are those of the epoch with the most
 * right answers on 5,000 validation images cut from the training set; the test set is used once.
 *
 * Leaves `cnn.safetensors` and `report.html` in --folder.
 */
import { mkdir } from 'node:fs/promises'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { io, manualSeed } from 'kerf'
import { evaluate, exitWith, percent, progress, reportHead, textTable } from '../digits-training'
import { CNN, cnn, epochsOf, FOLDER, fashion, parametersOf, Run } from '../fashion-training'

const REQUIRED = 0.925
const MOST_PARAMETERS = 100_000

const full = {
  name: 'full',
  images: { training: 55_000, validation: 5000, test: 10_000 },
  ...CNN,
}

const quick: typeof full = {
  name: 'quick',
  images: { training: 2048, validation: 500, test: 1000 },
  stages: [[16], [16], [32]],
  plan: { ...CNN.plan, epochs: 2, batchSize: 64 },
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      data: { type: 'string', default: FOLDER },
      folder: { type: 'string', default: 'fashion-model' },
    },
  })
  const form = values.quick ? quick : full
  const started = performance.now()
  const show = progress(values.json)
  const images = await fashion(values.data, form.images)
  await mkdir(values.folder, { recursive: true })
  manualSeed(1)
  const model = cnn(form.stages)
  const parameters = parametersOf(model)
  const report = path.join(values.folder, 'report.html')
  const run = await new Run(model, images, form.plan, { report, say: show.say }).until(form.plan.epochs)
  const validation = run.best.accuracy
  const test = (await evaluate(run.chosen(), images.test)).accuracy
  const metadata = {
    settings: JSON.stringify({ images: form.images, teacher: { stages: form.stages, plan: form.plan } }),
  }
  await io.saveSafetensors(path.join(values.folder, 'cnn.safetensors'), run.best.weights, { metadata })

  const failures: string[] = []
  if (parameters >= MOST_PARAMETERS) failures.push(`${parameters} parameters, not fewer than ${MOST_PARAMETERS}`)
  if (form.name === 'full' && test < REQUIRED)
    failures.push(`${percent(test)} of the test images, less than ${percent(REQUIRED)}`)
  const passed = failures.length === 0
  const result = {
    ...reportHead('fashion-cnn'),
    ...{ form: form.name, seconds: Math.round((performance.now() - started) / 1000), passed, failures },
    ...{ images: form.images, stages: form.stages, ...form.plan, parameters, required: REQUIRED, validation, test },
    epochResults: epochsOf(run),
  }
  if (values.json) console.log(JSON.stringify(result, null, 2))
  else {
    const head = ['parameters', 'epochs', 'validation', 'test', 'required', 's']
    const cells = [percent(validation), percent(test), percent(REQUIRED), result.seconds]
    console.log(textTable(head, [], [[parameters.toLocaleString('en'), form.plan.epochs, ...cells]]))
    console.log(`curves: ${path.resolve(report)}`)
  }
  for (const failure of failures) console.error(`fashion-cnn: ${failure}`)
  return passed ? 0 : 1
}

exitWith('fashion-cnn', main)
