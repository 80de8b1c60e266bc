// Quantization-aware training: what a layer computes is what its converted one computes, to the last bit, and what an
// independent oracle computes, to the last integer; ranges, optimizers, state.
import { mseLoss, nn, optim, quant, scope, type Tensor, tensor } from 'kerf'
import t from 'tap'
import { oracleGrid } from './data'
import { affineBytes, at, inputs, mlp, rowsOf, storedIn, toBytes } from './models'

const { convert, int8Dynamic, int8Static, perChannel, perGroup, perTensor, prepareQat, QatLinear, QuantizedLinear } =
  quant
const { weightOnly } = quant
type Ranges = 'observed' | 'learned'

const configs: Record<string, quant.QuantConfig> = {
  'dynamic, token': int8Dynamic(),
  'dynamic, tensor': int8Dynamic({ input: 'tensor', granularity: perTensor }),
  'static uint8': int8Static(),
  'static int8': int8Static({ input: 'int8', granularity: perTensor }),
  '8 bits by channel': weightOnly({ bits: 8, granularity: perChannel(0) }),
  '4 bits by group': weightOnly({ bits: 4, granularity: perGroup(8) }),
  '4 bits with zero points': weightOnly({ bits: 4, granularity: perGroup(8), symmetric: false }),
}

const sizes = [21, 13, 5]
const layersOf = (model: nn.Module) => model.modules().filter((m) => m instanceof QatLinear) as quant.QatLinear[]

/** A few steps on random targets; answers the losses. */
async function train(model: nn.Module, steps: number, lr = 1e-2, dtype: 'float32' | 'bfloat16' = 'float32') {
  const optimizer = new optim.AdamW(model.parameters(), { lr, weightDecay: 0 })
  const losses: number[] = []
  model.train()
  for (let i = 0; i < steps; i++) {
    const x = inputs(200 + (i % 4), 24, 21, undefined, dtype)
    const y = inputs(300 + (i % 4), 24, 5, undefined, dtype)
    const loss = mseLoss(model.forward(x), y)
    optimizer.zeroGrad()
    loss.backward()
    optimizer.step()
    losses.push((await loss.array()) as number)
  }
  model.eval()
  return losses
}

const choices = Object.entries(configs).flatMap(([name, config]) =>
  (['observed', 'learned'] as const)
    .filter((ranges) => ranges === 'observed' || name !== '4 bits with zero points')
    .map((ranges): [string, quant.QuantConfig, Ranges] => [`${name}, ${ranges}`, config, ranges]),
)

for (const [name, config, ranges] of choices) {
  t.test(`${name}: converted, the model gives the same bits`, async (t) => {
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const model = prepareQat(mlp(1, sizes).to(dtype), config, { ranges })
      const x = inputs(2, 30, 21, (j) => 1 + j / 7, dtype)
      const losses = await train(model, 8, 1e-2, dtype)
      t.ok(losses.every(Number.isFinite))
      const evaluated = model.forward(x)
      // In training mode the batch counts for the range first, and then the layer computes with it.
      const trained = model.train().forward(x).arraySync()
      const kept = model.eval().forward(x).arraySync()
      t.same(trained, kept, `${dtype}: the mode changes no bit`)
      if (config.kind !== 'int8Static' || ranges === 'learned') t.same(evaluated.arraySync(), kept)
      t.equal(convert(model), model)
      t.equal(model.modules().filter((m) => m instanceof QuantizedLinear).length, 2)
      const y = model.forward(x)
      t.same(y.arraySync(), kept, dtype)
      t.equal(y.dtype, dtype)
    }
  })

  t.test(`${name}: it learns`, async (t) => {
    const model = prepareQat(mlp(3, sizes), config, { ranges })
    const losses = await train(model, 60)
    const [first, last] = [losses.slice(0, 4), losses.slice(-4)].map((list) => list.reduce((s, v) => s + v, 0))
    // Random targets, no more than which float layers learn; a step as long for a scale as for a weight would ruin it.
    const float = (await train(mlp(3, sizes), 60)).slice(-4).reduce((s, v) => s + v, 0)
    t.comment(`from ${first} to ${last}; float layers get to ${float}`)
    t.ok((last as number) < 1.1 * float)
  })
}

