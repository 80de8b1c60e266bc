// Structured pruning where it must follow less usual ops, or leave a layer alone and say why, or refuse.
import {
  cat,
  chunk,
  cumsum,
  dropout,
  gt,
  manualSeed,
  matmul,
  mul,
  nn,
  noGrad,
  prune,
  randn,
  relu,
  reshape,
  slice,
  softmax,
  sub,
  type Tensor,
  tensor,
  where,
  zeros,
} from 'kerf'
import t from 'tap'
import { inputs, mlp, rowsOf } from '../quant/models'
import { flat, linears, values } from './oracle'

/** A model of three layers whose forward() is given. */
class Net extends nn.Module {
  a: nn.Linear
  b: nn.Linear
  c: nn.Linear
  scale = new nn.Parameter(randn([8]))
  constructor(
    sizes: readonly [a: number, b: number, c: number],
    readonly compute: (net: Net, x: Tensor) => Tensor,
  ) {
    super()
    this.a = new nn.Linear(4, sizes[0])
    this.b = new nn.Linear(sizes[1], 8)
    this.c = new nn.Linear(sizes[2], 3)
  }
  forward(x: Tensor): Tensor {
    return this.compute(this, x)
  }
}

type Case = [sizes: readonly [number, number, number], compute: (net: Net, x: Tensor) => Tensor]
const op = (x: unknown) => x as Tensor
const outs = (net: Net) => [net.a, net.b, net.c].map(({ outFeatures }) => outFeatures)

/** Ops that are followed: outputs of a, b, c at ratio 0.5, and columns of c. */
const followed: Record<string, [...Case, after: number[]]> = {
  'two layers side by side': [
    [8, 4, 16],
    ({ a, b, c }, x) => c.forward(cat([relu(a.forward(x)), b.forward(x)], -1)),
    [4, 4, 3, 8],
  ],
  'gates: halves of one layer': [
    [16, 8, 8],
    ({ a, b, c }, x) => {
      const [up, gate] = chunk(a.forward(x), 2, -1) as [Tensor, Tensor]
      return c.forward(b.forward(op(mul(up, gate.sigmoid()))))
    },
    [8, 4, 3, 4],
  ],
  'a parameter in forward()': [
    [8, 8, 8],
    ({ a, b, c, scale }, x) => c.forward(op(mul(b.forward(op(mul(relu(a.forward(x)), scale))), 2))),
    [4, 4, 3, 4],
  ],
  'flattened with a fixed axis': [
    [8, 8, 24],
    ({ a, b, c }, x) => c.forward(reshape(b.forward(relu(a.forward(x))), [2, -1])),
    [4, 4, 3, 12],
  ],
  'the mean over time': [[8, 8, 8], ({ a, b, c }, x) => c.forward(b.forward(relu(a.forward(x))).mean(1)), [4, 4, 3, 4]],
  'one position in time, columns first': [
    [8, 8, 8],
    ({ a, b, c }, x) => c.forward(slice(b.forward(relu(a.forward(x))).permute([1, 2, 0]), [0]).transpose()),
    [4, 4, 3, 4],
  ],
  'a norm by hand, a leaky slope': [
    [8, 8, 8],
    ({ a, b, c }, x) => {
      const h = a.forward(x)
      const centred = op(sub(h, h.mean(-1, { keepdim: true })))
      return c.forward(b.forward(op(where(gt(centred, 0), centred, op(mul(centred, 0.1))))))
    },
    [4, 4, 3, 4],
  ],
  'weights by matmul, softmax over neurons': [
    [8, 8, 8],
    ({ a, b, c }, x) => c.forward(b.forward(softmax(matmul(x, a.weight.transpose()), -1))),
    [4, 4, 3, 4],
  ],
  'a sum over neurons': [
    [8, 8, 4],
    ({ a, b, c }, x) => op(c.forward(x).add(b.forward(relu(a.forward(x))).sum(-1, { keepdim: true }))),
    [4, 4, 3, 4],
  ],
}

for (const [name, [sizes, compute, after]] of Object.entries(followed)) {
  t.test(`followed: ${name}`, async (t) => {
    manualSeed(1)
    const net = new Net(sizes, compute)
    const report = await prune.structured(net, { ratio: 0.5, exampleInput: randn([2, 3, 4]) })
    t.same([...outs(net), net.c.inFeatures], after, String(report))
    t.equal(noGrad(() => net.forward(randn([2, 3, 4]))).shape.at(-1), 3)
  })
}

