// Models with sparse int8 layers in files: the same bits come back, and what is damaged or hostile is refused.
import { nn, prune, quant, type Tensor, tensor, zeros } from 'kerf'
import { parseSafetensors, serializeSafetensors } from 'kerf/io'
import t from 'tap'
import { generator } from '../matrix'
import { inputs, mlp } from '../quant/models'
import { calibrationData, configs, floatInput, formats, of, pruned, sizes, sparseLayers, twins } from './int8'
import { flat } from './oracle'

const { convert, fromTensors, metadata, sparsify, toTensors } = prune
const { perChannel, perGroup, perTensor, quantizeModel, weightOnly } = quant
const KEY = 'kerf.sparse_layers'

/** Sparse floats, sparse int8, int4, floats. */
async function mixed(seed: number, format: prune.SparseFormat, config: quant.QuantConfig): Promise<nn.Sequential> {
  const model = await pruned(seed, [20, 20, 12, 12, 8])
  await convert(model, format, { include: ['0'] })
  await quantizeModel(model, weightOnly({ bits: 4, granularity: perGroup(16) }), { skip: ['2', '6'] })
  await quantizeModel(model, config, { skip: ['6'], calibrationData })
  await convert(model, format, { include: ['2'] })
  return model
}

t.test('saved with all kinds of layers, loaded into a fresh model, the same bits', async (t) => {
  for (const [name, config] of Object.entries({ ...configs, ...floatInput }))
    for (const format of formats) {
      const model = await mixed(12, format, config)
      t.same(
        model.modules().map((m) => m.constructor.name),
        ['Sequential', 'SparseLinear', 'ReLU', 'SparseLinear', 'ReLU', 'QuantizedLinear', 'ReLU', 'Linear'],
      )
      const about = { ...quant.metadata(model), ...metadata(model) }
      const file = await parseSafetensors(await serializeSafetensors(model.stateDict(), { metadata: about }))
      const fresh = mlp(13, [20, 20, 12, 12, 8])
      prune.applyMetadata(quant.applyMetadata(fresh, file.metadata), file.metadata)
      t.throws(() => fresh.forward(inputs(1, 1, 20)), /damaged or not yet loaded/)
      t.same(fresh.loadStateDict(file.tensors), { missing: [], unexpected: [] })
      const x = inputs(14, 7, 20)
      t.same(fresh.forward(x).arraySync(), model.forward(x).arraySync(), `${name}, ${JSON.stringify(format)}`)
      t.equal(String(fresh), String(model))
      const buffers = (m: nn.Module) => m.namedBuffers().map(([name, b]) => `${name} ${b}`)
      t.same(buffers(fresh), buffers(model))
      // What only bytes have stays as it is when the floats change.
      model.to('bfloat16')
      fresh.to('bfloat16')
      t.same(sparseLayers(fresh)[1]?.weightScale?.dtype, 'float32')
      t.same(fresh.forward(x.to('bfloat16')).arraySync(), model.forward(x.to('bfloat16')).arraySync())
    }
})

t.test('sparse int8 tensors go to a file and come back', async (t) => {
  const [w] = of(await pruned(18), nn.Linear) as [nn.Linear]
  for (const granularity of [perTensor, perChannel(0)])
    for (const format of formats) {
      const s = sparsify(quant.quantize(w.weight, { dtype: 'int8', granularity }), format)
      const { tensors, metadata: about } = toTensors({ s })
      t.ok('s.scale' in tensors)
      const file = await parseSafetensors(await serializeSafetensors(tensors, { metadata: about }))
      const back = fromTensors(file.tensors, file.metadata).s as prune.SparseTensor<'int8'>
      t.equal(String(back), String(s))
      const [a, b] = [prune.densify(back), prune.densify(s)]
      t.same(flat(a.values), flat(b.values))
      t.same(flat(a.scale), flat(b.scale))
      t.same(a.granularity, b.granularity)
      const { 's.scale': _, ...without } = tensors
      t.throws(() => fromTensors(without, about), { code: 'ERR_FORMAT', message: /tensor 's': .*scale must be/ })
      const wrong = { ...tensors, 's.scale': tensor([1, 2, 3]) }
      t.throws(() => fromTensors(wrong, about), { code: 'ERR_FORMAT', message: /tensor 's': .*scale of .* must be/ })
      t.throws(() => toTensors({ s, 's.scale': s }), { message: /'s.scale' is the name of a part of 's'/ })
    }
  // A scale beside float values is somebody else's.
  const float = toTensors({ s: sparsify(w.weight, 'csr') })
  t.equal(fromTensors({ ...float.tensors, 's.scale': zeros([]) }, float.metadata).s?.scale, null)
})

const quantized = { granularity: { kind: 'channel', axis: 0 }, input: 'token', has: [] }
const int8 = { shape: [12, 20], format: 'csr', dtype: 'int8', count: 120, bias: true, quantized }

