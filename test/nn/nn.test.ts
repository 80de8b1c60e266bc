// Layers against float64 loops over the same (float32) values; modules as containers of names.
import { manualSeed, mseLoss, nn, optim, randn, scope, summary, type Tensor, tensor } from 'kerf'
import t from 'tap'

type Matrix = number[][]
const values = (x: Tensor | null) => (x as Tensor).arraySync() as Matrix
const flat = (x: unknown): number[] => (x as number[]).flat(9) as number[]

/** y = x w^T + b. */
function linear64(x: Matrix, w: Matrix, b: number[] | null): Matrix {
  return x.map((row) => w.map((weights, j) => weights.reduce((sum, v, p) => sum + v * (row[p] as number), b?.[j] ?? 0)))
}

/** Within n roundings of float32 of values of about `size`. */
function near(found: unknown, wanted: unknown, n: number, size = 1): boolean {
  const [a, b] = [flat(found), flat(wanted)]
  return (
    a.length === b.length &&
    a.every((v, i) => Math.abs(v - (b[i] as number)) <= n * 2 ** -24 * (size + Math.abs(b[i] as number)))
  )
}

class Net extends nn.Module {
  fc1 = new nn.Linear(4, 3)
  act = new nn.ReLU()
  scale = new nn.Parameter(tensor([1, 2]))
  tail = new nn.Sequential({ first: new nn.Linear(3, 2, { bias: false }), drop: new nn.Dropout(0.5) })
  list = new nn.ModuleList([new nn.Identity(), new nn.LayerNorm(2)])
  runningMean!: Tensor

  constructor() {
    super()
    this.registerBuffer('runningMean', tensor([7, 8]))
    this.registerBuffer('cache', tensor([9]), { persistent: false })
  }

  forward(x: Tensor): Tensor {
    return this.list
      .at(1)
      .forward(this.tail.forward(this.act.forward(this.fc1.forward(x))))
      .mul(this.scale)
  }
}

t.test('Linear', (t) => {
  manualSeed(1)
  const layer = new nn.Linear(7, 5)
  const x = randn([3, 7])
  t.ok(
    near(layer.forward(x).arraySync(), linear64(values(x), values(layer.weight), flat(layer.bias?.arraySync())), 8, 4),
  )
  t.same(layer.forward(randn([2, 3, 7])).shape, [2, 3, 5])
  const bound = 1 / Math.sqrt(7)
  const all = [...flat(values(layer.weight)), ...flat(layer.bias?.arraySync())]
  t.ok(all.every((v) => Math.abs(v) <= bound) && Math.max(...all.map(Math.abs)) > bound * 0.8)
  t.equal(new nn.Linear(2, 2, { bias: false }).bias, null)
  t.equal(new nn.Linear(2, 2, { dtype: 'bfloat16' }).weight.dtype, 'bfloat16')
  t.throws(() => new nn.Linear(0, 2), { code: 'ERR_ARGUMENT' })
  t.throws(() => layer.forward(randn([3, 6])), { code: 'ERR_SHAPE' })
  t.end()
})

t.test('activations, Flatten, Identity', (t) => {
  const x = tensor([-1.5, -0.25, 0, 0.5, 2])
  const xs = x.arraySync() as number[]
  const sigmoid = (v: number) => 1 / (1 + Math.exp(-v))
  // gelu at these points, from erf's table values to 10 digits
  const erf: Record<string, number> = {
    1.5: 0.8663855975,
    0.25: 0.1974126514,
    0.5: 0.3829249226,
    2: 0.9544997361,
    0: 0,
  } // erf(v / sqrt 2)
  const wanted: [nn.Module, (v: number) => number][] = [
    [new nn.ReLU(), (v) => Math.max(v, 0)],
    [new nn.Sigmoid(), sigmoid],
    [new nn.Tanh(), Math.tanh],
    [new nn.SiLU(), (v) => v * sigmoid(v)],
    [new nn.GELU(), (v) => (v / 2) * (1 + Math.sign(v) * (erf[String(Math.abs(v))] as number))],
    [new nn.Identity(), (v) => v],
  ]
  for (const [layer, f] of wanted) t.ok(near(layer.forward(x).arraySync(), xs.map(f), 8), layer.constructor.name)
  const sum = xs.reduce((s, v) => s + Math.exp(v), 0)
  t.ok(
    near(
      new nn.Softmax().forward(x).arraySync(),
      xs.map((v) => Math.exp(v) / sum),
      8,
    ),
  )
  t.ok(
    near(
      new nn.LogSoftmax(0).forward(x).arraySync(),
      xs.map((v) => v - Math.log(sum)),
      8,
    ),
  )
  t.same(new nn.Flatten().forward(randn([2, 3, 4, 5])).shape, [2, 60])
  t.same(new nn.Flatten(0, 1).forward(randn([2, 3, 4])).shape, [6, 4])
  t.throws(() => new nn.Flatten(2).forward(randn([2, 3])), { code: 'ERR_ARGUMENT' })
  t.end()
})

