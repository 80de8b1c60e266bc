/**
 * Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015), section 3, on MNIST: a large network with
 * dropout and images moved by up to two pixels teaches a small one that is not regularized and never sees a moved image.
 *
 *   npm run paper:hinton [-- --quick --json]
 *
 * Published, errors on the 10,000 test images: teacher of 2 x 1200 units 67, plain student of 2 x 800 units 146, the same
 * student taught at T = 20: 74. What this must show, written down before it was run (exit code 1 otherwise):
 *
 *   - teacher: at most 110 errors. It is trained for 20 epochs, where the paper trains for hundreds, with weight constraints.
 *   - plain student: at least 20 errors more than the teacher, and at most 200.
 *   - taught at T = 20, the student closes at least half of the distance between the two (published: 91 %). Two
 *     counts of about 100 errors on the same images differ by 10 or so by chance alone.
 *   - T = 20 converges: its training loss falls, and nothing in it is infinite or NaN.
 *
 * A first run, 12 epochs for the teacher and 8 for the students, made 98, 145 and 124 errors: 45 %, so it missed the third
 * (bench/results/hinton-mnist-8-epochs.json, which has T = 2.5 and 8 too). On the validation set the taught students were
 * behind the teacher as well. All are trained longer since, at fewer T; the limits are the same.
 *
 * The sweep over T is not from the paper, which says only that anything above 8 gave about the same for this student.
 * Weights are those of the epoch, and the T to recommend that of the sweep, with the fewest errors on 6,000 validation
 * images cut from the training set; the test set is used once a model, for the table.
 */
import { parseArgs } from 'node:util'
import { data, distill, manualSeed, nn, optim, rand, type Tensor, tensor } from 'kerf'
import {
  type Digits,
  digits,
  evaluate,
  exitWith,
  type Progress,
  progress,
  reportHead,
  textTable,
  weightsOf,
} from '../digits-training'

const PUBLISHED = { teacher: 67, plain: 146, distilled: 74 }
const ALPHA = 0.1 // the paper gives the labels "a considerably lower weight"
const SIDE = 28
/** A black pixel, as data.mnist() normalises it. */
const BLACK = -0.1307 / 0.3081

interface Form {
  name: 'full' | 'quick'
  teacher: { width: number; dropout: number; epochs: number; batchSize: number; lr: number }
  student: { width: number; epochs: number; batchSize: number; lr: number }
  temperatures: number[]
  /** Training images used; the rest is left out. */
  images: number
}

const full: Form = {
  name: 'full',
  teacher: { width: 1200, dropout: 0.25, epochs: 20, batchSize: 256, lr: 1e-3 },
  student: { width: 800, epochs: 16, batchSize: 128, lr: 1e-3 },
  temperatures: [1, 4, 20],
  images: 54_000,
}

const quick: Form = {
  name: 'quick',
  teacher: { width: 128, dropout: 0.1, epochs: 3, batchSize: 64, lr: 2e-3 },
  student: { width: 48, epochs: 2, batchSize: 64, lr: 2e-3 },
  temperatures: [4, 20],
  images: 6000,
}

interface Row {
  name: string
  /** null for what no teacher taught. */
  temperature: number | null
  units: number
  parameters: number
  epochs: number
  validationErrors: number
  testErrors: number
  /** Mean training loss of each epoch. */
  losses: number[]
  seconds: number
}

/** Two hidden layers. */
function network(width: number, dropout = 0): nn.Module {
  const drop = () => (dropout > 0 ? [new nn.Dropout(dropout)] : [])
  return new nn.Sequential(
    ...[new nn.Linear(SIDE * SIDE, width), new nn.ReLU(), ...drop()],
    ...[new nn.Linear(width, width), new nn.ReLU(), ...drop()],
    new nn.Linear(width, 10),
  )
}

/** Each image moved by up to two pixels in each direction, another way each time it is asked for. */
function moved(images: Digits): Digits {
  return {
    length: images.length,
    async batch(indices) {
      const [x, y] = await images.batch(indices)
      const from = await x.data()
      const by = await rand([indices.length, 2]).data()
      const to = new Float32Array(from.length).fill(BLACK)
      for (let i = 0; i < indices.length; i++) {
        const [down, right] = [0, 1].map((axis) => Math.floor(5 * (by[2 * i + axis] as number)) - 2) as [number, number]
        for (let row = Math.max(0, down); row < Math.min(SIDE, SIDE + down); row++) {
          const start = (i * SIDE + row - down) * SIDE + Math.max(0, -right)
          to.set(from.subarray(start, start + SIDE - Math.abs(right)), (i * SIDE + row) * SIDE + Math.max(0, right))
        }
      }
      x.dispose()
      return [tensor(to, { shape: [indices.length, SIDE * SIDE] }), y] as [Tensor<'float32'>, Tensor<'int64'>]
    },
  }
}

const errors = async (model: nn.Module, images: Digits) =>
  Math.round((1 - (await evaluate(model, images)).accuracy) * images.length)

interface Job {
  name: string
  model: nn.Module
  plan: { width: number; epochs: number; batchSize: number; lr: number }
  training: Digits
  teaching?: { teacher: nn.Module; temperature: number }
}

