/** The machinery of `kerf bench`, and the figures that README takes from it. */
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { DeviceError, device, info } from 'kerf'
import t from 'tap'
import { compare } from '#lib/bench/compare'
import { agree } from '#lib/bench/data'
import { suites } from '#lib/bench/index'
import { measure } from '#lib/bench/measure'
import {
  binaryModel,
  dynamicLinearModel,
  matmulIntegerModel,
  matmulModel,
  matmulNBitsModel,
  qlinearMatmulModel,
} from '#lib/bench/onnx'
import { peerOrNote, peerRun } from '#lib/bench/peer'
import { byteShapes, name, shapes, sparseLabel, sparseShapes, weightShapes } from '#lib/bench/shapes'
import { wantedByteShapes, wantedShapes, wantedSparseShapes, wantedWeightShapes } from '#lib/bench/wanted'
import { show } from '#lib/cli/bench'
import type { BenchOptions, BenchReport, BenchRow } from '#lib/cli/report'

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
  const product = await peerRun(matmulModel('float32', { m: 2, n: 2, k: 3 }, weights), { X: x }, out, 1)
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

t.test('the quantized models compute what they say', async (t) => {
  const size = { m: 1, n: 2, k: 3 }
  const x = { type: 'uint8' as const, data: Uint8Array.of(1, 2, 200), shape: [1, 3] }
  const w = Int8Array.of(1, -2, 3, 4, -5, 6) // [3, 2]
  const result = async (model: Uint8Array, input: typeof x | typeof floats, out: typeof x | typeof sums | typeof y) => {
    const peer = await peerRun(model, { X: input }, out, 1)
    await peer.preallocated.run(1)
    await peer.release()
    return Array.from(out.data)
  }
  const sums = { type: 'int32' as const, data: new Int32Array(2), shape: [1, 2] }
  t.same(await result(matmulIntegerModel(size, w), x, sums), [1 + 6 - 1000, -2 + 8 + 1200])
  const by = { aScale: 0.5, aZero: 2, bScale: 2, yScale: 16, yZero: 100 }
  const wanted = [(-1 - 5 * 198) / 16 + 100, (2 + 6 * 198) / 16 + 100].map(Math.round)
  t.same(await result(qlinearMatmulModel(size, w, by), x, { ...x, data: new Uint8Array(2), shape: [1, 2] }), wanted)

  const floats = { type: 'float32' as const, data: Float32Array.of(-128, 127, 3), shape: [1, 3] }
  const y = { type: 'float32' as const, data: new Float32Array(2), shape: [1, 2] }
  const layer = dynamicLinearModel(size, w, Float32Array.of(2, 0.25), Float32Array.of(1, -1000))
  t.same(await result(layer, floats, y), [2 * (-128 + 381 - 15) + 1, 0])

  const k = 40 // two blocks of 32, the second one shorter
  const codes = Int8Array.from({ length: 2 * k }, (_, i) => (i % 16) - 8)
  const scales = Float32Array.of(1, 2, 0.5, 4)
  const ones = { type: 'float32' as const, data: new Float32Array(k).fill(1), shape: [1, k] }
  const at = (j: number) => {
    const parts = [0, 0]
    for (let p = 0; p < k; p++) parts[p >> 5] = (parts[p >> 5] as number) + (codes[j * k + p] as number)
    return (parts[0] as number) * (scales[2 * j] as number) + (parts[1] as number) * (scales[2 * j + 1] as number)
  }
  for (const bits of [4, 8] as const) {
    for (const accuracy of [0, 4]) {
      const model = matmulNBitsModel({ m: 1, n: 2, k }, codes, scales, { bits, block: 32, accuracy })
      const got = await result(model, ones, y)
      agree(`${bits} bits, accuracy ${accuracy}`, got, [at(0), at(1)], 1e-3)
    }
  }
})

t.test('a peer without a kernel is a note, results that differ are an error', async (t) => {
  const notes: string[] = []
  const codes = new Int8Array(1024)
  const found = await peerOrNote(notes, 'MatMulNBits', () =>
    peerRun(
      matmulNBitsModel({ m: 1, n: 1, k: 1024 }, codes, Float32Array.of(1), { bits: 8, block: 1024, accuracy: 4 }),
      { X: { type: 'float32', data: new Float32Array(1024), shape: [1, 1024] } },
      { type: 'float32', data: new Float32Array(1), shape: [1, 1] },
      1,
    ),
  )
  t.equal(found, null)
  t.match(notes, [/^onnxruntime-node MatMulNBits: /])
  agree('x', [1, 2.5], [1, 3], 0.5)
  t.throws(() => agree('x', [1, 2.5], [1, 3]), /x: results differ at 1: 2.5 and 3/)
  t.throws(() => agree('x', [Number.NaN], [Number.NaN], 1), /differ at 0/)
  t.throws(() => agree('x', [1], [1, 2]), /1 results and 2/)
})

