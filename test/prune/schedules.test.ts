// Schedules against their formula and TFMOT's numbers; the report against counting.
import { nn, prune } from 'kerf'
import t from 'tap'
import { net, setWeight } from './oracle'

t.test("the cubic schedule is TFMOT's", (t) => {
  const s = new prune.CubicSchedule({ from: 0, to: 0.8, begin: 0, end: 100 })
  for (const [step, wanted] of [
    [0, 0],
    [25, 0.4625],
    [50, 0.7],
    [100, 0.8],
    [101, 0.8],
    [1e9, 0.8],
  ] as const)
    t.ok(Math.abs(s.sparsityAt(step) - wanted) < 1e-15, `${step}: ${s.sparsityAt(step)}`)
  const late = new prune.CubicSchedule({ from: 0.5, to: 0.9, begin: 10, end: 30 })
  for (let step = 10; step < 30; step++) {
    const wanted = 0.9 + (0.5 - 0.9) * (1 - (step - 10) / 20) ** 3
    t.ok(Math.abs(late.sparsityAt(step) - wanted) < 1e-15)
  }
  t.equal(late.sparsityAt(9), 0)
  t.end()
})

t.test('linear and one-shot schedules', (t) => {
  const line = new prune.LinearSchedule({ from: 0.2, to: 0.6, begin: 10, end: 20 })
  t.same(
    [0, 9, 10, 20, 30].map((step) => line.sparsityAt(step)),
    [0, 0, 0.2, 0.6, 0.6],
  )
  t.ok(Math.abs(line.sparsityAt(15) - 0.4) < 1e-15)
  const once = new prune.OneShotSchedule({ to: 0.9, begin: 3 })
  t.same(
    [0, 2, 3, 4].map((step) => once.sparsityAt(step)),
    [0, 0, 0.9, 0.9],
  )
  t.equal(new prune.OneShotSchedule({ to: 0.9 }).sparsityAt(0), 0.9)
  t.end()
})

t.test('bad schedules', (t) => {
  const wrong: [() => unknown, RegExp][] = [
    [() => new prune.CubicSchedule(undefined as never), /^CubicSchedule: options must be an object, got undefined/],
    [
      () => new prune.CubicSchedule({ end: 5 } as never),
      /^CubicSchedule: to must be a number from 0 to 1, got undefined/,
    ],
    [
      () => new prune.CubicSchedule({ to: 0.5 } as never),
      /^CubicSchedule: end must be a whole number >= 1, got undefined/,
    ],
    [() => new prune.LinearSchedule({ from: 2, to: 0.5, end: 5 }), /^LinearSchedule: from must be .*, got 2/],
    [() => new prune.LinearSchedule({ from: 0.6, to: 0.5, end: 5 }), /to must not be less than from, got 0.5 and 0.6/],
    [() => new prune.LinearSchedule({ to: 0.5, begin: 5, end: 5 }), /end must be a whole number >= 6, got 5/],
    [() => new prune.LinearSchedule({ to: 0.5, begin: -1, end: 5 }), /begin must be a whole number >= 0, got -1/],
    [() => new prune.OneShotSchedule({ to: 1.5 }), /^OneShotSchedule: to must be a number from 0 to 1, got 1.5/],
    [() => new prune.OneShotSchedule({ to: 1, begin: 0.5 }), /^OneShotSchedule: begin must be .*, got 0.5/],
    [() => new prune.OneShotSchedule({ to: 1 }).sparsityAt(-1), /^OneShotSchedule: step must be .*, got -1/],
    [
      () => new prune.CubicSchedule({ to: 0.5, end: 5 }).sparsityAt(Number.NaN),
      /^CubicSchedule: step must be .*, got NaN/,
    ],
  ]
  for (const [make, message] of wrong) t.throws(make, { code: 'ERR_ARGUMENT', message })
  t.end()
})

t.test('gradual pruning by a schedule ends at its sparsity', async (t) => {
  const schedule = new prune.CubicSchedule({ to: 0.9, end: 10 })
  const model = net(1, [20, 10])
  for (let step = 0; step <= 10; step++) {
    await prune.magnitude(model, { sparsity: schedule.sparsityAt(step) })
    t.equal(prune.report(model).total.zeros, Math.round(schedule.sparsityAt(step) * 200))
  }
})

t.test('the report counts zeros, masked or not', async (t) => {
  const model = new nn.Sequential({ body: net(2, [8, 4]), head: new nn.Linear(4, 1000) })
  setWeight(model.getModule('head') as nn.Linear, new Array(4000).fill(0).fill(1, 1))
  await prune.magnitude(model, { sparsity: 0.75, include: ['body'] })
  const { layers, total } = prune.report(model)
  t.same(layers, [
    { path: 'body.0', shape: [4, 8], weights: 32, zeros: 24, sparsity: 0.75, denseBytes: 128, masked: true },
    { path: 'head', shape: [1000, 4], weights: 4000, zeros: 1, sparsity: 1 / 4000, denseBytes: 16000, masked: false },
  ])
  t.same(total, { weights: 4032, zeros: 25, sparsity: 25 / 4032, denseBytes: 16128 })
  t.equal(
    String(prune.report(model)),
    [
      'layer   shape      mask  weights  zeros  sparsity  bytes dense',
      'body.0  [4, 8]     yes        32     24    75.0 %          128',
      'head    [1000, 4]  no      4,000      1     0.0 %       16,000',
      'total                      4,032     25     0.6 %       16,128',
    ].join('\n'),
  )
  t.same(prune.report(new nn.Sequential()).total, { weights: 0, zeros: 0, sparsity: 0, denseBytes: 0 })
  const tied = new nn.Sequential(new nn.Linear(2, 2), new nn.Linear(2, 2))
  ;(tied.at(1) as nn.Linear).weight = (tied.at(0) as nn.Linear).weight
  t.equal(prune.report(tied).total.weights, 4)
  t.match(String(prune.report(new nn.Linear(2, 2))), /\n\(model\) {2}\[2, 2\]/)
  t.throws(() => prune.report(null as never), { code: 'ERR_ARGUMENT', message: /report: expected a Module, got null/ })
})
