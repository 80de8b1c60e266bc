// tune: what it finds to blame, what it keeps, how many trials it takes, and what it leaves when the score fails it.
import { nn, quant, type Tensor, tensor } from 'kerf'
import t from 'tap'
import type { AnyModule } from '#lib/nn/module'
import { inputs, mlp, relativeError, rowsOf } from './models'

const { int8Dynamic, int8Static, perTensor, QuantizedLinear, tune } = quant

const x = inputs(1, 40, 24)
const calibrationData = [inputs(2, 60, 24), inputs(3, 60, 24)]

/** Five layers; the weights of those at `poisonous` have rows that differ by a factor of 2^16. */
function model(poisonous: readonly number[] = []): nn.Sequential {
  const made = mlp(4, [24, 20, 16, 12, 10, 6])
  for (const i of poisonous) {
    const layer = made.at(2 * i) as nn.Linear
    const by = Array.from({ length: layer.outFeatures }, (_, o) => [o % 2 ? 256 : 1 / 256])
    const next = made.at(2 * i + 2) as nn.Linear
    // The next layer takes it back, so that the small rows count as much as the large ones.
    layer.loadStateDict({ weight: layer.weight.mul(tensor(by)), bias: (layer.bias as Tensor).mul(tensor(by.flat())) })
    next.loadStateDict({ weight: next.weight.div(tensor(by.flat())), bias: next.bias as Tensor })
  }
  return made
}

/** The score: how near the output is to the float model's, at most 1. */
function scoring(float: Tensor) {
  let calls = 0
  const evaluate = async (m: AnyModule) => {
    calls++
    await new Promise((resolve) => setImmediate(resolve))
    return 1 - relativeError((m as nn.Module).forward(x), float)
  }
  return { evaluate, calls: () => calls }
}

const quantized = (m: AnyModule) =>
  m.namedModules().flatMap(([path, layer]) => (layer instanceof QuantizedLinear ? [path] : []))
const kept = (report: quant.TuneReport) => report.layers.flatMap(({ path, quantized }) => (quantized ? [] : [path]))
const all = ['0', '2', '4', '6', '8']
// Weights per tensor cannot hold rows of such different sizes; the inputs of the layer after one are as different.
const config = int8Dynamic({ granularity: perTensor })

t.test('a tolerable model takes one trial', async (t) => {
  const m = model()
  const { evaluate, calls } = scoring(m.forward(x))
  const report = await tune(m, evaluate, { calibrationData, tolerableLoss: 0.05 })
  t.equal(calls(), 2, 'the float model and the quantized one')
  t.equal(report.trials, 1)
  t.equal(report.baseline, 1)
  t.equal(report.score, await evaluate(m))
  t.equal(report.loss, 1 - report.score)
  t.ok(report.met && report.loss > 0 && report.loss < 0.05)
  t.same(
    report.layers,
    all.map((path) => ({ path, quantized: true, why: 'within the tolerable loss' })),
  )
  t.same(quantized(m), all)
  t.equal((m.getModule('0') as quant.QuantizedLinear).input, 'uint8', 'int8Static where there is calibration data')
  const dynamic = model()
  await tune(dynamic, evaluate, { tolerableLoss: 0.05 })
  t.equal((dynamic.getModule('0') as quant.QuantizedLinear).input, 'token', 'int8Dynamic where there is none')
})

t.test('one poisonous layer is found and kept in float, with the reason', async (t) => {
  const m = model([2])
  const { evaluate, calls } = scoring(m.forward(x))
  // Only the poisonous one, and not the one after it: its inputs are float here.
  const report = await tune(m, evaluate, { config, tolerableLoss: 0.1, skip: ['6'] })
  t.same(kept(report), ['4'])
  t.same(quantized(m), ['0', '2', '8'])
  t.equal(report.trials, 5, 'all of them, then each alone in float')
  t.equal(calls(), 6)
  t.equal(report.score, await evaluate(m))
  t.ok(report.met)
  const why = report.layers.find(({ path }) => path === '4')?.why ?? ''
  t.match(why, /^kept in float: alone it takes the loss from \d\d\.\d\d % to \d\.\d\d %$/)
  t.ok(m.getModule('4') instanceof nn.Linear && m.at(4).training === false)
})

