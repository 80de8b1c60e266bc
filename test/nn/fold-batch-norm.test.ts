// Batch norms folded into the layers before them: the model's outputs are those of the formula in float64, within the roundings
// of the folded weights, and what cannot be folded stays.
import { manualSeed, nn, optim, type Tensor, tensor } from 'kerf'
import t from 'tap'
import { generator, read } from '../matrix'
import { abs, map, type Nd } from '../oracle/array'
import { conv } from '../oracle/conv'
import { unit } from '../oracle/float'

const { foldBatchNorm } = nn
type Folded = nn.Linear | nn.Conv1d | nn.Conv2d
type Norm = nn.BatchNorm1d | nn.BatchNorm2d

/** Numbers from -1 to 1. */
function numbers(seed: number, shape: readonly number[]): Tensor<'float32'> {
  const next = generator(seed)
  const size = shape.reduce((n, s) => n * s, 1)
  return tensor(
    Array.from({ length: size }, () => 2 * next() - 1),
    { shape },
  ) as Tensor<'float32'>
}

/** Statistics and parameters as after training. */
function trained<N extends Norm>(norm: N, seed: number): N {
  const channels = [norm.numFeatures]
  norm.loadStateDict(
    {
      runningMean: numbers(seed, channels),
      runningVar: numbers(seed + 1, channels).add(1.3),
      ...(norm.weight && { weight: numbers(seed + 2, channels).add(0.5), bias: numbers(seed + 3, channels) }),
    },
    { strict: false },
  )
  norm.eval()
  return norm
}

const list = (a: Tensor | null, size: number): number[] => (a ? [...read(a).data] : new Array<number>(size).fill(0))

/** Four axes, as conv()'s oracle takes them. */
const four = (a: Nd, shape: readonly number[]): Nd => ({ shape: [...shape], data: a.data })

/** (W x + b - mean) / sqrt(var + eps) * gamma + beta in float64, and how far float32 may be off from it once W is folded. */
function expected(layer: Folded, norm: Norm, x: Tensor, out: readonly number[]): { y: number[]; bound: number[] } {
  const images = layer instanceof nn.Conv2d
  const w = read(layer.weight)
  const [o, c, ...kernel] = w.shape as [number, number, ...number[]]
  const [n, channels, ...size] = x.shape as [number, number, ...number[]]
  const lines = (rest: readonly number[]) => (images ? rest : [1, rest[0] ?? 1])
  const groups = layer instanceof nn.Linear ? 1 : layer.groups
  const padding = layer instanceof nn.Linear ? 0 : ((layer.options.padding as number) ?? 0)
  const spec = { stride: [1, 1], pad: [images ? padding : 0, padding], dilation: [1, 1], groups } as const
  const shape = [n, o, ...lines(out.slice(2))]
  const x4 = four(read(x), [n, channels, ...lines(size)])
  const w4 = four(w, [o, c, ...lines(kernel)])
  const sums = conv(x4, w4, shape, spec).data
  const sizes = conv(abs(x4), abs(w4), shape, spec).data
  const [mean, variance] = [list(norm.runningMean, o), list(norm.runningVar, o)]
  const gamma = norm.weight ? list(norm.weight, o) : new Array<number>(o).fill(1)
  const [beta, bias] = [list(norm.bias, o), list(layer.bias, o)]
  const pixels = sums.length / (n * o)
  const k = w.data.length / o
  const u = unit('float32')
  const y: number[] = []
  const bound: number[] = []
  for (const [i, sum] of sums.entries()) {
    const at = Math.floor(i / pixels) % o
    const of = (values: readonly number[]) => values[at] as number
    const f = of(gamma) / Math.sqrt(of(variance) + norm.eps)
    y.push((sum + of(bias) - of(mean)) * f + of(beta))
    // f has roundings of a sum (halved by the root), a root and a quotient; W f one more, and the chain of k products k + 1.
    // b - mean, its product, the sum with beta and the last one with the products: 4 beside f's.
    const products = (k + 6) * Math.abs(f) * (sizes[i] as number)
    bound.push(u * (products + 8 * Math.abs(f) * (Math.abs(of(bias)) + Math.abs(of(mean))) + 2 * Math.abs(of(beta))))
  }
  return { y, bound }
}

function mismatch(found: Tensor, { y, bound }: ReturnType<typeof expected>): string | null {
  const values = read(found).data
  if (values.length !== y.length) return `${values.length} values, should be ${y.length}`
  for (const [i, v] of values.entries())
    if (!(Math.abs(v - (y[i] as number)) <= (bound[i] as number)))
      return `[${i}] is ${v}, should be ${y[i]} +- ${bound[i]}`
  return null
}

