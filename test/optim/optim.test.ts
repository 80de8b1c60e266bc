// Optimizers against float64 re-implementations of their formulas, and schedules against their definitions.
import { optim, scope, type Tensor, tensor } from 'kerf'
import t, { type Test as Tap } from 'tap'

const start = [1, -2, 0.5, 3, -0.25]
const gradsAt = (step: number) => start.map((_, i) => Math.fround(Math.sin(step * 1.3 + i) * (i + 0.5)))
const param = (dtype: 'float32' | 'float16' = 'float32') => tensor(start, { dtype, requiresGrad: true })

/** Steps with given gradients; the values after each. */
function run(p: Tensor, optimizer: optim.Optimizer<never>, steps: number): number[][] {
  const values: number[][] = []
  for (let i = 0; i < steps; i++) {
    p.grad = tensor(gradsAt(i), { dtype: p.dtype })
    optimizer.step()
    values.push(p.arraySync() as number[])
  }
  return values
}

// One step rounds each stored value once or twice (2^-24 relative) and computes in float32; over n steps the errors add.
const bound = (n: number) => n * 8 * 2 ** -24
function close(t: Tap, found: number[][], wanted: number[][], message: string) {
  const worst = Math.max(
    ...found.flatMap((row, i) =>
      row.map((x, j) => Math.abs(x - (wanted[i]?.[j] as number)) / (Math.abs(wanted[i]?.[j] as number) + 1)),
    ),
  )
  t.ok(worst <= bound(found.length), `${message}: off by ${worst}`)
}

function sgd64(
  steps: number,
  o: { lr: number; momentum?: number; dampening?: number; weightDecay?: number; nesterov?: boolean },
) {
  const { lr, momentum = 0, dampening = 0, weightDecay = 0, nesterov = false } = o
  const p = [...start]
  let b: number[] | null = null
  return Array.from({ length: steps }, (_, step) => {
    let g = gradsAt(step).map((x, i) => x + weightDecay * (p[i] as number))
    if (momentum !== 0) {
      b = b === null ? [...g] : b.map((x, i) => momentum * x + (1 - dampening) * (g[i] as number))
      g = nesterov ? g.map((x, i) => x + momentum * ((b as number[])[i] as number)) : b
    }
    for (let i = 0; i < p.length; i++) p[i] = (p[i] as number) - lr * (g[i] as number)
    return [...p]
  })
}

function adam64(
  steps: number,
  o: { lr: number; betas?: [number, number]; eps?: number; weightDecay: number; decoupled: boolean },
) {
  const { lr, betas: [b1, b2] = [0.9, 0.999], eps = 1e-8, weightDecay, decoupled } = o
  const p = [...start]
  const m = p.map(() => 0)
  const v = p.map(() => 0)
  return Array.from({ length: steps }, (_, step) => {
    const g = gradsAt(step)
    for (let i = 0; i < p.length; i++) {
      let x = p[i] as number
      let gi = g[i] as number
      if (decoupled) x *= 1 - lr * weightDecay
      else gi += weightDecay * x
      m[i] = b1 * (m[i] as number) + (1 - b1) * gi
      v[i] = b2 * (v[i] as number) + (1 - b2) * gi * gi
      const mHat = (m[i] as number) / (1 - b1 ** (step + 1))
      const vHat = (v[i] as number) / (1 - b2 ** (step + 1))
      p[i] = x - (lr * mHat) / (Math.sqrt(vHat) + eps)
    }
    return [...p]
  })
}

t.test('SGD', (t) => {
  const variants = [
    { lr: 0.1 },
    { lr: 0.1, weightDecay: 0.2 },
    { lr: 0.05, momentum: 0.9 },
    { lr: 0.05, momentum: 0.9, dampening: 0.5, weightDecay: 0.1 },
    { lr: 0.05, momentum: 0.9, nesterov: true, weightDecay: 0.1 },
  ]
  for (const options of variants) {
    const p = param()
    close(t, run(p, new optim.SGD([p], options) as never, 30), sgd64(30, options), JSON.stringify(options))
  }
  t.end()
})

