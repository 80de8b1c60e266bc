// Sparse layers of int8 weights: what the quantized layer computes they compute bit for bit, from a mask to a file.
import { mseLoss, nn, optim, prune, quant, scope, summary, type Tensor, tensor, zeros } from 'kerf'
import t from 'tap'
import { inputs, mlp } from '../quant/models'
import {
  calibrationData,
  configs,
  floatInput,
  formats,
  pruned,
  quantizedLayers,
  sizes,
  sparseLayers,
  twins,
} from './int8'
import { flat, masks } from './oracle'

const { convert, SparseLinear, sparsify } = prune
const { QuantizedLinear, int8Dynamic, int8Static, perChannel, perGroup, quantizeModel, weightOnly } = quant
const U = 2 ** -24

/** Values and the gradient of the input. */
function run(model: nn.Module, x: Tensor): unknown[] {
  const input = tensor(flat(x), { shape: x.shape, dtype: x.dtype, requiresGrad: true })
  const y = model.forward(input)
  y.mul(inputs(77, y.shape[0] as number, y.shape[1] as number).to(x.dtype as 'float32'))
    .sum()
    .backward()
  return [y.dtype, y.arraySync(), (input.grad as Tensor).arraySync()]
}

t.test('bytes by bytes: the same bits as the quantized layers, in every format and input mode', async (t) => {
  for (const [name, config] of Object.entries(configs))
    for (const format of formats)
      for (const dtype of ['float32', 'bfloat16'] as const) {
        const [dense, model] = await twins(1, config, dtype)
        const report = await convert(model, format)
        t.equal(sparseLayers(model).length, 2)
        for (const [i, layer] of sparseLayers(model).entries()) {
          const from = quantizedLayers(dense)[i] as quant.QuantizedLinear
          t.equal(layer.input, from.input)
          t.equal(layer.training, false)
          t.equal(layer.sparseWeight.dtype, 'int8')
          t.equal(report.layers[i]?.denseBytes, from.quantizedWeight.bytes)
          t.equal(report.layers[i]?.bytes, layer.sparseWeight.bytes)
        }
        for (const rows of [1, 9]) {
          const x = inputs(2, rows, 20).to(dtype)
          t.same(run(model, x), run(dense, x), `${name}, ${JSON.stringify(format)}, ${dtype}, ${rows} rows`)
        }
        t.equal(model.parameters().length, 0)
      }
})

t.test('with a float input: value * scale in float32', async (t) => {
  for (const [name, config] of Object.entries(floatInput))
    for (const format of formats) {
      const [dense, model] = await twins(3, config)
      await convert(model, format)
      const from = quantizedLayers(dense)[0] as quant.QuantizedLinear
      t.equal(from.inputMultiplier !== null, name.endsWith('awq'))
      const [layer] = sparseLayers(model) as [prune.SparseLinear]
      const x = inputs(4, 5, 20)
      const multiplier = from.inputMultiplier ? flat(from.inputMultiplier) : new Array<number>(20).fill(1)
      const w = flat(quant.dequantize(from.quantizedWeight) as Tensor)
      const got = flat(layer.forward(x))
      const b = flat(from.bias as Tensor)
      for (const [at, y] of got.entries()) {
        const [i, j] = [Math.floor(at / 12), at % 12]
        const terms = multiplier.map((s, p) => (flat(x)[i * 20 + p] as number) * s * (w[j * 20 + p] as number))
        const sum = terms.reduce((total, v) => total + v, b[j] as number)
        const size = terms.reduce((total, v) => total + Math.abs(v), Math.abs(b[j] as number))
        // A rounding for each term, that of value * scale, that of the multiplied input, and a few more.
        if (!(Math.abs(y - sum) <= (20 + 6) * U * size)) t.fail(`${name} ${JSON.stringify(format)}: ${y}, ${sum}`)
      }
    }
})