const cases: [string, () => Folded, () => Norm, number[]][] = [
  ['Conv2d', () => new nn.Conv2d(3, 5, [3, 2], { padding: 1 }), () => new nn.BatchNorm2d(5), [2, 3, 6, 5]],
  ['Conv2d without bias', () => new nn.Conv2d(3, 5, 1, { bias: false }), () => new nn.BatchNorm2d(5), [2, 3, 4, 4]],
  ['depthwise', () => new nn.Conv2d(4, 8, 3, { groups: 4 }), () => new nn.BatchNorm2d(8, { eps: 0.1 }), [1, 4, 5, 5]],
  ['not affine', () => new nn.Conv2d(2, 3, 3), () => new nn.BatchNorm2d(3, { affine: false }), [1, 2, 4, 4]],
  ['Linear', () => new nn.Linear(7, 4), () => new nn.BatchNorm1d(4), [6, 7]],
  ['Linear without bias', () => new nn.Linear(7, 4, { bias: false }), () => new nn.BatchNorm1d(4), [6, 7]],
  ['Conv1d', () => new nn.Conv1d(3, 4, 3, { padding: 1 }), () => new nn.BatchNorm1d(4), [2, 3, 9]],
]

for (const [name, makeLayer, makeNorm, shape] of cases) {
  t.test(`${name}: as the formula says`, (t) => {
    manualSeed(1)
    const layer = makeLayer()
    const norm = trained(makeNorm(), 10)
    const model = new nn.Sequential({ layer, norm }).eval()
    const x = numbers(2, shape)
    const before = model.forward(x)
    const wanted = expected(layer, norm, x, before.shape)
    t.same(foldBatchNorm(model), [['layer', 'norm']])
    t.ok(model.getModule('norm') instanceof nn.Identity)
    t.equal(model.getModule('layer'), layer)
    t.equal(mismatch(model.forward(x), wanted), null)
    // The batch norm's own output is off by no more: one is as good as the other.
    t.equal(mismatch(before, wanted), null)
    t.equal(layer.parameters().length, 2)
    t.same(Object.keys(model.stateDict()), ['layer.weight', 'layer.bias'])
    t.same(foldBatchNorm(model), [], 'there is nothing left')
    t.end()
  })
}

t.test('float16 layers are folded in float32 and rounded once', (t) => {
  manualSeed(2)
  const model = new nn.Sequential(new nn.Conv2d(2, 3, 1, { bias: false }), trained(new nn.BatchNorm2d(3), 20)).to(
    'float16',
  )
  const [layer, norm] = [model.at(0) as nn.Conv2d, model.at(1) as nn.BatchNorm2d]
  const [w, variance, gamma] = [read(layer.weight), read(norm.runningVar as Tensor), read(norm.weight as Tensor)]
  foldBatchNorm(model.eval())
  t.equal(layer.bias?.dtype, 'float16')
  t.equal(layer.weight.dtype, 'float16')
  const wanted = map(w, (v, i) => {
    const o = Math.floor(i / 2)
    return (v * (gamma.data[o] as number)) / Math.sqrt((variance.data[o] as number) + norm.eps)
  })
  // float16's rounding, and 5 of float32 before it.
  for (const [i, v] of read(layer.weight).data.entries()) {
    const exact = wanted.data[i] as number
    t.ok(Math.abs(v - exact) <= (unit('float16') + 5 * unit('float32')) * Math.abs(exact) + 2 ** -25)
  }
  t.end()
})

t.test('a whole network: only what directly follows, in any Sequential; masks stay', (t) => {
  manualSeed(3)
  const model = new nn.Sequential({
    first: new nn.Conv2d(1, 4, 3),
    norm: trained(new nn.BatchNorm2d(4), 30),
    act: new nn.ReLU(),
    block: new nn.Sequential(
      trained(new nn.BatchNorm2d(4), 31),
      new nn.Conv2d(4, 4, 1),
      new nn.ReLU(),
      trained(new nn.BatchNorm2d(4), 32),
      new nn.Conv2d(4, 2, 1),
      trained(new nn.BatchNorm2d(2, { trackRunningStats: false }), 33),
    ),
    flat: new nn.Flatten(),
    fc: new nn.Linear(32, 6),
    last: trained(new nn.BatchNorm1d(6), 34),
  }).eval()
  const first = model.getModule('first') as nn.Conv2d
  const kept = numbers(4, first.weight.shape).gt(0) as Tensor<'bool'>
  first.weight.mask = kept
  const x = numbers(5, [2, 1, 6, 6])
  const before = read(model.forward(x)).data
  t.same(foldBatchNorm(model), [
    ['first', 'norm'],
    ['fc', 'last'],
  ])
  const after = read(model.forward(x)).data
  // No bound but that of each layer, above: nothing has been folded into the wrong place.
  const most = Math.max(...before.map(Math.abs))
  t.ok(after.every((v, i) => Math.abs(v - (before[i] as number)) < 1e-5 * most))
  t.same(
    read(first.weight).data.map((v) => Number(v !== 0)),
    read(kept).data.map((v) => Number(v !== 0)),
  )
  t.same(read(first.weight.mask as Tensor).data, read(kept).data)
  t.end()
})

class Net extends nn.Module {
  conv = new nn.Conv2d(2, 3, 1)
  bn = trained(new nn.BatchNorm2d(3), 40)
  forward(x: Tensor): Tensor {
    return this.bn.forward(this.conv.forward(x))
  }
}

