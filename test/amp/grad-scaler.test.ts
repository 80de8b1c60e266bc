// The scaler's state machine, what it leaves alone when it skips, and what scaling is for.
import { amp, mul, nn, optim, scope, sum, type Tensor, tensor } from 'kerf'
import t from 'tap'

const weight = (values = [1, -2, 3]) => tensor(values, { requiresGrad: true })
const grad = (values: number[]) => tensor(values)

/** One iteration with a given (scaled) gradient. */
function iterate(scaler: amp.GradScaler, optimizer: optim.Optimizer, w: Tensor, values: number[]): boolean {
  w.grad = grad(values)
  const stepped = scaler.stepSync(optimizer)
  scaler.update()
  return stepped
}

t.test('the trace: two infinities, then 2000 clean updates', (t) => {
  const scaler = new amp.GradScaler()
  const w = weight([0])
  const optimizer = new optim.SGD([w], { lr: 0 })
  t.equal(scaler.getScale(), 65536)
  t.equal(iterate(scaler, optimizer, w, [Number.POSITIVE_INFINITY]), false)
  t.equal(scaler.getScale(), 32768)
  t.equal(iterate(scaler, optimizer, w, [Number.NaN]), false)
  t.equal(scaler.getScale(), 16384)
  for (let i = 0; i < 1999; i++) if (!iterate(scaler, optimizer, w, [1])) t.fail(`skipped ${i}`)
  t.equal(scaler.getScale(), 16384)
  t.same(scaler.stateDict(), {
    scale: 16384,
    growthFactor: 2,
    backoffFactor: 0.5,
    growthInterval: 2000,
    growthTracker: 1999,
  })
  const twin = new amp.GradScaler()
  twin.loadStateDict(JSON.parse(JSON.stringify(scaler.stateDict())))
  for (const one of [scaler, twin]) {
    iterate(one, optimizer, w, [1])
    t.equal(one.getScale(), 32768)
    t.equal(one.stateDict().growthTracker, 0)
  }
  t.end()
})

t.test('an infinity starts the count again', (t) => {
  const scaler = new amp.GradScaler({ initScale: 8, growthInterval: 3, growthFactor: 4, backoffFactor: 0.25 })
  const w = weight([0])
  const optimizer = new optim.SGD([w], { lr: 0 })
  const scales = [1, 1, Number.NEGATIVE_INFINITY, 1, 1, 1, 1].map((g) => {
    iterate(scaler, optimizer, w, [g])
    return scaler.getScale()
  })
  t.same(scales, [8, 8, 2, 2, 2, 8, 8])
  t.end()
})

t.test('the factor stays within float32', (t) => {
  const scaler = new amp.GradScaler({ initScale: 2 ** 127, growthInterval: 1 })
  const w = weight([0])
  iterate(scaler, new optim.SGD([w], { lr: 0 }), w, [1])
  t.equal(scaler.getScale(), 2 ** 127)
  t.end()
})

t.test('a skipped step leaves parameters and optimizer state bit-identical', async (t) => {
  const optimizers = [
    (w: Tensor) => new optim.SGD([w], { lr: 0.1, momentum: 0.9 }),
    (w: Tensor) => new optim.AdamW([w], { lr: 0.1 }),
  ]
  for (const make of optimizers) {
    const w = weight()
    const optimizer = make(w)
    const scaler = new amp.GradScaler({ initScale: 2 })
    t.equal(iterate(scaler, optimizer, w, [1, 2, 3]), true)
    const snapshot = () => {
      const state = optimizer.stateDict().state[0] as optim.ParamState
      const values = Object.entries(state).map(([k, v]) => [k, typeof v === 'number' ? v : v.dataSync()])
      return { w: w.dataSync(), values }
    }
    const before = snapshot()
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      t.equal(iterate(scaler, optimizer, w, [1, bad, 1]), false)
      w.grad = grad([bad, 1, 1])
      t.equal(await scaler.step(optimizer), false)
      scaler.update()
    }
    t.same(snapshot(), before)
    t.equal(iterate(scaler, optimizer, w, [1, 2, 3]), true)
    t.notSame(snapshot().w, before.w)
  }
})

