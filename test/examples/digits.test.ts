/** examples/digits.ts, a short run of it: trains, teaches, prunes, saves, loads, and says so in every form of output. */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import path from 'node:path'
import type { Tensor } from 'kerf'
import { compressedReport, loadCompressed, readSafetensorsInfo } from 'kerf/io'
import t from 'tap'

const root = path.resolve(__dirname, '..', '..')

function digits(...rest: string[]) {
  return spawnSync(process.execPath, [path.join(root, 'tools', 'run-example.mjs'), 'digits', ...rest], {
    cwd: root,
    encoding: 'utf8',
  })
}

t.test('--quick --json: one JSON document, right numbers, files that load', async (t) => {
  const folder = t.testdir()
  const { status, stdout, stderr } = digits('--quick', '--json', '--folder', folder)
  t.equal(status, 0, stderr)
  const result = JSON.parse(stdout)
  t.equal(result.passed, true)
  t.same(
    result.rows.map((row: { name: string }) => row.name),
    [
      ...['float32', 'float16', 'bfloat16', 'int8 dynamic', 'int8 static', 'int4 weights', 'int4 weights after QAT'],
      ...['student', 'student, 80 % pruned', 'student, 80 % pruned, int8'],
    ],
  )
  // Of the first layer's weights: dtype, columns, bytes.
  const stored = [
    ['float32', 784, 4],
    ['float16', 784, 2],
    ['bfloat16', 784, 2],
    ['int8', 784, 1],
    ['int8', 784, 1],
    ['uint8', 392, 1],
    ['uint8', 392, 1],
  ] as const
  const whole = result.rows[0].bytes
  for (const [i, { name, accuracy, bytes, msPer1000, file, same }] of result.rows.entries()) {
    t.ok(accuracy > 0.85 && accuracy <= 1, `${name}: ${accuracy}`)
    t.ok(msPer1000 > 0 && same)
    t.equal(statSync(file).size, bytes)
    if (i >= stored.length) continue
    const { tensors } = await readSafetensorsInfo(file)
    const [dtype, columns, size] = stored[i] as (typeof stored)[number]
    t.same(tensors['0.weight'], { dtype, shape: [300, columns], bytes: 300 * columns * size }, name)
    if (name.startsWith('int8')) t.ok(whole / bytes >= 3.9, `${name}: ${whole / bytes} times smaller`)
    if (name.startsWith('int4')) t.ok(whole / bytes >= 7, `${name}: ${whole / bytes} times smaller`)
  }

  const shapes = [
    [100, 784],
    [50, 100],
    [10, 50],
  ]
  const weights = 78_400 + 5000 + 500
  for (const [i, least] of [3.3, 12, 35].entries()) {
    const { name, bytes, file } = result.rows[stored.length + i]
    t.ok(whole / bytes >= least, `${name}: ${whole / bytes} times smaller`)
    const { tensors } = await compressedReport(file)
    const values = await loadCompressed(file)
    let zeros = 0
    for (const [layer, shape] of shapes.entries()) {
      t.match(tensors[`${2 * layer}.weight`], { dtype: i < 2 ? 'float32' : 'int8', shape }, name)
      const weight = values[`${2 * layer}.weight`] as Tensor
      for (const value of (await weight.data()) as Float32Array) if (value === 0) zeros++
    }
    if (i < 2) t.equal(zeros, i === 0 ? 0 : 0.8 * weights, `${name}: zeros`)
    else t.ok(zeros >= 0.8 * weights, `${name}: ${zeros} zeros`) // rounding makes some of its own
    t.same(
      Object.keys(values).filter((key) => key.includes('mask')),
      [],
    )
  }
  const html = readFileSync(path.join(folder, 'report.html'), 'utf8')
  for (const text of ['uPlot', 'LeNet-300-100', 'student, 80 % pruned, int8']) t.ok(html.includes(text), text)
})

t.test('the table, and wrong flags', (t) => {
  const folder = path.join(t.testdir(), 'new')
  const { status, stdout, stderr } = digits('--quick', '--folder', folder)
  t.equal(status, 0, stderr)
  t.match(stdout, /epoch 1: 200 steps/)
  t.match(stdout, /student, pruned, epoch 1: validation \d\d\.\d\d %/)
  t.match(stdout, /│ bfloat16 +│ +\d\d\.\d\d % │ +533,7\d\d │ +\d+\.\d\d │ identical/)
  t.ok(existsSync(path.join(folder, 'float16.safetensors')))
  t.equal(digits('--epochs', 'many').status, 2)
  t.equal(digits('--no-such-flag').status, 1)
  t.end()
})
