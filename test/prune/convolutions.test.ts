// Pruning of convolutions: masks, and whole channels, which are removed exactly when what is gone was zero.
import { add, manualSeed, nn, noGrad, prune, randn, relu, summary, type Tensor, tensor } from 'kerf'
import t from 'tap'
import { taped } from '#lib/ops/op'
import { flat, topK } from './oracle'

/** Sets the elements at some positions along an axis of a parameter to 0. */
function clear(parameter: nn.Parameter | null, axis: number, positions: readonly number[]): void {
  if (!parameter) return
  const inner = parameter.shape.slice(axis + 1).reduce((n, s) => n * s, 1)
  const size = parameter.shape[axis] as number
  const values = flat(parameter).map((v, i) => (positions.includes(Math.floor(i / inner) % size) ? 0 : v))
  class Holder extends nn.Module {
    p = parameter as nn.Parameter
    forward(x: Tensor) {
      return x
    }
  }
  new Holder().loadStateDict({ p: tensor(values, { shape: parameter.shape }) })
}

const output = (model: nn.AnyModule, x: Tensor): number[] =>
  noGrad(() => flat((model.eval() as nn.Module).forward(x) as Tensor))

/** Largest difference over the largest value: sums without their zeros are added in another order. */
function distance(a: readonly number[], b: readonly number[]): number {
  const most = Math.max(...b.map(Math.abs))
  return a.length === b.length ? Math.max(...a.map((x, i) => Math.abs(x - (b[i] as number)))) / most : Infinity
}
const EQUAL = 2e-6

const shapes = (model: nn.AnyModule) => model.parameters().map(({ shape }) => shape.join('x'))

t.test('masks: exact counts over Linear layers and convolutions; summary and report show them', async (t) => {
  for (const scope of ['global', 'layer'] as const) {
    manualSeed(1)
    const model = new nn.Sequential(new nn.Conv2d(3, 4, 3), new nn.ReLU(), new nn.Conv1d(4, 5, 2), new nn.Linear(7, 6))
    const weights = [0, 2, 3].map((i) => (model.getModule(String(i)) as unknown as nn.Linear).weight)
    const scores = weights.map((w) => flat(w).map(Math.abs))
    await prune.magnitude(model, { sparsity: 0.6, scope })
    const wanted =
      scope === 'global'
        ? topK(scores.flat(), Math.round(0.6 * scores.flat().length))
        : scores.flatMap((s) => topK(s, Math.round(0.6 * s.length)))
    t.same(
      weights.flatMap((w) => flat(w.mask as Tensor)),
      wanted,
    )
    t.same(
      weights.flatMap(flat).map((w) => Number(w !== 0)),
      wanted,
    )
    const report = prune.report(model)
    t.same(
      report.layers.map(({ path, shape }) => `${path} ${shape}`),
      ['0 4,3,3,3', '2 5,4,2', '3 6,7'],
    )
    t.equal(report.total.zeros, wanted.filter((keep) => keep === 0).length)
    const shown = summary(model, { print: false }).layers[0] as { sparsity: number; parameters: number }
    t.equal(shown.sparsity * shown.parameters, report.layers[0]?.zeros)
  }
  const model = new nn.Sequential(new nn.Conv2d(2, 4, 3), new nn.Flatten(), new nn.Linear(16, 3))
  const conv = model.getModule('0') as unknown as nn.Conv2d
  await prune.magnitude(model, { sparsity: 0.5, include: ['2'] })
  t.equal(conv.weight.mask, null)
  await prune.random(model, { sparsity: 0.5, include: (_, layer) => layer instanceof nn.Conv2d, seed: 1 })
  t.equal(flat(conv.weight.mask as Tensor).filter((keep) => keep === 0).length, 36)
  conv.weight.mask = null
  const dense = flat(conv.weight)
  await prune.block(model, { block: [2, 8], sparsity: 0.5, include: ['0'] })
  // 18 taps an output: blocks of 8, 8 and 2 columns, over two outputs each
  const blocks = [0, 1].flatMap((row) => [0, 8, 16].map((column) => ({ row, column, width: Math.min(8, 18 - column) })))
  const inBlock = (values: number[], b: (typeof blocks)[number]) =>
    [0, 1].flatMap((r) => values.slice((2 * b.row + r) * 18 + b.column, (2 * b.row + r) * 18 + b.column + b.width))
  const mean = (values: number[]) => values.reduce((sum, v) => sum + Math.abs(v), 0) / values.length
  t.same(
    blocks.map((b) => mean(inBlock(flat(conv.weight.mask as Tensor), b))),
    topK(
      blocks.map((b) => mean(inBlock(dense, b))),
      3,
    ),
  )
  conv.weight.mask = null
  await prune.wanda(model, { sparsity: 0.5, calibrationData: [randn([4, 2, 4, 4])] })
  await prune.semiStructured(model)
  t.equal(conv.weight.mask, null, 'criteria of rows leave convolutions alone')
  const only = new nn.Sequential(new nn.Conv2d(2, 4, 3))
  await t.rejects(prune.semiStructured(only), { message: /semiStructured: the model has no Linear layer to prune/ })
  await t.rejects(prune.wanda(model, { sparsity: 0.5, calibrationData: [], include: ['0'] }), {
    message: /wanda: include: no Linear layer is at "0"/,
  })
  await t.rejects(prune.magnitude(new nn.Sequential(new nn.ReLU()), { sparsity: 0.5 }), {
    message: /magnitude: the model has no Linear or convolution layer to prune/,
  })
  const converted = await prune.convert(model, 'csr')
  t.same(
    converted.layers.map(({ path }) => path),
    ['2'],
  )
  t.ok(model.getModule('0') === (conv as unknown), 'convolutions stay dense')
})

