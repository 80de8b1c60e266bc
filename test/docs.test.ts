// The examples of README and docs/: every page's marked blocks are one program, which must type-check and run.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import ts from 'typescript'

const root = path.resolve(__dirname, '..')
const BLOCK = /<!-- example.*-->\n```ts\n([\s\S]*?)```/g

/** Compiles and runs the examples of a page; answers the lines that it printed. */
function run(t: Test, page: string): { source: string; lines: string[] } {
  const blocks = [...readFileSync(path.join(root, page), 'utf8').matchAll(BLOCK)].map((match) => match[1] as string)
  t.ok(blocks.length > 0, `${page} has examples`)
  const source = blocks.join('\n')
  const folder = path.join(root, '.test-build', 'examples')
  mkdirSync(folder, { recursive: true })
  const file = path.join(folder, `${path.basename(page, '.md')}.mts`)
  writeFileSync(file, source)
  const program = ts.createProgram([file], {
    strict: true,
    noUncheckedIndexedAccess: true,
    skipLibCheck: true,
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.Node16,
    moduleResolution: ts.ModuleResolutionKind.Node16,
    lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts'],
    types: ['node'],
    typeRoots: [path.join(root, 'node_modules', '@types')],
  })
  const problems = ts
    .getPreEmitDiagnostics(program)
    .map((d) => `${d.start ?? 0}: ${ts.flattenDiagnosticMessageText(d.messageText, '\n')}`)
  t.same(problems, [], `${page} type-checks`)
  program.emit()
  const result = spawnSync(process.execPath, [file.replace(/mts$/, 'mjs')], { cwd: root, encoding: 'utf8' })
  t.equal(result.status, 0, result.stderr)
  return { source, lines: result.stdout.trim().split('\n') }
}

