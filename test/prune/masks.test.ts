// Masks: what they prune stays exactly 0 under every optimizer, and they go where the weights go.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { io, mseLoss, nn, optim, prune, scope, tensor, zeros } from 'kerf'
import t from 'tap'
import { inputs } from '../quant/models'
import { flat, linears, masks, net, setWeight, values } from './oracle'

type Stepper = Pick<optim.Optimizer, 'step' | 'zeroGrad'>

const optimizers: Record<string, (params: nn.Parameter[]) => Stepper> = {
  SGD: (params) => new optim.SGD(params, { lr: 0.01, momentum: 0.9, weightDecay: 0.01 }),
  'SGD, nesterov': (params) => new optim.SGD(params, { lr: 0.01, momentum: 0.9, weightDecay: 0.01, nesterov: true }),
  Adam: (params) => new optim.Adam(params, { lr: 0.01, weightDecay: 0.01 }),
  AdamW: (params) => new optim.AdamW(params, { lr: 0.01, weightDecay: 0.1 }),
}

const step = (model: nn.Module, optimizer: Stepper, seed: number) =>
  scope(() => {
    const loss = mseLoss(model.forward(inputs(seed, 8, 12)), inputs(seed + 1, 8, 4))
    optimizer.zeroGrad()
    loss.backward()
    optimizer.step()
  })

/** Whether exactly what the masks prune is 0. */
function zerosAreMasked(model: nn.Module): boolean {
  return linears(model).every(({ weight }) => {
    const mask = flat(weight.mask as nn.Parameter)
    return flat(weight).every((w, i) => (w === 0) === (mask[i] === 0))
  })
}

for (const [name, make] of Object.entries(optimizers)) {
  t.test(`${name}: 1,000 steps`, async (t) => {
    const model = net(1, [12, 9, 4])
    const optimizer = make(model.parameters())
    for (let i = 0; i < 20; i++) step(model, optimizer, 7 * i) // momentum that would move what is pruned
    await prune.magnitude(model, { sparsity: 0.6, scope: 'layer' })
    const pruned = masks(model)
    const before = values(model)
    t.ok(zerosAreMasked(model))
    for (let i = 0; i < 1000; i++) step(model, optimizer, 7 * i)
    t.ok(zerosAreMasked(model), 'what is pruned is 0, and nothing else')
    t.same(masks(model), pruned)
    t.ok(
      before.every((list, i) => list.every((w, j) => w === 0 || w !== values(model)[i]?.[j])),
      'what is kept has moved',
    )
  })
}

t.test('a step sets pruned weights to 0 even where the gradient is not finite', (t) => {
  const p = new nn.Parameter(tensor([1, 2, 3]))
  p.mask = tensor([true, false, true])
  t.same(flat(p), [1, 0, 3])
  p.grad = tensor([1, Number.NaN, 1])
  new optim.SGD([p], { lr: 1 }).step()
  t.same(flat(p), [0, 0, 2])
  t.notOk(Object.is(flat(p)[1], -0))
  t.end()
})

t.test('masks of half-precision parameters, and through to()', async (t) => {
  for (const dtype of ['float16', 'bfloat16'] as const) {
    const model = net(2, [12, 9, 4]).to(dtype)
    await prune.magnitude(model, { sparsity: 0.5 })
    const pruned = masks(model)
    t.ok(zerosAreMasked(model), dtype)
    step(model.to('float32'), optimizers.AdamW?.(model.parameters()) as Stepper, 3)
    t.same(masks(model), pruned, `${dtype} to float32`)
    t.ok(zerosAreMasked(model))
  }
})

t.test('masks are in the state, and come with it into a new model', async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'kerf-masks-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const model = net(3, [12, 9, 4])
  await prune.magnitude(model, { sparsity: 0.7, skip: ['2'] })
  t.same(Object.keys(model.stateDict()), ['0.weight', '0.weight.mask', '0.bias', '2.weight', '2.bias'])
  const file = path.join(folder, 'model.safetensors')
  await io.saveSafetensors(file, model.stateDict())
  const fresh = net(4, [12, 9, 4])
  const loaded = fresh.loadStateDict(await io.loadSafetensors(file))
  t.same(loaded, { missing: [], unexpected: [] })
  t.same(values(fresh), values(model))
  t.same(masks(fresh), masks(model))
  t.equal(masks(fresh)[1], null)
  step(fresh, new optim.AdamW(fresh.parameters()), 5)
  t.same(masks(fresh), masks(model))
  t.equal(flat(fresh.parameters()[0] as nn.Parameter).filter((w) => w === 0).length, Math.round(0.7 * 108))

  const other = net(5, [12, 9, 4])
  await prune.random(other, { sparsity: 0.5, skip: ['2'], seed: 1 })
  other.loadStateDict(model.stateDict())
  t.same(values(other), values(model), 'the old mask takes nothing from what is loaded')
  t.same(masks(other), masks(model))
})

