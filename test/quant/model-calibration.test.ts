// Calibration of whole models: what data may be, what is done with it, which layers are quantized, and that nothing has
// changed when it fails.
import { data, nn, quant, scope, type Tensor, tensor } from 'kerf'
import t from 'tap'
import type { AnyModule, Module } from '#lib/nn/module'
import { floatsOf, inputs, mlp, relativeError, rowsOf } from './models'

const { int8Dynamic, int8Static, weightOnly, perGroup, quantizeModel, QuantizedLinear } = quant
const gptq = weightOnly({ bits: 4, granularity: perGroup(8), method: 'gptq' })
const awq = weightOnly({ bits: 4, granularity: perGroup(8), method: 'awq' })

/** The paths of the quantized layers. */
const quantized = (model: AnyModule) =>
  model.namedModules().flatMap(([path, module]) => (module instanceof QuantizedLinear ? [path] : []))

/** What an error says, or what came instead of one. */
async function messageOf(run: () => unknown): Promise<string> {
  try {
    await run()
    return 'no error'
  } catch (error) {
    return `${(error as { code?: string }).code}: ${(error as Error).message}`
  }
}

const batches = [1, 2, 3].map((seed) => inputs(seed, 6, 12))

/** Everything about a model that quantization could leave changed. */
const stateOf = (model: AnyModule) => ({
  layers: model.modules(),
  training: model.modules().map((module) => module.training),
  forwards: model.modules().map((module) => module.forward),
  values: Object.entries(model.stateDict()).map(([name, x]) => [name, x.arraySync()]),
})

t.test('data in every form gives the same model', async (t) => {
  const all = batches.flatMap(rowsOf)
  const whole = tensor(all)
  const labels = tensor(all.map((_, i) => i % 3))
  async function* generated() {
    for (const batch of batches) {
      await new Promise((resolve) => setImmediate(resolve))
      yield batch
    }
  }
  const dataset = new data.TensorDataset(whole, labels)
  const forms: Record<string, quant.CalibrationData> = {
    'one batch': [whole],
    'a Set': new Set(batches),
    'a generator': (function* () {
      yield* batches
    })(),
    'an async generator': generated(),
    'pairs with labels': batches.map((x) => [x, labels]),
    'a loader': data.loader(dataset, { batchSize: 5 }),
    'a loader that recycles': data.loader(dataset, { batchSize: 5, recycle: true }),
  }
  const config = int8Static({ calibration: 'entropy' })
  const wanted = await quantizeModel(mlp(1, [12, 9, 4]), config, { calibrationData: batches })
  const state = (model: AnyModule) => Object.entries(model.stateDict()).map(([name, x]) => [name, x.arraySync()])
  for (const [name, calibrationData] of Object.entries(forms)) {
    const model = await quantizeModel(mlp(1, [12, 9, 4]), config, { calibrationData })
    t.same(state(model), state(wanted), name)
  }
  // Those that look twice, or once a layer, need data that can be iterated again.
  for (const config of [gptq, int8Static({ smoothQuant: true })])
    await quantizeModel(mlp(1, [12, 9, 4]), config, {
      calibrationData: data.loader(dataset, { batchSize: 7, recycle: true }),
    })
})

t.test('batches of another kind: run', async (t) => {
  class Two extends nn.Module<[a: Tensor, b: Tensor]> {
    left = new nn.Linear(12, 8)
    right = new nn.Linear(12, 8)
    forward(a: Tensor, b: Tensor) {
      return this.left.forward(a).add(this.right.forward(b))
    }
  }
  const model = new Two()
  const run = (batch: { a: Tensor; b: Tensor }) => model.forward(batch.a, batch.b)
  const calibrationData = batches.map((a) => ({ a, b: a.mul(3) }))
  await quantizeModel(model, int8Static({ input: 'int8' }), { calibrationData, run })
  const { left, right } = model as unknown as Record<'left' | 'right', quant.QuantizedLinear>
  const most = Math.max(...batches.flatMap((x) => rowsOf(x).flat().map(Math.abs)))
  t.equal(left.inputScale?.item(), Math.fround(most / 127))
  t.equal(right.inputScale?.item(), Math.fround(Math.fround(most * 3) / 127))
  // One that waits, and one that calls only a part of the model.
  const again = mlp(1, [12, 9, 4])
  await quantizeModel(again, int8Static(), {
    calibrationData,
    run: async ({ a }: { a: Tensor }) => {
      await new Promise((resolve) => setImmediate(resolve))
      again.at(0).forward(a)
    },
    skip: ['2'],
  })
  t.same(quantized(again), ['0'])
})

