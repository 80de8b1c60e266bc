/**
 * Micikevicius et al., "Mixed Precision Training" (2018), on Fashion-MNIST: the same networks, from the same weights, trained in
 * float32, in bfloat16, and in float16 with and without scaling the loss.
 *
 *   npm run paper:mixed [-- --quick --json --data FOLDER]
 *
 * What this must show, written down before it was run (exit code 1 otherwise): bfloat16, and float16 with the loss scaled, are at
 * most 0.8 points below float32 on the 10,000 test images; the standard error of such a difference is up to 0.4 points. The
 * published claim is equal accuracy. Of float16 without scaling nothing is asked: the networks that it ruins are deeper ones.
 *
 * The four ways take turns epoch by epoch, so that other work on the machine slows all of them alike; the time of an epoch
 * is that of the fastest. "lost" is what scaling is for: the share of the gradients of the weights that are 0 for a batch and are
 * not in float32, all taken at the weights that float32 ended with.
 *
 * Data: Debian's package dataset-fashion-mnist, or --data. Weights are those of the epoch with the most right answers on 5,000
 * validation images cut from the training set; the test set is used once a model.
 */
import { amp, crossEntropy, manualSeed, nn, scope } from 'kerf'
import { evaluate, percent, textTable } from '../digits-training'
import { asProgram, cnn, epochsOf, type Images, type Plan, parametersOf, Run } from '../fashion-training'

/** What the rows may be below float32 on the test set. */
const TOLERATED = 0.008

const mlp = (width: number) => () =>
  new nn.Sequential(
    ...[new nn.Flatten(), new nn.Linear(784, width), new nn.ReLU()],
    ...[new nn.Linear(width, width), new nn.ReLU(), new nn.Linear(width, 10)],
  )

interface Net {
  name: string
  make(): nn.Module
  plan: Plan
}

const plan: Plan = { epochs: 8, batchSize: 128, maxLr: 2e-3, weightDecay: 0.02, labelSmoothing: 0, augment: false }
const full = {
  name: 'full',
  images: { training: 55_000, validation: 5000, test: 10_000 },
  nets: [
    { name: 'MLP 784-512-512-10', make: mlp(512), plan },
    { name: 'CNN 16-32-64', make: () => cnn([[16], [32], [64]]), plan: { ...plan, epochs: 4, maxLr: 5e-3 } },
  ] as Net[],
}
const quick: typeof full = {
  name: 'quick',
  images: { training: 1024, validation: 500, test: 1000 },
  nets: [
    { name: 'MLP 784-64-64-10', make: mlp(64), plan: { ...plan, epochs: 2, batchSize: 64 } },
    { name: 'CNN 16-16', make: () => cnn([[16], [16]]), plan: { ...plan, epochs: 2, batchSize: 64, maxLr: 5e-3 } },
  ],
}

interface Way {
  name: string
  autocast: 'bfloat16' | 'float16' | null
  scales: boolean
  required: boolean
}
const WAYS: Way[] = [
  { name: 'float32', autocast: null, scales: false, required: true },
  { name: 'bfloat16', autocast: 'bfloat16', scales: false, required: true },
  { name: 'float16, loss scaled', autocast: 'float16', scales: true, required: true },
  { name: 'float16', autocast: 'float16', scales: false, required: false },
]

interface Row {
  net: string
  precision: string
  parameters: number
  epochs: number
  validation: number
  test: number
  /** Of the fastest epoch, validation included. */
  secondsPerEpoch: number
  /** Share of weight gradients that are 0 here and not in float32. */
  lost: number
  /** The factor at the end; null without one. */
  factor: number | null
  epochResults: ReturnType<typeof epochsOf>
}

