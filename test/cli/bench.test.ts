/** The machinery of `kerf bench`, and the figures that README takes from it. */
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { DeviceError, device, info } from 'kerf'
import t from 'tap'
import { compare } from '#lib/bench/compare'
import { suites } from '#lib/bench/index'
import { measure } from '#lib/bench/measure'
import { binaryModel, matmulModel } from '#lib/bench/onnx'
import { peerRun } from '#lib/bench/peer'
import { name, shapes } from '#lib/bench/shapes'
import type { BenchReport, BenchRow } from '#lib/cli/report'

const root = path.resolve(__dirname, '..', '..')

function spin(ms: number): void {
  const until = performance.now() + ms
  while (performance.now() < until);
}

t.test('contenders take turns, in bursts that are long enough', async (t) => {
  const order: string[] = []
  const contender = (label: string) => ({
    run(times: number) {
      order.push(label)
      spin(times)
    },
  })
  const timings = await measure([contender('a'), contender('b')], { budgetMs: 20 })
  t.equal(timings.length, 2)
  for (const timing of timings) {
    t.ok(timing.best >= 1000 && timing.median >= timing.best, `a call spins 1 ms: ${timing.best} us`)
    t.ok(timing.calls >= 1)
    t.ok(timing.bursts >= 7)
  }
  const turns = order.join('').replace(/(.)\1+/g, '$1')
  t.match(turns, /abab|baba/)
})

t.test('an asynchronous contender is waited for', async (t) => {
  const [timing] = await measure([{ run: (times) => new Promise((resolve) => setTimeout(resolve, 2 * times)) }], {
    budgetMs: 20,
  })
  t.ok((timing?.best ?? 0) > 1000)
})

t.test('the ONNX models that are written compute what they say', async (t) => {
  const weights = Float32Array.of(1, 2, 3, 4, 5, 6)
  const out = { type: 'float32' as const, data: new Float32Array(4), shape: [2, 2] }
  const x = { type: 'float32' as const, data: Float32Array.of(1, 0, 2, 0, 1, 0), shape: [2, 3] }
  const product = await peerRun(matmulModel('float32', 2, 2, 3, new Uint8Array(weights.buffer)), { X: x }, out, 1)
  t.same(Array.from(await product.result()), [11, 14, 3, 4])
  await product.preallocated.run(1)
  t.same([...out.data], [11, 14, 3, 4], 'writes into the output that it was given')
  await product.release()
  const two = { type: 'float32' as const, data: Float32Array.of(1, 2), shape: [2] }
  const sum = await peerRun(
    binaryModel('Add', [2], [2], [2]),
    { X: two, W: two },
    { ...two, data: new Float32Array(2) },
    1,
  )
  t.same(Array.from(await sum.result()), [2, 4])
  await sum.release()
})

t.test('compare() calls a row slower only when best and median say so', (t) => {
  const report = (best: number, median: number) =>
    ({
      rows: [{ suite: 'matmul', name: 'x', threads: 1, best, median } as BenchRow],
      loop: [],
    }) as unknown as BenchReport
  const slower = (best: number, median: number) => compare(report(100, 120), report(best, median))[0]?.slower
  t.equal(slower(100, 120), false)
  t.equal(slower(100, 200), false, 'a noisy run')
  t.equal(slower(120, 150), true)
  t.same(compare({ rows: [], loop: [] } as unknown as BenchReport, report(1, 1)), [])
  t.end()
})

t.test('the list of shapes', (t) => {
  const keys = shapes.map((s) => `${s.suite} ${name(s)} ${s.target ?? ''}`)
  t.equal(new Set(keys).size, keys.length, 'no shape twice')
  t.ok(shapes.every((s) => s.suite in suites && s.why.length > 0 && s.dtypes.length > 0))
  t.end()
})

t.test('info() and device()', (t) => {
  const i = info()
  t.ok(i.targets.some((row) => row.name === i.target && row.compiled && row.supported))
  t.equal(i.cuda.available, false)
  t.match(device(), { type: 'cpu', name: 'cpu' })
  t.throws(() => device('cuda'), { name: DeviceError.name, code: 'ERR_DEVICE' })
  t.throws(() => device('tpu'), { code: 'ERR_ARGUMENT', message: /'cpu' or 'cuda', got "tpu"/ })
  t.throws(() => device(3 as never), { code: 'ERR_ARGUMENT' })
  t.end()
})

t.test("README's measured table is that of its committed result", (t) => {
  const { status, stderr } = spawnSync(process.execPath, ['tools/readme-table.mjs', '--check'], {
    cwd: root,
    encoding: 'utf8',
  })
  t.equal(status, 0, stderr)
  t.end()
})
