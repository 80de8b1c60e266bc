// Structured pruning: what is left computes what the whole model computes without the neurons that are gone. The oracles choose
// and compute by themselves: float64 loops, the whole model with zeros by hand, or a smaller model built by hand.
import fc from 'fast-check'
import { manualSeed, mseLoss, nn, noGrad, optim, prune, randn, scope, type Tensor, tensor } from 'kerf'
import t from 'tap'
import { inputs, mlp, type Rows, rowsOf } from '../quant/models'
import { flat, linears, topK, values } from './oracle'

/** Largest difference over the largest value. */
function distance(a: readonly number[], b: readonly number[]): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY
  const most = Math.max(...b.map(Math.abs))
  return Math.max(...a.map((x, i) => Math.abs(x - (b[i] as number)))) / most
}

const output = (model: nn.Module, x: Tensor): number[] => noGrad(() => flat(model.eval().forward(x)))
const shapes = (model: nn.Module) => model.parameters().map(({ shape }) => [...shape])
const sum = (list: readonly number[]) => list.reduce((a, b) => a + b, 0)
const squares = (list: readonly number[]) => sum(list.map((w) => w * w))
const column = (m: Rows, j: number) => m.map((row) => row[j] as number)
const pick = <T>(list: readonly T[], keep: readonly number[]): T[] => list.filter((_, i) => keep[i] === 1)

/** 1 for neurons that stay when `count` go, by the norm of these rows and columns. */
const kept = (n: number, count: number, rows: readonly Rows[], columns: readonly Rows[]) =>
  topK(
    Array.from({ length: n }, (_, i) =>
      Math.sqrt(sum(rows.map((m) => squares(m[i] as number[]))) + sum(columns.map((m) => squares(column(m, i))))),
    ),
    count,
  )

/** x W^T + b in float64; columns of W where `keep` is 0 count as 0. */
const affine = (x: Rows, w: Rows, b: readonly number[], keep = (w[0] as number[]).map(() => 1)): Rows =>
  x.map((row) =>
    w.map((weights, o) => sum(weights.map((v, i) => v * (row[i] as number) * (keep[i] as number))) + (b[o] as number)),
  )

const absolute = (x: Rows): Rows => x.map((row) => row.map(Math.abs))
const relu = (x: Rows) => x.map((row) => row.map((v) => Math.max(v, 0)))

t.test('a chain of Linear layers: what goes, what is left, and what it computes', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 3, maxLength: 5 }),
      fc.integer({ min: 0, max: 1e6 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.boolean(),
      async (sizes, seed, ratio, bias) => {
        const model = mlp(seed, sizes, { bias }).train()
        const layers = linears(model)
        const weights = layers.map(({ weight }) => rowsOf(weight))
        const biases = layers.map((layer) => (layer.bias ? flat(layer.bias) : new Array(layer.outFeatures).fill(0)))
        const keeps = sizes.map((n, i) =>
          i === 0 || i === sizes.length - 1
            ? new Array<number>(n).fill(1)
            : kept(n, Math.min(n - 1, Math.round(ratio * n)), [weights[i - 1] as Rows], [weights[i] as Rows]),
        )
        const x = inputs(seed, 3, sizes[0] as number)
        let wanted = rowsOf(x)
        let size = absolute(wanted)
        let terms = 0
        for (const [i, w] of weights.entries()) {
          wanted = affine(i ? relu(wanted) : wanted, w, biases[i] as number[], keeps[i])
          size = affine(size, absolute(w), (biases[i] as number[]).map(Math.abs), keeps[i])
          terms += (w[0] as number[]).length + 2
        }

        await prune.structured(model, { ratio, exampleInput: inputs(seed + 1, 2, sizes[0] as number) })
        t.same(linears(model), layers, 'the same objects')
        for (const [i, layer] of layers.entries()) {
          const [inKeep, outKeep] = [keeps[i] as number[], keeps[i + 1] as number[]]
          t.same(
            rowsOf(layer.weight),
            pick(weights[i] as Rows, outKeep).map((row) => pick(row, inKeep)),
          )
          if (layer.bias) t.same(flat(layer.bias), pick(biases[i] as number[], outKeep))
          t.same([layer.outFeatures, layer.inFeatures], [sum(outKeep), sum(inKeep)])
        }
        // Each layer's rounding, a unit for every term, is carried on by weights no larger than their magnitudes.
        const far = output(model, x).filter(
          (y, i) =>
            !(Math.abs(y - (wanted.flat()[i] as number)) <= 1.01 * terms * 2 ** -24 * (size.flat()[i] as number)),
        )
        t.same(far, [])
      },
    ),
    { numRuns: 60 },
  )
})