t.test('pairs name what is not in a Sequential; an optimizer goes on', (t) => {
  manualSeed(4)
  const net = new Net().eval()
  t.same(foldBatchNorm(net), [])
  const optimizer = new optim.SGD(net.conv.parameters(), { lr: 0.1 })
  const x = numbers(6, [1, 2, 3, 3])
  const wanted = expected(net.conv, net.bn, x, [1, 3, 3, 3])
  t.same(foldBatchNorm(net, { pairs: [['conv', 'bn']] }), [['conv', 'bn']])
  t.ok((net.bn as nn.Module) instanceof nn.Identity)
  t.equal(mismatch(net.forward(x), wanted), null)
  const weight = read(net.conv.weight).data
  net.forward(x).sum().backward()
  optimizer.step()
  t.notSame(read(net.conv.weight).data, weight)
  t.end()
})

t.test('what is shared, of another kind or overridden stays', (t) => {
  const conv = new nn.Conv2d(3, 3, 1)
  const shared = new nn.Sequential({ a: conv, n: trained(new nn.BatchNorm2d(3), 50), b: conv }).eval()
  t.same(foldBatchNorm(shared), [])
  const norm = trained(new nn.BatchNorm2d(3), 51)
  t.same(foldBatchNorm(new nn.Sequential(new nn.Conv2d(3, 3, 1), norm, new nn.Conv2d(3, 3, 1), norm).eval()), [])
  class Doubled extends nn.Conv2d {
    override forward(x: Tensor): Tensor {
      return super.forward(x).mul(2)
    }
  }
  t.same(foldBatchNorm(new nn.Sequential(new Doubled(3, 3, 1), trained(new nn.BatchNorm2d(3), 52)).eval()), [])
  const up = new nn.ConvTranspose2d(3, 3, 2)
  t.same(foldBatchNorm(new nn.Sequential(up, trained(new nn.BatchNorm2d(3), 53)).eval()), [])
  t.same(foldBatchNorm(new nn.Sequential(new nn.Linear(3, 3), trained(new nn.BatchNorm2d(3), 54)).eval()), [])
  t.end()
})

t.test('errors say what is wrong, and nothing has changed', (t) => {
  const model = new nn.Sequential({
    conv: new nn.Conv2d(2, 3, 1),
    bn: trained(new nn.BatchNorm2d(3), 60),
    other: new nn.Conv2d(3, 3, 1),
    wrong: trained(new nn.BatchNorm2d(4), 61),
  }).eval()
  const weight = read((model.getModule('conv') as nn.Conv2d).weight).data
  const cases: [unknown, unknown, string, RegExp][] = [
    [{}, {}, 'ERR_ARGUMENT', /^foldBatchNorm: expected a Module, got/],
    [model, {}, 'ERR_SHAPE', /^foldBatchNorm: 'other' gives 3 channels, 'wrong' takes 4/],
    [model, { pairs: 'conv' }, 'ERR_ARGUMENT', /pairs must be an array of \[layer, batch norm\], got "conv"/],
    [model, { pairs: [['conv']] }, 'ERR_ARGUMENT', /pairs must hold \[layer, batch norm\], two paths, got \["conv"\]/],
    [model, { pairs: [['conv', 'nope']] }, 'ERR_ARGUMENT', /no module at 'nope'/],
    [model, { pairs: [['bn', 'conv']] }, 'ERR_ARGUMENT', /'conv' after 'bn': a BatchNorm2d and a Conv2d are no pair/],
    [
      model,
      {
        pairs: [
          ['conv', 'bn'],
          ['conv', 'wrong'],
        ],
      },
      'ERR_ARGUMENT',
      /'conv' is in two pairs/,
    ],
  ]
  for (const [given, options, code, message] of cases)
    t.throws(() => foldBatchNorm(given as nn.Module, options as nn.FoldBatchNormOptions), { code, message })
  const block = new nn.Sequential(new nn.Conv2d(2, 2, 1), trained(new nn.BatchNorm2d(2), 63))
  const twice = new nn.Sequential({ a: block, b: block }).eval()
  const pairs = ['a', 'b'].map((at) => [`${at}.0`, `${at}.1`] as const)
  t.throws(() => foldBatchNorm(twice, { pairs }), { message: /'b\.0' is in two pairs/ })
  t.same(foldBatchNorm(twice), [['a.0', 'a.1']], 'a block in two places is folded once')
  model.setModule('wrong', trained(new nn.BatchNorm2d(3), 62).train())
  t.throws(() => foldBatchNorm(model), { code: 'ERR_ARGUMENT', message: /'wrong' is training: call eval\(\)/ })
  const loose = new nn.Sequential(new nn.Conv2d(1, 2, 1), new nn.BatchNorm2d(2, { trackRunningStats: false })).eval()
  t.throws(() => foldBatchNorm(loose, { pairs: [['0', '1']] }), { message: /it has no running statistics/ })
  t.same(read((model.getModule('conv') as nn.Conv2d).weight).data, weight)
  t.ok(model.getModule('bn') instanceof nn.BatchNorm2d)
  t.end()
})
