// smoothQuant on models: the float output stays what it was, what feeds what is found or given, and what cannot be
// smoothed is refused before anything has changed.
import { manualSeed, nn, quant, type Tensor, tensor } from 'kerf'
import t from 'tap'
import type { AnyModule } from '#lib/nn/module'
import { smoothScales } from '#lib/quant/smooth'
import { generator } from '../matrix'
import { inputs, mlp, type Rows, relativeError, rowsOf } from './models'

const { smoothQuant } = quant

/** Column 5 is loud. */
const loud = (j: number) => (j === 5 ? 50 : 1)
const calibrationData = [1, 2].map((seed) => inputs(seed, 30, 16, loud))
const x = inputs(3, 25, 16, loud)

/** A norm whose weights and biases say something. */
function norm<M extends nn.LayerNorm | nn.RMSNorm>(seed: number, layer: M): M {
  const next = generator(seed)
  const draw = (parameter: Tensor | null | undefined, by: number) =>
    parameter && tensor(Array.from({ length: parameter.size }, (_, j) => (0.5 + next()) * by * (j === 5 ? 30 : 1)))
  const weight = draw(layer.weight, 1)
  const bias = layer instanceof nn.LayerNorm ? draw(layer.bias, -0.3) : null
  layer.loadStateDict({ ...(weight && { weight }), ...(bias && { bias }) })
  return layer
}

const linear = (seed: number, from: number, to: number, options?: nn.LinearOptions) =>
  mlp(seed, [from, to], options).at(0) as nn.Linear
const parametersOf = (model: AnyModule) => model.namedParameters().map(([name, p]) => [name, p.arraySync()])

// Smoothing rounds every weight twice, to 2^-24: 1e-6 of the output is some ten roundings of the largest terms.
const UNCHANGED = 1e-6

const models: Record<string, { model: () => nn.Module; pairs: [string, string[]][] }> = {
  'LayerNorm, Linear': {
    model: () => new nn.Sequential(norm(1, new nn.LayerNorm(16)), linear(1, 16, 8)),
    pairs: [['0', ['1']]],
  },
  'LayerNorm without bias': {
    model: () => new nn.Sequential(norm(2, new nn.LayerNorm(16, { bias: false })), linear(1, 16, 8)),
    pairs: [['0', ['1']]],
  },
  'RMSNorm, Linear': {
    model: () => new nn.Sequential({ norm: norm(3, new nn.RMSNorm(16)), fc: linear(2, 16, 8) }),
    pairs: [['norm', ['fc']]],
  },
  'Linear, ReLU, Linear, Linear': {
    model: () =>
      new nn.Sequential(linear(4, 16, 24), new nn.ReLU(), linear(5, 24, 12, { bias: false }), linear(6, 12, 4)),
    pairs: [
      ['0', ['2']],
      ['2', ['3']],
    ],
  },
  'no pairs: what lies between is not linear, or there is nothing to divide': {
    model: () =>
      new nn.Sequential(
        new nn.LayerNorm(16, { elementwiseAffine: false }),
        linear(7, 16, 24),
        new nn.GELU(),
        linear(8, 24, 12),
        new nn.Sequential(linear(9, 12, 4)),
      ),
    pairs: [],
  },
}

for (const [name, { model: make, pairs }] of Object.entries(models)) {
  t.test(name, async (t) => {
    for (const alpha of [0, 0.5, 1]) {
      const model = make()
      const before = parametersOf(model)
      const float = model.forward(x)
      t.same(await smoothQuant(model, { calibrationData, alpha }), pairs)
      const off = relativeError(model.forward(x), float)
      t.ok(off < UNCHANGED, `alpha ${alpha}: off by ${off}`)
      if (pairs.length > 0) t.notSame(parametersOf(model), before)
    }
  })
}

t.test('the scales are the paper’s, of what the layer reads and of its weights', async (t) => {
  const model = new nn.Sequential(norm(10, new nn.LayerNorm(16)), linear(11, 16, 8))
  const seen = calibrationData.flatMap((batch) => rowsOf(model.at(0).forward(batch)))
  const w = rowsOf((model.at(1) as nn.Linear).weight)
  const most = Float32Array.from({ length: 16 }, (_, j) => Math.max(...seen.map((row) => Math.abs(row[j] as number))))
  const s = smoothScales(most, Float32Array.from(w.flat()), 8, 16, { alpha: 0.6 })
  const { weight, bias } = model.at(0) as nn.LayerNorm
  const [gain, shift] = [weight, bias].map((p) => p?.arraySync() as number[]) as Rows
  await smoothQuant(model, { calibrationData, alpha: 0.6 })
  const f = Math.fround
  const each = (fn: (j: number) => number) => Array.from(s, (_, j) => fn(j))
  t.same(
    weight?.arraySync(),
    each((j) => f((gain?.[j] as number) / (s[j] as number))),
  )
  t.same(
    bias?.arraySync(),
    each((j) => f((shift?.[j] as number) / (s[j] as number))),
  )
  t.same(
    rowsOf((model.at(1) as nn.Linear).weight),
    w.map((row) => row.map((v, j) => f(v * (s[j] as number)))),
  )
  t.same(model.at(0).parameters().length, 2, 'in place: an optimizer has the same parameters')
})

