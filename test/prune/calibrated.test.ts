// Pruning by activations: Wanda against its definition, SparseGPT against optimal brain surgery written out.
import { nn, prune, type Tensor, tensor } from 'kerf'
import t from 'tap'
import { Pauses } from '#lib/core/pauses'
import { sparseGptWeights } from '#lib/prune/sparse-gpt'
import { generator } from '../matrix'
import { inverseOf } from '../oracle/inverse'
import { correlatedInputs, gramOf, normalWeights, outputError } from '../quant/data'
import { inputs } from '../quant/models'
import { cut, flat, linears, masks, net, setWeight, topK, values } from './oracle'

const at = (a: ArrayLike<number> | undefined, i: number) => a?.[i] as number

t.test('wanda: |w| times the norm of its input, per output', async (t) => {
  const data = [inputs(1, 7, 13, (j) => 10 ** (j % 3)), inputs(2, 4, 13, (j) => 10 ** (j % 3))]
  for (const sparsity of [0, 0.3, 0.5, 1]) {
    const model = net(3, [13, 6, 5])
    const [first, second] = linears(model) as [nn.Linear, nn.Linear]
    const between = data.map((x) => model.at(1).forward(first.forward(x)))
    const wanted = [
      { layer: first, x: data },
      { layer: second, x: between },
    ].map(({ layer, x }) => {
      const rows = x.flatMap((batch) => cut(flat(batch), new Array(batch.shape[0]).fill(layer.inFeatures)))
      const norms = Array.from({ length: layer.inFeatures }, (_, j) => Math.hypot(...rows.map((row) => at(row, j))))
      return cut(flat(layer.weight), new Array(layer.outFeatures).fill(layer.inFeatures)).flatMap((row) =>
        topK(
          row.map((w, j) => Math.abs(w) * at(norms, j)),
          Math.round(sparsity * row.length),
        ),
      )
    })
    await prune.wanda(model, { calibrationData: data, sparsity })
    t.same(masks(model), wanted, `${sparsity}`)
  }
})

t.test('wanda: n of m, ties, what was pruned before, unused inputs', async (t) => {
  const layer = new nn.Linear(4, 1)
  setWeight(layer, [1, 1, 4, 2])
  const calibrationData = [[tensor([[2, 2, 0, 1]]), 'label']]
  await prune.wanda(layer, { calibrationData, n: 3, m: 4 })
  t.same(masks(layer), [[1, 1, 0, 1]])
  await prune.wanda(layer, { calibrationData, sparsity: 0.5 })
  t.same(masks(layer), [[1, 1, 0, 0]], 'three scores are 2: the first are kept')
  await prune.wanda(layer, { calibrationData, sparsity: 0.25 })
  t.same(masks(layer), [[1, 1, 0, 0]])
})

type Amount = { sparsity: number } | { n: number; m: number }

/** Column by column, with the inverse of what is left of the Hessian computed anew. */
function surgery(w: Float32Array, out: number, size: number, hessian: Float64Array, amount: Amount, block: number) {
  const columns = [...Array(size).keys()]
  const diagonal = columns.map((i) => at(hessian, i * size + i))
  const live = diagonal.filter((x) => x > 0)
  const mean = live.reduce((a, b) => a + b, 0) / live.length
  const damped = columns.map((i) =>
    columns.map(
      (j) => (i === j ? at(hessian, i * size + i) || mean : at(hessian, i * size + j)) + (i === j ? 0.01 * mean : 0),
    ),
  )
  const left = columns.map((j) => inverseOf(damped.slice(j).map((row) => row.slice(j))))
  const rows = cut([...w], new Array(out).fill(size)) as number[][]
  const mask = rows.map((row) => row.map(() => 1))
  const score = (row: number[], j: number) => (at(diagonal, j) === 0 ? 0 : at(row, j) ** 2 / at(left[j]?.[0], 0))
  for (let start = 0; start < size; start += block) {
    const inside = columns.slice(start, start + block)
    if ('sparsity' in amount) {
      const until = (n: number) => Math.round(Math.round(amount.sparsity * w.length) * (n / size))
      const count = until(start + inside.length) - until(start)
      const kept = topK(
        rows.flatMap((row) => inside.map((j) => score(row, j))),
        count,
      )
      for (const [i, keep] of kept.entries())
        (mask[Math.floor(i / inside.length)] as number[])[start + (i % inside.length)] = keep
    }
    for (const j of inside) {
      for (const [o, row] of rows.entries()) {
        const m = mask[o] as number[]
        if ('m' in amount && j % amount.m === 0) {
          const group = columns.slice(j, j + amount.m)
          const kept = topK(
            group.map((k) => score(row, k)),
            Math.max(0, group.length - amount.n),
          )
          for (const [i, k] of group.entries()) m[k] = at(kept, i)
        }
        if (m[j] === 1) continue
        const inv = left[j]?.[0] as number[]
        const e = at(row, j) / at(inv, 0)
        for (let k = j; k < size; k++) row[k] = at(row, k) - e * at(inv, k - j)
      }
    }
  }
  return { mask: mask.flat(), weights: rows.flat().map((x, i) => (mask.flat()[i] ? x : 0)) }
}