const neverSame = randn([8])

/** Neurons that stay, with the reason. All others of a and b are halved. */
const leftAlone: Record<string, [...Case, after: number[], reason: RegExp]> = {
  'an op that is not followed': [
    [8, 8, 8],
    ({ a, b, c }, x) => c.forward(b.forward(op(cumsum(a.forward(x), -1)))),
    [8, 4, 3],
    /op 'cumsum' is not followed/,
  ],
  'a residual from the input': [
    [4, 4, 8],
    ({ a, b, c }, x) => c.forward(b.forward(op(a.forward(x).add(x)))),
    [4, 4, 3],
    /it meets a tensor that is no parameter, such as the input/,
  ],
  'a constant': [
    [8, 8, 8],
    ({ a, b, c }, x) => c.forward(b.forward(op(mul(a.forward(x), neverSame)))),
    [8, 4, 3],
    /it meets a tensor that is no parameter/,
  ],
  'no part in the output': [
    [8, 4, 8],
    ({ b, c }, x) => c.forward(b.forward(x)),
    [8, 4, 3],
    /it has no part in the model's output/,
  ],
  'a number of features in a reshape': [
    [8, 8, 8],
    ({ a, b, c }, x) => c.forward(reshape(b.forward(relu(a.forward(x))), [6, 8])),
    [4, 8, 3],
    /with fewer neurons: reshape: .* do not fit \[6, 8\]/,
  ],
  'heads whose number is written down, not their size': [
    [8, 8, 8],
    ({ a, b, c }, x) => {
      const heads = reshape(a.forward(x), [2, 3, 4, -1])
      return c.forward(b.forward(reshape(op(mul(heads, op(softmax(heads, 2)))), [2, 3, -1])))
    },
    [8, 4, 3],
    /with fewer neurons: op 'reshape' does not do what it did before/,
  ],
  'a slice whose ends are written down': [
    [16, 8, 8],
    ({ a, b, c }, x) => {
      const h = a.forward(x)
      return c.forward(op(b.forward(slice(h, [null, null, [4, 12]])).add(slice(h, [null, null, [0, 8]]).sum())))
    },
    [16, 4, 3],
    /output changes when its neurons change places/,
  ],
  'one neuron picked by its number': [
    [8, 8, 8],
    ({ a, b, c }, x) => {
      const h = a.forward(x)
      return c.forward(op(b.forward(h).add(slice(h, [null, null, [3, 4]]))))
    },
    [8, 4, 3],
    /7 of a: with fewer neurons: op 'slice' does not do what it did before\nleft alone: 1 of a: op 'slice' picks it by its number/,
  ],
  'a tie that the tape does not see': [
    [8, 4, 8],
    ({ a, b, c }, x) =>
      c.forward(
        op(
          where(
            gt(
              noGrad(() => a.forward(x)),
              0,
            ),
            b.forward(x),
            0,
          ),
        ),
      ),
    [8, 8, 3],
    /output changes when its neurons change places/,
  ],
  'a gate of one layer on another, beside it': [
    [8, 4, 16],
    ({ a, b, c }, x) => {
      const h = a.forward(x)
      return c.forward(cat([h, op(where(gt(h, 0), b.forward(x), 0))], -1))
    },
    [8, 8, 3],
    /output changes when its neurons change places/,
  ],
  'an axis that one cannot tell': [
    [8, 8, 8],
    ({ a, b, c }, x) =>
      c.forward(
        op(
          b
            .forward(relu(a.forward(x)))
            .reshape([6, 8])
            .matmul(zeros([8, 6]))
            .sum(0)
            .reshape([6, 1])
            .add(b.forward(relu(a.forward(x))).reshape([6, 8])),
        ),
      ),
    [4, 8, 3],
    /it meets a tensor that is no parameter|which axis of \[6, 6\] op 'sum' folds/,
  ],
  'a model that rolls dice': [
    [8, 8, 8],
    ({ a, b, c }, x) => c.forward(b.forward(dropout(a.forward(x), 0.5))),
    [8, 8, 3],
    /output changes when its neurons change places/,
  ],
}