t.test('calibration is evaluation without gradients; modes are what they were afterwards', async (t) => {
  const seen: { training: boolean; requiresGrad: boolean }[] = []
  class Probe extends nn.Module {
    forward(x: Tensor) {
      seen.push({ training: this.training, requiresGrad: x.requiresGrad })
      return x
    }
  }
  const model = new nn.Sequential(new nn.Linear(12, 9), new Probe(), new nn.Dropout(0.9), new nn.Linear(9, 4))
  model.train()
  model.at(2).training = false
  for (const config of [int8Static(), gptq, awq]) {
    const copy = new nn.Sequential(...model)
    const modes = copy.modules().map((module) => module.training)
    await quantizeModel(copy, config, { calibrationData: batches })
    t.same(
      copy.modules().map((module) => module.training),
      modes,
      'layers train or not as they did',
    )
  }
  t.ok(seen.length >= 9 && seen.every(({ training, requiresGrad }) => !training && !requiresGrad))
})

t.test('which layers: skip', async (t) => {
  const model = () =>
    new nn.Sequential({
      embed: mlp(1, [12, 8]),
      body: mlp(2, [8, 8, 8]),
      bodyguard: mlp(3, [8, 8]),
      head: mlp(4, [8, 4]),
    })
  const every = ['embed.0', 'body.0', 'body.2', 'bodyguard.0', 'head.0']
  const without = (...paths: string[]) => every.filter((path) => !paths.includes(path))
  const seen: string[] = []
  const cases: [quant.Skip | undefined, string[]][] = [
    [undefined, every],
    [[], every],
    [['body.2'], without('body.2')],
    [['body'], without('body.0', 'body.2')],
    [[/^body/, 'head.0'], without('body.0', 'body.2', 'bodyguard.0', 'head.0')],
    // A regular expression that remembers where it was must not.
    [[/0/g], ['body.2']],
    [[/.*\.0/y], ['body.2']],
    [(path, layer) => seen.push(path) > 0 && (layer as nn.Linear).outFeatures === 4, without('head.0')],
    [() => true, []],
  ]
  for (const [skip, paths] of cases)
    t.same(quantized(await quantizeModel(model(), int8Dynamic(), { skip })), paths, String(skip))
  t.same(seen, every)

  const wrong = (skip: unknown) => messageOf(() => quantizeModel(model(), int8Dynamic(), { skip: skip as quant.Skip }))
  t.equal(
    await wrong(['bod']),
    `ERR_ARGUMENT: quantizeModel: skip: no Linear or Conv2d layer is at "bod"; there are ${every.map((p) => `'${p}'`).join(', ')}`,
  )
  t.match(await wrong(['head.0', /nothing/]), /^ERR_ARGUMENT: .*no Linear or Conv2d layer is at a RegExp/)
  t.match(await wrong('head'), /^ERR_ARGUMENT: .*skip must be an array of paths or a function, got "head"/)
  t.match(await wrong([3]), /^ERR_ARGUMENT: .*paths or regular expressions, got 3/)
  t.match(await messageOf(() => quantizeModel(new nn.ReLU(), int8Dynamic(), { skip: ['x'] })), /there are none$/)
})

t.test('a skipped layer needs no data, and its inputs may be anything', async (t) => {
  const model = mlp(1, [12, 9, 4])
  await quantizeModel(model, int8Static(), {
    calibrationData: batches,
    run: (x: Tensor) => model.at(0).forward(x),
    skip: ['2'],
  })
  t.same(quantized(model), ['0'])
  t.same(quantized(await quantizeModel(new nn.Sequential(new nn.ReLU()), int8Dynamic())), [])
})

t.test('a layer in several places is one layer: seen in all of them and replaced in all of them', async (t) => {
  for (const config of [int8Dynamic(), int8Static({ input: 'int8' }), gptq]) {
    const shared = mlp(5, [12, 12]).at(0) as nn.Linear
    const model = new nn.Sequential({ a: shared, act: new nn.ReLU(), b: new nn.Sequential(shared) })
    const x = batches[0] as Tensor
    const float = model.forward(x)
    const hidden = rowsOf(model.at(1).forward(shared.forward(x)))
    await quantizeModel(model, config, { calibrationData: [x] })
    const [a, b] = [model.getModule('a'), model.getModule('b.0')] as quant.QuantizedLinear[]
    t.equal(a, b)
    t.ok(a instanceof QuantizedLinear)
    t.ok(relativeError(model.forward(x), float) < (config === gptq ? 0.3 : 0.03))
    const most = Math.max(...[...rowsOf(x), ...hidden].flat().map(Math.abs))
    if (config.kind === 'int8Static')
      t.equal(a?.inputScale?.item(), Math.fround(most / 127), 'the range of both inputs')
  }
})