t.test('hostile metadata is refused, and the model is what it was', (t) => {
  const model = mlp(20, sizes)
  const before = model.modules()
  const wrong = (fields: object) => ({ ...int8, quantized: { ...quantized, ...fields } })
  const entries: [unknown, RegExp][] = [
    [{ ...int8, dtype: 'float32' }, /layer '0': quantized needs int8 values, they are float32/],
    [{ ...int8, dtype: 'uint8' }, /layer '0': dtype must be a float dtype or int8, got "uint8"/],
    [{ ...int8, quantized: undefined }, /layer '0': int8 values need quantized, an object, got undefined/],
    [{ ...int8, quantized: null }, /layer '0': int8 values need quantized/],
    [{ ...int8, quantized: 'token' }, /layer '0': int8 values need quantized/],
    [{ ...int8, quantized: [] }, /layer '0': granularity must be/],
    [wrong({ granularity: 'tensor' }), /layer '0': granularity must be/],
    [wrong({ granularity: { kind: 'toString' } }), /layer '0': granularity must be/],
    [
      wrong({ granularity: { kind: 'channel', axis: 1 } }),
      /layer '0': granularity must be per tensor or per channel\(0\)/,
    ],
    [wrong({ granularity: { kind: 'channel', axis: 2 } }), /layer '0': .*axis/],
    [wrong({ granularity: { kind: 'group', size: 8 } }), /layer '0': granularity must be .* it is per group\(8\)/],
    [wrong({ granularity: { kind: 'token' } }), /layer '0': granularity must be .* it is per token/],
    [wrong({ input: 'bytes' }), /layer '0': input must be float tensor token uint8 int8, got "bytes"/],
    [wrong({ input: undefined }), /layer '0': input must be/],
    [wrong({ input: ['token'] }), /layer '0': input must be/],
    [wrong({ input: 'uint8' }), /layer '0': input 'uint8' needs inputScale/],
    [wrong({ has: undefined }), /layer '0': has must be a list of inputScale inputZeroPoint inputMultiplier/],
    [wrong({ has: ['bias'] }), /layer '0': has must be a list of/],
    [wrong({ has: ['__proto__'] }), /layer '0': has must be a list of/],
    [wrong({ has: 'inputScale' }), /layer '0': has must be a list of/],
  ]
  const good = { ...int8, shape: [8, 12], count: 3 }
  for (const [value, message] of entries) {
    const text = JSON.stringify({ 2: good, 0: value })
    t.throws(() => prune.applyMetadata(model, { [KEY]: text }), { code: 'ERR_FORMAT', message }, String(message))
    t.ok(model.modules().every((m, i) => m === before[i]))
  }
  prune.applyMetadata(model, { [KEY]: JSON.stringify({ 2: good, 0: int8 }) })
  t.equal(sparseLayers(model).length, 2)
  t.end()
})

t.test('random damage of metadata and state: an error of kerf, or a layer that computes', async (t) => {
  const next = generator(11)
  const pick = <V>(list: readonly V[]): V => list[Math.floor(next() * list.length)] as V
  const x = inputs(1, 2, 20)
  const odd = [null, 0, 1e308, 'csr', '2:4', 'int8', 'float32', 'uint8', 'token', [], ['inputScale'], {}]
  let [refused, computed] = [0, 0]
  let model: nn.Module = new nn.Sequential()
  for (let round = 0; round < 400; round++) {
    if (round % 20 === 0) {
      model = (await twins(round + 1, pick(Object.values({ ...configs, ...floatInput }))))[0]
      await convert(model, pick(formats))
    }
    const dict = model.stateDict()
    const name = pick(Object.keys(dict))
    const old = dict[name] as Tensor
    const values = flat(old)
    const extremes = [0, 1, -1, 5, 255, 2 ** 31 - 1, -(2 ** 31), 20]
    if (old.dtype === 'float32') extremes.push(Number.NaN, Number.POSITIVE_INFINITY, 1e38, -1e-45)
    for (let n = 0; n < 1 + 2 * next(); n++) values[Math.floor(next() * values.length)] = pick(extremes)
    const bad = tensor(
      old.dtype === 'uint8'
        ? values.map((v) => v & 255)
        : old.dtype === 'int8'
          ? values.map((v) => (v << 24) >> 24)
          : values,
      { shape: old.shape, dtype: old.dtype },
    )
    const entries = JSON.parse(metadata(model)[KEY] as string)
    const at = pick([entries['0'], entries['0'].quantized])
    if (round % 3 === 0) at[pick(Object.keys(at))] = pick(odd)
    try {
      const fresh = prune.applyMetadata(mlp(2, sizes), { [KEY]: JSON.stringify(entries) })
      fresh.loadStateDict({ ...dict, [name]: bad })
      fresh.forward(x).dataSync()
      computed++
    } catch (error) {
      if (!/^ERR_(FORMAT|ARGUMENT|SHAPE|DTYPE)$/.test((error as { code: string }).code)) throw error
      refused++
    }
  }
  t.ok(refused > 50 && computed > 50, `${refused} refused, ${computed} computed`)
})
