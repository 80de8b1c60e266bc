// What is pruned, against a sort in plain JavaScript and, for 2 of 4, against all six patterns.
import fc from 'fast-check'
import { nn, prune, tensor } from 'kerf'
import t from 'tap'
import { cut, flat, linears, masks, net, setWeight, topK, values } from './oracle'

const sizes = fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 2, maxLength: 4 })
const seed = fc.integer({ min: 1, max: 1e6 })
const sparsity = fc.oneof(fc.constantFrom(0, 0.5, 1), fc.double({ min: 0, max: 1, noNaN: true }))
const scope = fc.constantFrom('global' as const, 'layer' as const)

const magnitudes = (model: nn.Module) => linears(model).map(({ weight }) => flat(weight).map(Math.abs))

/** The masks that sorting gives, pruning once or further. */
function sorted(scores: number[][], amount: number, how: 'global' | 'layer', kept?: number[][]): number[][] {
  if (how === 'layer') return scores.map((s, i) => topK(s, Math.round(amount * s.length), kept?.[i]))
  const all = scores.flat()
  return cut(
    topK(all, Math.round(amount * all.length), kept?.flat()),
    scores.map((s) => s.length),
  )
}

t.test('magnitude is an exact top-k, ties by index; twice, what is pruned stays', async (t) => {
  await fc.assert(
    fc.asyncProperty(sizes, seed, fc.boolean(), sparsity, sparsity, scope, async (dims, from, ties, s1, s2, how) => {
      const model = net(from, dims, ties)
      const before = values(model)
      const first = sorted(magnitudes(model), s1, how)
      await prune.magnitude(model, { sparsity: s1, scope: how })
      t.same(masks(model), first)
      t.same(
        linears(model).map(({ weight }) => flat(weight)),
        first.map((mask, i) => mask.map((keep, j) => (keep ? before[2 * i]?.[j] : 0))),
      )
      const second = sorted(magnitudes(model), s2, how, first)
      await prune.magnitude(model, { sparsity: s2, scope: how })
      t.same(masks(model), second)
    }),
    { numRuns: 60 },
  )
})

t.test('many weights: what is sorted in parts is what is sorted whole', async (t) => {
  for (const ties of [false, true]) {
    const model = net(3, [400, 300, 30], ties)
    for (const amount of [0.01, 0.37, 0.9]) {
      const kept = masks(model).every(Boolean) ? (masks(model) as number[][]) : undefined
      const wanted = sorted(magnitudes(model), amount, 'global', kept)
      await prune.magnitude(model, { sparsity: amount })
      const found = masks(model) as number[][]
      t.ok(
        found.every((mask, i) => mask.every((keep, j) => keep === wanted[i]?.[j])),
        `${ties ? 'ties' : 'normal'}, ${amount}`,
      )
      t.equal(found.flat().filter((keep) => keep === 0).length, Math.round(amount * 129000))
    }
  }
})

t.test('tiny, huge and equal magnitudes', async (t) => {
  const layer = new nn.Linear(4, 2)
  setWeight(layer, [1e-45, -1e-45, 3e38, -3e38, 0, -0, 1, 1])
  await prune.magnitude(layer, { sparsity: 3 / 8 })
  t.same(masks(layer), [[1, 0, 1, 1, 0, 0, 1, 1]])
  await prune.magnitude(layer, { sparsity: 5 / 8 })
  t.same(masks(layer), [[0, 0, 1, 1, 0, 0, 1, 0]])
})

t.test('random: exact counts, by its seed', async (t) => {
  const run = async (options: object) => {
    const model = net(1, [20, 30, 10])
    await prune.random(model, { sparsity: 0.3, ...options })
    return masks(model) as number[][]
  }
  const a = await run({ seed: 7, scope: 'layer' })
  t.same(await run({ seed: 7, scope: 'layer' }), a)
  t.notSame(await run({ seed: 8, scope: 'layer' }), a)
  t.same(
    a.map((mask) => mask.filter((keep) => keep === 0).length),
    [180, 90],
  )
  const whole = (await run({ seed: 7 })).map((mask) => mask.filter((keep) => keep === 0).length)
  t.equal((whole[0] as number) + (whole[1] as number), 270)
  // A hypergeometric count of mean 180 and deviation 6.5: within 6 of them.
  t.ok(Math.abs((whole[0] as number) - 180) < 39, `${whole}`)
})

/** The pattern of n of a group with the largest L1 norm, of all there are; the first in lexicographic order of equals. */
function bestPattern(group: readonly number[], n: number): number[] {
  let best: number[] = []
  let most = -1
  for (let code = 2 ** group.length - 1; code >= 0; code--) {
    const pattern = group.map((_, i) => (code >> (group.length - 1 - i)) & 1)
    if (pattern.reduce((a, b) => a + b, 0) !== Math.min(n, group.length)) continue
    const norm = group.reduce((sum, w, i) => sum + Math.abs(w) * (pattern[i] as number), 0)
    if (norm > most) [best, most] = [pattern, norm]
  }
  return best
}