t.test('only layers that compute as Linear does', async (t) => {
  class Twice extends nn.Linear {
    override forward(x: Tensor) {
      return super.forward(x).mul(2)
    }
  }
  const model = new nn.Sequential(new Twice(12, 9), new nn.Linear(9, 4))
  t.same(quantized(await quantizeModel(model, int8Static(), { calibrationData: batches })), ['1'])
})

t.test('a model that is itself a Linear', async (t) => {
  for (const config of [int8Dynamic(), int8Static({ smoothQuant: true }), gptq, awq]) {
    const layer: Module = mlp(6, [12, 9]).at(0)
    const before = stateOf(layer)
    const made = await quantizeModel(layer, config, { calibrationData: batches })
    t.ok(made instanceof QuantizedLinear)
    t.equal(made.training, false)
    t.same(stateOf(layer), before, 'the float layer is as it was')
  }
})

t.test('calibration that fails says where and leaves the model as it was', async (t) => {
  const bad = (value: number, row = 2) => {
    const rows = rowsOf(batches[0] as Tensor)
    ;(rows[row] as number[])[5] = value
    return tensor(rows)
  }
  const good = batches[0] as Tensor
  const first = "quantizeModel: layer '0'"
  const late = async function* () {
    yield good
    throw new RangeError('the disk is full')
  }
  const cases: [quant.QuantConfig, quant.CalibrationData | undefined, RegExp][] = []
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    const text = value < 0 ? 'Infinity|-Infinity' : String(value)
    for (const config of [
      int8Static(),
      int8Static({ calibration: 'mse' }),
      int8Static({ smoothQuant: true }),
      gptq,
      awq,
    ])
      cases.push([config, [good, bad(value)], new RegExp(`${first}: .*(finite).*(${text}|NaN)`)])
  }
  for (const config of [int8Static(), int8Dynamic({ smoothQuant: true }), gptq, awq]) {
    cases.push(
      [config, undefined, new RegExp(`^ERR_ARGUMENT: quantizeModel: ${config.kind} .*needs calibrationData`)],
      [config, [], /^ERR_ARGUMENT: quantizeModel: calibrationData was empty/],
      [config, 7 as never, /^ERR_ARGUMENT: .*must be an iterable of batches, got 7/],
      [config, good as never, /^ERR_ARGUMENT: .*must be an iterable of batches, got a Tensor/],
      [config, [good, 7], /^ERR_ARGUMENT: .*must be a tensor, or an array that begins with one, got 7 \(give `run`/],
      [config, [[[1, 2]]], /^ERR_ARGUMENT: .*must be a tensor, or an array that begins with one, got \[/],
      [config, [inputs(1, 3, 11)], /^ERR_SHAPE: .*\b11\b/],
      [config, late(), /the disk is full/],
    )
  }
  for (const [config, calibrationData, wanted] of cases) {
    const model = mlp(7, [12, 9, 4]).train()
    model.at(1).training = false
    const before = stateOf(model)
    const message = await messageOf(() => quantizeModel(model, config, { calibrationData }))
    t.match(message, wanted)
    t.same(stateOf(model), before, `${message}: the model is as it was`)
  }
})

t.test('no layer is replaced when a later one cannot be', async (t) => {
  const model = mlp(7, [12, 9, 4])
  model.loadStateDict({ '0.weight': tensor(new Float32Array(108).fill(3e36), { shape: [9, 12] }) }, { strict: false })
  const before = stateOf(model)
  // The first layer's range is fine, the second one's is wider than float32.
  const x = tensor([new Array(12).fill(3), new Array(12).fill(-3)])
  model.at(1).forward = (y: Tensor) => y
  const message = await messageOf(() => quantizeModel(model, int8Static(), { calibrationData: [x.mul(3)] }))
  t.match(message, /^ERR_ARGUMENT: quantizeModel: layer '2': .*too wide/)
  model.at(1).forward = nn.ReLU.prototype.forward
  t.same(stateOf(model), before)
})

t.test('data that is used up, and layers that see none', async (t) => {
  const once = () =>
    (function* () {
      yield* batches
    })()
  for (const config of [gptq, int8Static({ smoothQuant: true })]) {
    const message = await messageOf(() => quantizeModel(mlp(1, [12, 9, 4]), config, { calibrationData: once() }))
    t.match(message, /^ERR_ARGUMENT: quantizeModel: calibrationData was empty .*an array or a loader, not a generator/)
  }
  const model = mlp(1, [12, 9, 4])
  const before = stateOf(model)
  const run = (x: Tensor) => model.at(0).forward(x)
  const message = await messageOf(() => quantizeModel(model, int8Static(), { calibrationData: batches, run }))
  t.match(message, /^ERR_ARGUMENT: quantizeModel: layer '2' saw no input in calibrationData: name it in skip/)
  t.same(stateOf(model), before)
  const none = await messageOf(() =>
    quantizeModel(model, int8Static(), { calibrationData: [tensor([], { shape: [0, 12] })] }),
  )
  t.match(none, /layer '0' saw no input/)
  // Empty batches among others change nothing.
  await quantizeModel(model, int8Static(), { calibrationData: [tensor([], { shape: [0, 12] }), ...batches] })
  t.same(quantized(model), ['0', '2'])
})

t.test('bad values met while `run` still waits are an error, not an unhandled rejection', async (t) => {
  const unhandled: unknown[] = []
  const note = (reason: unknown) => unhandled.push(reason)
  process.on('unhandledRejection', note)
  const model = mlp(1, [12, 9, 4])
  const run = async (x: Tensor) => {
    model.forward(x)
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setTimeout(resolve, 2))
  }
  for (const config of [int8Static(), int8Static({ smoothQuant: true })]) {
    const calibrationData = [inputs(1, 3, 12).mul(Number.NaN)]
    t.match(await messageOf(() => quantizeModel(model, config, { calibrationData, run })), /layer '0': .*finite/)
  }
  await new Promise((resolve) => setImmediate(resolve))
  process.off('unhandledRejection', note)
  t.same(unhandled, [])
})

