/** `kerf` as its users meet it: exit codes, one line for an error, one document for --json. */
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import t from 'tap'
import { parseDTypes, parseShapes, parseThreads } from '#lib/cli/arguments'
import { time } from '#lib/cli/bench'
import { advice } from '#lib/cli/doctor'
import { info, version } from '#lib/info'
import { addon } from '#lib/native/load'

const root = path.resolve(__dirname, '..', '..')

function kerf(args: string[], env: Record<string, string> = {}) {
  const main = path.join(root, 'dist', 'cli', 'main.js')
  const result = spawnSync(process.execPath, [main, ...args], {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, ...env },
  })
  return { code: result.status, out: result.stdout, err: result.stderr }
}

t.test('doctor prints what info() says', (t) => {
  const plain = kerf(['doctor'])
  t.equal(plain.code, 0)
  t.match(plain.out, `target   ${info().target} (`)
  t.match(plain.out, /^cuda {5}no/m)
  const json = kerf(['doctor', '--json'])
  const report = JSON.parse(json.out)
  t.equal(json.err, '')
  t.match(report, { ok: true, target: info().target, cpu: info().cpu, version: version() })
  t.ok(report.matmul.float32.endsWith(`@${info().target}`) || report.matmul.float32.includes('@'))
  t.end()
})

t.test('doctor speaks when the addon is missing or the target is wrong', (t) => {
  const missing = kerf(['doctor'], { KERF_NATIVE: '/nowhere/kerf.node' })
  t.equal(missing.code, 1)
  t.match(missing.err, '/nowhere/kerf.node')
  t.equal(missing.out, '')
  const json = kerf(['doctor', '--json'], { KERF_TARGET: 'sse9' })
  t.equal(json.code, 1)
  t.match(JSON.parse(json.out), { ok: false, error: /KERF_TARGET=sse9/ })
  t.end()
})

t.test('advice names what holds a machine back', (t) => {
  const i = info()
  const rows = [
    { name: 'generic', features: '', compiled: true, supported: true },
    { name: 'avx2', features: 'avx2', compiled: true, supported: true },
    { name: 'avx512', features: 'avx512f', compiled: false, supported: true },
  ]
  t.match(advice({ ...i, target: 'generic', targets: rows, threads: 99, cores: 2 }), [
    /could run avx512/,
    /holds back avx2/,
    /99 threads on 2/,
  ])
  t.same(advice({ ...i, target: 'avx2', targets: rows.slice(0, 2), threads: 2, cores: 2 }), [])
  t.end()
})

t.test('a wrong command line ends in one line and exit code 2', (t) => {
  const wrong: [string[], RegExp][] = [
    [['bench', '--shapes', '8x8'], /8x8/],
    [['bench', '--shapes', '1e3'], /1e3/],
    [['bench', '--dtype', 'int2'], /expected float32, float16, bfloat16, int8, int4, got 'int2'/],
    [
      ['bench', 'matmul', 'edge', '--dtype', 'int8'],
      /nothing to measure for matmul, edge, int8 .*: int8 and int4 belong/,
    ],
    [['bench', 'int8', '--dtype', 'float32'], /nothing to measure for int8, float32/],
    [['bench', 'ops', 'int8', '--shapes', '8', '--dtype', 'float16'], /--shapes needs a suite of products/],
    [['bench', '--threads', '0'], /'0'/],
    [['bench', '--budget', 'long'], /long/],
    [['bench', 'nosuch'], /no suite 'nosuch'/],
    [['bench', '--vs', 'nobody'], /nobody/],
    [['bench', '--nosuch'], /nosuch/],
    [['nosuch'], /nosuch/],
  ]
  for (const [args, message] of wrong) {
    const { code, out, err } = kerf(args)
    t.equal(code, 2, args.join(' '))
    t.equal(out, '')
    t.match(err, message)
    t.ok(err.trim().split('\n').length <= 2, 'the line, and at most a hint at --help')
  }
  t.equal(kerf(['--help']).code, 0)
  t.equal(kerf(['--version']).out.trim(), version())
  t.end()
})

t.test('an error that is not the command line exits with 1', (t) => {
  const { code, out, err } = kerf(['bench', '--shapes', '8', '--threads', '1'], { KERF_THREADS: 'many' })
  t.equal(code, 1)
  t.equal(out, '')
  t.match(err, /^kerf: KERF_THREADS: .*'many'\n$/)
  t.end()
})