const groups = <T>(row: readonly T[], m: number) =>
  Array.from({ length: Math.ceil(row.length / m) }, (_, g) => row.slice(g * m, (g + 1) * m))

t.test('n of m is the best pattern of every group', async (t) => {
  const pattern = fc
    .integer({ min: 2, max: 6 })
    .chain((m) => fc.tuple(fc.integer({ min: 1, max: m - 1 }), fc.constant(m)))
  await fc.assert(
    fc.asyncProperty(sizes, seed, fc.boolean(), pattern, async (dims, from, ties, [n, m]) => {
      const model = net(from, dims, ties)
      const wanted = linears(model).map(({ weight, inFeatures, outFeatures }) =>
        cut(flat(weight), new Array(outFeatures).fill(inFeatures)).flatMap((row) =>
          groups(row, m).flatMap((group) => bestPattern(group, n)),
        ),
      )
      await prune.semiStructured(model, { n, m })
      t.same(masks(model), wanted, `${n} of ${m}`)
    }),
    { numRuns: 60 },
  )
})

t.test('2 of 4 is the default; what was pruned before stays pruned', async (t) => {
  const layer = new nn.Linear(8, 1)
  setWeight(layer, [4, 3, 2, 1, 1, 2, 3, 4])
  await prune.semiStructured(layer)
  t.same(masks(layer), [[1, 1, 0, 0, 0, 0, 1, 1]])
  setWeight(layer, [4, 3, 9, 9, 9, 9, 3, 4])
  await prune.semiStructured(layer)
  t.same(masks(layer), [[1, 1, 0, 0, 0, 0, 1, 1]])
  await prune.semiStructured(layer, { n: 1, m: 4 })
  t.same(masks(layer), [[1, 0, 0, 0, 0, 0, 0, 1]])
})

t.test('blocks: the least by mean norm, smaller ones at the edges', async (t) => {
  const extent = fc.integer({ min: 1, max: 5 })
  const norm = fc.constantFrom('l1' as const, 'l2' as const)
  await fc.assert(
    fc.asyncProperty(sizes, seed, extent, extent, norm, sparsity, scope, async (dims, from, r, c, by, amount, how) => {
      const model = net(from, dims)
      const layers = linears(model).map(({ weight, inFeatures: inputs, outFeatures: out }) => {
        const w = cut(flat(weight), new Array(out).fill(inputs)) as number[][]
        const cells: { rows: number[]; columns: number[]; score: number }[] = []
        for (const rows of groups([...w.keys()], r)) {
          for (const columns of groups([...Array(inputs).keys()], c)) {
            const list = rows.flatMap((i) => columns.map((j) => w[i]?.[j] as number))
            const mean = list.reduce((sum, x) => sum + (by === 'l1' ? Math.abs(x) : x * x), 0) / list.length
            cells.push({ rows, columns, score: mean })
          }
        }
        return { w, cells }
      })
      const kept = sorted(
        layers.map(({ cells }) => cells.map(({ score }) => score)),
        amount,
        how,
      )
      const wanted = layers.map(({ w, cells }, l) => {
        const mask = w.map((row) => row.map(() => 1))
        for (const [b, { rows, columns }] of cells.entries())
          if (kept[l]?.[b] === 0) for (const i of rows) for (const j of columns) (mask[i] as number[])[j] = 0
        return mask.flat()
      })
      await prune.block(model, { block: [r, c], sparsity: amount, norm: by, scope: how })
      t.same(masks(model), wanted)
    }),
    { numRuns: 60 },
  )
})

t.test('blocks: equal ones by index; those pruned before count', async (t) => {
  const layer = new nn.Linear(6, 2)
  setWeight(layer, new Array(12).fill(1))
  await prune.block(layer, { block: [1, 2], sparsity: 0.5 })
  t.same(masks(layer), [[1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]])
  await prune.block(layer, { block: [2, 3], sparsity: 0.5 })
  t.same(masks(layer), [[1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]], 'rows of a half empty block')
  await prune.block(layer, { block: [1, 2], sparsity: 0.5 })
  t.same(masks(layer), [[1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]], 'four of six blocks are pruned already')
  const zeros = new nn.Linear(3, 1)
  zeros.weight.mask = tensor([[false, true, true]])
  setWeight(zeros, [1, 0, 1])
  await prune.block(zeros, { block: [1, 1], sparsity: 1 / 3 })
  t.same(masks(zeros), [[0, 1, 1]], 'a block of zeros is not pruned')
})