class Residual extends nn.Module {
  first = new nn.Linear(5, 8)
  up = new nn.Linear(8, 12)
  down = new nn.Linear(12, 8)
  head = new nn.Linear(8, 3)
  forward(x: Tensor): Tensor {
    const h = this.first.forward(x)
    return this.head.forward(h.add(this.down.forward(this.up.forward(h).silu())) as Tensor)
  }
}

/** Zeroes columns of a weight by hand. */
function zeroColumns(layer: nn.Linear, keep: readonly number[]): void {
  const w = rowsOf(layer.weight).map((row) => row.map((v, i) => v * (keep[i] as number)))
  layer.loadStateDict({ weight: tensor(w) }, { strict: false })
}

t.test('a residual stream: all its producers and consumers lose the same features', async (t) => {
  manualSeed(3)
  const model = new Residual()
  const whole = new Residual()
  whole.loadStateDict(model.stateDict())
  const [first, up, down, head] = linears(model).map(({ weight }) => rowsOf(weight)) as [Rows, Rows, Rows, Rows]
  const stream = kept(8, 4, [first, down], [up, head])
  const inner = kept(12, 6, [up], [down])
  const report = await prune.structured(model, { ratio: 0.5, exampleInput: randn([2, 5]) })
  for (const layer of [whole.up, whole.head]) zeroColumns(layer, stream)
  zeroColumns(whole.down, inner)
  const x = randn([4, 5])
  t.ok(distance(output(model, x), output(whole, x)) < 1e-5)
  t.same(shapes(model), [[4, 5], [4], [6, 4], [6], [4, 6], [4], [3, 4], [3]])
  t.same(
    rowsOf(model.down.weight),
    pick(down, stream).map((row) => pick(row, inner)),
  )
  t.same(report.total, { parametersBefore: 48 + 108 + 104 + 27, parametersAfter: 24 + 30 + 28 + 15 })
  t.same(report.layers[1], {
    path: 'up',
    type: 'Linear',
    before: [12, 8],
    after: [6, 4],
    parametersBefore: 108,
    parametersAfter: 30,
  })
  t.same(report.leftAlone, [{ layers: ['head'], neurons: 3, reason: "it is in the model's output" }])
  t.match(String(report), /^up +Linear +\[12, 8\] +\[6, 4\] +108 +30 +27\.8 %$/m)
  t.match(String(report), /^left alone: 3 of head: it is in the model's output$/m)
})

/** Tokens, two blocks of attention and a head that is tied to the embedding. */
class Transformer extends nn.Module {
  embedding: nn.Embedding
  position: nn.Parameter
  blocks: nn.ModuleList<nn.Module>
  norm: nn.RMSNorm
  head: nn.Linear
  constructor(size: number, heads: number, hidden: number, headDim = 4) {
    super()
    this.embedding = new nn.Embedding(11, size)
    this.position = new nn.Parameter(randn([5, size]))
    this.blocks = new nn.ModuleList([0, 1].map(() => new Block(size, heads, hidden, headDim)))
    this.norm = new nn.RMSNorm(size)
    this.head = new nn.Linear(size, 11, { bias: false })
    this.head.weight = this.embedding.weight
  }
  forward(tokens: Tensor): Tensor {
    let x = this.embedding.forward(tokens).add(this.position) as Tensor
    for (const block of this.blocks) x = block.forward(x)
    return this.head.forward(this.norm.forward(x))
  }
}

class Block extends nn.Module {
  norm1: nn.LayerNorm
  attention: nn.MultiHeadAttention
  norm2: nn.LayerNorm
  mlp: nn.Sequential
  constructor(size: number, heads: number, hidden: number, headDim: number) {
    super()
    this.norm1 = new nn.LayerNorm(size)
    this.attention = new nn.MultiHeadAttention(size, heads, { headDim })
    this.norm2 = new nn.LayerNorm(size)
    this.mlp = new nn.Sequential(
      new nn.Linear(size, hidden),
      new nn.GELU(),
      new nn.Dropout(0.1),
      new nn.Linear(hidden, size),
    )
  }
  forward(x: Tensor): Tensor {
    const h = x.add(this.attention.forward(this.norm1.forward(x), null, null, { causal: true })) as Tensor
    return h.add(this.mlp.forward(this.norm2.forward(h))) as Tensor
  }
}

const tokens = (rows: number) =>
  tensor(
    Array.from({ length: rows * 5 }, (_, i) => (i * i * 7 + 3 * i) % 11),
    { shape: [rows, 5], dtype: 'int64' },
  )

/** What a state keeps when these features, heads and hidden neurons stay: written for Transformer by hand. */
function cutState(model: Transformer, stream: number[], heads: number[][], hidden: number[][]): Record<string, Tensor> {
  const state: Record<string, Tensor> = {}
  for (const [name, value] of Object.entries(model.stateDict())) {
    const block = Number(/^blocks\.(\d)/.exec(name)?.[1] ?? 0)
    const features = (heads[block] as number[]).flatMap((keep) => new Array<number>(4).fill(keep))
    const inner = hidden[block] as number[]
    const [rows, columns] = /[qkv]Proj/.test(name)
      ? [features, stream]
      : /outProj/.test(name)
        ? [stream, features]
        : /mlp\.0/.test(name)
          ? [inner, stream]
          : /mlp\.3/.test(name)
            ? [stream, inner]
            : [null, stream]
    const matrix = value.rank === 2 ? rowsOf(value) : null
    state[name] = matrix
      ? tensor((rows ? pick(matrix, rows) : matrix).map((row) => pick(row, columns)))
      : tensor(pick(flat(value), rows ?? columns))
  }
  return state
}

t.test('a transformer equals a smaller one that is built and filled by hand', async (t) => {
  manualSeed(5)
  const model = new Transformer(12, 4, 16)
  // Ones and zeros, as norms and biases begin, would not show what is out of place.
  for (const parameter of model.parameters()) if (parameter.rank === 1) nn.init.normal(parameter)
  const at = (path: string) => rowsOf((model.getModule(path) as unknown as nn.Linear).weight)
  const blocks = [0, 1].map((b) => {
    const [q, k, v] = ['q', 'k', 'v'].map((p) => at(`blocks.${b}.attention.${p}Proj`)) as [Rows, Rows, Rows]
    const [out, up, down] = [at(`blocks.${b}.attention.outProj`), at(`blocks.${b}.mlp.0`), at(`blocks.${b}.mlp.3`)]
    // A head is 4 neighbours: their rows in a line are its weights.
    const byHead = (m: Rows) => [0, 1, 2, 3].map((h) => m.slice(4 * h, 4 * h + 4).flat())
    const transposed = out[0]?.map((_, j) => column(out, j)) as Rows
    return {
      q,
      k,
      v,
      out,
      up,
      down,
      heads: kept(4, 2, [q, k, v, transposed].map(byHead), []),
      hidden: kept(16, 8, [up], [down]),
    }
  })
  const stream = kept(
    12,
    6,
    blocks.flatMap(({ out, down }) => [out, down]),
    [rowsOf(model.embedding.weight), rowsOf(model.position), ...blocks.flatMap(({ q, k, v, up }) => [q, k, v, up])],
  )
  const wanted = new Transformer(6, 2, 8)
  wanted.loadStateDict(
    cutState(
      model,
      stream,
      blocks.map(({ heads }) => heads),
      blocks.map(({ hidden }) => hidden),
    ),
  )
  const report = await prune.structured(model, { ratio: 0.5, exampleInput: tokens(1) })
  t.same(shapes(model), shapes(wanted))
  t.same(values(model), values(wanted))
  t.equal(model.head.weight, model.embedding.weight, 'still tied')
  t.same(output(model, tokens(3)), output(wanted, tokens(3)))
  const attention = model.getModule('blocks.1.attention') as unknown as nn.MultiHeadAttention
  t.same([attention.embedDim, attention.numHeads, attention.headDim], [6, 2, 4])
  t.same(
    report.leftAlone.map(({ layers }) => layers),
    [['head']],
    'only the vocabulary',
  )
  const fresh = new Transformer(6, 2, 8)
  t.same(
    fresh.loadStateDict(model.stateDict()),
    { missing: [], unexpected: [] },
    'a model of its sizes takes its state',
  )
  t.same(output(fresh, tokens(2)), output(model, tokens(2)))
})

t.test('heads: the whole layer with the columns of lost heads at zero', async (t) => {
  manualSeed(6)
  for (const lost of [1, 2, 3]) {
    const attention = new nn.MultiHeadAttention(12, 4)
    const whole = new nn.MultiHeadAttention(12, 4)
    nn.init.normal(attention.qProj.bias as Tensor)
    whole.loadStateDict(attention.stateDict())
    const [q, k, v, out] = linears(attention as never).map(({ weight }) => rowsOf(weight)) as [Rows, Rows, Rows, Rows]
    const worth = [0, 1, 2, 3].map((h) =>
      sum([
        ...[q, k, v].map((m) => squares(m.slice(3 * h, 3 * h + 3).flat())),
        ...[0, 1, 2].map((i) => squares(column(out, 3 * h + i))),
      ]),
    )
    const heads = topK(worth, lost)
    await prune.structured(attention as never, { ratio: lost / 4, exampleInput: randn([2, 5, 12]) })
    zeroColumns(
      whole.outProj,
      heads.flatMap((keep) => [keep, keep, keep]),
    )
    const x = randn([2, 7, 12])
    t.ok(distance(output(attention as never, x), output(whole as never, x)) < 1e-5)
    t.same([attention.numHeads, attention.embedDim], [4 - lost, 12])
    t.same(attention.qProj.weight.shape, [12 - 3 * lost, 12])
  }
})

t.test('a layer that is used twice, and a weight that two layers share', async (t) => {
  manualSeed(7)
  const make = (apart: boolean) => {
    const [first, middle, last] = [new nn.Linear(4, 9), new nn.Linear(9, 9), new nn.Linear(9, 2)]
    const again = apart ? new nn.Linear(9, 9) : middle
    if (apart) again.weight = middle.weight
    const act = () => new nn.Tanh()
    return new nn.Sequential(first, act(), middle, act(), again, act(), last)
  }
  for (const apart of [false, true]) {
    const [model, whole] = [make(apart), make(apart)]
    whole.loadStateDict(model.stateDict())
    const [first, middle, last] = ['0', '2', '6'].map((path) => model.getModule(path) as unknown as nn.Linear)
    const keep = kept(
      9,
      3,
      [first, middle].map((l) => rowsOf((l as nn.Linear).weight)),
      [middle, last].map((l) => rowsOf((l as nn.Linear).weight)),
    )
    await prune.structured(model, { ratio: 1 / 3, exampleInput: randn([2, 4]) })
    for (const path of ['2', '6']) zeroColumns(whole.getModule(path) as unknown as nn.Linear, keep)
    const x = randn([5, 4])
    t.ok(distance(output(model, x), output(whole, x)) < 1e-5)
    t.same(middle?.weight.shape, [6, 6])
    t.equal((model.getModule('4') as unknown as nn.Linear).weight, middle?.weight)
  }
})

t.test('ratio 0 changes nothing, ratio 1 leaves one neuron and one head', async (t) => {
  manualSeed(8)
  const model = new Transformer(12, 4, 16)
  const before = model.parameters()
  const report = await prune.structured(model, { ratio: 0, exampleInput: tokens(2) })
  t.ok(model.parameters().every((p, i) => p === before[i] && !p.disposed))
  t.equal(report.total.parametersAfter, report.total.parametersBefore)
  for (const ratio of [0.99, 1]) {
    const small = new Transformer(12, 4, 16)
    await prune.structured(small, { ratio, exampleInput: tokens(1) })
    t.same(shapes(small), shapes(new Transformer(1, 1, 1)), `${ratio}`)
    t.same(small.forward(tokens(2)).shape, [2, 5, 11])
  }
})

t.test('multipleOf, in neurons and in features of heads', async (t) => {
  const sizesAfter = async (ratio: number, multipleOf: number) => {
    const model = mlp(1, [5, 20, 7, 3])
    await prune.structured(model, { ratio, multipleOf, exampleInput: inputs(1, 2, 5) })
    return linears(model).map(({ outFeatures }) => outFeatures)
  }
  t.same(await sizesAfter(0.5, 8), [16, 7, 3])
  t.same(await sizesAfter(0.5, 4), [12, 4, 3])
  t.same(await sizesAfter(0.9, 4), [4, 4, 3])
  t.same(await sizesAfter(0.9, 64), [20, 7, 3])
  const attention = new nn.MultiHeadAttention(24, 6)
  await prune.structured(attention as never, { ratio: 0.5, multipleOf: 8, exampleInput: randn([2, 5, 24]) })
  t.equal(attention.qProj.outFeatures, 16, '4 heads of 4: 3 would be 12')
})

t.test('scope global: the least of all groups together, over the mean of their group', async (t) => {
  const model = mlp(2, [6, 14, 10, 4])
  const weights = linears(model).map(({ weight }) => rowsOf(weight)) as [Rows, Rows, Rows]
  const worth = [14, 10].map((n, l) => {
    const norms = Array.from({ length: n }, (_, i) =>
      Math.sqrt(squares(weights[l]?.[i] as number[]) + squares(column(weights[l + 1] as Rows, i))),
    )
    return norms.map((x) => x / (sum(norms) / n))
  })
  const keep = topK(worth.flat(), Math.round(0.4 * 24))
  await prune.structured(model, { ratio: 0.4, scope: 'global', exampleInput: inputs(3, 2, 6) })
  t.same(rowsOf(linears(model)[0]?.weight as Tensor), pick(weights[0], keep.slice(0, 14)))
  t.same(
    rowsOf(linears(model)[2]?.weight as Tensor),
    weights[2].map((row) => pick(row, keep.slice(14))),
  )
  const none = mlp(2, [6, 14, 10, 4])
  await prune.structured(none, { ratio: 1, scope: 'global', exampleInput: inputs(3, 2, 6) })
  t.same(
    linears(none).map(({ outFeatures }) => outFeatures),
    [1, 1, 4],
  )
})

t.test("importance 'l1' and 'random'", async (t) => {
  const model = mlp(4, [5, 9, 3])
  const [a, b] = linears(model).map(({ weight }) => rowsOf(weight)) as [Rows, Rows]
  const norm = (list: readonly number[]) => sum(list.map(Math.abs))
  const worth = a.map((row, i) => norm(row) + norm(column(b, i)))
  await prune.structured(model, { ratio: 0.5, importance: 'l1', exampleInput: inputs(1, 2, 5) })
  t.same(rowsOf(linears(model)[0]?.weight as Tensor), pick(a, topK(worth, 5)))
  const random = async (seed: number) => {
    const other = mlp(4, [5, 30, 3])
    await prune.structured(other, { ratio: 0.5, importance: 'random', seed, exampleInput: inputs(1, 2, 5) })
    return values(other)
  }
  t.same(await random(1), await random(1))
  t.notSame(await random(1), await random(2))
})

t.test('include and skip name layers that lose outputs', async (t) => {
  const after = async (options: object) => {
    const model = mlp(5, [5, 8, 6, 4, 3])
    const report = await prune.structured(model, { ratio: 0.5, exampleInput: inputs(1, 2, 5), ...options })
    return [linears(model).map(({ outFeatures }) => outFeatures), report.leftAlone.map(({ layers }) => layers.join())]
  }
  t.same(await after({ skip: ['2'] }), [
    [4, 6, 2, 3],
    ['2', '6'],
  ])
  t.same(await after({ include: ['2'] }), [
    [8, 3, 4, 3],
    ['0', '4', '6'],
  ])
  const model = new Residual()
  await prune.structured(model, { ratio: 0.5, skip: ['down'], exampleInput: randn([2, 5]) })
  t.same(
    linears(model).map(({ weight }) => weight.shape),
    [
      [8, 5],
      [6, 8],
      [8, 6],
      [3, 8],
    ],
    'what a layer shares with one that is left alone stays',
  )
})

t.test('masks, dtypes, modes and what needs no gradient stay', async (t) => {
  for (const dtype of ['float32', 'float16', 'bfloat16'] as const) {
    const model = mlp(6, [5, 10, 3]).to(dtype).train()
    await prune.magnitude(model, { sparsity: 0.4 })
    const [a, b] = linears(model) as [nn.Linear, nn.Linear]
    ;(a.bias as nn.Parameter).requiresGrad = false
    b.eval()
    const before = [a, b].map(({ weight }) => ({
      w: rowsOf(weight),
      m: rowsOf(weight.mask as Tensor).map((r) => r.map(Number)),
    }))
    const keep = kept(10, 5, [before[0]?.w as Rows], [before[1]?.w as Rows])
    const old = a.weight
    await prune.structured(model, { ratio: 0.5, exampleInput: inputs(1, 2, 5, undefined, dtype) })
    t.equal(a.weight.dtype, dtype)
    t.same(rowsOf(a.weight), pick(before[0]?.w as Rows, keep))
    t.same(
      rowsOf(a.weight.mask as Tensor).map((r) => r.map(Number)),
      pick(before[0]?.m as Rows, keep),
    )
    t.same(
      rowsOf(b.weight.mask as Tensor).map((r) => r.map(Number)),
      before[1]?.m.map((row) => pick(row, keep)),
    )
    t.same([a.weight.requiresGrad, a.bias?.requiresGrad], [true, false])
    t.same([model.training, a.training, b.training], [true, true, false])
    t.ok(old.disposed, 'an optimizer of the old parameters fails instead of training nothing')
    t.ok(b.bias && !b.bias.disposed)
  }
})

t.test('training goes on', async (t) => {
  manualSeed(9)
  const model = new Transformer(16, 4, 32)
  await prune.structured(model, { ratio: 0.5, exampleInput: tokens(2) })
  const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-2 })
  const wanted = randn([4, 5, 11])
  const step = () =>
    scope(() => {
      const loss = mseLoss(model.train().forward(tokens(4)), wanted)
      optimizer.zeroGrad()
      loss.backward()
      t.ok(model.parameters().every((p) => p.grad))
      optimizer.step()
      return Number(loss.item())
    })
  const losses = Array.from({ length: 15 }, step)
  t.ok((losses.at(-1) as number) < 0.7 * (losses[0] as number), `${losses[0]} ${losses.at(-1)}`)
  const again = await prune.structured(model, { ratio: 0.5, exampleInput: tokens(2) })
  t.ok(again.total.parametersAfter < again.total.parametersBefore, 'and so does pruning')
})
