// QuantizedLinear as a module: saved, loaded, converted, disposed, inside scopes, and what gradient passes it.
import { contiguous, type nn, quant, scope, summary, type Tensor, tensor } from 'kerf'
import t from 'tap'
import { QuantizedTensor } from '#lib/tensor/quantized'
import { at, difference, expected, inputs, mlp, rowsOf, storedIn, weightsIn } from './models'

const { int8Dynamic, int8Static, weightOnly, perChannel, perGroup, perTensor, quantizeModel, QuantizedLinear } = quant
type Quantized = quant.QuantizedLinear

/** Every set of buffers that a layer may have. */
const configs: Record<string, quant.QuantConfig> = {
  token: int8Dynamic(),
  'tensor, smoothed': int8Dynamic({ input: 'tensor', smoothQuant: true }),
  'static uint8': int8Static(),
  'static int8, per tensor': int8Static({ input: 'int8', granularity: perTensor }),
  'static, smoothed': int8Static({ smoothQuant: 0.4 }),
  '8 bits': weightOnly({ bits: 8, granularity: perChannel(0) }),
  '4 bits with zero points': weightOnly({ bits: 4, granularity: perGroup(8), symmetric: false }),
  '4 bits, AWQ': weightOnly({ bits: 4, granularity: perGroup(8), method: 'awq' }),
}

/** Column 3 is loud, so that SmoothQuant and AWQ have something to do. */
const batch = (seed: number, rows = 20) => inputs(seed, rows, 21, (j) => (j === 3 ? 20 : 1))

async function made(seed: number, config: quant.QuantConfig, options?: nn.LinearOptions): Promise<nn.Sequential> {
  return quantizeModel(mlp(seed, [21, 13, 5], options), config, { calibrationData: [batch(seed), batch(seed + 50)] })
}

for (const [name, config] of Object.entries(configs)) {
  t.test(`${name}: state that is loaded is what is computed with`, async (t) => {
    const x = batch(100)
    const [a, b] = [await made(1, config), await made(2, config)]
    const wanted = a.forward(x).arraySync()
    t.notSame(b.forward(x).arraySync(), wanted)
    // b has packed its own weights by now.
    b.loadStateDict(a.stateDict())
    t.same(b.forward(x).arraySync(), wanted)
    // Only one layer of it, and values that come in other dtypes.
    const c = await made(2, config)
    c.forward(x)
    const float = Object.entries(a.stateDict()).map(([name, v]) => [name, v.to('float32')] as const)
    c.loadStateDict(Object.fromEntries(float))
    t.same(c.forward(x).arraySync(), wanted)
    const [first] = a.namedChildren()[0] as [string, unknown]
    const d = await made(2, config)
    d.forward(x)
    d.getModule('0').loadStateDict(a.getModule(String(first)).stateDict())
    const layer = d.getModule('0') as Quantized
    t.equal(difference(layer.forward(x), expected(layer, rowsOf(x))), null)
    t.same(layer.forward(x).arraySync(), a.at(0).forward(x).arraySync())
  })

  t.test(`${name}: buffers that are replaced are what is computed with`, async (t) => {
    const x = batch(100)
    const [a, b] = [await made(3, config), await made(4, config)].map((m) => m.at(0) as Quantized) as [
      Quantized,
      Quantized,
    ]
    a.forward(x)
    for (const key of ['weight', 'weightScale', 'weightZeroPoint', 'bias', 'inputScale', 'inputMultiplier'] as const) {
      if (a[key] === null) continue
      ;(a as unknown as Record<string, unknown>)[key] = b[key]
      t.equal(difference(a.forward(x), expected(a, rowsOf(x))), null, key)
    }
  })

  t.test(`${name}: to() converts the bias and leaves scales alone`, async (t) => {
    const model = await made(5, config)
    const before = (model.at(0) as Quantized).weightScale.arraySync()
    const float = model.forward(batch(6))
    model.to('bfloat16')
    const layer = model.at(0) as Quantized
    const dtypes = Object.fromEntries(layer.namedBuffers().map(([key, buffer]) => [key, buffer.dtype]))
    t.equal(dtypes.bias, 'bfloat16')
    t.ok(['weightScale', 'inputScale', 'inputMultiplier'].every((key) => (dtypes[key] ?? 'float32') === 'float32'))
    t.same(layer.weightScale.arraySync(), before)
    const x = batch(6).to('bfloat16')
    t.equal(difference(layer.forward(x), expected(layer, rowsOf(x), 'bfloat16')), null)
    const y = model.forward(x)
    t.equal(y.dtype, 'bfloat16')
    const most = Math.max(...rowsOf(float).flat().map(Math.abs))
    const off = rowsOf(y)
      .flat()
      .map((v, i) => Math.abs(v - (rowsOf(float).flat()[i] as number)))
    // Inputs, hidden values and outputs rounded to 2^-9: a few of them on top of each other.
    t.ok(Math.max(...off) < 0.03 * most, `off by ${Math.max(...off) / most} of the largest`)
  })

  t.test(`${name}: scopes end, what a layer keeps for itself stays`, async (t) => {
    const model = await made(7, config)
    const x = batch(8)
    const first = scope(() => model.forward(x).arraySync())
    const second = scope(() => model.forward(x).arraySync())
    t.same(second, first)
    t.same(await scope(async () => model.forward(x).array()), first)
    // State that is loaded in a scope.
    const other = await made(9, config)
    scope(() => {
      model.loadStateDict(other.stateDict())
      model.forward(x)
    })
    t.same(model.forward(x).arraySync(), other.forward(x).arraySync())
    for (const [key, buffer] of model.namedBuffers()) t.notOk(buffer.disposed, key)
  })

  t.test(`${name}: gradients flow to the input, straight through its rounding, and to nothing else`, async (t) => {
    const layer = (await made(10, config)).at(0) as Quantized
    const x = batch(11, 4)
    x.requiresGrad = true
    const g = inputs(12, 4, 13)
    layer.forward(x).mul(g).sum().backward()
    const w = weightsIn(storedIn(layer))
    const multiplier = layer.inputMultiplier?.arraySync() as number[] | undefined
    const found = rowsOf(x.grad as Tensor)
    for (const [r, row] of rowsOf(g).entries()) {
      for (let j = 0; j < 21; j++) {
        const by = multiplier?.[j] ?? 1
        const terms = row.map((v, o) => v * at(w, o, j) * by)
        const [sum, size] = [terms.reduce((s, v) => s + v, 0), terms.reduce((s, v) => s + Math.abs(v), 0)]
        const off = Math.abs(at(found, r, j) - sum)
        if (!(off <= 16 * 2 ** -24 * size)) t.fail(`[${r}, ${j}] is ${at(found, r, j)}, should be ${sum}`)
      }
    }
    t.same(layer.parameters(), [])
    t.ok(layer.namedBuffers().every(([, buffer]) => !buffer.requiresGrad && buffer.grad === null))
    const half = batch(11, 4).to('bfloat16')
    half.requiresGrad = true
    layer.forward(half).sum().backward()
    t.equal(half.grad?.dtype, 'bfloat16')
  })
}