t.test('two poisonous layers: the most harmful first, until the loss is tolerable', async (t) => {
  const m = model([0, 3])
  const float = m.forward(x)
  const { evaluate } = scoring(float)
  const report = await tune(m, evaluate, { config, tolerableLoss: 0.1, skip: ['2', '8'] })
  t.same(kept(report), ['0', '6'])
  t.same(quantized(m), ['4'])
  t.equal(report.trials, 5, 'all, three alone, two together')
  t.ok(report.met && report.loss === 1 - report.score)
  t.equal(report.score, await evaluate(m))
})

t.test('nothing tolerable: float, which always is', async (t) => {
  const m = model()
  const float = m.forward(x)
  const before = m.modules()
  const { evaluate } = scoring(float)
  const report = await tune(m, evaluate, { config, tolerableLoss: 0 })
  t.same(quantized(m), [])
  t.ok(
    m.modules().every((layer, i) => layer === before[i]),
    'the layers that it had',
  )
  t.same(m.forward(x).arraySync(), float.arraySync())
  t.same([report.baseline, report.score, report.loss, report.met], [1, 1, 0, true])
  t.same(kept(report), all)
  t.ok(report.layers.every(({ why }) => why.startsWith('kept in float: ')))
  t.equal(report.trials, 10, 'all, five alone, four more together: the first of these is known')
})

t.test('maxTrials is kept, and float is what is left without a tolerable model', async (t) => {
  for (const maxTrials of [1, 2, 3, 6, 7]) {
    const m = model([0, 3])
    const float = m.forward(x).arraySync()
    const { evaluate, calls } = scoring(m.forward(x))
    const report = await tune(m, evaluate, { config, tolerableLoss: 1e-4, maxTrials })
    t.equal(report.trials, maxTrials)
    t.equal(calls(), maxTrials + 1)
    t.same(quantized(m), [])
    t.same(m.forward(x).arraySync(), float)
    t.same([report.score, report.met], [1, true])
    t.same(kept(report), all)
    t.ok(report.layers.some(({ why }) => why === `kept in float: no tolerable model within ${maxTrials} trials`))
  }
  // The last trial that is allowed finds it.
  const m = model([2])
  const { evaluate } = scoring(m.forward(x))
  const report = await tune(m, evaluate, { config, tolerableLoss: 0.1, skip: ['6'], maxTrials: 5 })
  t.same([kept(report), report.met, report.trials], [['4'], true, 5])
})

t.test('lower is better; scores below zero; a score of zero', async (t) => {
  const float = model([2]).forward(x)
  const error = async (m: AnyModule) => 0.5 + relativeError((m as nn.Module).forward(x), float)
  const m = model([2])
  const report = await tune(m, error, { config, lowerIsBetter: true, tolerableLoss: 0.1, skip: ['6'] })
  t.equal(report.baseline, 0.5)
  t.same(kept(report), ['4'])
  t.ok(report.score > 0.5 && Math.abs(report.loss - (report.score - 0.5) / 0.5) < 1e-12)
  // Higher is better: minus the error. The loss is relative to its size.
  const negative = model([2])
  const second = await tune(negative, async (m) => -(await error(m)), { config, tolerableLoss: 0.1, skip: ['6'] })
  t.same([second.score, second.loss], [-report.score, report.loss])
  const zero = model()
  const third = await tune(zero, async (m) => (await error(m)) * 0, { config })
  t.same([third.baseline, third.loss, third.met], [0, 0, true])
  const absolute = await tune(model(), async (m) => (quantized(m).length ? -0.3 : 0), { config, tolerableLoss: 0.2 })
  t.equal(quantized(zero).length, 5)
  t.same([absolute.score, kept(absolute).length], [0, 5], 'relative to zero there is only the loss itself')
  // A quantized model may be better than the float one.
  const better = await tune(model(), (m) => (quantized(m).length ? 2 : 1), { config, tolerableLoss: 0 })
  t.same([better.loss, better.met, better.trials], [-1, true, 1])
})