t.test('norms', (t) => {
  manualSeed(2)
  const x = randn([4, 9])
  const rows = values(x)
  const norm = new nn.LayerNorm(9)
  const rms = new nn.RMSNorm(9, { eps: 1e-3 })
  for (const layer of [norm, rms]) nn.init.uniform(layer.weight as Tensor, 0.5, 2)
  nn.init.normal(norm.bias as Tensor)
  const [w, b, r] = [flat(norm.weight?.arraySync()), flat(norm.bias?.arraySync()), flat(rms.weight?.arraySync())]
  const layer64 = rows.map((row) => {
    const mean = row.reduce((s, v) => s + v, 0) / 9
    const variance = row.reduce((s, v) => s + (v - mean) ** 2, 0) / 9
    return row.map((v, j) => ((v - mean) / Math.sqrt(variance + 1e-5)) * (w[j] as number) + (b[j] as number))
  })
  const rms64 = rows.map((row) => {
    const square = row.reduce((s, v) => s + v * v, 0) / 9
    return row.map((v, j) => (v / Math.sqrt(square + 1e-3)) * (r[j] as number))
  })
  t.ok(near(norm.forward(x).arraySync(), layer64, 16, 4))
  t.ok(near(rms.forward(x).arraySync(), rms64, 16, 4))
  t.same(new nn.LayerNorm([3, 3], { elementwiseAffine: false }).parameters(), [])
  t.end()
})

t.test('Embedding', (t) => {
  const table = new nn.Embedding(5, 3, { paddingIdx: -1 })
  const rows = values(table.weight)
  t.same(rows[4], [0, 0, 0])
  const index = tensor(
    [
      [1, 4],
      [0, 1],
    ],
    { dtype: 'int64' },
  )
  const out = table.forward(index)
  t.same(out.arraySync(), [
    [rows[1], rows[4]],
    [rows[0], rows[1]],
  ])
  out.sum().backward()
  t.same(values(table.weight.grad), [
    [1, 1, 1],
    [2, 2, 2],
    [0, 0, 0],
    [0, 0, 0],
    [0, 0, 0],
  ])
  t.throws(() => new nn.Embedding(5, 3, { paddingIdx: 5 }), { code: 'ERR_ARGUMENT' })
  t.end()
})

t.test('Dropout drops while training only', (t) => {
  manualSeed(3)
  const drop = new nn.Dropout(0.25)
  const x = tensor(Array.from({ length: 10000 }, () => 3))
  const out = flat(drop.forward(x).arraySync())
  t.same([...new Set(out)].sort(), [0, 4])
  // 2500 expected; the standard deviation is 43
  t.ok(Math.abs(out.filter((v) => v === 0).length - 2500) < 5 * 43)
  drop.eval()
  t.equal(drop.training, false)
  t.same(drop.forward(x).arraySync(), x.arraySync())
  t.throws(() => new nn.Dropout(1.5), { code: 'ERR_ARGUMENT' })
  t.end()
})

/** softmax(q k^T * scale) v for one head. */
function attention64(q: Matrix, k: Matrix, v: Matrix, visible: (i: number, j: number) => boolean): Matrix {
  const scale = 1 / Math.sqrt((q[0] as number[]).length)
  return q.map((query, i) => {
    const weights = k.map((key, j) =>
      visible(i, j) ? Math.exp(scale * key.reduce((s, x, p) => s + x * (query[p] as number), 0)) : 0,
    )
    const total = weights.reduce((s, x) => s + x, 0)
    return (v[0] as number[]).map((_, c) =>
      weights.reduce((s, x, j) => s + (x / total) * ((v[j] as number[])[c] as number), 0),
    )
  })
}