t.test('what suites, dtypes and shapes ask for', (t) => {
  const wanted = (options: Partial<BenchOptions>) => {
    const all = {
      suites: Object.keys(suites),
      shapes: [],
      dtypes: [],
      threads: [],
      peer: null,
      budgetMs: 10,
      ...options,
    }
    return [
      wantedShapes(all).flatMap((s) => s.dtypes).length,
      wantedByteShapes(all).length,
      wantedWeightShapes(all).length,
    ]
  }
  const [floats, bytes, weights] = wanted({}) as [number, number, number]
  t.ok(floats > 0)
  t.equal(bytes, byteShapes.length)
  t.equal(weights, weightShapes.length)
  t.same(wanted({ suites: ['int8'] }), [0, bytes, weights])
  t.same(wanted({ suites: ['rows'] })[1], 0)
  t.same(wanted({ dtypes: ['int4'] }), [0, 0, weightShapes.filter((s) => s.bits === 4).length])
  const one: [number, number, number][] = [[8, 8, 8]]
  t.same(wanted({ shapes: one }), [1, 0, 0], 'float32 by default')
  t.same(wanted({ shapes: one, suites: ['int8'] }), [0, 2, 0], 'int32 and uint8 results')
  t.same(wanted({ shapes: one, dtypes: ['float16', 'int8', 'int4'] }), [1, 2, 1])
  t.same(wanted({ shapes: one, suites: ['ops'] }), [0, 0, 0])
  const sparse = (options: Partial<BenchOptions>) =>
    wantedSparseShapes({
      suites: ['sparse'],
      shapes: [],
      dtypes: [],
      threads: [],
      peer: null,
      budgetMs: 10,
      ...options,
    })
  t.same(sparse({}), sparseShapes)
  const csr = { zeros: 0.9, format: 'csr', dtype: 'float32', why: 'asked for' }
  t.same(sparse({ shapes: one }), [{ m: 8, n: 8, k: 8, ...csr }])
  t.same(sparse({ shapes: one, suites: Object.keys(suites) }), [], 'dense by default')
  const int8 = sparse({ dtypes: ['int8'] })
  t.ok(int8.length > 0 && int8.length < sparseShapes.length && int8.every(({ dtype }) => dtype === 'int8'))
  t.same(sparse({ dtypes: ['bfloat16'] }), [])
  t.same(sparse({ suites: ['int8'] }), [])
  t.end()
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
  const quantized = [
    ...byteShapes.map((s) => `${name(s)} ${s.result} ${s.target ?? ''}`),
    ...weightShapes.map((s) => `${name(s)} ${s.bits} ${s.group} ${s.bytes ?? false}`),
  ]
  t.equal(new Set(quantized).size, quantized.length)
  t.equal(new Set(sparseShapes.map(sparseLabel)).size, sparseShapes.length)
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

t.test('tables with and without baselines', async (t) => {
  const tool = pathToFileURL(path.join(root, 'tools', 'readme-table.mjs')).href
  const { table } = (await import(tool)) as { table(report: BenchReport): string }
  const timing = { best: 100, median: 120, bursts: 7, calls: 1 }
  const ratio = { ...timing, ratioBest: 1.5, ratioMedian: 1.25 }
  const rate = { unit: 'GOP/s' as const, best: 2000, median: 1900 }
  const row: BenchRow = {
    ...{ suite: 'int8', name: 'bytes', why: 'a test', dtype: 'int8', shape: [1, 2, 3], threads: 1, target: 'avx2' },
    ...{ kernel: 'k@avx2', ...timing, rate, notes: ['no arithmetic ceiling'] },
    peaks: [{ kind: 'int8dot', ...rate, percentBest: 90, percentMedian: 80 }],
    baseline: { name: 'float32', ...ratio },
    peers: [{ name: 'onnxruntime-node', variant: 'MatMulInteger', output: 'preallocated', ...ratio }],
  }
  const { baseline: _, ...rest } = row
  const old = { ...rest, suite: 'matmul', name: 'floats', peers: [] } as unknown as BenchRow // as before baselines
  const report = {
    ...{ kerf: '0', date: '2026-01-01', peers: { 'onnxruntime-node': '1' }, loop: [] },
    machine: { cpu: 'c', cores: 1, platform: 'p', node: 'v', target: 'avx2', builder: 'b' },
  }
  const both = { ...report, rows: [old, row] }
  const text = table(both)
  t.match(
    text,
    /### Float products\n\n\| [^|]*\| threads \| time \| rate \| of peak \| onnxruntime-node 1 \| ratio \|\n/,
  )
  t.match(text, /### int8 and int4\n\n.*\| of peak \| against baseline \| onnxruntime-node 1 \| ratio \|\n/)
  t.match(
    text,
    '| 90 % / 80 % of 2000 (int8 dot) | 1.50x / 1.25x (float32) | 100 us / 120 us (MatMulInteger) | 1.50x / 1.25x |',
  )
  t.notMatch(text, 'Calls and training')
  t.match(text, /^\| floats .*\| {2}\| {2}\|$/m, 'no peer was tried')
  const shown = show(both)
  t.match(shown, 'float32: 100 us / 120 us, 1.50x / 1.25x')
  t.match(shown, 'MatMulInteger: 100 us / 120 us, 1.50x / 1.25x')
  t.notMatch(show({ ...report, rows: [old] }), 'baseline')
})