t.test('sparseGpt is optimal brain surgery, block by block', async (t) => {
  const [out, size] = [7, 22]
  const amounts: Amount[] = [
    { sparsity: 0 },
    { sparsity: 0.5 },
    { sparsity: 0.83 },
    { sparsity: 1 },
    { n: 2, m: 4 },
    { n: 1, m: 3 },
  ]
  for (const amount of amounts) {
    for (const [seed, dead] of [
      [1, []],
      [2, [3, 20]],
    ] as const) {
      const x = correlatedInputs(seed, 60, size)
      for (const c of dead) for (let r = 0; r < x.length; r += size) x[r + c] = 0
      const hessian = gramOf(x, size)
      const w = normalWeights(seed + 9, out, size)
      const name = `${JSON.stringify(amount)}, unused inputs ${dead}`
      for (const blockSize of [8, 128]) {
        const block = 'm' in amount ? Math.floor(blockSize / amount.m) * amount.m : blockSize
        const wanted = surgery(w, out, size, hessian, amount, block)
        const keep = new Uint8Array(w.length).fill(1)
        const work = { values: w, keep, out, inputs: size }
        const found = await sparseGptWeights('op', work, hessian, { amount, damp: 0.01, blockSize }, new Pauses())
        t.same([...keep], wanted.mask, name)
        // The answer is rounded to float32; float64 sums of a few hundred terms differ far less.
        const off = found.findIndex((v, i) => Math.abs(v - at(wanted.weights, i)) > 2 ** -24 * Math.abs(v) + 1e-10)
        t.equal(off, -1, `${name}, blocks of ${blockSize}: ${found[off]} is not ${wanted.weights[off]}`)
        if ('sparsity' in amount)
          t.equal(keep.filter((k) => k === 0).length, Math.round(amount.sparsity * w.length), 'exactly')
      }
    }
  }
})

t.test('sparseGpt: what was pruned before stays pruned and counts', async (t) => {
  const [out, size] = [6, 20]
  const hessian = gramOf(correlatedInputs(5, 60, size), size)
  const next = generator(6)
  for (const [before, sparsity] of [
    [0.3, 0.6],
    [0.7, 0.5],
    [1, 1],
  ] as const) {
    const old = Uint8Array.from({ length: out * size }, () => (next() < before ? 0 : 1))
    const w = normalWeights(7, out, size).map((v, i) => v * at(old, i))
    const keep = old.slice()
    const settings = { amount: { sparsity }, damp: 0.01, blockSize: 8 }
    const found = await sparseGptWeights('op', { values: w, keep, out, inputs: size }, hessian, settings, new Pauses())
    t.ok(keep.every((k, i) => k <= at(old, i)))
    t.ok(found.every((v, i) => v === 0 || keep[i] === 1))
    const gone = old.filter((k) => k === 0).length
    t.equal(keep.filter((k) => k === 0).length, Math.max(gone, Math.round(sparsity * out * size)))
  }
})

t.test('sparseGpt loses less of the output than wanda, and that less than magnitude', async (t) => {
  const [out, size] = [24, 40]
  const x = correlatedInputs(11, 400, size)
  const w = normalWeights(12, out, size)
  const batch = tensor([...x], { shape: [400, size] }) as Tensor
  const lost = async (run: (model: nn.Sequential) => Promise<void>) => {
    const layer = new nn.Linear(size, out)
    setWeight(layer, [...w])
    await run(new nn.Sequential(layer))
    return outputError(w, flat(layer.weight), x, size)
  }
  const calibrationData = [batch]
  const pattern = { n: 2, m: 4 }
  for (const [name, options] of [
    ['2 of 4', pattern],
    ['half', { sparsity: 0.5 }],
  ] as const) {
    const gpt = await lost((m) => prune.sparseGpt(m, { calibrationData, ...options }))
    const wanda = await lost((m) => prune.wanda(m, { calibrationData, ...options }))
    const size = await lost((m) => ('m' in options ? prune.semiStructured(m) : prune.magnitude(m, options)))
    t.ok(gpt < wanda && wanda < size, `${name}: ${gpt} ${wanda} ${size}`)
  }
})