t.test('the integers inside are those of the definitions, to the last one', async (t) => {
  for (const [name, config] of Object.entries(configs)) {
    if (config.kind === 'weightOnly') continue
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const layer = mlp(4, [21, 13], { bias: false }).to(dtype).at(0) as nn.Linear
      const w = rowsOf(layer.weight)
      const qat = prepareQat(layer as nn.Module, config).train()
      const x = inputs(5, 10, 21, undefined, dtype)
      // float32 results, so that the integers can be read from them: a bfloat16 input as float32 is the same input.
      const y = rowsOf(qat.forward(x.to('float32')))
      const perRow = config.granularity.kind === 'channel'
      const weights = w.map((row) => {
        const { scale } = oracleGrid(perRow ? row : w.flat(), 8, true)
        return toBytes(row, scale, 0, -127, 127)
      })
      const rows = rowsOf(x)
      const whole = affineBytes(rows.flat())
      const amax = Math.max(...rows.flat().map(Math.abs))
      let wrong = 0
      for (const [r, row] of rows.entries()) {
        const token = config.kind === 'int8Dynamic' && config.input === 'token'
        const signed = config.kind === 'int8Static' && config.input === 'int8'
        const by = signed ? { scale: Math.fround(amax / 127), zero: 0 } : token ? affineBytes(row) : whole
        const bytes = toBytes(row, by.scale, by.zero, signed ? -128 : 0, signed ? 127 : 255)
        for (const [o, { codes, scale }] of weights.entries()) {
          const sum = codes.reduce((s, code, j) => s + code * ((bytes.codes[j] as number) - by.zero), 0)
          // Three roundings of float32 in a number below 2^20: far less than half of one.
          const found = at(y, r, o) / (scale * by.scale)
          if (Math.abs(found - sum) > 0.25) wrong++
        }
      }
      t.equal(wrong, 0, `${name}, ${dtype}`)
    }
  }
})

t.test('observed ranges are the moving average of the batches', async (t) => {
  const batches = [1, 2, 3, 4].map((seed) => inputs(seed, 10, 21, () => seed))
  for (const rate of [undefined, 0.3, 1]) {
    const layer = prepareQat(mlp(6, [21, 4]).at(0) as nn.Module, int8Static(), { rate }) as unknown as quant.QatLinear
    layer.train()
    let [low, high] = [Number.NaN, Number.NaN]
    const f = Math.fround
    for (const batch of batches) {
      const values = rowsOf(batch).flat()
      const [min, max] = [Math.min(...values), Math.max(...values)]
      const move = (old: number, now: number) => (Number.isNaN(old) ? now : f(old + f(f(now - old) * f(rate ?? 0.01))))
      ;[low, high] = [move(low, min), move(high, max)]
      layer.forward(batch)
      t.equal(layer.rangeMin.item(), low)
      t.equal(layer.rangeMax.item(), high)
    }
    layer.eval().forward(inputs(9, 10, 21, () => 100))
    layer.train().forward(tensor([], { shape: [0, 21] }))
    t.same([layer.rangeMin.item(), layer.rangeMax.item()], [low, high], 'neither evaluation nor an empty batch counts')
  }
})

t.test('an optimizer made before prepareQat goes on', async (t) => {
  const model = mlp(7, sizes)
  const parameters = model.parameters()
  const optimizer = new optim.SGD(parameters, { lr: 0.05, momentum: 0.9 })
  prepareQat(model, int8Static())
  t.same(
    model.parameters().map((p) => parameters.indexOf(p as never)),
    [0, 1, 2, 3],
    'the same parameters',
  )
  const x = inputs(8, 24, 21)
  const y = inputs(9, 24, 5)
  const losses: number[] = []
  for (let i = 0; i < 20; i++) {
    const loss = mseLoss(model.train().forward(x), y)
    optimizer.zeroGrad()
    loss.backward()
    optimizer.step()
    losses.push(loss.item() as number)
  }
  t.ok((losses.at(-1) as number) < 0.7 * (losses[0] as number), `${losses[0]} to ${losses.at(-1)}`)
  const learned = prepareQat(mlp(7, sizes), int8Static(), { ranges: 'learned' })
  t.equal(learned.parameters().length, 8, 'learned scales are parameters from the start')
})