t.test('a score that fails leaves the float model', async (t) => {
  const broken = [
    () => Number.NaN,
    () => Number.POSITIVE_INFINITY,
    () => 'good' as never,
    () => undefined as never,
    () => {
      throw new RangeError('no validation data')
    },
    async () => {
      await new Promise((resolve) => setImmediate(resolve))
      throw new RangeError('no validation data')
    },
  ]
  for (const fail of broken)
    for (const from of [1, 2, 4, 9]) {
      const m = model([0, 3])
      const before = m.modules()
      const { evaluate } = scoring(m.forward(x))
      let calls = 0
      const run = (m: AnyModule) => (++calls >= from ? fail() : evaluate(m))
      await t.rejects(
        tune(m, run, { config, tolerableLoss: 1e-4 }),
        /evaluate must return a finite number|no validation/,
      )
      t.ok(
        m.modules().every((layer, i) => layer === before[i]),
        `call ${from}`,
      )
    }
})

t.test('calibration that fails leaves the float model, half of it done or not', async (t) => {
  const gptq = quant.weightOnly({ bits: 4, granularity: quant.perGroup(8), method: 'gptq' })
  const bad = inputs(2, 60, 24).mul(Number.NaN)
  const once = (function* () {
    yield* calibrationData
  })()
  for (const [config, data, message] of [
    [int8Static(), [bad], /tune: layer '0': .*finite/],
    [gptq, once, /tune: calibrationData was empty/],
    [gptq, [], /tune: calibrationData was empty/],
    [gptq, undefined, /tune: weightOnly .*needs calibrationData/],
  ] as const) {
    const m = model()
    const before = m.modules()
    await t.rejects(
      tune(m, () => 1, { config, calibrationData: data as never }),
      { code: 'ERR_ARGUMENT', message },
    )
    t.ok(
      m.modules().every((layer, i) => layer === before[i]),
      String(message),
    )
  }
})

t.test('shared layers are one candidate, in float or not in all places', async (t) => {
  const layer = mlp(6, [24, 24]).at(0)
  const make = () =>
    new nn.Sequential({ a: layer, act: new nn.ReLU(), b: new nn.Sequential(layer), c: mlp(7, [24, 4]) })
  const m = make()
  const float = m.forward(x)
  const { evaluate } = scoring(float)
  const report = await tune(m, evaluate, { config, tolerableLoss: 0 })
  t.same(
    report.layers.map(({ path }) => path),
    ['a', 'c.0'],
  )
  t.same(rowsOf(m.forward(x)), rowsOf(float))
  t.equal(m.getModule('b.0'), layer)
})

t.test('arguments; a model without layers to quantize', async (t) => {
  const { evaluate } = scoring(model().forward(x))
  const wrong: [AnyModule, unknown, object, RegExp][] = [
    [{} as never, evaluate, {}, /tune: expected a Module, got an object/],
    [model(), 7, {}, /tune: evaluate must be a function, got 7/],
    [model(), evaluate, { tolerableLoss: -1 }, /tune: tolerableLoss must be a number >= 0, got -1/],
    [model(), evaluate, { tolerableLoss: Number.NaN }, /tune: tolerableLoss/],
    [model(), evaluate, { maxTrials: 0 }, /tune: maxTrials/],
    [model(), evaluate, { config: {} }, /tune: config must be/],
    [model(), evaluate, { skip: ['head'] }, /tune: skip: no Linear or Conv2d layer is at "head"/],
    [mlp(1, [24, 4]).at(0), evaluate, {}, /tune: the model is itself a Linear: put it into a Sequential/],
  ]
  for (const [m, fn, options, message] of wrong)
    await t.rejects(tune(m, fn as never, options), { code: 'ERR_ARGUMENT', message })
  const report = await tune(new nn.Sequential(new nn.ReLU()), () => 3)
  t.same(report, { baseline: 3, score: 3, loss: 0, met: true, trials: 1, layers: [] })
})