t.test('scaledDotProductAttention', (t) => {
  manualSeed(4)
  const [q, k, v] = [randn([3, 4]), randn([5, 4]), randn([5, 2])]
  const [q64, k64, v64] = [values(q), values(k), values(v)]
  t.ok(
    near(
      nn.scaledDotProductAttention(q, k, v).arraySync(),
      attention64(q64, k64, v64, () => true),
      32,
      2,
    ),
  )
  const causal = nn.scaledDotProductAttention(q, k, v, { causal: true })
  t.ok(
    near(
      causal.arraySync(),
      attention64(q64, k64, v64, (i, j) => j <= i),
      32,
      2,
    ),
  )
  const mask = tensor([[true, false, true, false, true]])
  const masked = nn.scaledDotProductAttention(q, k, v, { mask })
  t.ok(
    near(
      masked.arraySync(),
      attention64(q64, k64, v64, (_, j) => j % 2 === 0),
      32,
      2,
    ),
  )
  const added = nn.scaledDotProductAttention(q, k, v, {
    mask: mask.where(mask, false).cast('float32').sub(1).mul(1e30),
  })
  t.ok(near(added.arraySync(), masked.arraySync(), 32, 2))
  t.throws(() => nn.scaledDotProductAttention(q, k, v, { mask: tensor([1], { dtype: 'int32' }) }), {
    code: 'ERR_DTYPE',
  })
  t.end()
})

t.test('MultiHeadAttention', (t) => {
  manualSeed(5)
  const layer = new nn.MultiHeadAttention(6, 2, { dropout: 0.5 }).eval()
  nn.init.normal(layer.outProj.bias as Tensor)
  const [x, y] = [randn([1, 3, 6]), randn([1, 4, 6])]
  const project = (p: nn.Linear, z: Tensor) =>
    linear64((z.arraySync() as Matrix[])[0] as Matrix, values(p.weight), flat(p.bias?.arraySync()))
  const wanted = (z: Tensor, visible: (i: number, j: number) => boolean) => {
    const [q, k, v] = [project(layer.qProj, x), project(layer.kProj, z), project(layer.vProj, z)]
    const heads = [0, 3].map((at) => {
      const part = (m: Matrix) => m.map((row) => row.slice(at, at + 3))
      return attention64(part(q), part(k), part(v), visible)
    })
    const joined = (heads[0] as Matrix).map((row, i) => [...row, ...((heads[1] as Matrix)[i] as number[])])
    return linear64(joined, values(layer.outProj.weight), flat(layer.outProj.bias?.arraySync()))
  }
  t.ok(near(layer.forward(x).arraySync(), [wanted(x, () => true)], 64, 4))
  t.ok(near(layer.forward(x, null, null, { causal: true }).arraySync(), [wanted(x, (i, j) => j <= i)], 64, 4))
  t.ok(near(layer.forward(x, y).arraySync(), [wanted(y, () => true)], 64, 4))
  const bound = Math.sqrt(6 / 24)
  t.ok(Math.max(...flat(values(layer.qProj.weight)).map(Math.abs)) <= bound)
  t.same(
    layer
      .namedParameters()
      .map(([name]) => name)
      .slice(0, 2),
    ['qProj.weight', 'qProj.bias'],
  )
  layer.train()
  layer.forward(x).sum().backward()
  t.ok(layer.parameters().every((p) => p.grad))
  t.throws(() => new nn.MultiHeadAttention(6, 4), { code: 'ERR_ARGUMENT' })
  t.throws(() => layer.forward(randn([3, 6])), { code: 'ERR_SHAPE' })
  t.end()
})

