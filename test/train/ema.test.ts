// train.Ema against a float64 loop.
import { manualSeed, nn, optim, prune, type Tensor, train } from 'kerf'
import t from 'tap'
import { unit } from '../oracle/float'
import { averages, bits, net } from './setup'

const flat = (of: ReturnType<typeof bits>) => of.flatMap(([, values]) => values as number[])

t.test('the average is that of a float64 loop', (t) => {
  for (const [decay, warmup] of [
    [0.9, false],
    [0.99, true],
    [0, false],
  ] as const) {
    const model = net()
    const ema = new train.Ema(model, { decay, warmup })
    const want = flat(bits(model))
    const off = want.map(() => 0)
    for (let step = 1; step <= 30; step++) {
      for (const p of model.parameters())
        p.grad = p
          .detach()
          .mul(0.3)
          .add(0.1 * (step % 3)) as Tensor
      new optim.SGD(model.parameters(), { lr: 0.5 }).step()
      ema.update()
      const d = warmup ? Math.min(decay, (1 + step) / (10 + step)) : decay
      for (const [i, p] of flat(bits(model)).entries()) {
        const before = want[i] as number
        want[i] = d * before + (1 - d) * p
        // Three roundings of (1 - d) * (p - average), that of 1 - d among them, and one of the sum.
        const fresh = 3 * (1 - d) * (Math.abs(p - before) + (off[i] as number)) + Math.abs(want[i] as number) + 1e-6
        off[i] = d * (off[i] as number) + fresh * unit('float32')
      }
    }
    t.equal(ema.updates, 30)
    const bad = flat(averages(ema)).filter((x, i) => !(Math.abs(x - (want[i] as number)) <= (off[i] as number)))
    t.same(bad, [], `decay ${decay}`)
    t.ok(flat(bits(model)).some((p, i) => Math.abs(p - (want[i] as number)) > 1e-3) || decay === 0, 'it lags')
  }
  t.end()
})

t.test('averaged() puts the averages into the model, and takes them out again', async (t) => {
  const model = net()
  const start = bits(model)
  const ema = new train.Ema(model, { decay: 0.5 })
  for (const p of model.parameters()) p.grad = p.detach().add(1) as Tensor
  new optim.SGD(model.parameters(), { lr: 1 }).step()
  const moved = bits(model)
  const inside = await ema.averaged(() => {
    t.throws(() => ema.update(), { code: 'ERR_ARGUMENT', message: /^update: not while averaged\(\) runs/ })
    return bits(model)
  })
  t.same(inside, start, 'no update yet')
  t.same(bits(model), moved)
  await t.rejects(
    ema.averaged(() => {
      throw new Error('mine')
    }),
    { message: 'mine' },
  )
  t.same(bits(model), moved)
  ema.copyTo()
  t.same(bits(model), start)
  const other = net(2)
  ema.copyTo(other)
  t.same(bits(other), start)
  t.throws(() => ema.copyTo(new nn.Linear(2, 3)), { code: 'ERR_ARGUMENT', message: /there is no '0\.weight'/ })
  t.end()
})

t.test('masks hold, and half-precision parameters are averaged in float32', async (t) => {
  manualSeed(1)
  const model = new nn.Linear(8, 8)
  const ema = new train.Ema(model)
  await prune.magnitude(model, { sparsity: 0.5 })
  ema.copyTo()
  t.equal(
    flat(bits(model))
      .slice(0, 64)
      .filter((x) => x === 0).length,
    32,
    'the average of before is masked',
  )
  const half = new nn.Linear(4, 4).to('bfloat16')
  const of = new train.Ema(half, { decay: 0.75 })
  for (const p of half.parameters()) p.grad = p.detach().mul(0.01) as Tensor
  of.update()
  t.ok(Object.values(of.stateDict().averages).every(({ dtype }) => dtype === 'float32'))
  await of.averaged(() => {})
  t.end()
})

t.test('state and options', (t) => {
  const model = net()
  const ema = new train.Ema(model, { decay: 0.5 })
  for (const p of model.parameters()) p.grad = p.detach().add(1) as Tensor
  new optim.SGD(model.parameters(), { lr: 1 }).step()
  ema.update()
  const other = new train.Ema(net(), { decay: 0.5 })
  other.loadStateDict(ema.stateDict())
  t.same(averages(other), averages(ema))
  t.equal(other.updates, 1)
  const before = averages(other)
  const { averages: given } = ema.stateDict()
  for (const [state, message] of [
    [null, /expected what stateDict\(\) returns/],
    [{ updates: -1, averages: given }, /updates must be/],
    [{ updates: 1, averages: {} }, /there is no '0\.weight'/],
    [{ updates: 1, averages: { ...given, x: given['0.weight'] } }, /no parameter 'x'/],
    [{ updates: 1, averages: { ...given, '3.bias': given['0.weight'] } }, /'3\.bias' has shape \[16, 12\]/],
  ] as const)
    t.throws(() => other.loadStateDict(state as never), { code: 'ERR_ARGUMENT', message })
  t.same(averages(other), before)
  t.throws(() => new train.Ema(1 as never), { code: 'ERR_ARGUMENT', message: /^Ema: expected a Module/ })
  for (const decay of [1, -0.1, Number.NaN, 'x'])
    t.throws(() => new train.Ema(model, { decay: decay as never }), { code: 'ERR_ARGUMENT', message: /decay must be/ })
  t.throws(() => new train.Ema(model, { warmup: 1 as never }), { code: 'ERR_ARGUMENT', message: /warmup must be/ })
  t.end()
})