t.test('loading values without a mask into a pruned model', async (t) => {
  const model = net(6, [12, 9, 4])
  const dense = net(7, [12, 9, 4])
  await prune.magnitude(model, { sparsity: 0.7 })
  const pruned = masks(model)
  const before = values(model)
  t.throws(() => model.loadStateDict(dense.stateDict()), {
    code: 'ERR_ARGUMENT',
    message: /loadStateDict: missing 0.weight.mask, 2.weight.mask/,
  })
  t.same(values(model), before, 'nothing has changed')
  model.loadStateDict(dense.stateDict(), { strict: false })
  t.same(masks(model), pruned, 'the mask stays')
  const wanted = flat(dense.parameters()[0] as nn.Parameter).map((w, i) => (pruned[0]?.[i] ? w : 0))
  t.same(values(model)[0], wanted, 'and prunes what was loaded')
})

t.test('masks that do not fit', (t) => {
  const layer = new nn.Linear(3, 2)
  const before = values(layer)
  const wrong: [unknown, string, RegExp][] = [
    [tensor([[1, 0, 1]]), 'ERR_DTYPE', /mask must be a bool tensor, got float32/],
    [zeros([3, 2], { dtype: 'bool' }), 'ERR_SHAPE', /mask has shape \[3, 2\], its parameter \[2, 3\]/],
    [7, 'ERR_ARGUMENT', /mask must be a tensor, got number/],
  ]
  for (const [mask, code, message] of wrong) {
    t.throws(
      () => {
        layer.weight.mask = mask as never
      },
      { code, message },
    )
    const dict = { weight: zeros([2, 3]), 'weight.mask': mask as never, bias: zeros([2]) }
    t.throws(() => layer.loadStateDict(dict), { code, message: /loadStateDict: 'weight.mask'/ })
  }
  t.same(values(layer), before)
  t.equal(layer.weight.mask, null)
  const stray = { ...layer.stateDict(), 'bias.mask.mask': zeros([2]), 'no.mask': zeros([2]) }
  t.throws(() => layer.loadStateDict(stray), { message: /unexpected bias.mask.mask, no.mask/ })
  t.end()
})

t.test('a parameter keeps its own copy of a mask, which no scope disposes', (t) => {
  const p = new nn.Parameter(tensor([1, 2]))
  const mask = tensor([true, false])
  scope(() => {
    p.mask = mask
  })
  mask.dispose()
  t.same(flat(p.mask as nn.Parameter), [1, 0])
  t.end()
})

t.test('a weight that two layers share has one mask, under both names', async (t) => {
  const a = new nn.Linear(4, 4)
  const b = new nn.Linear(4, 4)
  b.weight = a.weight
  const model = new nn.Sequential(a, b)
  await prune.magnitude(model, { sparsity: 0.5 })
  t.equal(flat(a.weight).filter((w) => w === 0).length, 8)
  const fresh = new nn.Sequential(new nn.Linear(4, 4), new nn.Linear(4, 4))
  fresh.loadStateDict(model.stateDict())
  t.same(masks(fresh), [masks(model)[0], masks(model)[0]])
  prune.removeMasks(model)
  model.append(new nn.Linear(4, 4))
  setWeight(a, new Array(16).fill(1))
  setWeight(linears(model)[2] as nn.Linear, new Array(16).fill(2))
  await prune.magnitude(model, { sparsity: 0.75 })
  t.same(masks(model)[2], new Array(16).fill(0).fill(1, 0, 8), 'its weights count once')
})

t.test('removeMasks keeps the zeros; pruning goes on from them', async (t) => {
  const model = net(8, [12, 9, 4])
  await prune.magnitude(model, { sparsity: 0.5 })
  const before = values(model)
  prune.removeMasks(model)
  t.same(masks(model), [null, null])
  t.same(values(model), before)
  step(model, new optim.SGD(model.parameters(), { lr: 0.1 }), 1)
  t.ok(
    flat(linears(model)[0]?.weight as nn.Parameter).some((w, i) => w !== 0 && before[0]?.[i] === 0),
    'zeros are free again',
  )
  t.throws(() => prune.removeMasks({} as never), { code: 'ERR_ARGUMENT', message: /removeMasks: expected a Module/ })
})