class Block extends nn.Module {
  norm = norm(20, new nn.LayerNorm(16))
  attention = new nn.MultiHeadAttention(16, 2)
  tail = new nn.Sequential(norm(21, new nn.RMSNorm(16)), linear(22, 16, 32), new nn.ReLU(), linear(23, 32, 16))
  forward(x: Tensor): Tensor {
    const y = x.add(this.attention.forward(this.norm.forward(x)))
    return y.add(this.tail.forward(y))
  }
}

t.test('layers that read one output share their scales: pairs', async (t) => {
  manualSeed(1)
  const model = new Block().eval()
  // Logits near 1: softmax turns a relative error of theirs into as many times their size, which is no doing of smoothing.
  const { qProj } = model.attention
  qProj.loadStateDict({ weight: qProj.weight.mul(2 ** -8), bias: qProj.bias as Tensor })
  const batch = x.reshape([5, 5, 16])
  const data = calibrationData.map((x) => x.reshape([6, 5, 16]))
  const float = model.forward(batch)
  const found = await smoothQuant(model, { calibrationData: data })
  t.same(found, [
    ['tail.0', ['tail.1']],
    ['tail.1', ['tail.3']],
  ])
  const readers = ['attention.qProj', 'attention.kProj', 'attention.vProj']
  const pairs = [
    ['norm', readers],
    ['attention.vProj', 'attention.outProj'],
  ] as const
  t.same(await smoothQuant(model, { calibrationData: data, pairs }), [
    ['norm', readers],
    ['attention.vProj', ['attention.outProj']],
  ])
  const off = relativeError(model.forward(batch), float)
  t.ok(off < UNCHANGED, `off by ${off}`)
  const off1 = relativeError(model.forward(batch), float.mul(1.001))
  t.ok(off1 > UNCHANGED, 'the measure sees a change')
})

t.test('quantized afterwards, an int8 model loses less', async (t) => {
  const loss = async (smooth: boolean) => {
    const model = new nn.Sequential(norm(30, new nn.RMSNorm(16)), linear(31, 16, 32), new nn.ReLU(), linear(32, 32, 8))
    const float = model.forward(x)
    if (smooth) await smoothQuant(model, { calibrationData })
    await quant.quantizeModel(model, quant.int8Static(), { calibrationData })
    t.equal((model.at(1) as quant.QuantizedLinear).inputMultiplier, null, 'nothing is left to multiply')
    return relativeError(model.forward(x), float)
  }
  const [plain, smoothed] = [await loss(false), await loss(true)]
  t.comment(`${plain} and ${smoothed}: ${plain / smoothed} times less`)
  // Measured: 2.0.
  t.ok(plain > 1.5 * smoothed)
})

t.test('a dead channel, a dead layer, 16-bit floats', async (t) => {
  const model = new nn.Sequential(norm(40, new nn.LayerNorm(16)), linear(41, 16, 8))
  model.at(0).loadStateDict({ weight: tensor(new Array(16).fill(0)), bias: tensor(new Array(16).fill(0)) })
  const float = model.forward(x).arraySync()
  await smoothQuant(model, { calibrationData })
  t.same(model.forward(x).arraySync(), float, 'inputs that are always 0 leave everything alone')
  for (const dtype of ['float16', 'bfloat16'] as const) {
    const half = models['Linear, ReLU, Linear, Linear']?.model().to(dtype) as nn.Module
    const y = half.forward(x.to(dtype))
    await smoothQuant(half, { calibrationData: calibrationData.map((b) => b.to(dtype)) })
    const off = relativeError(half.forward(x.to(dtype)), y)
    // Every weight is rounded once more.
    t.ok(off < (dtype === 'float16' ? 2 ** -9 : 2 ** -6), `${dtype}: off by ${off}`)
    t.ok(half.parameters().every((p) => p.dtype === dtype))
  }
})

