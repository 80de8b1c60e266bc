// prune.convert: which layers become sparse, which format they get, and that a failure changes nothing. Times decide, so what
// is asserted of them is far from any border.
import { manualSeed, nn, prune, rand, type Tensor, tensor } from 'kerf'
import t from 'tap'
import { Pauses } from '#lib/core/pauses'
import type { AnyModule } from '#lib/nn/module'
import { candidatesOf, chooseFormat, lookAt, type Timed } from '#lib/prune/candidates'
import { race } from '#lib/prune/race'
import { generator } from '../matrix'
import { inputs } from '../quant/models'
import { flat, net } from './oracle'

const { convert, SparseLinear } = prune
const names = (model: AnyModule) => model.modules().map((m) => m.constructor.name)

t.test('auto: dense where there are no zeros, sparse where there are 95 %', async (t) => {
  manualSeed(3)
  const model = new nn.Sequential(new nn.Linear(1024, 1024), new nn.ReLU(), new nn.Linear(1024, 1024)).eval()
  await prune.magnitude(model, { sparsity: 0.95, include: ['2'] })
  const x = inputs(1, 1, 1024)
  const before = flat(model.forward(x))
  const report = await convert(model)
  t.equal(report.model, model)
  t.same(names(model), ['Sequential', 'Linear', 'ReLU', 'SparseLinear'])
  t.equal(report.rows, 1)
  const [first, last] = report.layers as [prune.ConvertedLayer, prune.ConvertedLayer]
  t.match(first, { path: '0', format: 'dense', costs: [{ format: 'dense', us: null }] })
  t.match(last, { path: '2', format: 'csr', shape: [1024, 1024], zeros: Math.round(0.95 * 1024 * 1024) })
  t.same(
    last.costs.map(({ format }) => format),
    ['dense', 'csr'],
  )
  t.ok(last.costs.every(({ us }) => us !== null && us > 0))
  t.ok((last.costs[0]?.us as number) > 1.05 * (last.costs[1]?.us as number), 'the faster was taken')
  const sparse = model.at(2) as AnyModule as prune.SparseLinear
  t.equal(last.bytes, sparse.sparseWeight.bytes)
  t.equal(last.denseBytes, 4 * 1024 * 1024)
  t.equal(sparse.training, false)
  // Both are within (k + 4) roundings of the exact sum, which |x| <= 5 and |w| <= 1/32 bound.
  const after = flat(model.forward(x))
  t.ok(after.every((v, i) => Math.abs(v - (before[i] as number)) <= 2 * 1028 * 2 ** -24 * ((1024 * 5 + 1) / 32)))

  const lines = String(report).split('\n')
  t.match(lines[0], /^layer {2}shape +format +zeros +dense us +csr us +bytes dense +bytes$/)
  t.match(lines[1], /^0 +\[1024, 1024\] +dense +0.0 % +- +- +4,194,304 +4,194,304$/)
  t.match(lines[2], /^2 +\[1024, 1024\] +csr +95.0 % +[\d.,]+ +[\d.,]+ +4,194,304 +42\d,\d{3}$/)
  t.match(lines[3], /^total +8,388,608 +4,6\d\d,\d{3}$/)
  t.equal(lines[4], 'us: microseconds a forward of 1 row')
  t.equal(lines.length, 5)
})

t.test('auto with other rows and dtypes; the random numbers of the program stay as they are', async (t) => {
  const model = net(1, [64, 32, 16]).to('bfloat16')
  await prune.semiStructured(model)
  manualSeed(5)
  const wanted = flat(rand([4]))
  manualSeed(5)
  const report = await convert(model, 'auto', { rows: 3 })
  t.same(flat(rand([4])), wanted)
  t.same(
    report.layers.map(({ costs }) => costs.map(({ format }) => format)),
    [
      ['dense', 'csr', '2:4'],
      ['dense', 'csr', '2:4'],
    ],
  )
  t.match(String(report), /us: microseconds a forward of 3 rows$/)
  t.equal(model.forward(inputs(2, 3, 64).to('bfloat16')).dtype, 'bfloat16')
})