t.test('names, trees, modes', (t) => {
  const net = new Net()
  const names = ['scale', 'fc1.weight', 'fc1.bias', 'tail.first.weight', 'list.1.weight', 'list.1.bias']
  t.same(
    net.namedParameters().map(([name]) => name),
    names,
  )
  t.same(Object.keys(net.stateDict()), ['scale', 'runningMean', ...names.slice(1)])
  t.same(
    net.namedBuffers().map(([name]) => name),
    ['runningMean', 'cache'],
  )
  t.equal(net.getModule('tail.first'), net.tail.at(0))
  t.equal(net.modules().length, 9)
  t.ok(
    net
      .eval()
      .modules()
      .every((m) => !m.training),
  )
  t.match(String(net), /\(tail\): Sequential\(\n {4}\(first\): Linear\(inFeatures=3, outFeatures=2, bias=false\)/)
  net.setModule('tail.first', new nn.Linear(3, 2))
  t.equal(net.parameters().length, 7)
  net.setModule('list.0', new nn.Linear(2, 2))
  t.equal(net.list.length, 2)
  t.throws(() => net.getModule('tail.nope'), { code: 'ERR_ARGUMENT' })
  t.throws(() => net.setModule('nope', new nn.ReLU()), { code: 'ERR_ARGUMENT' })
  t.throws(() => new nn.Sequential('x' as never), { code: 'ERR_ARGUMENT' })
  t.end()
})

t.test('Sequential names as PyTorch; tied parameters are one', (t) => {
  const model = new nn.Sequential(new nn.Linear(2, 2), new nn.ReLU(), new nn.Linear(2, 2))
  t.same(Object.keys(model.stateDict()), ['0.weight', '0.bias', '2.weight', '2.bias'])
  const [first, last] = [model.at(0) as nn.Linear, model.at(-1) as nn.Linear]
  last.weight = first.weight
  t.same(
    model.namedParameters().map(([name]) => name),
    ['0.weight', '0.bias', '2.bias'],
  )
  t.same(Object.keys(model.stateDict()).length, 4)
  model.to('float16')
  t.equal(last.weight, first.weight)
  t.end()
})

t.test(
  'Sequential computes a ReLU with the layer before it: the same bits, and whoever replaces forward() sees each call',
  (t) => {
    manualSeed(3)
    const net = new nn.Sequential(
      ...[new nn.Conv2d(2, 5, 3), new nn.ReLU(), new nn.Flatten()],
      ...[new nn.Linear(5 * 36, 20), new nn.ReLU(), new nn.ReLU(), new nn.Linear(20, 3)],
    )
    const x = randn([4, 2, 8, 8])
    const run = (model: (x: Tensor) => Tensor) => {
      net.zeroGrad()
      const out = model(x)
      out.mul(out).sum().backward()
      return [out, ...net.parameters().map((p) => p.grad as Tensor)].map((y) => y.dataSync())
    }
    const one = run((x) => net.forward(x))
    t.same(
      one,
      run((x) => [...net].reduce((x, layer) => layer.forward(x), x)),
    )
    for (const replaced of [0, 1]) {
      const layer = net.at(replaced)
      let calls = 0
      layer.forward = (input) => {
        calls++
        return Object.getPrototypeOf(layer).forward.call(layer, input)
      }
      t.same(
        run((x) => net.forward(x)),
        one,
      )
      t.equal(calls, 1)
      Reflect.deleteProperty(layer, 'forward')
    }
    class Mine extends nn.ReLU {
      override forward(input: Tensor): Tensor {
        return super.forward(input).add(1)
      }
    }
    const own = new nn.Sequential(new nn.Linear(4, 3), new Mine())
    t.ok(
      (own
        .forward(randn([50, 4]))
        .min()
        .item() as number) >= 1,
      'a class of its own keeps its forward()',
    )
    t.end()
  },
)

t.test('stateDict and loadStateDict', (t) => {
  const [a, b] = [new Net(), new Net()]
  nn.init.constant(a.runningMean, 3)
  t.same(b.loadStateDict(a.stateDict()), { missing: [], unexpected: [] })
  const x = randn([2, 4])
  t.same(b.eval().forward(x).arraySync(), a.eval().forward(x).arraySync())
  t.same(b.runningMean.arraySync(), [3, 3])
  const torch = Object.fromEntries(
    Object.entries(a.stateDict()).map(([n, v]) => [n.replace('runningMean', 'running_mean'), v]),
  )
  t.same(b.loadStateDict(torch), { missing: [], unexpected: [] })
  const { scale, ...rest } = a.stateDict()
  t.throws(() => b.loadStateDict(rest), { code: 'ERR_ARGUMENT', message: /missing scale/ })
  t.same(b.loadStateDict({ ...rest, more: x }, { strict: false }), { missing: ['scale'], unexpected: ['more'] })
  t.throws(() => b.loadStateDict({ ...a.stateDict(), scale: x }), { code: 'ERR_SHAPE', message: /'scale'/ })
  t.throws(() => b.loadStateDict(null as never), { code: 'ERR_ARGUMENT' })
  t.ok(scale)
  t.end()
})

t.test('to() converts parameters and buffers', (t) => {
  const net = new Net().to('bfloat16')
  t.ok(net.parameters().every((p) => p.dtype === 'bfloat16' && p.requiresGrad && p instanceof nn.Parameter))
  t.equal(net.runningMean.dtype, 'bfloat16')
  t.equal(net.forward(randn([2, 4]).to('bfloat16')).dtype, 'bfloat16')
  t.equal(net.to('cpu'), net)
  t.throws(() => net.to('int8' as never), { code: 'ERR_DTYPE' })
  t.throws(() => net.to('cuda' as never), { code: 'ERR_DEVICE' })
  t.end()
})

t.test('initialisers', (t) => {
  manualSeed(6)
  const w = randn([300, 200])
  const moments = (x: Tensor) => {
    const v = flat(x.arraySync())
    const mean = v.reduce((s, y) => s + y, 0) / v.length
    return {
      mean,
      std: Math.sqrt(v.reduce((s, y) => s + (y - mean) ** 2, 0) / v.length),
      most: Math.max(...v.map(Math.abs)),
    }
  }
  const cases: [string, Tensor, number, number?][] = [
    ['xavierUniform', nn.init.xavierUniform(w.clone()), Math.sqrt(2 / 500), Math.sqrt(6 / 500)],
    ['xavierNormal', nn.init.xavierNormal(w.clone(), { gain: 2 }), 2 * Math.sqrt(2 / 500)],
    [
      'kaimingUniform',
      nn.init.kaimingUniform(w.clone(), { nonlinearity: 'relu' }),
      Math.sqrt(2 / 200),
      Math.sqrt(6 / 200),
    ],
    ['kaimingNormal', nn.init.kaimingNormal(w.clone(), { mode: 'fanOut' }), Math.sqrt(2 / 300)],
    ['uniform', nn.init.uniform(w.clone(), -2, 2), 4 / Math.sqrt(12), 2],
    ['normal', nn.init.normal(w.clone(), 0, 3), 3],
  ]
  // 60,000 samples: the deviation of an estimated std is std / sqrt(120,000), of the mean std / sqrt(60,000); five of them.
  for (const [name, x, std, bound] of cases) {
    const found = moments(x)
    t.ok(Math.abs(found.std - std) < (5 * std) / Math.sqrt(120000), `${name}: std ${found.std}, wanted ${std}`)
    t.ok(Math.abs(found.mean) < (5 * std) / Math.sqrt(60000), `${name}: mean`)
    if (bound) t.ok(found.most <= bound && found.most > bound * 0.999, `${name}: bound`)
  }
  t.same(nn.init.constant(tensor([1, 2]), 5).arraySync(), [5, 5])
  t.throws(() => nn.init.xavierUniform(tensor([1])), { code: 'ERR_SHAPE' })
  t.throws(() => nn.init.uniform(tensor([1], { dtype: 'int32' })), { code: 'ERR_DTYPE' })
  t.throws(() => nn.init.kaimingUniform(w, { nonlinearity: 'x' as never }), { code: 'ERR_ARGUMENT' })
  t.end()
})

t.test('a model learns, inside scope() too', (t) => {
  manualSeed(7)
  const model = new nn.Sequential(new nn.Linear(8, 16), new nn.Tanh(), new nn.Linear(16, 1))
  const opt = new optim.AdamW(model.parameters(), { lr: 0.01 })
  const x = randn([64, 8])
  const y = x.slice([null, [0, 1]]).mul(x.slice([null, [1, 2]]))
  const step = () =>
    scope(() => {
      const loss = mseLoss(model.forward(x), y)
      opt.zeroGrad()
      loss.backward()
      opt.step()
      return loss.item()
    })
  const first = step()
  for (let i = 0; i < 300; i++) step()
  t.ok(step() < first / 5)
  t.end()
})

t.test('summary', (t) => {
  const model = new nn.Sequential(new nn.Linear(4, 3), new nn.ReLU(), new nn.Linear(3, 2)).to('float16')
  nn.init.zeros((model.at(2) as nn.Linear).weight)
  const found = summary(model, { print: false })
  t.same(
    found.layers.map((l) => [l.path, l.type, l.parameters, l.bytes]),
    [
      ['0', 'Linear', 15, 30],
      ['1', 'ReLU', 0, 0],
      ['2', 'Linear', 8, 16],
    ],
  )
  t.same([found.parameters, found.trainable, found.bytes, found.sparsity], [23, 23, 46, 6 / 23])
  t.match(String(found), /2: Linear +inFeatures=3, outFeatures=2, bias=true +float16 +8 +75\.0 % +16/)
  t.throws(() => summary({} as never), { code: 'ERR_ARGUMENT' })
  t.end()
})