t.test('Adam and AdamW', (t) => {
  const p1 = param()
  close(
    t,
    run(p1, new optim.Adam([p1]) as never, 30),
    adam64(30, { lr: 1e-3, weightDecay: 0, decoupled: false }),
    'Adam',
  )
  const l2 = { lr: 0.01, betas: [0.8, 0.95] as [number, number], eps: 1e-3, weightDecay: 0.3 }
  const p2 = param()
  close(t, run(p2, new optim.Adam([p2], l2) as never, 30), adam64(30, { ...l2, decoupled: false }), 'Adam, L2')
  const p3 = param()
  close(
    t,
    run(p3, new optim.AdamW([p3]) as never, 30),
    adam64(30, { lr: 1e-3, weightDecay: 0.01, decoupled: true }),
    'AdamW',
  )
  const p4 = param()
  close(t, run(p4, new optim.AdamW([p4], l2) as never, 30), adam64(30, { ...l2, decoupled: true }), 'AdamW, options')
  t.end()
})

t.test("Adam's first step is lr * sign(g): the corrections cancel 1 - beta", (t) => {
  const p = tensor([1.2, 2.8], { requiresGrad: true })
  p.grad = tensor([-0.94, -2.5])
  new optim.Adam([p], { lr: 0.1 }).step()
  const [a, b] = p.arraySync() as [number, number]
  t.ok(Math.abs(a - 1.3) < 1e-6 && Math.abs(b - 2.9) < 1e-6, `${a} ${b}`)
  t.end()
})

t.test('float16 parameters keep float32 states, and gradScale multiplies gradients', (t) => {
  const p = param('float16')
  const opt = new optim.Adam([p])
  run(p, opt as never, 1)
  t.equal(p.dtype, 'float16')
  const state = opt.stateDict().state[0] as { expAvg: Tensor }
  t.equal(state.expAvg.dtype, 'float32')
  const [a, b] = [param(), param()]
  a.grad = tensor(gradsAt(1))
  b.grad = tensor(gradsAt(1).map((g) => g * 8))
  new optim.SGD([a], { lr: 0.1 }).step()
  new optim.SGD([b], { lr: 0.1 }).step({ gradScale: 1 / 8 })
  t.same(a.arraySync(), b.arraySync())
  t.end()
})

t.test('groups, states and zeroGrad', (t) => {
  const [a, b, c] = [param(), param(), param()]
  const opt = new optim.SGD(
    [
      { params: [a, c], lr: 0.5 },
      { params: [b], weightDecay: 1 },
    ],
    { lr: 0.1 },
  )
  t.same(
    opt.paramGroups.map((g) => [g.lr, g.weightDecay, g.params.length]),
    [
      [0.5, 0, 2],
      [0.1, 1, 1],
    ],
  )
  a.grad = tensor([1, 1, 1, 1, 1])
  b.grad = tensor([0, 0, 0, 0, 0])
  const grad = a.grad
  opt.step()
  t.same(
    a.arraySync(),
    start.map((x) => x - 0.5),
  )
  t.same(
    b.arraySync(),
    start.map((x) => Math.fround(x - Math.fround(0.1) * x)),
  )
  t.same(c.arraySync(), start, 'no gradient, no step')
  opt.zeroGrad()
  t.equal(a.grad, null)
  t.ok(grad.disposed)
  t.end()
})

t.test('a saved optimizer goes on as the other one does', (t) => {
  for (const make of [
    (p: Tensor) => new optim.AdamW([p], { lr: 0.02 }),
    (p: Tensor) => new optim.SGD([p], { lr: 0.02, momentum: 0.9 }),
  ]) {
    const p = param()
    const opt = make(p)
    run(p, opt as never, 5)
    const q = tensor(p.arraySync() as number[], { requiresGrad: true })
    const other = make(q)
    other.loadStateDict(opt.stateDict())
    t.same(run(q, other as never, 5), run(p, opt as never, 5))
  }
  const p = param()
  const opt = new optim.Adam([p])
  t.throws(() => opt.loadStateDict({} as never), { code: 'ERR_ARGUMENT' })
  t.throws(() => opt.loadStateDict({ state: {}, paramGroups: [] }), { code: 'ERR_ARGUMENT' })
  t.throws(() => opt.loadStateDict({ state: { 0: { expAvg: tensor([1]) } }, paramGroups: [{ params: [0] }] }), {
    code: 'ERR_SHAPE',
  })
  t.end()
})

t.test('states survive a scope', (t) => {
  const p = param()
  const opt = new optim.Adam([p])
  for (let i = 0; i < 3; i++) {
    scope(() => {
      p.mul(p).sum().backward()
      opt.step()
      opt.zeroGrad()
    })
  }
  t.notOk(p.disposed)
  t.end()
})