t.test('include and skip', async (t) => {
  const pruned = async (options: object) => {
    const model = new nn.Sequential({ body: net(1, [6, 6, 6]), head: new nn.Linear(6, 3) })
    await prune.magnitude(model, { sparsity: 0.5, ...options })
    return masks(model).map((mask) => mask !== null)
  }
  t.same(await pruned({}), [true, true, true])
  t.same(await pruned({ skip: ['head'] }), [true, true, false])
  t.same(await pruned({ include: ['body'] }), [true, true, false])
  t.same(await pruned({ include: ['body'], skip: [/0$/] }), [false, true, false])
  t.same(await pruned({ include: (_: string, l: nn.Linear) => l.outFeatures === 3 }), [false, false, true])
  await t.rejects(pruned({ include: ['tail'] }), {
    message: /magnitude: include: no Linear or convolution layer is at "tail"/,
  })
})

t.test('bad arguments change no mask', async (t) => {
  const model = net(2, [6, 5, 4])
  await prune.magnitude(model, { sparsity: 0.2 })
  const [before, state] = [masks(model), values(model)]
  const bad = net(2, [6, 5, 4])
  setWeight(linears(bad)[1] as nn.Linear, [...new Array(7).fill(1), Number.NaN, ...new Array(12).fill(1)])
  const none = new nn.Sequential(new nn.ReLU())
  const wrong: [() => Promise<void>, RegExp][] = [
    [() => prune.magnitude({} as never, { sparsity: 0.5 }), /^magnitude: expected a Module, got an object/],
    [
      () => prune.magnitude(none, { sparsity: 0.5 }),
      /^magnitude: the model has no Linear or convolution layer to prune/,
    ],
    [() => prune.magnitude(model, undefined as never), /^magnitude: options must be an object, got undefined/],
    [() => prune.magnitude(model, {} as never), /^magnitude: sparsity must be a number from 0 to 1, got undefined/],
    [() => prune.magnitude(model, { sparsity: 90 }), /^magnitude: sparsity must be a number from 0 to 1, got 90/],
    [() => prune.magnitude(model, { sparsity: Number.NaN }), /^magnitude: sparsity must be .*, got NaN/],
    [() => prune.magnitude(model, { sparsity: 0.5, scope: 'all' as never }), /^magnitude: scope must be .*, got "all"/],
    [() => prune.magnitude(model, { sparsity: 0.5, skip: 7 as never }), /^magnitude: skip must be an array/],
    [() => prune.random(model, { sparsity: 0.5, seed: -1 }), /^random: seed must be a whole number >= 0, got -1/],
    [() => prune.random(model, { sparsity: -0.5 }), /^random: sparsity must be a number from 0 to 1, got -0.5/],
    [() => prune.semiStructured(model, { n: 4 }), /^semiStructured: n must be a whole number from 1 to 3, got 4/],
    [() => prune.semiStructured(model, { m: 1 }), /^semiStructured: m must be a whole number >= 2, got 1/],
    [() => prune.semiStructured(model, null as never), /^semiStructured: options must be an object, got null/],
    [() => prune.block(model, { sparsity: 0.5 } as never), /^block: block must be \[rows, columns\], got undefined/],
    [() => prune.block(model, { sparsity: 0.5, block: [1, 0] }), /^block: block\[1\] must be .* >= 1, got 0/],
    [() => prune.block(model, { sparsity: 2, block: [1, 4] }), /^block: sparsity must be .*, got 2/],
    [() => prune.block(model, { sparsity: 0.5, block: [1, 4], norm: 'l3' as never }), /^block: norm must be .*"l3"/],
    [() => prune.magnitude(bad, { sparsity: 0.5 }), /^magnitude: layer '2': weight: .*got NaN in row 1, column 2/],
    [() => prune.semiStructured(bad), /^semiStructured: layer '2': .*NaN/],
    [() => prune.block(bad, { sparsity: 0.5, block: [2, 2] }), /^block: layer '2': .*NaN/],
  ]
  for (const [call, message] of wrong) await t.rejects(call(), { code: 'ERR_ARGUMENT', message })
  t.same(masks(model), before)
  t.same(values(model), state)
  t.same(masks(bad), [null, null])
})

t.test('what a model computes: pruned weights count as 0', async (t) => {
  const model = net(5, [4, 3])
  await prune.magnitude(model, { sparsity: 0.5 })
  const [layer] = linears(model) as [nn.Linear]
  const [w, b] = [flat(layer.weight), flat(layer.bias as nn.Parameter)]
  const x = [1, -2, 3, 0.5]
  for (const [o, y] of flat(model.forward(tensor([x]))).entries()) {
    const terms = x.map((v, j) => v * (w[4 * o + j] as number))
    const sum = terms.reduce((a, v) => a + v, b[o] as number)
    const size = terms.reduce((a, v) => a + Math.abs(v), Math.abs(b[o] as number))
    t.ok(Math.abs(y - sum) <= 6 * 2 ** -24 * size)
  }
})