t.test('from a mask to int8: what is pruned is 0, and nothing else changes', async (t) => {
  const x = inputs(5, 6, 20)
  const ways: Record<string, (model: nn.Sequential) => Promise<nn.Sequential> | nn.Sequential> = Object.fromEntries(
    Object.entries({ ...configs, ...floatInput }).map(([name, config]) => [
      name,
      (model: nn.Sequential) => quantizeModel(model, config, { calibrationData }),
    ]),
  )
  for (const ranges of ['observed', 'learned'] as const)
    ways[`trained, ${ranges}`] = (model) => {
      quant.prepareQat(model, int8Static(), { ranges })
      const optimizer = new optim.AdamW(model.parameters(), { lr: 0.01 })
      model.train()
      for (let i = 0; i < 20; i++)
        scope(() => {
          optimizer.zeroGrad()
          mseLoss(model.forward(inputs(i, 8, 20)), inputs(i + 1, 8, 8)).backward()
          optimizer.step()
        })
      return quant.convert(model.eval())
    }
  for (const [name, way] of Object.entries(ways)) {
    const model = mlp(6, sizes)
    await prune.magnitude(model, { sparsity: 0.7 })
    const keep = masks(model)
    await way(model)
    const codes = quantizedLayers(model).map((layer) => flat(layer.weight))
    t.ok(
      codes.every((w, l) => w.every((v, i) => keep[l]?.[i] !== 0 || v === 0)),
      `${name}: pruned weights are 0`,
    )
    const wanted = model.forward(x).arraySync()
    const report = await convert(model, 'csr')
    for (const [i, layer] of sparseLayers(model).entries()) {
      const none = codes[i]?.filter((v) => v === 0).length
      t.ok(layer.zeros >= (keep[i] as number[]).filter((k) => k === 0).length)
      t.equal(layer.zeros, none)
      t.equal(report.layers[i]?.zeros, none)
      t.same(flat((prune.densify(layer.sparseWeight) as quant.QuantizedTensor).values), codes[i])
    }
    if (!name.startsWith('float')) t.same(model.forward(x).arraySync(), wanted, `${name}: the same bits`)
  }
})

t.test('auto times the quantized layer, and leaves alone what cannot be sparse', async (t) => {
  const x = inputs(7, 1, 512)
  const model = mlp(8, [512, 512, 512, 16])
  await prune.magnitude(model, { sparsity: 0.95, include: ['0', '4'] })
  await quantizeModel(model, weightOnly({ bits: 4, granularity: perGroup(16) }), { skip: ['0', '2'] })
  await quantizeModel(model, int8Dynamic())
  const wanted = model.forward(x).arraySync()
  const before = [0, 2, 4].map((i) => model.at(i))
  const report = await convert(model)
  const [first, second, third] = report.layers as [prune.ConvertedLayer, prune.ConvertedLayer, prune.ConvertedLayer]
  const names = (l: prune.ConvertedLayer) => l.costs.map(({ format }) => format)
  t.same([names(first), names(second), names(third)], [['dense', 'csr'], ['dense'], ['dense']])
  t.ok(first.costs.every(({ us }) => us !== null && us > 0))
  const [dense, sparse] = first.costs.map(({ us }) => us) as [number, number]
  t.equal(first.format, sparse * 1.05 < dense ? 'csr' : 'dense')
  t.equal(first.costs[0]?.bytes, 512 * 512 + 512 * 4)
  t.ok(first.zeros >= 0.9 * 512 * 512)
  t.match(second, { format: 'dense', bytes: 512 * 512 + 512 * 4 })
  t.match(third, { format: 'dense', costs: [{ us: null }] })
  t.ok(third.zeros >= 0.9 * 512 * 16, 'zeros of 4 bits are counted too')
  t.equal(model.at(2), before[1])
  t.equal(model.at(4), before[2])
  t.same(model.forward(x).arraySync(), wanted, 'whatever was chosen')

  // With zero points, in groups, of 4 bits, of bytes without a sign.
  const refused: [quant.QuantConfig, RegExp][] = [
    [weightOnly({ granularity: perChannel(0), symmetric: false }), /layer '0': .*must have no zero point/],
    [weightOnly({ granularity: perGroup(8) }), /layer '0': .*must be int8 .* it is int8 per group\(8\)/],
    [weightOnly({ bits: 4, granularity: perChannel(0) }), /layer '0': .*it is int4 per channel\(0\)/],
  ]
  for (const [config, message] of refused) {
    const other = await quantizeModel(await pruned(9), config)
    const layers = other.modules()
    await t.rejects(convert(other, 'csr'), { code: /^ERR_/, message })
    await convert(other, 'csr', { skip: ['0', '2'] })
    const { layers: left } = await convert(other)
    t.same(
      left.map(({ format }) => format),
      ['dense', 'dense'],
    )
    t.ok(left.every((l) => l.zeros >= 0.5 * l.shape[0] * l.shape[1]))
    t.ok(other.modules().every((m, i) => m === layers[i]))
  }
})