t.test('progress: once a layer, in order', async (t) => {
  for (const config of [int8Dynamic(), int8Static(), gptq]) {
    const told: unknown[] = []
    const progress = (...what: unknown[]) => told.push(what)
    await quantizeModel(mlp(1, [12, 9, 7, 4]), config, { calibrationData: batches, skip: ['2'], progress })
    t.same(told, [
      [0, 2, '0'],
      [1, 2, '4'],
    ])
  }
})

t.test('whoever calls it inside a scope keeps the model', async (t) => {
  const model = mlp(1, [12, 9, 4])
  for (const config of [int8Static({ smoothQuant: true }), int8Dynamic(), gptq, awq]) {
    const copy = new nn.Sequential(...model)
    await scope(async () => void (await quantizeModel(copy, config, { calibrationData: batches })))
    t.equal(copy.forward(batches[0] as Tensor).shape[1], 4)
  }
  t.ok(floatsOf(model.at(0) as nn.Linear).w.length === 9, 'the float layers live on')
})

t.test('what is no model and no configuration', async (t) => {
  const model = mlp(1, [12, 4])
  t.match(await messageOf(() => quantizeModel({} as never, int8Dynamic())), /^ERR_ARGUMENT: quantizeModel: .*a Module/)
  t.match(
    await messageOf(() => quantizeModel(model, 'int8' as never)),
    /^ERR_ARGUMENT: .*int8Dynamic\(\), .*got "int8"/,
  )
  t.match(await messageOf(() => quantizeModel(model, {} as never)), /^ERR_ARGUMENT: .*got an object/)
  const copied = JSON.parse(JSON.stringify(int8Static())) as never
  t.match(await messageOf(() => quantizeModel(model, copied, { calibrationData: batches })), /int8Static\(\) or/)
  const wrong: [() => unknown, RegExp][] = [
    [() => int8Dynamic({ input: 'row' as never }), /int8Dynamic: input must be .* got "row"/],
    [() => int8Dynamic({ granularity: perGroup(8) }), /int8Dynamic: granularity .*perChannel\(0\) or perTensor/],
    [() => int8Dynamic({ granularity: quant.perChannel(1) }), /int8Dynamic: granularity/],
    [() => int8Dynamic({ smoothQuant: 2 }), /int8Dynamic: smoothQuant .*got 2/],
    [() => int8Static({ calibration: 'toString' as never }), /int8Static: calibration must be minMax, .*"toString"/],
    [() => int8Static({ input: 'int4' as never }), /int8Static: input/],
    [() => weightOnly({ bits: 3 as never }), /weightOnly: bits must be 4 or 8, got 3/],
    [() => weightOnly({ method: 'best' as never }), /weightOnly: method/],
    [() => weightOnly({ symmetric: 'no' as never }), /weightOnly: symmetric must be true or false, got "no"/],
    [() => weightOnly({ actOrder: 1 as never }), /weightOnly: actOrder must be true or false, got 1/],
    [() => weightOnly({ granularity: quant.perTensor }), /weightOnly: granularity/],
  ]
  for (const [run, message] of wrong) t.throws(run, { code: 'ERR_ARGUMENT', message })
  t.same(quantized(model), [])
  t.end()
})