t.test('bench --json prints one document, with rates and their ceilings', (t) => {
  const args = [
    'bench',
    '--shapes',
    '48,1x64x128',
    '--dtype',
    'float32,bfloat16',
    '--threads',
    '1',
    '--budget',
    '30',
    '--json',
  ]
  const { code, out, err } = kerf(args)
  t.equal(code, 0, err)
  t.equal(err, '')
  const report = JSON.parse(out)
  t.equal(report.rows.length, 4)
  for (const row of report.rows) {
    t.ok(row.best > 0 && row.median >= row.best && row.bursts >= 7 && row.calls >= 1, row.name)
    t.match(row.kernel, /^matmul_\w+@\w+$/)
    t.ok(row.rate.best >= row.rate.median)
    t.ok(row.peaks.length > 0)
    for (const peak of row.peaks) t.ok(peak.best > 0 && peak.percentBest > 0)
    t.equal(row.threads, 1)
    t.equal(row.baseline, null)
  }
  t.same(report.rows[0].shape, [48, 48, 48])
  t.same(report.rows[2].shape, [1, 64, 128])
  const kinds = report.rows.map((row: { peaks: { kind: string }[] }) => row.peaks.map((peak) => peak.kind))
  t.same(kinds[0], ['fma'])
  t.same(kinds[2], ['read', 'fma'])
  t.end()
})

t.test('bench of quantized products: rates, ceilings where there are any, float32 as the baseline', (t) => {
  const shapes = '40x48x64,1x64x256'
  const { code, out, err } = kerf([
    'bench',
    '--shapes',
    shapes,
    '--dtype',
    'int8,int4',
    '--threads',
    '1',
    '--budget',
    '30',
    '--json',
  ])
  t.equal(code, 0, err)
  const { rows } = JSON.parse(out)
  t.same(
    rows.map((row: { name: string }) => row.name),
    [
      'uint8 x int8 40x48x64',
      'uint8 x int8 40x48x64 to uint8',
      'uint8 x int8 1x64x256',
      'uint8 x int8 1x64x256 to uint8',
      'int4 weights 40x48x64, groups of 128',
      'int4 weights 1x64x256, groups of 128',
    ],
  )
  const dot = addon.probe('int8dot', 1) > 0 ? ['int8dot'] : []
  for (const row of rows) {
    const few = row.dtype === 'int4' && row.shape[0] === 1
    t.equal(row.suite, 'int8')
    t.match(row.kernel, row.dtype === 'int4' ? /^wmatmul_\w+@\w+$/ : /^qmatmul_i8_\w+@\w+$/)
    t.equal(row.rate.unit, few ? 'GB/s' : 'GOP/s')
    const kinds = row.peaks.map((peak: { kind: string }) => peak.kind)
    t.same(kinds, few ? ['read', ...dot] : dot, row.name)
    for (const peak of row.peaks) t.ok(peak.best > 0 && peak.percentBest > 0 && peak.percentMedian > 0)
    t.equal(row.notes.length, 1 - dot.length, 'a ceiling that is missing is noted')
    t.equal(row.baseline.name, 'float32')
    t.ok(Math.abs(row.baseline.ratioBest - row.baseline.best / row.best) < 0.01 * row.baseline.ratioBest)
    t.ok(row.baseline.bursts === row.bursts && row.baseline.ratioMedian > 0)
  }
  t.end()
})

t.test('KERF_DEBUG=kernels writes a line a kernel to stderr', (t) => {
  const program =
    "const k = require('kerf'); const a = k.ones([5, 7]); k.add(k.matmul(a, k.ones([7, 3])), 1).dataSync()"
  const { stderr, stdout } = spawnSync(process.execPath, ['-e', program], {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, KERF_DEBUG: 'kernels' },
  })
  t.equal(stdout, '')
  const lines = stderr.trim().split('\n')
  t.ok(
    lines.every((line) => /^kerf: \w+@\w+( \w+\[[\d, ]*\])+: [\d.]+ ms(, [\d.]+ GFLOP\/s)?$/.test(line)),
    stderr,
  )
  t.match(stderr, /^kerf: matmul_f32_\w+@\w+ float32\[5, 3\] float32\[5, 7\] float32\[7, 3\]: .* GFLOP\/s$/m)
  t.match(stderr, /^kerf: add@\w+ float32\[5, 3\]/m)
  t.end()
})

t.test('option values', (t) => {
  t.same(parseShapes('1024,1x4096x300'), [
    [1024, 1024, 1024],
    [1, 4096, 300],
  ])
  for (const bad of ['', 'x', '0', '-1', '1.5', '1x2', '1x2x3x4', '99999999', '1x2x'])
    t.throws(() => parseShapes(bad), bad)
  t.same(parseDTypes('float16, int4,float32'), ['float16', 'int4', 'float32'])
  t.same(parseThreads('1, 2'), [1, 2])
  t.same([0.5, 12.345, 1234, 2e6].map(time), ['0.500 us', '12.3 us', '1.23 ms', '2.00 s'])
  t.end()
})