t.test('layers are chosen by path and by what they are; those of another forward() are not touched', async (t) => {
  class Other extends QuantizedLinear {
    override forward(x: Tensor): Tensor {
      return super.forward(x).mul(2)
    }
  }
  const model = new nn.Sequential(...([...(await pruned(10, [20, 12, 8, 8])).modules().slice(1)] as nn.Module[]))
  await quantizeModel(model, int8Dynamic(), { skip: ['4'] })
  const { bias, quantizedWeight: weight } = model.at(2) as unknown as quant.QuantizedLinear
  model.setModule('2', new Other({ weight, bias, input: 'token' }))
  const seen: string[] = []
  const report = await convert(model, 'csr', {
    include: (path, layer) => {
      seen.push(`${path} ${layer.constructor.name}`)
      return true
    },
  })
  t.same(seen, ['0 QuantizedLinear', '4 Linear'])
  t.same(
    report.layers.map(({ path }) => path),
    ['0', '4'],
  )
  t.ok((model.at(2) as unknown) instanceof Other)
  const root = await quantizeModel(mlp(11, [20, 12]).at(0) as nn.Module, int8Dynamic())
  t.ok((await convert(root, 'csr')).model instanceof SparseLinear)
})

t.test('state that is loaded is what is computed with', async (t) => {
  const x = inputs(15, 3, 20)
  const [a, b] = [(await twins(16, int8Static()))[0], (await twins(17, int8Static()))[0]]
  await convert(a, '2:4')
  await convert(b, '2:4')
  const wanted = a.forward(x).arraySync()
  t.notSame(b.forward(x).arraySync(), wanted)
  b.loadStateDict(a.stateDict())
  t.same(b.forward(x).arraySync(), wanted)
  t.equal(String(b), String(a))
  b.loadStateDict({ '0.weightScale': zeros([12]), '0.bias': zeros([12]) }, { strict: false })
  t.same(flat((b.at(0) as nn.Module).forward(x)), new Array(36).fill(0))
})

t.test('what it is made of is checked', async (t) => {
  const s = sparsify(quant.quantize(tensor([[0, 1, 2, 0]])), 'csr')
  const float = sparsify(tensor([[0, 1, 2, 0]]), 'csr')
  const refuse = (parts: unknown, code: string, message: RegExp) =>
    t.throws(() => new SparseLinear(parts as never), { code, message })
  refuse({ weight: s, input: 'bytes' }, 'ERR_ARGUMENT', /input must be float tensor token uint8 int8, got "bytes"/)
  refuse({ weight: s, input: 'uint8' }, 'ERR_ARGUMENT', /input 'uint8' needs inputScale/)
  refuse({ weight: s, input: 'int8', inputScale: zeros([2]) }, 'ERR_SHAPE', /inputScale must have one element/)
  refuse({ weight: s, input: 'int8', inputScale: zeros([], { dtype: 'int32' }) }, 'ERR_DTYPE', /must be float32/)
  refuse({ weight: s, inputZeroPoint: zeros([]) }, 'ERR_DTYPE', /inputZeroPoint must be int32, it is float32/)
  refuse({ weight: s, inputMultiplier: zeros([3]) }, 'ERR_SHAPE', /inputMultiplier must be \[4\], it is \[3\]/)
  refuse({ weight: float, input: 'token' }, 'ERR_ARGUMENT', /input needs int8 weights, they are float32/)
  refuse({ weight: float, inputMultiplier: zeros([4]) }, 'ERR_ARGUMENT', /inputMultiplier needs int8 weights/)
  t.equal(new SparseLinear({ weight: float, input: 'float', inputScale: null }).input, 'float')
})

t.test('summary and describe show what they are', async (t) => {
  const [dense, model] = await twins(19, int8Static())
  const before = summary(dense, { print: false })
  await convert(model, '2:4', { include: ['0'] })
  const after = summary(model, { print: false })
  t.equal(after.parameters, before.parameters)
  t.equal(after.sparsity, before.sparsity)
  const [layer] = sparseLayers(model) as [prune.SparseLinear]
  const none = ((100 * layer.zeros) / 240).toFixed(1)
  t.match(after.layers[0], {
    type: 'SparseLinear',
    options: `inFeatures=20, outFeatures=12, bias=true, 2:4, ${none} % zeros, int8 per channel(0), input uint8`,
    dtypes: ['int8', 'float32', 'uint8', 'int32'],
    parameters: 252,
    bytes: 12 * 10 + 12 * 4 + 12 * 3 + 12 * 4 + 4 + 4,
  })
  t.match(String(layer), /^SparseLinear\(inFeatures=20, .*, int8 per channel\(0\), input uint8\)$/)
})