t.test('a format: every layer that is included', async (t) => {
  for (const format of ['csr', '2:4', { block: [1, 16] }, { block: [3, 5] }] as const) {
    const model = net(2, [16, 12, 8, 4])
    await prune.semiStructured(model)
    const report = await convert(model, format, { include: ['0', '2'], skip: ['2'] })
    t.same(names(model), ['Sequential', 'SparseLinear', 'ReLU', 'Linear', 'ReLU', 'Linear'])
    t.equal(report.rows, null)
    t.match(report.layers, [{ path: '0', format, zeros: 96, costs: [{ us: null }, { us: null }] }])
    t.match(
      String(report),
      /^layer {2}shape +format +zeros +bytes dense +bytes\n0 .* 50.0 % +768 +\d+\ntotal +768 +\d+$/,
    )
  }
  const again = net(3, [16, 12, 8])
  await convert(again, 'csr', { include: ['0'] })
  const kept = again.at(0)
  await convert(again, 'csr')
  t.equal(again.at(0), kept, 'a sparse layer stays')
  t.same(names(again), ['Sequential', 'SparseLinear', 'ReLU', 'SparseLinear'])
  t.equal((await convert(again)).layers.length, 0)
})

t.test('a model that is a Linear, and shared layers', async (t) => {
  const layer = net(4, [8, 4]).at(0) as nn.Linear
  await prune.semiStructured(layer)
  for (const format of ['auto', '2:4'] as const) {
    const report = await convert(layer as nn.Module, format)
    t.equal(layer.weight.shape.length, 2, 'the old one is as it was')
    t.equal(report.model.constructor, report.layers[0]?.format === 'dense' ? nn.Linear : SparseLinear)
    t.match(String(report), /^\(model\)/m)
  }
  const shared = net(5, [8, 8]).at(0) as nn.Module
  const model = new nn.Sequential({ a: shared, b: new nn.Sequential(shared) })
  const { layers } = await convert(model, 'csr')
  t.equal(layers.length, 1)
  t.equal(model.getModule('a'), model.getModule('b.0'))
  t.ok((model.getModule('a') as AnyModule) instanceof SparseLinear)
})

t.test('errors name layer and option, and nothing has changed', async (t) => {
  const model = net(6, [16, 12, 8, 6])
  await prune.semiStructured(model, { include: ['0'] })
  const before = model.modules()
  const refuse = async (message: RegExp, ...args: unknown[]) => {
    await t.rejects((convert as (...args: unknown[]) => Promise<unknown>)(...args), { code: /^ERR_/, message })
    t.ok(model.modules().every((m, i) => m === before[i]))
  }
  await refuse(/^convert: layer '2': .* 2:4 allows 2/, model, '2:4')
  const odd = net(7, [6, 4])
  await refuse(/^convert: layer '0': .* 2:4 needs a multiple of 4 columns/, odd, '2:4')
  await refuse(/^convert: format must be 'csr', '2:4' or/, model, 'coo')
  await refuse(/^convert: format must be/, model, { block: 16 })
  await refuse(/^convert: rows must be/, model, 'auto', { rows: 0 })
  await refuse(/^convert: rows must be/, model, 'csr', { rows: 1.5 })
  await refuse(/^convert: options must be an object/, model, 'auto', null)
  await refuse(/^convert: include: no Linear or QuantizedLinear layer is at "9"/, model, 'auto', { include: ['9'] })
  await refuse(/^convert: expected a Module/, {}, 'auto')
})

/** Weights with blocks, fours and rows of zeros. */
function someWeights(seed: number): { w: number[]; out: number; inputs: number } {
  const next = generator(seed)
  const [out, inputs] = [1 + Math.floor(4 * next()), 1 + Math.floor(50 * next())]
  const density = next()
  const kind = Math.floor(3 * next())
  const w = Array.from({ length: out * inputs }, (_, i) => {
    const j = i % inputs
    if (kind === 1 && Math.floor(j / 16) % 2 === 1) return 0
    if (kind === 2 && j % 4 > 1) return 0
    return next() < density ? next() - 0.5 : 0
  })
  return { w, out, inputs }
}