t.test('gradients are unscaled by the reciprocal of float64', (t) => {
  const w = weight()
  const optimizer = new optim.SGD([w], { lr: 1 })
  const scaler = new amp.GradScaler({ initScale: 3 })
  w.grad = grad([3, 7, -1])
  scaler.unscale(optimizer)
  const unscaled = w.grad.arraySync() as number[]
  const third = Math.fround(1 / 3)
  t.same(
    unscaled,
    [3, 7, -1].map((g) => Math.fround(g * third)),
  )
  t.equal(scaler.stepSync(optimizer), true)
  t.same(
    w.arraySync(),
    [1, -2, 3].map((x, i) => Math.fround(x - (unscaled[i] as number))),
  )
  // What only the reciprocal makes infinite is seen too.
  const tiny = new amp.GradScaler({ initScale: 2 ** -20 })
  t.equal(iterate(tiny, optimizer, w, [1e38, 0, 0]), false)
  t.end()
})

t.test('unscale, clip, step: the norm is that of the true gradients', (t) => {
  const plain = weight()
  const scaled = weight()
  const optimizers = [plain, scaled].map((w) => new optim.SGD([w], { lr: 0.5 }))
  const loss = (w: Tensor) => sum(mul(mul(w, w), 4))
  loss(plain).backward()
  const norm = optim.clipGradNorm([plain], 1)
  optimizers[0]?.step()
  const scaler = new amp.GradScaler()
  scaler.scale(loss(scaled)).backward()
  scaler.unscale(optimizers[1] as optim.SGD)
  t.equal(optim.clipGradNorm([scaled], 1).item(), norm.item())
  t.equal(scaler.stepSync(optimizers[1] as optim.SGD), true)
  t.same(scaled.dataSync(), plain.dataSync(), 'bit for bit: the factor is a power of two')
  t.end()
})

t.test('two optimizers: each is skipped for its own gradients, the factor learns from both', (t) => {
  const [a, b] = [weight(), weight()]
  const [first, second] = [new optim.SGD([a], { lr: 1 }), new optim.SGD([b], { lr: 1 })]
  const scaler = new amp.GradScaler()
  a.grad = grad([1, 1, 1])
  b.grad = grad([1, Number.NaN, 1])
  t.equal(scaler.stepSync(first), true)
  t.equal(scaler.stepSync(second), false)
  scaler.update()
  t.equal(scaler.getScale(), 32768)
  // One that was only unscaled counts as well.
  b.grad = grad([Number.NaN, 1, 1])
  scaler.unscale(second)
  scaler.update()
  t.equal(scaler.getScale(), 16384)
  t.end()
})

t.test('a scope may end between unscale and step', async (t) => {
  const w = weight()
  const optimizer = new optim.SGD([w], { lr: 1 })
  const scaler = new amp.GradScaler()
  scope(() => {
    scaler.scale(sum(w)).backward()
    scaler.unscale(optimizer)
  })
  t.equal(await scaler.step(optimizer), true)
  t.same(w.arraySync(), [0, -3, 2])
})

t.test('not enabled: everything passes through', async (t) => {
  const w = weight()
  const optimizer = new optim.SGD([w], { lr: 1 })
  const scaler = new amp.GradScaler({ enabled: false })
  const loss = sum(w)
  t.equal(scaler.scale(loss), loss)
  t.equal(scaler.getScale(), 1)
  loss.backward()
  scaler.unscale(optimizer)
  t.equal(await scaler.step(optimizer), true)
  scaler.update()
  t.same(w.arraySync(), [0, -3, 2])
})

t.test('a float16 master copy freezes where a float32 one learns', (t) => {
  // 1 - 2^-13 is below half an ulp of float16 (2^-11 below 1), ties included: lr * g = 2^-13 < 2^-12.
  const run = (dtype: 'float16' | 'float32', steps: number, g: number) => {
    const w = tensor([1], { dtype, requiresGrad: true }) as Tensor
    const optimizer = new optim.SGD([w], { lr: 2 ** -3 })
    for (let i = 0; i < steps; i++) {
      w.grad = tensor([g], { dtype }) as Tensor
      optimizer.step()
    }
    return (w.arraySync() as number[])[0]
  }
  t.equal(run('float16', 64, 2 ** -10), 1, 'frozen: 64 steps of 2^-13 went nowhere')
  t.equal(run('float32', 64, 2 ** -10), 1 - 2 ** -7, 'the same steps in float32')
  t.equal(run('float16', 1, 2 ** -8), 1 - 2 ** -11, 'one of a whole ulp counts')
  t.end()
})

