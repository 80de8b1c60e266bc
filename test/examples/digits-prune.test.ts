/** examples/digits-prune.ts, a short run of it: zeros, files and accuracies are what it says, and so are table and curve. */
import { spawnSync } from 'node:child_process'
import { statSync } from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { data, nn, noGrad, type Tensor } from 'kerf'
import { loadCompressed, readSafetensorsInfo } from 'kerf/io'
import t from 'tap'

const root = path.resolve(__dirname, '..', '..')

function digitsPrune(...rest: string[]) {
  return spawnSync(process.execPath, [path.join(root, 'tools', 'run-example.mjs'), 'digits-prune', ...rest], {
    cwd: root,
    encoding: 'utf8',
  })
}

interface Row {
  name: string
  accuracy: number
  difference: number
  accuracies: number[]
  differences: number[]
  weights: number
  zeros: number
  kept: number
  bytes: number
  smaller: number
  epochs: number
  file: string
  same: boolean
}

const WEIGHTS = 784 * 300 + 300 * 100 + 100 * 10
const BIASES = 300 + 100 + 10
/** Of 150 and 50 neurons. */
const HALF = [784 * 150 + 150 * 50 + 50 * 10, 150 + 50 + 10] as const

/** Name, exact zeros (null: not a number of weights), least times smaller. */
const EXPECTED: [name: string, zeros: number | null, smaller: number][] = [
  ['dense float32', 0, 1],
  ['dense, trained again', 0, 1],
  ['90 % magnitude', 239_580, 8],
  ['95 % magnitude', 252_890, 15],
  ['12x fewer weights', 244_017, 9.5],
  ['2:4', 133_100, 1.8],
  ['blocks 1x16, 80 %', null, 4.5],
  ['half the neurons', 0, 2.1],
  ['90 % magnitude, int8', 239_580, 20],
  ['Deep Compression, 12x, 5 bits', 244_017, 30],
  ['Deep Compression, 95 %, 4 bits', 252_890, 50],
]

const SIZES = [
  [300, 784],
  [100, 300],
  [10, 100],
] as const

async function weightsIn(file: string): Promise<Float32Array[]> {
  const tensors = await loadCompressed(file)
  return Promise.all(['0.weight', '2.weight', '4.weight'].map((name) => (tensors[name] as Tensor<'float32'>).data()))
}

/** Calls `fn` on each group of `size` neighbours along the inputs; the last of a row may be shorter. */
function groups(weights: Float32Array[], size: number, fn: (group: Float32Array) => void): void {
  for (const [layer, values] of weights.entries()) {
    const [out, inputs] = SIZES[layer] as (typeof SIZES)[number]
    for (let row = 0; row < out; row++)
      for (let j = 0; j < inputs; j += size)
        fn(values.subarray(row * inputs + j, row * inputs + Math.min(j + size, inputs)))
  }
}

const nonZeros = (group: Float32Array) => group.reduce((n, w) => n + Number(w !== 0), 0)

/** Right answers of the model in a compressed float file, counted here. */
async function rightAnswers(file: string): Promise<number> {
  const model = new nn.Sequential(
    ...SIZES.flatMap(([out, inputs], i) => [new nn.Linear(inputs, out), ...(i < 2 ? [new nn.ReLU()] : [])]),
  )
  model.loadStateDict(await loadCompressed(file))
  let right = 0
  for await (const [x, y] of data.loader(await data.mnist({ split: 'test' }), { batchSize: 2000 })) {
    const logits = noGrad(() => model.forward(x)).dataSync() as Float32Array
    for (const [i, label] of y.dataSync().entries()) {
      const row = logits.subarray(10 * i, 10 * i + 10)
      if (row.indexOf(Math.max(...row)) === Number(label)) right++
    }
  }
  return right
}

