// What goes with training: movement scores, the sensitivity scan, iterative pruning with rewinding.
import { mseLoss, nn, optim, prune, scope, tensor } from 'kerf'
import t from 'tap'
import { inputs } from '../quant/models'
import { cut, flat, linears, masks, net, setWeight, topK, values } from './oracle'

const loss = (model: nn.Module, seed: number) => mseLoss(model.forward(inputs(seed, 8, 12)), inputs(seed + 1, 8, 4))

function train(model: nn.Module, steps: number, each = () => {}): void {
  const optimizer = new optim.AdamW(model.parameters(), { lr: 0.01 })
  for (let i = 0; i < steps; i++) {
    scope(() => {
      const value = loss(model, 3 * i)
      optimizer.zeroGrad()
      value.backward()
      each()
      optimizer.step()
    })
  }
}

t.test('movement: the least sum of -gradient * weight goes', async (t) => {
  for (const how of ['global', 'layer'] as const) {
    const model = net(1, [12, 9, 4])
    const scores = new prune.MovementScores(model)
    const sums = linears(model).map(({ weight }) => new Float32Array(weight.size))
    train(model, 7, () => {
      scores.accumulate()
      for (const [l, { weight }] of linears(model).entries()) {
        const [w, g] = [flat(weight), flat(weight.grad as nn.Parameter)]
        const sum = sums[l] as Float32Array
        for (const [i, v] of w.entries()) sum[i] = (sum[i] as number) - Math.fround(v * (g[i] as number))
      }
    })
    t.equal(scores.steps, 7)
    t.same(
      linears(model).map(({ weight }) => flat(scores.of(weight) as never)),
      sums.map((s) => [...s]),
    )
    await prune.movement(model, { scores, sparsity: 0.4, scope: how })
    const lists = sums.map((s) => [...s])
    const wanted =
      how === 'layer'
        ? lists.map((s) => topK(s, Math.round(0.4 * s.length)))
        : cut(topK(lists.flat(), Math.round(0.4 * 144)), [108, 36])
    t.same(masks(model), wanted, how)
  }
})

t.test('movement: bad arguments', async (t) => {
  const model = net(2, [12, 9, 4])
  const scores = new prune.MovementScores(model, { skip: ['2'] })
  t.throws(() => scores.accumulate(), { code: 'ERR_ARGUMENT', message: /accumulate: no weight has a gradient/ })
  const wrong = (options: unknown, message: RegExp) =>
    t.rejects(prune.movement(model, options as never), { code: 'ERR_ARGUMENT', message })
  await wrong({ sparsity: 0.5 }, /^movement: scores must be MovementScores, got undefined/)
  await wrong({ scores, sparsity: 0.5 }, /^movement: scores have seen no step/)
  train(model, 1, () => scores.accumulate())
  await wrong({ scores, sparsity: 0.5 }, /^movement: scores do not watch the weight of layer '2'/)
  await wrong({ scores, sparsity: 5, skip: ['2'] }, /^movement: sparsity must be a number from 0 to 1, got 5/)
  const [first] = linears(model) as [nn.Linear]
  first.weight.grad = tensor(new Array(108).fill(Number.NaN), { shape: [9, 12] })
  scores.accumulate()
  await wrong(
    { scores, sparsity: 0.5, skip: ['2'] },
    /^movement: layer '0': scores must be finite, got NaN at weight 0/,
  )
  t.same(masks(model), [null, null])
  t.throws(() => new prune.MovementScores(new nn.Sequential()), { message: /MovementScores: the model has no Linear/ })
})