for (const [name, [sizes, compute, after, reason]] of Object.entries(leftAlone)) {
  t.test(`left alone: ${name}`, async (t) => {
    manualSeed(2)
    const net = new Net(sizes, compute)
    const report = await prune.structured(net, { ratio: 0.5, exampleInput: randn([2, 3, 4]) })
    t.same(outs(net), after)
    t.ok(reason.test(String(report)), String(report))
    t.equal(noGrad(() => net.forward(randn([2, 3, 4]))).shape.at(-1), 3)
  })
}

t.test('a slice that would take other neurons at the same size', async (t) => {
  // Of [0, 16) neurons 4 to 8 are read by their numbers; those below move up when one of them goes.
  manualSeed(3)
  class Sliced extends Net {
    constructor() {
      super([16, 16, 4], ({ a, b, c }, x) => {
        const h = relu(a.forward(x))
        return op(c.forward(slice(h, [null, [4, 8]])).add(b.forward(h).sum(-1, { keepdim: true })))
      })
    }
  }
  const net = new Sliced()
  const loud = rowsOf(net.a.weight).map((row, i) => row.map((w) => (i >= 4 && i < 8 ? 9 * w : w)))
  net.a.loadStateDict({ weight: tensor(loud) }, { strict: false })
  const before = rowsOf(net.a.weight)
  const report = await prune.structured(net, { ratio: 0.25, scope: 'global', exampleInput: randn([2, 4]) })
  t.same(rowsOf(net.a.weight), before)
  t.ok(
    report.leftAlone.some(({ reason }) => /op 'slice' does not do what it did before/.test(reason)),
    String(report),
  )
})

t.test('forward() of several inputs, asynchronous, returning an object', async (t) => {
  class Two extends nn.Module<[x: Tensor, y: Tensor], Promise<{ out: Tensor; hidden: Tensor[] }>> {
    a = new nn.Linear(4, 8)
    b = new nn.Linear(4, 8)
    c = new nn.Linear(8, 6)
    d = new nn.Linear(6, 2)
    async forward(x: Tensor, y: Tensor) {
      const h = op(this.a.forward(x).add(this.b.forward(y)))
      await new Promise((resolve) => setImmediate(resolve))
      const hidden = this.c.forward(relu(h))
      return { out: this.d.forward(hidden), hidden: [hidden] }
    }
  }
  const model = new Two()
  const report = await prune.structured(model as never, { ratio: 0.5, exampleInput: [randn([2, 4]), randn([2, 4])] })
  t.same(
    [model.a, model.b, model.c, model.d].map(({ outFeatures }) => outFeatures),
    [4, 4, 6, 2],
  )
  t.same(
    report.leftAlone.map(({ layers }) => layers),
    [['c'], ['d']],
  )
})

t.test('within noGrad, a scope, and without gradients', async (t) => {
  const model = mlp(1, [5, 8, 3])
  for (const p of model.parameters()) p.requiresGrad = false
  await noGrad(() => prune.structured(model, { ratio: 0.5, exampleInput: inputs(1, 2, 5) }))
  t.same(
    model.parameters().map((p) => [...p.shape, p.requiresGrad]),
    [
      [4, 5, false],
      [4, false],
      [3, 4, false],
      [3, false],
    ],
  )
})