t.test('--quick --json', async (t) => {
  const folder = t.testdir()
  const { status, stdout, stderr } = digitsPrune('--quick', '--json', '--folder', folder)
  t.equal(status, 0, stderr)
  const report = JSON.parse(stdout)
  const rows: Row[] = report.rows
  const row = (name: string) => rows.find((r) => r.name === name) as Row
  const fileOf = (name: string) => path.join(folder, row(name).file)
  t.same([report.form, report.passed, report.failures], ['quick', true, []])
  t.same(
    rows.map(({ name }) => name),
    EXPECTED.map(([name]) => name),
  )

  const dense = rows[0] as Row
  for (const [i, r] of rows.entries()) {
    const [name, zeros, smaller] = EXPECTED[i] as (typeof EXPECTED)[number]
    // 95.6 % was the least seen, of 10,000 images.
    t.ok(r.accuracy > 0.94 && r.accuracy < 1, `${name}: ${r.accuracy}`)
    t.ok(Math.abs(r.difference - 100 * (r.accuracy - dense.accuracy)) < 0.006)
    t.same([r.accuracies, r.differences], [[r.accuracy], [r.difference]])
    const [weights, biases] = name === 'half the neurons' ? HALF : [WEIGHTS, BIASES]
    t.equal(r.weights, weights)
    if (zeros !== null) t.equal(r.zeros, zeros, `${name}: zeros`)
    t.equal(r.kept, weights + biases - r.zeros)
    t.equal(statSync(fileOf(name)).size, r.bytes)
    t.ok(dense.bytes / r.bytes >= smaller, `${name}: ${dense.bytes / r.bytes} times smaller`)
    t.ok(r.same, `${name} comes back the same`)
    t.equal(r.epochs, i === 0 ? 0 : report.epochs)
  }
  t.ok(dense.bytes > 4 * (WEIGHTS + BIASES))

  t.test('patterns in the files', async (t) => {
    groups(await weightsIn(fileOf('2:4')), 4, (group) => {
      if (nonZeros(group) !== 2) t.fail(`2:4: ${group}`)
    })
    let blocks = 0
    let zero = 0
    groups(await weightsIn(fileOf('blocks 1x16, 80 %')), 16, (group) => {
      blocks++
      if (nonZeros(group) === 0) zero++
    })
    t.same([blocks, zero], [16_670, 13_336])
    for (const [name, most] of [
      ['Deep Compression, 12x, 5 bits', 32],
      ['Deep Compression, 95 %, 4 bits', 16],
    ] as const) {
      for (const values of await weightsIn(fileOf(name))) {
        const distinct = new Set(values.filter((w) => w !== 0)).size
        t.ok(distinct > most / 2 && distinct <= most, `${name}: ${distinct} values`)
      }
    }
  })

  t.test('accuracies are those of the files', async (t) => {
    t.equal((await readSafetensorsInfo(fileOf('dense float32'))).metadata.architecture, 'lenet-300-100')
    for (const name of ['2:4', 'Deep Compression, 95 %, 4 bits'])
      t.equal(await rightAnswers(fileOf(name)), Math.round(10_000 * row(name).accuracy), name)
  })

  t.test('lottery tickets, README table and curve', async (t) => {
    const { points, trials } = report.lottery
    t.same([trials, points.length], [1, 3])
    for (const [round, point] of points.entries()) {
      t.equal(Math.round(point.left * WEIGHTS), Math.round(0.8 ** round * WEIGHTS))
      for (const { test, validation } of [point.ticket, point.reinit]) {
        t.equal(validation.length, 1)
        t.ok(test[0] > 0.88 && test[0] < 1, `${test[0]}`)
      }
    }
    const tool = pathToFileURL(path.join(root, 'tools', 'digits-prune.mjs')).href
    const { table, curve } = (await import(tool)) as Record<'table' | 'curve', (result: unknown) => string>
    const text = table(report)
    t.match(text, /\n\| 2:4 \| 9\d\.\d\d % \| [+-]?\d\.\d\d \| 50\.00 % \| 133,510 \| 5\d\d,\d{3} \| 1\.\dx \| 2 \|\n/)
    const twice = rows.map((r) => ({ ...r, difference: 0.1, differences: [0.3, -0.1] }))
    t.match(table({ ...report, rows: twice }), /\n\| 2:4 \| 9\d\.\d\d % \| \+0\.10 \(\+0\.30 -0\.10\) \|/)
    t.match(text, /^.*nothing required was missed\.\n/)
    t.match(table({ ...report, passed: false, failures: ['2:4: lost'] }), /^.*missed: 2:4: lost\.\n/)
    const lines = [...curve(report).matchAll(/<polyline points="(.*?)"/g)].map((m) => (m[1] as string).split(' '))
    t.same(
      lines.map((line) => line.length),
      [3, 3],
    )
    // Every round takes the same part, so that a logarithmic axis has equal steps.
    const [a, b, c] = (lines[0] as string[]).map((point) => Number(point.split(',')[0])) as [number, number, number]
    t.ok(Math.abs(b - a - (c - b)) <= 0.2 && b > a, `${a} ${b} ${c}`)
  })
})

t.test('the tables of the short form, and wrong flags', (t) => {
  const { status, stdout, stderr } = digitsPrune('--quick', '--folder', path.join(t.testdir(), 'new'))
  t.equal(status, 0, stderr)
  t.match(stdout, /epoch 2: 250 steps/)
  t.match(stdout, /│ 90 % magnitude +│ +9\d\.\d\d % │ +-?\d\.\d\d │ +90\.00 % │ +27,030 │ +1\d\d,\d{3} │/)
  t.match(stdout, /│ +80\.00 % │ +\d\d\.\d\d % │ +\d\d\.\d\d % │/)
  t.equal(digitsPrune('--no-such-flag').status, 1)
  t.end()
})