t.test('sparseGpt goes through a model in order; training goes on from it', async (t) => {
  const model = net(1, [16, 12, 8])
  const data = [inputs(3, 64, 16), inputs(4, 64, 16)]
  const [first, second] = linears(model) as [nn.Linear, nn.Linear]
  const w = flat(second.weight)
  await prune.sparseGpt(model, { calibrationData: data, n: 2, m: 4, blockSize: 6 })
  const hidden = data.flatMap((x) => flat(model.at(1).forward(first.forward(x))))
  const gram = gramOf(Float64Array.from(hidden), 12)
  const wanted = surgery(Float32Array.from(w), 8, 12, gram, { n: 2, m: 4 }, 4)
  t.same(masks(model)[1], wanted.mask)
  // The library's Gram matrix has float32 sums of 64 products; its condition after damping is below 1,000.
  t.ok(flat(second.weight).every((v, i) => Math.abs(v - at(wanted.weights, i)) < 64 * 2 ** -24 * 1000))
  t.ok(flat(first.weight).every((v, i) => (v === 0) === (masks(model)[0]?.[i] === 0)))
})

t.test('bad arguments and bad data change nothing', async (t) => {
  const model = net(2, [6, 5, 4])
  const data = [inputs(1, 9, 6)]
  await prune.magnitude(model, { sparsity: 0.2 })
  const [before, state] = [masks(model), values(model)]
  const nan = [tensor([[1, 2, Number.NaN, 4, 5, 6]])]
  const late = net(2, [6, 5, 4])
  setWeight(linears(late)[1] as nn.Linear, [Number.POSITIVE_INFINITY, ...new Array(19).fill(1)])
  const lateState = values(late)
  for (const op of ['wanda', 'sparseGpt'] as const) {
    const call = (m: unknown, options: unknown) => prune[op](m as nn.Module, options as never)
    const wrong: [() => Promise<void>, RegExp][] = [
      [() => call({}, { calibrationData: data, sparsity: 0.5 }), /: expected a Module, got an object/],
      [() => call(model, undefined), /: options must be an object, got undefined/],
      [() => call(model, { calibrationData: data }), /: sparsity must be a number from 0 to 1, got undefined/],
      [
        () => call(model, { calibrationData: data, sparsity: 0.5, n: 2 }),
        /: give sparsity or n and m, not both: got 0.5, 2/,
      ],
      [() => call(model, { calibrationData: data, n: 2 }), /: m must be a whole number >= 2, got undefined/],
      [() => call(model, { calibrationData: data, n: 4, m: 4 }), /: n must be a whole number from 1 to 3, got 4/],
      [() => call(model, { sparsity: 0.5 }), /: calibrationData must be an iterable of batches, got undefined/],
      [() => call(model, { calibrationData: [], sparsity: 0.5 }), /: calibrationData was empty/],
      [() => call(model, { calibrationData: ['x'], sparsity: 0.5 }), /: a batch of calibrationData must be a tensor/],
      [
        () => call(model, { calibrationData: nan, sparsity: 0.5 }),
        /: layer '0': inputs .* finite, .* of input 2 is NaN/,
      ],
      [
        () => call(late, { calibrationData: data, sparsity: 0.5 }),
        /: layer '2': weight: .* finite, got Infinity in row 0/,
      ],
    ]
    for (const [run, message] of wrong)
      await t.rejects(run(), { code: 'ERR_ARGUMENT', message: new RegExp(`^${op}${message.source}`) })
  }
  const gpt = (options: object) => prune.sparseGpt(model, { calibrationData: data, sparsity: 0.5, ...options })
  await t.rejects(gpt({ damp: -1 }), { message: /^sparseGpt: damp must be a finite number >= 0, got -1/ })
  await t.rejects(gpt({ blockSize: 0 }), { message: /^sparseGpt: blockSize must be a whole number >= 1, got 0/ })
  t.same(masks(model), before)
  t.same(values(model), state)
  t.same(masks(late), [null, null], 'the layer before the bad one is as before')
  t.same(values(late), lateState)
})