t.test('gradients at 2^-26: lost in float16, all of float32 when scaled', (t) => {
  // Powers of two throughout, so that float16 rounds nothing and float32's result is the exact one.
  const train = (how: 'float32' | 'float16' | 'scaled') => {
    const layer = new nn.Linear(2, 2, { bias: false })
    nn.init.ones(layer.weight)
    const optimizer = new optim.SGD(layer.parameters(), { lr: 2 ** 20 })
    const scaler = new amp.GradScaler({ enabled: how === 'scaled' })
    for (let i = 0; i < 4; i++) {
      const x = tensor([[1, 0.5]])
      const loss = amp.autocast(how === 'float32' ? null : 'float16', () => mul(sum(layer.forward(x)), 2 ** -26))
      optimizer.zeroGrad()
      scaler.scale(loss).backward()
      scaler.stepSync(optimizer)
      if (how === 'scaled') t.equal(layer.weight.grad?.dataSync()[0], 2 ** -26, 'where the gradients sit')
      scaler.update()
    }
    return layer.weight.arraySync()
  }
  const step = 4 * 2 ** -6
  t.same(
    train('float16'),
    [
      [1, 1],
      [1, 1],
    ],
    'nothing is learned',
  )
  t.same(train('float32'), [
    [1 - step, 1 - step / 2],
    [1 - step, 1 - step / 2],
  ])
  t.same(train('scaled'), train('float32'))
  t.end()
})

t.test('hostile arguments', async (t) => {
  const argument = { code: 'ERR_ARGUMENT' }
  for (const options of [
    { initScale: 0 },
    { initScale: Number.NaN },
    { initScale: Number.POSITIVE_INFINITY },
    { initScale: '1' },
    { growthFactor: 1 },
    { backoffFactor: 1 },
    { backoffFactor: 0 },
    { growthInterval: 0 },
    { growthInterval: 1.5 },
    { enabled: 1 },
  ] as never[])
    t.throws(() => new amp.GradScaler(options), argument)
  const scaler = new amp.GradScaler()
  const w = weight()
  const optimizer = new optim.SGD([w], { lr: 1 })
  t.throws(() => scaler.scale(1 as never), argument)
  t.throws(() => scaler.update(), argument, 'nothing was stepped')
  t.throws(() => scaler.update(-1), argument)
  t.throws(() => scaler.unscale({} as never), argument)
  await t.rejects(scaler.step(null as never), argument)
  t.throws(() => scaler.stepSync(optimizer), { ...argument, message: /no parameter has a gradient/ })
  w.grad = grad([1, 1, 1])
  scaler.unscale(optimizer)
  t.throws(() => scaler.unscale(optimizer), argument, 'twice')
  const waiting = scaler.step(optimizer)
  t.throws(() => scaler.update(), { ...argument, message: /await step/ })
  await waiting
  t.throws(() => scaler.stepSync(optimizer), argument, 'twice')
  t.throws(() => scaler.unscale(optimizer), argument, 'after the step')
  scaler.update(4)
  t.equal(scaler.getScale(), 4)
  const half = tensor([1], { dtype: 'float16', requiresGrad: true })
  half.grad = tensor([1], { dtype: 'float16' })
  t.throws(() => scaler.unscale(new optim.SGD([half], { lr: 1 })), { code: 'ERR_DTYPE', message: /float32/ })
  t.equal(half.grad.item(), 1, 'and nothing has changed')
  const state = scaler.stateDict()
  for (const bad of [null, 3, {}, { ...state, scale: -1 }, { ...state, growthTracker: -1 }] as never[])
    t.throws(() => scaler.loadStateDict(bad), argument)
  t.same(scaler.stateDict(), state)
})
