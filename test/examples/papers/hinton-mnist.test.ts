/** examples/papers/hinton-mnist.ts, a short run of it: its counts are counts, its table is what README would show. */
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'

const root = path.resolve(__dirname, '..', '..', '..')

function hinton(...rest: string[]) {
  const runner = path.join(root, 'tools', 'run-example.mjs')
  return spawnSync(process.execPath, [runner, 'papers/hinton-mnist', ...rest], { cwd: root, encoding: 'utf8' })
}

interface Row {
  name: string
  temperature: number | null
  units: number
  parameters: number
  epochs: number
  validationErrors: number
  testErrors: number
  losses: number[]
}

t.test('the short form', async (t) => {
  const { status, stdout, stderr } = hinton('--quick', '--json')
  t.equal(status, 0, stderr)
  const report = JSON.parse(stdout)
  const rows: Row[] = report.rows
  t.match(report, { example: 'hinton-mnist', form: 'quick', passed: true, failures: [], alpha: 0.1 })
  t.same(
    rows.map(({ name, temperature, units }) => [name, temperature, units]),
    [
      ['teacher', null, 128],
      ['plain student', null, 48],
      ['taught student', 4, 48],
      ['taught student', 20, 48],
    ],
  )
  for (const row of rows) {
    t.equal(row.parameters, 785 * row.units + (row.units + 1) * row.units + (row.units + 1) * 10)
    // From 700 to 1200 errors were seen: an untrained network makes 9,000.
    t.ok(Number.isInteger(row.testErrors) && row.testErrors > 100 && row.testErrors < 2500, `${row.testErrors}`)
    t.ok(Number.isInteger(row.validationErrors) && row.validationErrors > 50 && row.validationErrors < 1500)
    t.equal(row.losses.length, row.epochs)
    t.ok((row.losses.at(-1) as number) < (row.losses[0] as number), `losses fall: ${row.losses}`)
  }
  const [teacher, plain, at4, at20] = rows as [Row, Row, Row, Row]
  const distance = plain.testErrors - teacher.testErrors
  t.ok(Math.abs(report.closedAt20 - (plain.testErrors - at20.testErrors) / distance) < 1e-9)
  t.equal(report.chosenTemperature, at20.validationErrors < at4.validationErrors ? 20 : 4, 'chosen by validation')

  const tool = pathToFileURL(path.join(root, 'tools', 'hinton-mnist.mjs')).href
  const { table } = (await import(tool)) as { table: (result: unknown) => string }
  const text = table(report)
  t.match(text, /\n\| teacher \| 2 x 128 \| 118,282 \| {2}\| \d+ \| \d+ \| 67 \|\n/)
  t.match(text, /\n\| plain student \| 2 x 48 \| 40,522 \| {2}\| \d+ \| \d+ \| 146 \|\n/)
  t.match(text, /\n\| taught student \| 2 x 48 \| 40,522 \| 4 \| \d+ \| \d+ \| {2}\|\n/)
  t.match(text, /\n\| taught student \| 2 x 48 \| 40,522 \| 20 \| \d+ \| \d+ \| 74 \|\n/)
  t.match(text, /published 91 %/)
  t.match(table({ ...report, passed: false, failures: ['T = 20: no'] }), /missed: T = 20: no\./)
})

t.test('wrong flags', (t) => {
  t.equal(hinton('--no-such-flag').status, 1)
  t.end()
})