t.test('wrong options, and models that fail: nothing has changed', async (t) => {
  const model = new nn.Sequential(new nn.Linear(5, 8), new nn.Dropout(0.5), new nn.Linear(8, 3))
  const x = inputs(1, 2, 5)
  const good = { ratio: 0.5, exampleInput: x }
  const parameters = model.parameters()
  const before = values(model)
  const wrong: [object | null | undefined, RegExp][] = [
    [undefined, /^structured: options must be an object, got undefined$/],
    [null, /^structured: options must be an object, got null$/],
    [{ exampleInput: x }, /^structured: ratio must be a number from 0 to 1, got undefined$/],
    [{ ...good, ratio: Number.NaN }, /ratio must be a number from 0 to 1, got NaN$/],
    [{ ...good, ratio: 1.5 }, /ratio must be a number from 0 to 1, got 1.5$/],
    [{ ...good, ratio: '0.5' }, /ratio must be a number from 0 to 1, got "0.5"$/],
    [
      { ratio: 0.5 },
      /^structured: exampleInput must be a tensor, or an array of the arguments of forward\(\), got undefined$/,
    ],
    [
      { ...good, exampleInput: [] },
      /exampleInput must be a tensor, or an array of the arguments of forward\(\), got \[\]$/,
    ],
    [{ ...good, exampleInput: [7] }, /^structured: exampleInput: linear: x must be a tensor, got 7$/],
    [{ ...good, scope: 'all' }, /^structured: scope must be 'global' or 'layer', got "all"$/],
    [{ ...good, multipleOf: 0 }, /^structured: multipleOf must be a whole number/],
    [{ ...good, multipleOf: 2.5 }, /^structured: multipleOf must be a whole number/],
    [{ ...good, importance: 'l3' }, /^structured: importance must be 'l2', 'l1' or 'random', got "l3"$/],
    [{ ...good, importance: 'random', seed: -1 }, /^structured: seed must be/],
    [
      { ...good, skip: ['nope'] },
      /^structured: skip: no Linear or convolution layer is at "nope"; there are '0', '2'$/,
    ],
    [{ ...good, include: 7 }, /^structured: include must be an array of paths or a function, got 7$/],
  ]
  for (const [options, message] of wrong) {
    await t.rejects(prune.structured(model, options as never), { code: 'ERR_ARGUMENT', message }, String(message))
  }
  await t.rejects(prune.structured(model, { ...good, exampleInput: randn([2, 6]) }), {
    code: 'ERR_SHAPE',
    message: /^structured: exampleInput: linear: x \[2, 6\] does not end in the 5 inputs/,
  })
  await t.rejects(prune.structured({} as never, good), { message: /^structured: expected a Module, got an object$/ })
  await t.rejects(prune.structured(new nn.Sequential(new nn.ReLU()), good), {
    message: /^structured: the model has no Linear or convolution layer to prune$/,
  })
  const broken = Object.assign(new nn.Sequential(model), {
    forward: () => {
      throw new TypeError('mine')
    },
  })
  await t.rejects(prune.structured(broken, good), new TypeError('mine'))
  const silent = Object.assign(new nn.Sequential(model), { forward: () => 7 as never })
  await t.rejects(prune.structured(silent, good), {
    message: /^structured: exampleInput: forward\(\) returned no tensor$/,
  })
  const gone = randn([2, 5])
  gone.dispose()
  await t.rejects(prune.structured(model, { ...good, exampleInput: gone }), { code: 'ERR_DISPOSED' })

  t.ok(model.parameters().every((p, i) => p === parameters[i] && !p.disposed))
  t.same(values(model), before)
  t.ok(model.modules().every(({ training }) => training))

  const nan = mlp(1, [5, 4, 3])
  const first = linears(nan)[0] as nn.Linear
  first.loadStateDict(
    {
      weight: tensor(
        flat(first.weight).map((w, i) => (i === 7 ? Number.NaN : w)),
        { shape: [4, 5] },
      ),
    },
    { strict: false },
  )
  await t.rejects(prune.structured(nan, good), {
    code: 'ERR_ARGUMENT',
    message: /^structured: '0.weight': its values must be finite, got NaN at 7$/,
  })
  t.equal(linears(nan)[0]?.outFeatures, 4)
})

t.test('MultiHeadAttention with a size of heads of its own', async (t) => {
  const layer = new nn.MultiHeadAttention(10, 3, { headDim: 2 })
  t.same(
    layer.parameters().map(({ shape }) => shape.length === 2 && shape),
    [[6, 10], false, [6, 10], false, [6, 10], false, [10, 6], false],
  )
  t.same([layer.embedDim, layer.numHeads, layer.headDim], [10, 3, 2])
  t.same(layer.forward(randn([2, 4, 10])).shape, [2, 4, 10])
  t.match(layer.describe(), 'embedDim=10, numHeads=3, headDim=2')
  // Xavier's bound for q, k and v as one matrix of 18 rows.
  t.ok(Math.max(...flat(layer.qProj.weight).map(Math.abs)) <= Math.sqrt(6 / (10 + 18)))
  t.throws(() => new nn.MultiHeadAttention(10, 3, { headDim: 0 }), { code: 'ERR_ARGUMENT', message: /headDim/ })
  t.throws(() => new nn.MultiHeadAttention(10, 3), { code: 'ERR_ARGUMENT', message: /not a multiple/ })
})