t.test('a chain with strides, flattened into a Linear layer', async (t) => {
  manualSeed(2)
  const model = new nn.Sequential(
    new nn.Conv2d(3, 8, 3, { padding: 1 }),
    new nn.ReLU(),
    new nn.Conv2d(8, 6, 3, { stride: 2, bias: false }),
    new nn.GELU(),
    new nn.Flatten(),
    new nn.Linear(6 * 4 * 3, 5),
  )
  const [first, second, last] = ['0', '2', '5'].map((p) => model.getModule(p)) as unknown as [
    nn.Conv2d,
    nn.Conv2d,
    nn.Linear,
  ]
  const [gone, gone2] = [
    [0, 3, 4, 7],
    [1, 2, 5],
  ]
  clear(first.weight, 0, gone)
  clear(first.bias, 0, gone)
  clear(second.weight, 1, gone)
  clear(second.weight, 0, gone2)
  clear(
    last.weight,
    1,
    gone2.flatMap((c) => Array.from({ length: 12 }, (_, i) => 12 * c + i)),
  )
  const x = randn([2, 3, 9, 8])
  const before = output(model, x)
  const report = await prune.structured(model, { ratio: 0.5, exampleInput: randn([2, 3, 9, 8]) })
  t.same(shapes(model), ['4x3x3x3', '4', '3x4x3x3', '5x36', '5'])
  t.ok(distance(output(model, x), before) < EQUAL)
  t.same([first.inChannels, first.outChannels, second.inChannels, second.outChannels], [3, 4, 4, 3])
  t.same(
    report.leftAlone.map(({ layers }) => layers),
    [['5']],
  )
  const small = new nn.Sequential(
    new nn.Conv2d(3, 4, 3, { padding: 1 }),
    new nn.ReLU(),
    new nn.Conv2d(4, 3, 3, { stride: 2, bias: false }),
    new nn.GELU(),
    new nn.Flatten(),
    new nn.Linear(36, 5),
  )
  small.loadStateDict(model.stateDict())
  t.same(output(small, x), output(model, x))
})

t.test('depthwise convolutions lose channels, those in groups lose groups', async (t) => {
  const cases = [
    { groups: 8, out: 8, gone: [1, 2, 5, 6], left: ['4x3x3x3', '4', '4x1x3x3', '4', '5x4x1x1', '5'] },
    { groups: 8, out: 16, gone: [0, 2, 3, 7], left: ['4x3x3x3', '4', '8x1x3x3', '8', '5x8x1x1', '5'] },
    { groups: 4, out: 12, gone: [2, 3, 4, 5], left: ['4x3x3x3', '4', '6x2x3x3', '6', '5x6x1x1', '5'] },
  ]
  for (const { groups, out, gone, left } of cases) {
    manualSeed(3)
    const wide = out / groups
    const model = new nn.Sequential(
      new nn.Conv2d(3, 8, 3),
      new nn.Conv2d(8, out, 3, { groups, padding: 1 }),
      new nn.SiLU(),
      new nn.Conv2d(out, 5, 1),
    )
    const [first, middle, last] = ['0', '1', '3'].map((p) => model.getModule(p)) as unknown as nn.Conv2d[]
    const lost = [...new Set(gone.map((c) => Math.floor(c / (8 / groups))))]
    const filters = lost.flatMap((g) => Array.from({ length: wide }, (_, i) => g * wide + i))
    clear(first?.weight as nn.Parameter, 0, gone)
    clear(first?.bias as nn.Parameter, 0, gone)
    clear(middle?.weight as nn.Parameter, 0, filters)
    clear(middle?.bias as nn.Parameter, 0, filters)
    clear(last?.weight as nn.Parameter, 1, filters)
    const x = randn([2, 3, 7, 6])
    const before = output(model, x)
    await prune.structured(model, { ratio: 0.5, exampleInput: x })
    t.same(shapes(model), left, `${groups} groups`)
    t.equal(middle?.groups, groups / 2)
    t.match(String(middle), `groups=${groups / 2}`)
    t.ok(distance(output(model, x), before) < EQUAL)
    const grad = (model.train() as nn.Sequential).forward(x).sum()
    grad.backward()
    t.ok(model.parameters().every((p) => p.grad))
  }
})