t.test("README's example says what its comment says", (t) => {
  const { source, lines } = run(t, 'README.md')
  const promised = /console\.log\(noGrad.*\/\/ (.*)$/m.exec(source)?.[1]?.replace(/\s/g, '')
  t.ok(promised)
  t.equal(lines.at(-1)?.replace(/\s/g, ''), promised)
  t.end()
})

t.test('docs/quantize.md', (t) => {
  const { lines } = run(t, 'docs/quantize.md')
  const number = (start: string) => {
    const line = lines.find((l) => l.startsWith(`${start} `))
    return Number(/[\d.]+/.exec(line?.slice(start.length) ?? '')?.[0])
  }
  const float = number('float32')
  t.ok(float > 95, `float32: ${float}`)
  for (const [name, lost] of [
    ['int8 dynamic', 0.3],
    ['int8 static', 0.3],
    ['int4 weights', 1],
    ['int4 after training', 1],
  ] as const)
    t.ok(number(name) > float - lost, `${name}: ${number(name)} of ${float}`)
  t.ok(
    lines.some((line) => /^int4 after training [\d.]+ as before: true$/.test(line)),
    'converting changes nothing',
  )
  t.ok(
    lines.some((line) => /^\d+ bytes the same$/.test(line)),
    'the saved model comes back',
  )
  t.ok(lines.includes('QuantizedTensor<int8>[128, 784] per channel(0) 100864 bytes'))
  t.end()
})

t.test('docs/prune.md', (t) => {
  const { lines } = run(t, 'docs/prune.md')
  const number = (start: string) => Number(lines.find((line) => line.startsWith(`${start} `))?.slice(start.length))
  const dense = number('dense')
  t.ok(dense > 95, `dense: ${dense}`)
  for (const [name, lost] of [
    ['90 % after training', 1],
    ['95 % gradually', 1.5],
    ['2:4 by SparseGPT', 2],
    ['half the neurons', 1],
  ] as const)
    t.ok(number(name) > dense - lost, `${name}: ${number(name)} of ${dense}`)
  t.ok(number('90 % at once') < number('90 % after training'))
  t.ok(number('2:4 by magnitude') < number('2:4 by SparseGPT'))
  t.ok(
    lines.some((line) => /^total +101,632 +91,469 +90.0 % +406,528$/.test(line)),
    'the report counts the zeros',
  )
  t.ok(
    lines.some((line) => /^total +101,770 +50,890 +50.0 %$/.test(line)),
    'half the neurons are gone',
  )
  t.ok(
    lines.some((line) => /^0 +\|#+ *\| +80.0 % +9\d\.\d\d$/.test(line)),
    'the chart has a bar',
  )
  t.ok(lines.includes('restored true'))
  t.ok(
    lines.some((line) => /^0 +\[128, 784\] +(csr|dense) +9\d.\d % +[\d.,]+ /.test(line)),
    'the table of costs',
  )
  t.ok(
    lines.some((line) => /^int8 and 95 % sparse 9[\d.]+ as before$/.test(line)),
    'sparse int8 gives the bits of int8',
  )
  // Sums in another order may turn a guess or two of 6,000.
  t.ok(Math.abs(number('95 % sparse') - number('95 % gradually')) < 0.1)
  const compressed = lines.find((line) => line.startsWith('compressed '))?.split(' ') ?? []
  t.ok(Number(compressed[1]) > 30, `${compressed[1]} times smaller`)
  t.ok(Number(compressed.at(-1)) > dense - 1.5, `${compressed.at(-1)} of ${dense}`)
  t.end()
})

t.test('docs/amp.md', (t) => {
  const { lines } = run(t, 'docs/amp.md')
  const number = (start: string) => Number(lines.find((line) => line.startsWith(`${start} `))?.slice(start.length))
  const float = number('float32')
  t.ok(float > 91, `float32: ${float}`)
  // 3,000 images: a guess or two in a hundred may differ
  for (const name of ['bfloat16', 'float16']) t.ok(Math.abs(number(name) - float) < 1.2, `${name}: ${number(name)}`)
  t.ok(number('factor') <= 65536 && number('factor') >= 1024, `factor ${number('factor')}`)
  t.ok(lines.includes('stepped true'))
  t.ok(lines.includes('the same gradient true'))
  t.ok(
    lines.some((line) => /^linear +float16 +2$/.test(line)),
    'the report',
  )
  t.end()
})

t.test('docs/images.md', (t) => {
  const { source, lines } = run(t, 'docs/images.md')
  const promised = [...source.matchAll(/\.shape\) \/\/ \[(.*)\]/g)].map((match) => match[1])
  t.equal(promised.length, 7)
  t.same(
    lines.slice(0, 7).map((line) => line.replace(/[[\] ]/g, '')),
    promised.map((shape) => shape?.replace(/ /g, '')),
  )
  t.match(lines.join(' '), /'0\.runningMean',\s*'0\.runningVar',\s*'0\.numBatchesTracked'/)
  t.equal(lines.at(-1), 'alone or in a batch true')
  t.end()
})

t.test('docs/recurrent.md', (t) => {
  const { lines } = run(t, 'docs/recurrent.md')
  const text = (start: string) => lines.find((line) => line.startsWith(`${start} `))?.slice(start.length) ?? ''
  const [first, last] = text('loss').split(' to ').map(Number) as [number, number]
  t.ok(last < first, `${first} to ${last}`)
  t.ok(Number(text('in two parts')) < 1e-5, `the state goes on: ${text('in two parts')}`)
  t.end()
})

t.test('docs/distill.md', (t) => {
  const { lines } = run(t, 'docs/distill.md')
  const number = (start: string) => Number(lines.find((line) => line.startsWith(`${start} `))?.slice(start.length))
  // 10,000 images and a few epochs.
  t.ok(number('teacher') > 93, `teacher: ${number('teacher')}`)
  for (const [name, lost] of [
    ['student', 6],
    ['temperature 2', 8],
    ['temperature 8', 8],
    ['half the weights, int8', 6],
    ['generation 0', 8],
    ['generation 1', 8],
  ] as const)
    t.ok(number(name) > number('teacher') - lost, `${name}: ${number(name)} of ${number('teacher')}`)
  t.ok(number('features') > 0)
  t.ok(lines.includes('captured [ 1, 16 ]'))
  t.end()
})

t.test('docs/train.md', (t) => {
  const { lines } = run(t, 'docs/train.md')
  const number = (start: string) => Number(lines.find((line) => line.startsWith(`${start} `))?.slice(start.length))
  // 5,000 images and a few epochs.
  t.ok(number('plain') > 0.88, `plain: ${number('plain')}`)
  t.ok(number('careful') > 0.85, `careful: ${number('careful')}`)
  t.ok(number('averaged') > 0.5, `averaged: ${number('averaged')}`)
  for (const line of ['stopped by signal', 'the same true', 'report true', 'at epoch 1'])
    t.ok(lines.includes(line), line)
  // 40 steps an epoch: one start, two lines of steps and one of its own in each.
  t.ok(lines.includes('log 13 lines'))
  t.end()
})

t.test('every page with examples is run here', (t) => {
  const pages = readdirSync(path.join(root, 'docs')).filter((file) => file.endsWith('.md'))
  const marked = pages.filter((file) => /<!-- example/.test(readFileSync(path.join(root, 'docs', file), 'utf8')))
  t.same(marked, ['amp.md', 'distill.md', 'images.md', 'prune.md', 'quantize.md', 'recurrent.md', 'train.md'])
  t.end()
})