/** All gradients of the weights for the first validation images. */
async function gradients(model: nn.Module, images: Images, way: Way, scaler: amp.GradScaler): Promise<Float32Array[]> {
  const [x, y] = await images.validation.batch(Int32Array.from({ length: 128 }, (_, i) => i))
  model.zeroGrad()
  scope(() => {
    const loss = amp.autocast(way.autocast, () => crossEntropy(model.forward(x), y))
    const scaled = way.scales ? scaler.scale(loss) : loss
    scaled.backward()
  })
  const found: Float32Array[] = []
  for (const parameter of model.parameters())
    if (parameter.rank > 1 && parameter.grad) found.push((await parameter.grad.data()) as Float32Array)
  return found
}

/** The share of elements that are 0 and are not in `exact`. */
function lostOf(found: readonly Float32Array[], exact: readonly Float32Array[]): number {
  let lost = 0
  let all = 0
  for (const [i, values] of found.entries())
    for (const [j, value] of values.entries()) {
      if (exact[i]?.[j] === 0) continue
      all++
      if (value === 0) lost++
    }
  return lost / all
}

async function compare({ name, make, plan }: Net, images: Images, say: (line: string) => void): Promise<Row[]> {
  const runs = WAYS.map((way) => {
    manualSeed(1)
    const scaler = new amp.GradScaler({ enabled: way.scales })
    const extras = { autocast: way.autocast, ...(way.scales ? { scaler } : {}) }
    return { way, scaler, run: new Run(make(), images, plan, extras) }
  })
  for (let epoch = 1; epoch <= plan.epochs; epoch++)
    for (const { way, run } of runs) {
      await run.until(epoch)
      const { seconds, validation } = run.trainer.history.at(-1) as (typeof run.trainer.history)[number]
      say(
        `${name}, ${way.name}, epoch ${epoch}: ${seconds.toFixed(1)} s, validation ${percent(validation?.accuracy ?? 0)}`,
      )
    }
  const [float32] = runs as [(typeof runs)[number]]
  const last = float32.run.model.eval()
  const exact = await gradients(last, images, float32.way, float32.scaler)
  const rows: Row[] = []
  const losses: number[] = []
  for (const { way, scaler } of runs) losses.push(lostOf(await gradients(last, images, way, scaler), exact))
  for (const [i, { way, scaler, run }] of runs.entries())
    rows.push({
      ...{ net: name, precision: way.name, parameters: parametersOf(run.model), epochs: plan.epochs },
      ...{ validation: run.best.accuracy, test: (await evaluate(run.chosen(), images.test)).accuracy },
      secondsPerEpoch: Math.min(...run.trainer.history.map(({ seconds }) => seconds)),
      lost: losses[i] as number,
      factor: way.scales ? scaler.getScale() : null,
      epochResults: epochsOf(run),
    })
  return rows
}

/** What the head of this file asks for and the rows do not show. */
function missed(rows: readonly Row[]): string[] {
  return rows.flatMap((row) => {
    const float32 = rows.find(({ net, precision }) => net === row.net && precision === 'float32') as Row
    const required = WAYS.find(({ name }) => name === row.precision)?.required
    const below = float32.test - row.test
    return required && below > TOLERATED ? [`${row.net}, ${row.precision}: ${percent(below)} below float32`] : []
  })
}

function table(rows: readonly Row[]): string {
  const head = ['network', 'precision', 'validation', 'test', 's / epoch', 'lost', 'factor']
  const cells = ({ net, precision, validation, test, secondsPerEpoch, lost, factor }: Row) => [
    ...[net, precision, percent(validation), percent(test), secondsPerEpoch.toFixed(1), percent(lost), factor ?? ''],
  ]
  return textTable(head, ['network', 'precision'], rows.map(cells))
}

asProgram('mixed-precision', { full, quick, leavesFiles: false }, async ({ form, images, say }) => {
  const rows: Row[] = []
  for (const net of form.nets) rows.push(...(await compare(net, images, say)))
  return {
    failures: form.name === 'full' ? missed(rows) : [],
    result: { images: form.images, tolerated: TOLERATED, rows },
    text: () => table(rows),
  }
})