t.test('errors', (t) => {
  const p = param()
  t.throws(() => new optim.SGD([]), { code: 'ERR_ARGUMENT', message: /empty/ })
  t.throws(() => new optim.SGD(p as never), { code: 'ERR_ARGUMENT' })
  t.throws(() => new optim.SGD([p], { lr: -1 }), { code: 'ERR_ARGUMENT', message: /lr/ })
  t.throws(() => new optim.SGD([p], { nesterov: true }), { code: 'ERR_ARGUMENT', message: /nesterov/ })
  t.throws(() => new optim.Adam([p], { betas: [0.9, 1] }), { code: 'ERR_ARGUMENT', message: /betas/ })
  t.throws(() => new optim.Adam([p, p]), { code: 'ERR_ARGUMENT', message: /twice/ })
  t.throws(() => new optim.Adam([p.mul(1)]), { code: 'ERR_ARGUMENT', message: /leaves/ })
  t.throws(() => new optim.Adam([tensor([1], { dtype: 'int32' })]), { code: 'ERR_DTYPE' })
  p.grad = tensor([1, 2])
  t.throws(() => new optim.Adam([p]).step(), { code: 'ERR_SHAPE' })
  t.throws(() => new optim.Adam([p]).step({ gradScale: Number.NaN }), { code: 'ERR_ARGUMENT' })
  t.end()
})

t.test('clipGradNorm and clipGradValue', (t) => {
  const make = () => {
    const [a, b, c] = [param(), tensor([1], { requiresGrad: true }), tensor([1], { requiresGrad: true })]
    a.grad = tensor([3, -4, 0, 0, 0])
    b.grad = tensor([12])
    return [a, b, c] as const
  }
  const [a, b, c] = make()
  t.equal(optim.clipGradNorm([a, b, c], 6.5).item(), 13)
  const factor = 6.5 / (13 + 1e-6)
  const near = (x: Tensor | null, y: number[]) =>
    ((x as Tensor).arraySync() as number[]).every((v, i) => Math.abs(v - (y[i] as number)) <= 2e-6)
  t.ok(near(a.grad, [3 * factor, -4 * factor, 0, 0, 0]) && near(b.grad, [12 * factor]))
  const [d, e] = make()
  t.equal(optim.clipGradNorm([d, e], 20).item(), 13)
  t.same(d.grad?.arraySync(), [3, -4, 0, 0, 0], 'a small norm stays')
  t.equal(optim.clipGradNorm([d, e], 20, { normType: Number.POSITIVE_INFINITY }).item(), 12)
  t.equal(optim.clipGradNorm([d, e], 20, { normType: 1 }).item(), 19)
  optim.clipGradValue([d, e], 3.5)
  t.same([d.grad?.arraySync(), e.grad?.arraySync()], [[3, -3.5, 0, 0, 0], [3.5]])
  t.throws(() => optim.clipGradNorm([d], -1), { code: 'ERR_ARGUMENT' })
  t.throws(() => optim.clipGradValue([d], Number.NaN), { code: 'ERR_ARGUMENT' })
  t.end()
})

const lrs = (make: (o: optim.SGD) => { lrs: number[]; step(): void }, steps: number, lr = 1) => {
  const opt = new optim.SGD([param()], { lr, momentum: 0.9 })
  const schedule = make(opt)
  const seen = [schedule.lrs[0] as number]
  for (let i = 0; i < steps; i++) {
    schedule.step()
    seen.push(opt.paramGroups[0]?.lr as number)
  }
  return seen.map((x) => Number(x.toPrecision(10)))
}