t.test('tied weights and layers in several places are left alone', async (t) => {
  class Tied extends nn.Module {
    embedding = new nn.Embedding(10, 16)
    head = new nn.Sequential(norm(50, new nn.RMSNorm(16)), linear(51, 16, 10, { bias: false }))
    constructor() {
      super()
      ;(this.head.at(1) as nn.Linear).weight = this.embedding.weight
    }
    forward(index: Tensor) {
      return this.head.forward(this.embedding.forward(index))
    }
  }
  const index = tensor([1, 5, 9, 3], { dtype: 'int64' })
  const shared = norm(52, new nn.RMSNorm(16))
  const twice = linear(53, 16, 16)
  const cases: [nn.Module, Tensor][] = [
    [new Tied(), index],
    [new nn.Sequential(shared, linear(54, 16, 16), shared, linear(55, 16, 16)), x],
    [new nn.Sequential(norm(56, new nn.RMSNorm(16)), twice, new nn.ReLU(), twice), x],
  ]
  for (const [model, input] of cases) {
    const float = model.forward(input)
    t.same(await smoothQuant(model, { calibrationData: [input] }), [])
    t.equal(relativeError(model.forward(input), float), 0)
  }
  const wrong = async (model: nn.Module, from: string, to: string) =>
    t.rejects(smoothQuant(model, { calibrationData: [x], pairs: [[from, to]] }), {
      code: 'ERR_ARGUMENT',
      message: /smoothQuant: '.*' is used in another place too/,
    })
  await wrong(cases[0]?.[0] as nn.Module, 'head.0', 'head.1')
  await wrong(cases[1]?.[0] as nn.Module, '0', '1')
  await wrong(cases[2]?.[0] as nn.Module, '0', '1')
})

t.test('a Sequential that computes otherwise is no chain', async (t) => {
  class Dense extends nn.Sequential {
    override forward(input: Tensor): Tensor {
      const y = this.at(0).forward(input)
      return this.at(1).forward(y).add(y)
    }
  }
  const model = new Dense(norm(60, new nn.LayerNorm(16)), linear(61, 16, 16))
  const float = model.forward(x)
  t.same(await smoothQuant(model, { calibrationData }), [])
  t.equal(relativeError(model.forward(x), float), 0)
})

t.test('errors come before anything has changed', async (t) => {
  const model = new nn.Sequential({
    norm: norm(70, new nn.LayerNorm(16)),
    bare: new nn.LayerNorm(16, { elementwiseAffine: false }),
    a: linear(71, 16, 16),
    act: new nn.GELU(),
    b: linear(72, 16, 16),
    c: linear(73, 16, 8),
  })
  const before = parametersOf(model)
  const cases: [unknown, RegExp][] = [
    [{ pairs: 'norm' }, /pairs must be an array of \[from, to\], got "norm"/],
    [{ pairs: ['norm'] }, /pairs must hold \[from, to\], got "norm"/],
    [{ pairs: [['norm']] }, /pairs must hold \[from, to\], got \["norm"\]/],
    [{ pairs: [['norm', []]] }, /'norm' feeds no layer/],
    [{ pairs: [['nowhere', 'a']] }, /no module at 'nowhere'/],
    [{ pairs: [['norm', 'nowhere']] }, /no module at 'nowhere'/],
    [{ pairs: [['act', 'a']] }, /'act' must be a LayerNorm, an RMSNorm or a Linear, it is a GELU/],
    [{ pairs: [['norm', 'act']] }, /'act' must be a Linear, it is a GELU/],
    [{ pairs: [['bare', 'a']] }, /'bare' has no weight to divide/],
    [{ pairs: [['c', 'a']] }, /'c' gives 8 channels, 'a' takes 16/],
    [
      {
        pairs: [
          ['norm', 'a'],
          ['norm', 'b'],
        ],
      },
      /'norm' feeds several: name all that read it in one pair/,
    ],
    [
      {
        pairs: [
          ['norm', 'a'],
          ['a', ['b', 'a']],
        ],
      },
      /'a' reads from two/,
    ],
    [{ calibrationData: undefined }, /calibrationData must be an iterable/],
    [{ calibrationData: [] }, /calibrationData was empty/],
    [{ calibrationData: [x.mul(Number.NaN)] }, /layer 'c': .*finite/],
    [{ alpha: 2 }, /alpha must be a number from 0 to 1, got 2/],
    [{ alpha: '1' }, /alpha must be a number from 0 to 1, got "1"/],
  ]
  for (const [options, message] of cases) {
    const all = { calibrationData, ...(options as object) }
    await t.rejects(smoothQuant(model, all as never), { code: 'ERR_ARGUMENT', message }, String(message))
    t.same(parametersOf(model), before)
  }
  await t.rejects(smoothQuant({} as never, { calibrationData }), { code: 'ERR_ARGUMENT', message: /expected a Module/ })
  await t.rejects(smoothQuant(model, undefined as never), { code: 'ERR_ARGUMENT', message: /calibrationData/ })
})
