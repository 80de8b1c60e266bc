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
import path from 'node:path'
import { io, manualSeed } from 'kerf'
import { evaluate, percent, textTable } from '../digits-training'
import { asProgram, CNN, cnn, epochsOf, parametersOf, Run } from '../fashion-training'

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

asProgram('fashion-cnn', { full, quick, leavesFiles: true }, async ({ form, images, folder, say }) => {
  manualSeed(1)
  const model = cnn(form.stages)
  const parameters = parametersOf(model)
  const report = path.join(folder, 'report.html')
  const run = await new Run(model, images, form.plan, { report, say }).until(form.plan.epochs)
  const validation = run.best.accuracy
  const test = (await evaluate(run.chosen(), images.test)).accuracy
  const metadata = {
    settings: JSON.stringify({ images: form.images, teacher: { stages: form.stages, plan: form.plan } }),
  }
  await io.saveSafetensors(path.join(folder, 'cnn.safetensors'), run.best.weights, { metadata })

  const failures: string[] = []
  if (parameters >= MOST_PARAMETERS) failures.push(`${parameters} parameters, not fewer than ${MOST_PARAMETERS}`)
  if (form.name === 'full' && test < REQUIRED)
    failures.push(`${percent(test)} of the test images, less than ${percent(REQUIRED)}`)
  return {
    failures,
    result: {
      ...{ images: form.images, stages: form.stages, ...form.plan, parameters, required: REQUIRED, validation, test },
      epochResults: epochsOf(run),
    },
    text(seconds) {
      const head = ['parameters', 'epochs', 'validation', 'test', 'required', 's']
      const cells = [percent(validation), percent(test), percent(REQUIRED), seconds]
      const table = textTable(head, [], [[parameters.toLocaleString('en'), form.plan.epochs, ...cells]])
      return `${table}\ncurves: ${path.resolve(report)}`
    },
  }
})