t.test('sensitivity prunes each layer alone, and puts it back', async (t) => {
  const model = net(3, [12, 9, 4])
  await prune.magnitude(model, { sparsity: 0.1, include: ['2'] })
  const [before, state] = [masks(model), values(model)]
  const seen: number[][] = []
  const evaluate = async (m: unknown) => {
    const zeros = linears(m as nn.Module).map(({ weight }) => flat(weight).filter((w) => w === 0).length)
    seen.push(zeros)
    return 100 - zeros.reduce((a, b) => a + b)
  }
  const told: unknown[] = []
  const report = await prune.sensitivity(model, evaluate, {
    sparsities: [0.75, 0.5],
    progress: (...args) => told.push(args),
  })
  t.same(seen, [
    [0, 4],
    [81, 4],
    [54, 4],
    [0, 27],
    [0, 18],
  ])
  const { baseline, sparsities, layers } = report
  const wanted = [
    { path: '0', scores: [15, 42] },
    { path: '2', scores: [73, 82] },
  ]
  t.same({ baseline, sparsities, layers }, { baseline: 96, sparsities: [0.75, 0.5], layers: wanted })
  t.same(told, [
    [0, 4, '0'],
    [1, 4, '0'],
    [2, 4, '2'],
    [3, 4, '2'],
  ])
  const bar = (n: number) => `|${'#'.repeat(n).padEnd(40)}|`
  t.equal(
    String(report),
    [
      `layer  15.00${'96.00'.padStart(37)}  sparsity  score`,
      `       ${bar(40)}  as it is  96.00`,
      `0      ${bar(0)}    75.0 %  15.00`,
      `       ${bar(13)}    50.0 %  42.00`,
      `2      ${bar(29)}    75.0 %  73.00`,
      `       ${bar(33)}    50.0 %  82.00`,
    ].join('\n'),
  )
  t.same(masks(model), before)
  t.same(values(model), state)
  t.match(
    String(await prune.sensitivity(net(1, [2, 2]), () => 1)),
    new RegExp(`\\|${'#'.repeat(40)}\\| {4}90.0 %  1.000`),
  )
})

t.test('sensitivity: the model is as before when evaluate throws, and for bad arguments', async (t) => {
  const model = net(4, [12, 9, 4]).to('float16')
  await prune.random(model, { sparsity: 0.3, seed: 1, include: ['0'] })
  const [before, state] = [masks(model), values(model)]
  let calls = 0
  const failing = () => {
    if (++calls === 3) throw new Error('no data')
    return 1
  }
  await t.rejects(prune.sensitivity(model, failing), { message: 'no data' })
  calls = 1
  await t.rejects(
    prune.sensitivity(model, () => (++calls > 3 ? Number.NaN : 1)),
    {
      code: 'ERR_ARGUMENT',
      message: /^sensitivity: evaluate must return a finite number, got NaN/,
    },
  )
  const wrong: [unknown, unknown, RegExp][] = [
    [7, {}, /^sensitivity: evaluate must be a function, got 7/],
    [() => 1, { sparsities: [] }, /^sensitivity: sparsities must be an array of numbers, got \[\]/],
    [() => 1, { sparsities: 0.5 }, /^sensitivity: sparsities must be an array of numbers, got 0.5/],
    [() => 1, { sparsities: [0.5, 2] }, /^sensitivity: sparsities\[1\] must be a number from 0 to 1, got 2/],
    [() => 1, { include: ['x'] }, /^sensitivity: include: no Linear or convolution layer is at "x"/],
    [() => 1, null, /^sensitivity: options must be an object, got null/],
  ]
  for (const [evaluate, options, message] of wrong)
    await t.rejects(prune.sensitivity(model, evaluate as never, options as never), { code: 'ERR_ARGUMENT', message })
  t.same(masks(model), before)
  t.same(values(model), state)
})

t.test('rewinding: surviving weights and biases go back, pruned ones stay 0', async (t) => {
  const model = net(5, [12, 9, 4])
  let start: nn.StateDict = {}
  scope(() => {
    start = prune.snapshot(model)
  })
  const first = values(model)
  train(model, 5)
  await prune.magnitude(model, { sparsity: 0.6 })
  const pruned = masks(model)
  prune.rewind(model, start)
  t.same(masks(model), pruned)
  t.same(
    values(model),
    first.map((list, i) => (i % 2 === 1 ? list : list.map((w, j) => (pruned[i / 2]?.[j] ? w : 0)))),
  )
  t.same(Object.keys(prune.snapshot(model)), Object.keys(start), 'a snapshot has no masks')
  const other = net(5, [12, 8, 4])
  const state = values(other)
  t.throws(() => prune.rewind(other, start), { code: 'ERR_SHAPE' })
  t.throws(() => prune.rewind(other, {}), { code: 'ERR_ARGUMENT', message: /missing 0.weight/ })
  t.throws(() => prune.rewind(other, null as never), {
    message: /^rewind: expected what snapshot\(\) returns, got null/,
  })
  t.throws(() => prune.snapshot(3 as never), { message: /^snapshot: expected a Module, got 3/ })
  t.same(values(other), state)
})