t.test('before any training batch there is no range', async (t) => {
  for (const ranges of ['observed', 'learned'] as const) {
    const model = prepareQat(mlp(10, sizes), int8Static(), { ranges })
    const x = inputs(11, 4, 21)
    t.throws(() => model.eval().forward(x), { code: 'ERR_ARGUMENT', message: /no training batch has shown a range/ })
    t.throws(() => convert(model), { code: 'ERR_ARGUMENT', message: /no training batch has shown a range/ })
    t.equal(layersOf(model).length, 2, 'nothing was converted')
    // A float checkpoint has no ranges either.
    model.loadStateDict(mlp(12, sizes).stateDict(), { strict: false })
    t.throws(() => model.forward(x), { message: /no training batch has shown a range/ })
    // Nor has a state that was saved before the first batch.
    model.loadStateDict(prepareQat(mlp(13, sizes), int8Static(), { ranges }).stateDict())
    t.throws(() => model.forward(x), { message: /no training batch has shown a range/ })
    model.train().forward(x)
    const values = rowsOf(x).flat()
    t.equal(layersOf(model)[0]?.rangeMax.item(), Math.max(...values), 'the first batch sets it')
    t.equal(model.eval().forward(x).shape[1], 5)
  }
  // Those that need none.
  for (const config of [int8Dynamic(), weightOnly({ bits: 4 })])
    t.equal(
      prepareQat(mlp(10, sizes), config)
        .eval()
        .forward(inputs(11, 4, 21)).shape[0],
      4,
    )
})

t.test('state goes from one model to another', async (t) => {
  for (const [name, config, ranges] of choices) {
    const a = prepareQat(mlp(14, sizes), config, { ranges })
    await train(a, 3)
    const b = prepareQat(mlp(15, sizes), config, { ranges })
    b.loadStateDict(a.stateDict())
    const x = inputs(16, 8, 21)
    t.same(b.eval().forward(x).arraySync(), a.forward(x).arraySync(), name)
    // Training goes on from what was loaded: ranges are not begun anew.
    a.train().forward(x)
    b.train().forward(x)
    const state = (model: nn.Module) => Object.entries(model.stateDict()).map(([key, v]) => [key, v.arraySync()])
    t.same(state(b), state(a), name)
    convert(a).eval()
    convert(b).eval()
    t.same(b.forward(x).arraySync(), a.forward(x).arraySync(), name)
  }
})

t.test('learned scales start from the weights and from the first batch', async (t) => {
  const model = prepareQat(mlp(17, [21, 13]), weightOnly({ bits: 4, granularity: perGroup(8) }), { ranges: 'learned' })
  const [layer] = layersOf(model) as [quant.QatLinear]
  const w = rowsOf(layer.weight)
  const scales = rowsOf(layer.weightLogScale as Tensor)
  for (const [o, row] of w.entries())
    for (let g = 0; g < 3; g++) {
      const amax = Math.max(...row.slice(8 * g, 8 * g + 8).map(Math.abs))
      // Two roundings: exp(log(scale)).
      const off = Math.exp(at(scales, o, g)) / (amax / 7) - 1
      t.ok(Math.abs(off) < 8 * 2 ** -24, 'the largest weight has a code, whatever its sign')
    }
  const { codes } = storedIn(layer.convert())
  t.ok(codes.flat().every((code) => Math.abs(code) <= 7))

  const fixed = prepareQat(mlp(17, [21, 13]), int8Static(), { ranges: 'learned' })
  const [first] = layersOf(fixed.train()) as [quant.QatLinear]
  for (const seed of [30, 31, 32]) fixed.forward(inputs(seed, 10, 21, () => seed))
  const { scale, zero } = affineBytes(rowsOf(inputs(30, 10, 21, () => 30)).flat())
  const { inputScale, inputZeroPoint } = first.convert()
  t.ok(
    Math.abs((inputScale?.item() as number) / scale - 1) < 8 * 2 ** -24,
    'the first batch sets it, later ones do not',
  )
  t.equal(inputZeroPoint?.item(), zero)
  fixed
    .forward(inputs(30, 10, 21))
    .sum()
    .backward()
  const gradients = first.parameters().map((p) => p.grad)
  t.ok(gradients.length === 4 && gradients.every((g) => g !== null))
})