/** Trains, keeps the weights of the epoch that the validation set liked best, and counts errors with them. */
async function trained(job: Job, validation: Digits, test: Digits, show: Progress): Promise<Row> {
  const { name, model, plan, training, teaching } = job
  const start = performance.now()
  const batches = data.loader(training, { ...{ batchSize: plan.batchSize, shuffle: true, seed: 1 }, recycle: true })
  const optimizer = new optim.AdamW(model.parameters(), { lr: plan.lr, weightDecay: 0 })
  let best = { errors: Number.POSITIVE_INFINITY, weights: weightsOf(model) }
  show.start(plan.epochs * batches.length)
  const history = await distill.distill({
    ...{ student: model, data: batches, optimizer, epochs: plan.epochs },
    ...(teaching ? { ...teaching, alpha: ALPHA, cache: 'memory' } : { alpha: 1 }),
    schedule: new optim.CosineAnnealingLR(optimizer, plan.epochs * batches.length),
    progress: ({ loss }) => show.step(loss),
    async validate(student, epoch) {
      const found = await errors(student, validation)
      if (found < best.errors) best = { errors: found, weights: weightsOf(student) }
      show.say(`${name}, epoch ${epoch + 1}: ${found} validation errors`)
      return found
    },
  })
  show.stop()
  model.loadStateDict(best.weights)
  const parameters = model.parameters().reduce((sum, parameter) => sum + parameter.size, 0)
  return {
    ...{ name, temperature: teaching?.temperature ?? null, units: plan.width, parameters, epochs: plan.epochs },
    ...{ validationErrors: best.errors, testErrors: await errors(model.eval(), test) },
    losses: history.map(({ loss }) => loss),
    seconds: Math.round((performance.now() - start) / 1000),
  }
}

/** What the head of this file asks for and `rows` do not show. */
function missed([teacher, plain, ...taught]: Row[]): string[] {
  const at20 = taught.find(({ temperature }) => temperature === 20)
  if (!teacher || !plain || !at20) throw new Error('a row is missing')
  const failures: string[] = []
  const distance = plain.testErrors - teacher.testErrors
  if (teacher.testErrors > 110) failures.push(`teacher: ${teacher.testErrors} errors, more than 110`)
  if (distance < 20) failures.push(`plain student: only ${distance} errors more than the teacher`)
  if (plain.testErrors > 200) failures.push(`plain student: ${plain.testErrors} errors, more than 200`)
  if (plain.testErrors - at20.testErrors < distance / 2)
    failures.push(`T = 20: ${at20.testErrors} errors close less than half of ${distance}`)
  return [...failures, ...diverged(at20)]
}

function diverged({ losses }: Row): string[] {
  const falls = (losses.at(-1) as number) < (losses[0] as number)
  return losses.every(Number.isFinite) && falls ? [] : [`T = 20: losses ${losses.join(' ')} do not fall`]
}

function table(rows: readonly Row[]): string {
  const head = ['model', 'units', 'parameters', 'T', 'validation errors', 'test errors', 'epochs', 's']
  const cells = (row: Row) => {
    const { name, units, parameters, temperature, validationErrors, testErrors, epochs, seconds } = row
    const size = [`2 x ${units}`, parameters.toLocaleString('en'), temperature ?? '']
    return [name, ...size, validationErrors, testErrors, epochs, seconds]
  }
  return textTable(head, ['model'], rows.map(cells))
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { quick: { type: 'boolean', default: false }, json: { type: 'boolean', default: false } },
  })
  const started = performance.now()
  const form = values.quick ? quick : full
  const show = progress(values.json)
  const { training: all, validation, test } = await digits()
  const [training] = data.split(all, [form.images, all.length - form.images], { seed: 2 }) as Digits[] as [
    Digits,
    Digits,
  ]
  manualSeed(1)
  const teacher = network(form.teacher.width, form.teacher.dropout)
  const jobs: Job[] = [{ name: 'teacher', model: teacher, plan: form.teacher, training: moved(training) }]
  const student = () => {
    manualSeed(2) // all students start from the same weights
    return network(form.student.width)
  }
  jobs.push({ name: 'plain student', model: student(), plan: form.student, training })
  for (const temperature of form.temperatures) {
    const model = student()
    jobs.push({ name: 'taught student', model, plan: form.student, training, teaching: { teacher, temperature } })
  }
  const rows: Row[] = []
  for (const job of jobs) rows.push(await trained(job, validation, test, show))

  const [first, plain, ...taught] = rows as [Row, Row, ...Row[]]
  const chosen = taught.reduce((a, b) => (b.validationErrors < a.validationErrors ? b : a))
  const at20 = taught.find(({ temperature }) => temperature === 20) as Row
  const closed = (plain.testErrors - at20.testErrors) / (plain.testErrors - first.testErrors)
  const failures = form.name === 'full' ? missed(rows) : diverged(at20)
  const passed = failures.length === 0
  const report = {
    ...reportHead('hinton-mnist'),
    ...{ form: form.name, seconds: Math.round((performance.now() - started) / 1000), alpha: ALPHA, passed, failures },
    ...{ published: PUBLISHED, rows, chosenTemperature: chosen.temperature, closedAt20: closed },
  }
  if (values.json) console.log(JSON.stringify(report, null, 2))
  else {
    console.log(table(rows))
    console.log(`T = 20 closes ${(100 * closed).toFixed(0)} % of the distance; published: 91 %`)
    console.log(`by the validation set: T = ${chosen.temperature}; ${report.seconds} s`)
  }
  for (const failure of failures) console.error(`hinton-mnist: ${failure}`)
  return passed ? 0 : 1
}

exitWith('hinton-mnist', main)