t.test('schedules', (t) => {
  t.same(
    lrs((o) => new optim.StepLR(o, 2), 5),
    [1, 1, 0.1, 0.1, 0.01, 0.01],
  )
  t.same(
    lrs((o) => new optim.MultiStepLR(o, [1, 4], 0.5), 5),
    [1, 0.5, 0.5, 0.5, 0.25, 0.25],
  )
  t.same(
    lrs((o) => new optim.ExponentialLR(o, 0.5), 3),
    [1, 0.5, 0.25, 0.125],
  )
  t.same(
    lrs((o) => new optim.CosineAnnealingLR(o, 4, { etaMin: 0.2 }), 4),
    [1, 0.8828427125, 0.6, 0.3171572875, 0.2],
  )
  t.same(
    lrs((o) => new optim.LinearLR(o, { startFactor: 0.5, totalIters: 4 }), 5),
    [0.5, 0.625, 0.75, 0.875, 1, 1],
  )
  t.same(
    lrs((o) => new optim.LambdaLR(o, (s) => 1 / (1 + s)), 3),
    [1, 0.5, 0.3333333333, 0.25],
  )
  const warm = lrs((o) => {
    const warmUp = new optim.LinearLR(o, { startFactor: 0.25, totalIters: 3 })
    return new optim.SequentialLR(o, [warmUp, new optim.ExponentialLR(o, 0.5)], [3])
  }, 5)
  t.same(warm, [0.25, 0.5, 0.75, 1, 0.5, 0.25])
  // torch.optim.lr_scheduler.OneCycleLR(max_lr=1, total_steps=10, pct_start=0.3): up in 2 steps, down in 7.
  const down = (part: number) => 4e-6 + ((1 - 4e-6) * (1 + Math.cos(Math.PI * part))) / 2
  const cycle = [0.04, 0.52, 1, ...[1, 2, 3, 4, 5, 6, 7].map((i) => Number(down(i / 7).toPrecision(10)))]
  t.same(
    lrs((o) => new optim.OneCycleLR(o, { maxLr: 1, totalSteps: 10 }), 9),
    cycle,
  )
  t.end()
})

t.test('OneCycleLR moves momentum the other way, or the first beta', (t) => {
  const sgd = new optim.SGD([param()], { lr: 1, momentum: 0.9 })
  const schedule = new optim.OneCycleLR(sgd, { maxLr: 1, totalSteps: 10, annealStrategy: 'linear' })
  t.equal(sgd.paramGroups[0]?.momentum, 0.95)
  schedule.step()
  schedule.step()
  t.equal(sgd.paramGroups[0]?.momentum, 0.85)
  const adam = new optim.Adam([param()])
  new optim.OneCycleLR(adam, { maxLr: 1, totalSteps: 10 })
  t.same(adam.paramGroups[0]?.betas, [0.95, 0.999])
  for (let i = 0; i < 7; i++) schedule.step()
  const [end, momentum] = [schedule.lrs, sgd.paramGroups[0]?.momentum]
  schedule.step()
  t.same([schedule.lrs, sgd.paramGroups[0]?.momentum], [end, momentum], 'after the last step nothing changes')
  t.throws(() => schedule.step(), { code: 'ERR_ARGUMENT', message: /totalSteps/ })
  t.throws(() => new optim.OneCycleLR(new optim.SGD([param()]), { maxLr: 1, totalSteps: 10 }), { message: /momentum/ })
  t.end()
})

t.test('ReduceLROnPlateau', (t) => {
  const opt = new optim.SGD([param()], { lr: 1 })
  const schedule = new optim.ReduceLROnPlateau(opt, { factor: 0.5, patience: 1, cooldown: 1, minLr: 0.2 })
  const seen = [1, 1, 1, 1, 1, 1, 1, 1, 1].map((metric) => {
    schedule.step(metric)
    return schedule.lrs[0]
  })
  // best at the first; bad 1, 2 -> cut; one step of cooldown; bad 1, 2 -> cut; and so on, down to minLr
  t.same(seen, [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2])
  const rising = new optim.ReduceLROnPlateau(opt, { mode: 'max', patience: 0, threshold: 0.1, thresholdMode: 'abs' })
  rising.step(1)
  rising.step(1.2)
  t.equal(rising.best, 1.2)
  t.equal(rising.lrs[0], 0.2)
  rising.step(1.25)
  t.equal(rising.lrs[0]?.toFixed(6), '0.020000')
  const copy = new optim.ReduceLROnPlateau(opt, { mode: 'max' })
  copy.loadStateDict(rising.stateDict())
  t.equal(copy.best, 1.2)
  t.end()
})

t.test('a schedule resumes from its state, and refuses nonsense', (t) => {
  const opt = new optim.SGD([param()], { lr: 1 })
  const schedule = new optim.ExponentialLR(opt, 0.5)
  schedule.step()
  const other = new optim.SGD([param()], { lr: 7 })
  const resumed = new optim.ExponentialLR(other, 0.5)
  resumed.loadStateDict(schedule.stateDict())
  t.same(resumed.lrs, [0.5])
  t.throws(() => resumed.loadStateDict({ step: -1, baseLrs: [1] }), { code: 'ERR_ARGUMENT' })
  t.throws(() => new optim.StepLR(opt, 0), { code: 'ERR_ARGUMENT' })
  t.throws(() => new optim.StepLR({} as never, 1), { code: 'ERR_ARGUMENT' })
  t.end()
})