t.test('a model of 16-bit floats, before and after', async (t) => {
  for (const [name, config, ranges] of choices) {
    // Converted to bfloat16 when it is prepared already: scales that are learned are parameters and go along.
    const model = prepareQat(mlp(20, sizes), config, { ranges }).to('bfloat16')
    await train(model, 3, 1e-2, 'bfloat16')
    const x = inputs(21, 8, 21, undefined, 'bfloat16')
    const y = model.forward(x).arraySync()
    t.same(convert(model).forward(x).arraySync(), y, name)
  }
})

t.test('inside scopes, which layers, shared ones, a model that is a Linear', async (t) => {
  const x = inputs(22, 8, 21)
  for (const [name, config, ranges] of choices) {
    const model = scope(() => {
      const made = prepareQat(mlp(23, sizes), config, { ranges })
      made.train()
      return [made]
    })[0] as nn.Sequential
    scope(() => model.forward(x).sum().backward())
    const first = scope(() => model.eval().forward(x).arraySync())
    scope(() => convert(model))
    t.same(
      scope(() => model.forward(x).arraySync()),
      first,
      name,
    )
  }
  const shared = mlp(24, [21, 21]).at(0)
  const model = new nn.Sequential({
    a: shared,
    act: new nn.ReLU(),
    b: new nn.Sequential(shared),
    head: mlp(25, [21, 3]),
  })
  prepareQat(model, int8Static(), { skip: ['head'] })
  t.equal(model.getModule('a'), model.getModule('b.0'))
  t.equal(layersOf(model).length, 1)
  model.train().forward(x)
  const y = model.eval().forward(x).arraySync()
  t.same(convert(model).forward(x).arraySync(), y)
  t.equal(model.getModule('a'), model.getModule('b.0'))
  t.ok(model.getModule('b.0') instanceof QuantizedLinear && model.getModule('head.0') instanceof nn.Linear)

  const root = prepareQat(shared as nn.Module, int8Dynamic())
  t.ok(root instanceof QatLinear)
  t.match(String(root), /^QatLinear\(inFeatures=21, outFeatures=21, bias=true, int8Dynamic\)$/)
  t.ok(convert(root) instanceof QuantizedLinear)
})

t.test('what cannot be prepared', (t) => {
  const model = () => mlp(26, sizes)
  const wrong: [() => unknown, RegExp][] = [
    [() => prepareQat({} as never, int8Dynamic()), /prepareQat: expected a Module, got an object/],
    [() => convert(7 as never), /convert: expected a Module, got 7/],
    [() => prepareQat(model(), {} as never), /prepareQat: config must be/],
    [() => prepareQat(model(), int8Dynamic(), { ranges: 'fixed' as never }), /ranges must be .* got "fixed"/],
    [() => prepareQat(model(), int8Dynamic(), { rate: 0 }), /rate must be .* got 0/],
    [() => prepareQat(model(), int8Dynamic({ smoothQuant: true })), /call smoothQuant\(model\) first/],
    [() => prepareQat(model(), configs['4 bits with zero points'] as never, { ranges: 'learned' }), /are symmetric/],
    [
      () => prepareQat(model(), int8Dynamic(), { skip: ['head'] }),
      /no Linear or Conv2d layer is at "head"; there are '0', '2'/,
    ],
  ]
  for (const [run, message] of wrong) t.throws(run, { code: 'ERR_ARGUMENT', message })
  t.throws(() => prepareQat(model(), int8Dynamic()).forward(inputs(1, 2, 20)), { code: 'ERR_SHAPE' })
  t.end()
})