t.test('lottery tickets: the sparsities of the rounds, and where each training starts', async (t) => {
  const model = net(6, [12, 9, 4])
  const first = values(model)
  const starts: number[][][] = []
  const trained: (number[] | null)[][] = []
  const curve = await prune.lotteryTicket(model, {
    sparsity: 0.8,
    rounds: 3,
    scope: 'layer',
    train: (m, round) => {
      t.equal(round, starts.length)
      starts.push(values(m as nn.Module))
      trained.push(masks(m as nn.Module))
      train(m as nn.Module, 3)
    },
    evaluate: async (_, round) => 10 * round,
  })
  t.same(
    curve.map(({ round, score }) => [round, score]),
    [
      [0, 0],
      [1, 10],
      [2, 20],
      [3, 30],
    ],
  )
  for (const [round, { sparsity }] of curve.entries()) {
    const amount = 1 - 0.2 ** (round / 3)
    t.equal(sparsity, (Math.round(amount * 108) + Math.round(amount * 36)) / 144)
    const kept = trained[round] as (number[] | null)[]
    const wanted = first.map((list, i) => (i % 2 === 1 ? list : list.map((w, j) => (kept[i / 2]?.[j] === 0 ? 0 : w))))
    t.same(starts[round], wanted, `round ${round} starts from the first weights`)
  }
  t.notSame(values(model), starts[3], 'the model is left trained')
  t.equal(prune.report(model).total.zeros, Math.round(0.8 * 108) + Math.round(0.8 * 36))
})

t.test('lottery tickets: other rewinding, and bad arguments', async (t) => {
  const model = net(7, [12, 9, 4])
  const late = prune.snapshot(net(8, [12, 9, 4]))
  const starts: number[][][] = []
  const options = {
    sparsity: 0.5,
    rounds: 1,
    train: (m: unknown) => {
      starts.push(values(m as nn.Module))
      setWeight(linears(m as nn.Module)[1] as nn.Linear, new Array(36).fill(1))
    },
  }
  const curve = await prune.lotteryTicket(model, { ...options, rewindTo: late })
  t.same(
    curve.map(({ score }) => score),
    [null, null],
  )
  t.ok(starts[1]?.every((list, i) => list.every((w, j) => w === 0 || w === flat(Object.values(late)[i] as never)[j])))
  const plain = net(9, [12, 9, 4])
  await prune.lotteryTicket(plain, { ...options, rewindTo: null, include: ['2'] })
  t.same(starts[3]?.[2], new Array(36).fill(0).fill(1, 0, 18), 'training goes on')
  const wrong: [object, RegExp][] = [
    [{ sparsity: 2 }, /^lotteryTicket: sparsity must be .*, got 2/],
    [{ rounds: 0 }, /^lotteryTicket: rounds must be a whole number >= 1, got 0/],
    [{ scope: 'x' }, /^lotteryTicket: scope must be/],
    [{ train: undefined }, /^lotteryTicket: train must be a function, got undefined/],
    [{ evaluate: 3 }, /^lotteryTicket: evaluate must be a function, got 3/],
    [{ skip: ['x'] }, /^lotteryTicket: skip: no Linear or convolution layer/],
  ]
  const count = starts.length
  for (const [change, message] of wrong)
    await t.rejects(prune.lotteryTicket(model, { ...options, ...change } as never), { code: 'ERR_ARGUMENT', message })
  t.equal(starts.length, count, 'nothing was trained')
})