t.test('candidates are what the zeros allow', async (t) => {
  const seen = new Set<string>()
  for (let seed = 1; seed <= 300; seed++) {
    const { w, out, inputs } = someWeights(seed)
    const found = await lookAt(Float32Array.from(w), out, inputs, new Pauses())
    const formats = candidatesOf(found, w.length)
    seen.add(JSON.stringify(formats))
    // By definition: the formats as sparsify makes them.
    const dense = tensor(w, { shape: [out, inputs] })
    const zeros = w.filter((v) => v === 0).length
    const blocks = prune.sparsify(dense, { block: [1, 16] }).values.size
    const wanted: prune.SparseFormat[] = ['csr']
    try {
      prune.sparsify(dense, '2:4')
      wanted.push('2:4')
    } catch {}
    if (blocks <= 1.25 * (w.length - zeros)) wanted.push({ block: [1, 16] })
    t.equal(found.zeros, zeros)
    t.same(formats, zeros < 0.3 * w.length ? [] : wanted, `seed ${seed}`)
  }
  t.equal(seen.size, 5, 'none, and every combination')
})

t.test('the choice is never 10 % slower than the best, and small among equals', (t) => {
  const next = generator(9)
  for (let round = 0; round < 2000; round++) {
    const us = () => 10 ** (0.5 * next())
    const tried: Timed[] = [
      { format: 'dense', us: us(), bytes: 100 },
      ...(['csr', '2:4'] as const).map((format) => ({ format, us: us(), bytes: Math.floor(200 * next()) })),
    ]
    const chosen = chooseFormat(tried)
    const least = Math.min(...tried.map((one) => one.us))
    if (!(chosen.us <= 1.1 * least)) t.fail(`${chosen.us} of ${JSON.stringify(tried)}`)
  }
  const of = (dense: number, csr: number, pattern: number) =>
    chooseFormat([
      { format: 'dense', us: dense, bytes: 100 },
      { format: 'csr', us: csr, bytes: 90 },
      { format: '2:4', us: pattern, bytes: 60 },
    ]).format
  t.equal(of(10, 5, 5.2), '2:4', 'as good and smaller')
  t.equal(of(10, 5, 5.5), 'csr', 'clearly faster')
  t.equal(of(10, 9.8, 20), 'dense', 'a tie')
  t.equal(of(10, 9, 20), 'csr')
  t.equal(of(10, 30, 20), 'dense')
  t.equal(chooseFormat([{ format: 'dense', us: 1, bytes: 1 }]).format, 'dense')
  t.end()
})

t.test('a race runs every contender, the slow ones too, and records no gradients', async (t) => {
  const p = new nn.Parameter(tensor([1, 2, 3]))
  const counts = [0, 0]
  const recorded: boolean[] = []
  const contender = (i: number) => (): Tensor => {
    counts[i] = (counts[i] as number) + 1
    const until = performance.now() + 4 * i
    while (performance.now() < until);
    const result = p.add(1)
    recorded.push(result.requiresGrad)
    return result
  }
  let turns = 0
  const timer = setInterval(() => turns++, 1)
  const times = await race([contender(0), contender(1)])
  clearInterval(timer)
  t.equal(times.length, 2)
  t.ok((times[0] as number) > 0 && (times[0] as number) < (times[1] as number))
  t.ok((times[1] as number) >= 4)
  t.ok((counts[1] as number) <= 6 && (counts[1] as number) >= 4, `the slow one is given up: ${counts}`)
  t.ok((counts[0] as number) > (counts[1] as number))
  t.notOk(recorded.includes(true))
  t.ok(turns > 0, 'the event loop turned')
})

t.test('a race does not give up what was only slow to begin', async (t) => {
  const p = tensor([1, 2, 3])
  // Milliseconds of the first calls (a disturbance, then one call alone) and of all others.
  const first = [2, 2, 2, 0.12]
  let calls = 0
  const taking = (ms: number): Tensor => {
    const until = performance.now() + ms
    while (performance.now() < until);
    return p.add(1)
  }
  const times = await race([() => taking(first[calls++] ?? 0.001), () => taking(0.02)])
  t.ok((times[0] as number) < (times[1] as number), `${times}, ${calls} calls`)
})