t.test('shapes: any number of axes, no rows, one output', async (t) => {
  for (const config of Object.values(configs)) {
    const layer = (await made(13, config)).at(0) as Quantized
    const x = batch(14, 12)
    const flat = layer.forward(x).arraySync()
    t.same(
      layer
        .forward(x.reshape([2, 3, 2, 21]))
        .reshape([12, 13])
        .arraySync(),
      flat,
    )
    t.same(layer.forward(tensor([], { shape: [0, 21] })).shape, [0, 13])
    t.same(layer.forward(x.slice([[0, 1]]).reshape([21])).shape, [13])
    t.throws(() => layer.forward(batch(1).slice([null, [0, 20]])), { code: 'ERR_SHAPE' })
    t.throws(() => layer.forward(tensor([[1]], { dtype: 'int32' })), { code: 'ERR_DTYPE' })
    const one = await quantizeModel(mlp(15, [21, 1]), config, { calibrationData: [x] })
    t.equal(difference(one.forward(x), expected(one.at(0) as Quantized, rowsOf(x))), null)
  }
})

t.test('a transposed or strided input is the same input', async (t) => {
  for (const config of Object.values(configs)) {
    const layer = (await made(16, config)).at(0) as Quantized
    const x = batch(17)
    const turned = contiguous(x.permute([1, 0])).permute([1, 0])
    t.notOk(turned.contiguous)
    t.same(layer.forward(turned).arraySync(), layer.forward(x).arraySync())
  }
})

t.test('dispose, training mode, no bias, and what is shown', async (t) => {
  const model = await made(18, int8Static(), { bias: false })
  const layer = model.at(0) as Quantized
  t.equal(layer.bias, null)
  t.equal(layer.training, false)
  t.equal(model.train().at(0).training, true)
  const x = batch(19)
  t.same(model.forward(x).arraySync(), model.eval().forward(x).arraySync(), 'the mode changes nothing')
  t.match(
    String(layer),
    /^QuantizedLinear\(inFeatures=21, outFeatures=13, bias=false, int8 per channel\(0\), input uint8\)$/,
  )
  const { layers } = summary(model, { print: false })
  t.equal(layers[0]?.bytes, 21 * 13 + 4 * 13 + 4 + 4)
  t.equal(layers[0]?.parameters, 21 * 13, 'the weights, not what describes them')
  const weight = layer.quantizedWeight
  t.ok(weight instanceof QuantizedTensor)
  t.equal(layer.quantizedWeight, weight, 'packed once')
  t.equal(weight.values, layer.weight)
  weight.dispose()
  t.throws(() => layer.forward(x), { code: 'ERR_DISPOSED', message: /used after dispose/ })
})

t.test('parts that do not go together', (t) => {
  const weight = quant.quantize(inputs(1, 3, 4), { granularity: perChannel(0) })
  const part = { weight, bias: null, input: 'float' as const }
  const scale = tensor(1)
  const wrong: [object, RegExp][] = [
    [{ weight: inputs(1, 3, 4) }, /weight must be a QuantizedTensor \[out, in\], got a Tensor/],
    [{ weight: quant.quantize(tensor([1, 2])) }, /weight must be a QuantizedTensor \[out, in\]/],
    [{ input: 'uint8' }, /input 'uint8' needs inputScale/],
    [{ input: 'bytes' }, /input must be float tensor token uint8 int8, got "bytes"/],
    [{ input: 'int8', inputScale: scale, weight: quant.quantize(inputs(1, 3, 4), { dtype: 'int4' }) }, /int8 or uint8/],
    [{ input: 'token', weight: quant.quantize(inputs(1, 3, 4), { granularity: perGroup(2) }) }, /per group\(2\)/],
    [{ weight: quant.quantize(inputs(1, 3, 4), { granularity: perChannel(1) }) }, /per channel\(1\)/],
  ]
  for (const [change, message] of wrong)
    t.throws(() => new QuantizedLinear({ ...part, ...change } as never), { code: 'ERR_ARGUMENT', message })
  t.end()
})
