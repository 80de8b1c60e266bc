// io's HTML reports: what is given is in the file, nothing that is given becomes markup or script, nothing comes from elsewhere.
import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { runInNewContext } from 'node:vm'
import { train } from 'kerf'
import t from 'tap'

const folder = mkdtempSync(path.join(tmpdir(), 'kerf-report-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
const file = path.join(folder, 'report.html')

async function written(report: train.Report): Promise<string> {
  await train.writeReport(file, report)
  return readFileSync(file, 'utf8')
}

const scripts = (html: string) => [...html.matchAll(/<script>([\s\S]*?)<\/script>/g)].map((match) => match[1] as string)
const figures = (html: string) =>
  JSON.parse(/<script type="application\/json" id="figures">([\s\S]*?)<\/script>/.exec(html)?.[1] as string)

t.test('curves and tables', async (t) => {
  const html = await written({
    title: 'Digits',
    subtitle: 'two runs',
    curves: [
      {
        title: 'Loss',
        x: 'epoch',
        scale: 'log',
        series: [
          { name: 'a', x: [1, 2, 3], y: [4, 0, Number.NaN] },
          { name: 'b', x: [2, 5], y: [1, null] },
        ],
      },
    ],
    tables: [
      {
        title: 'Result',
        head: ['what', 'value'],
        rows: [
          ['accuracy', 0.98765432],
          ['right', true],
          ['n', 7],
          ['none', null],
        ],
      },
    ],
  })
  t.same(figures(html), [
    {
      ...{ x: 'epoch', log: true, names: ['a', 'b'] },
      columns: [
        [1, 2, 3, 5],
        [4, null, null, null],
        [null, 1, null, null],
      ],
    },
  ])
  for (const text of [
    '<h1>Digits</h1>',
    '<p>two runs</p>',
    '<h2>Loss</h2>',
    '<th>what</th>',
    '<td class="number">0.98765</td>',
  ])
    t.ok(html.includes(text), text)
  for (const text of ['<td>true</td>', '<td class="number">7</td>', '<td>-</td>']) t.ok(html.includes(text), text)
  t.same(readdirSync(folder), ['report.html'])
})

t.test('the page draws what it was given', async (t) => {
  const series = [{ name: 'a', x: [1, 2], y: [3, 4] }]
  const html = await written({ title: 'x', curves: [{ title: 'one', series }] })
  const made: unknown[][] = []
  const page = {
    document: {
      getElementById: (id: string) =>
        id === 'figures' ? { textContent: JSON.stringify(figures(html)) } : { clientWidth: 500, id },
    },
    addEventListener: () => {},
    uPlot: class {
      constructor(...given: unknown[]) {
        made.push(given)
      }
    },
  }
  const [library, draw] = scripts(html)
  t.match(library, /uPlot=/)
  runInNewContext(draw as string, page)
  t.equal(made.length, 1)
  t.match(made[0], [
    { width: 500, series: [{ label: 'step' }, { label: 'a' }] },
    [
      [1, 2],
      [3, 4],
    ],
    { id: 'figure-0' },
  ])
})

t.test('no text becomes markup or script', async (t) => {
  const evil = `</script><script>alert(1)</script><img src=x onerror='alert("2")'><!-- & \u2028`
  const html = await written({
    title: evil,
    subtitle: evil,
    curves: [{ title: evil, x: evil, series: [{ name: evil, x: [1], y: [1] }] }],
    tables: [{ title: evil, head: [evil], rows: [[evil]] }],
  })
  t.notOk(html.includes('<img'))
  t.notOk(/<script>alert/.test(html))
  t.equal(html.match(/<script/g)?.length, 3, 'figures, library, drawing')
  t.equal(figures(html)[0].names[0], evil)
  // What the policy lets run is what is there: by hash.
  const policy = /Content-Security-Policy" content="([^"]*)"/.exec(html)?.[1] as string
  t.match(policy, /^default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-/)
  for (const script of scripts(html))
    t.ok(policy.includes(`'sha256-${createHash('sha256').update(script).digest('base64')}'`))
})

t.test('nothing is loaded from elsewhere', async (t) => {
  const html = await written({ title: 'x', curves: [{ title: 'one', series: [] }] })
  t.notOk(/<(link|img|iframe|script)[^>]*(src|href)=/i.test(html))
  t.notOk(/@import|url\(/i.test(html))
  t.equal(scripts(await written({ title: 'x', tables: [] })).length, 0, 'tables alone need no script')
})

t.test('a report that is none', async (t) => {
  const series = { name: 'a', x: [1], y: [1] }
  const curves = (change: object) => ({ title: 'x', curves: [{ title: 'c', series: [{ ...series, ...change }] }] })
  for (const [report, message] of [
    [null, /report must be an object, got null/],
    [{ title: 3 }, /title must be a string, got 3/],
    [{ title: 'x', curves: {} }, /curves must be an array of objects/],
    [{ title: 'x', curves: [{ title: 'c', scale: 'cubic', series: [] }] }, /curves\[0\]\.scale must be/],
    [curves({ name: 1 }), /curves\[0\]\.series\[0\]\.name must be a string/],
    [curves({ x: [Number.NaN] }), /series\[0\]\.x must be an array of finite numbers/],
    [curves({ y: [] }), /series\[0\]\.y must be an array of 1 numbers/],
    [{ title: 'x', tables: [{ title: 't', rows: [1] }] }, /tables\[0\]\.rows must be an array of arrays/],
  ] as const)
    await t.rejects(train.writeReport(file, report as never), { code: 'ERR_ARGUMENT', message })
  await t.rejects(train.writeReport('', { title: 'x' }), { code: 'ERR_ARGUMENT', message: /^writeReport: path/ })
})