t.test('residual branches, norms, pooling and Conv1d; what is not followed stays', async (t) => {
  // Stand-ins under the names that the ops have on the tape: forward only.
  const named = (op: string, x: Tensor, others: Tensor[], f: () => Tensor) =>
    taped(op, noGrad(f), [x, ...others], () => [])
  class Norm extends nn.Module {
    weight = new nn.Parameter(randn([8]))
    bias = new nn.Parameter(randn([8]))
    declare runningMean: Tensor
    declare runningVar: Tensor
    constructor() {
      super()
      this.registerBuffer('runningMean', randn([8]))
      this.registerBuffer('runningVar', randn([8]).abs().add(0.5))
    }
    forward(x: Tensor): Tensor {
      const per = (v: Tensor) => v.reshape([-1, 1, 1])
      return named('batchNorm', x, [this.weight, this.bias], () =>
        x
          .sub(per(this.runningMean))
          .div(per(this.runningVar.add(1e-5).sqrt()))
          .mul(per(this.weight))
          .add(per(this.bias)),
      )
    }
  }
  const halve = (x: Tensor) => x.reshape([...x.shape.slice(0, 2), 4, 2, 4, 2])
  class Net extends nn.Module {
    stem = new nn.Conv2d(3, 8, 3, { padding: 1 })
    norm = new Norm()
    inner = new nn.Conv2d(8, 10, 3, { padding: 'same' })
    back = new nn.Conv2d(10, 8, 1)
    head = new nn.Linear(8, 4)
    constructor(readonly pool: string) {
      super()
    }
    forward(x: Tensor): Tensor {
      const a = relu(this.norm.forward(this.stem.forward(x)))
      const b = add(a, this.back.forward(relu(this.inner.forward(a))))
      const p = named(this.pool, b, [], () => halve(b).mean([3, 5]))
      return this.head.forward(p.mean([2, 3]))
    }
  }
  for (const pool of ['maxPool2d', 'avgPool2d', 'adaptiveAvgPool2d', 'mystery']) {
    manualSeed(4)
    const model = new Net(pool)
    const [gone, gone2] = [
      [0, 2, 5, 6],
      [1, 3, 4, 8, 9],
    ]
    for (const p of [
      model.stem.weight,
      model.stem.bias,
      model.norm.weight,
      model.norm.bias,
      model.back.weight,
      model.back.bias,
    ])
      clear(p, 0, gone)
    for (const p of [model.inner.weight, model.head.weight]) clear(p, 1, gone)
    clear(model.inner.weight, 0, gone2)
    clear(model.inner.bias, 0, gone2)
    clear(model.back.weight, 1, gone2)
    const mean = flat(model.norm.runningMean)
    const x = randn([2, 3, 8, 8])
    const before = output(model, x)
    const report = await prune.structured(model, { ratio: 0.5, exampleInput: x })
    t.ok(distance(output(model, x), before) < EQUAL, pool)
    if (pool === 'mystery') {
      t.same(model.stem.weight.shape, [8, 3, 3, 3])
      t.same(model.inner.weight.shape, [5, 8, 3, 3], 'the inner ones do not meet it')
      t.match(report.toString(), /op 'mystery' is not followed/)
      continue
    }
    t.same(shapes(model), ['4x3x3x3', '4', '4', '4', '5x4x3x3', '5', '4x5x1x1', '4', '4x4', '4'])
    t.same(
      flat(model.norm.runningMean),
      mean.filter((_, c) => !gone.includes(c)),
    )
    t.ok('norm.runningVar' in model.stateDict())
  }
  const line = new nn.Sequential(new nn.Conv1d(2, 6, 3), new nn.ReLU(), new nn.Conv1d(6, 3, 2))
  const first = line.getModule('0') as unknown as nn.Conv1d
  clear(first.weight, 0, [0, 1, 5])
  clear(first.bias, 0, [0, 1, 5])
  clear((line.getModule('2') as unknown as nn.Conv1d).weight, 1, [0, 1, 5])
  const x = randn([2, 2, 9])
  const before = output(line, x)
  await prune.structured(line, { ratio: 0.5, exampleInput: x })
  t.same(shapes(line), ['3x2x3', '3', '3x3x2', '3'])
  t.ok(distance(output(line, x), before) < EQUAL)
  const up = new nn.Sequential(new nn.Conv2d(2, 6, 3), new nn.ConvTranspose2d(6, 3, 2))
  const left = await prune.structured(up, { ratio: 0.5, exampleInput: randn([1, 2, 5, 6]) })
  t.match(String(left), /op 'convTranspose2d' is not followed/)
  t.same((up.getModule('0') as unknown as nn.Conv2d).outChannels, 6)
})
