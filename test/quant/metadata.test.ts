// Quantized models and tensors in files: what is loaded computes the same bits, and metadata that is damaged, hostile or
// of another model is refused before anything has changed.
import path from 'node:path'
import { type DType, nn, quant, type Tensor, tensor } from 'kerf'
import { loadSafetensors, parseSafetensors, readSafetensorsInfo, saveSafetensors, serializeSafetensors } from 'kerf/io'
import t from 'tap'
import type { AnyModule } from '#lib/nn/module'
import { inputs, mlp, relativeError } from './models'

const { applyMetadata, fromTensors, int8Dynamic, int8Static, metadata, perChannel, perGroup, perTensor, perToken } =
  quant
const { quantizeModel, QuantizedLinear, toTensors, weightOnly } = quant
const KEY = 'kerf.quantized_layers'
const TENSORS = 'kerf.quantized_tensors'

const sizes = [21, 13, 5]
const loud = (j: number) => (j === 3 ? 20 : 1)
const calibrationData = [1, 2].map((seed) => inputs(seed, 30, 21, loud))
const x = inputs(3, 9, 21, loud)

const configs: Record<string, quant.QuantConfig> = {
  token: int8Dynamic(),
  'tensor, per tensor, smoothed': int8Dynamic({ input: 'tensor', granularity: perTensor, smoothQuant: true }),
  'static uint8': int8Static(),
  'static int8': int8Static({ input: 'int8', smoothQuant: 0.3 }),
}
for (const bits of [8, 4] as const)
  for (const symmetric of [true, false])
    for (const method of ['nearest', 'gptq', 'awq'] as const)
      for (const granularity of [perGroup(8), perChannel(0)])
        configs[`${bits} bits, ${symmetric ? 'symmetric' : 'affine'}, ${method}, ${granularity.kind}`] = weightOnly({
          bits,
          symmetric,
          method,
          granularity,
        })

class Net extends nn.Module {
  embed = mlp(1, [21, 12]).at(0) as nn.Linear
  attention = new nn.MultiHeadAttention(12, 3)
  head = new nn.Sequential({ norm: new nn.LayerNorm(12), fc: mlp(2, [12, 5], { bias: false }).at(0) })
  forward(input: Tensor): Tensor {
    const y = this.embed.forward(input)
    return this.head.forward(y.add(this.attention.forward(y)))
  }
}

t.test('saved, loaded into a fresh float model, the same bits: every kind of layer', async (t) => {
  const folder = t.testdir()
  for (const [name, config] of Object.entries(configs))
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const model = await quantizeModel(mlp(4, sizes).to(dtype), config, {
        calibrationData: calibrationData.map((b) => b.to(dtype)),
        skip: config.kind === 'int8Dynamic' ? ['2'] : [],
      })
      const wanted = model.forward(x.to(dtype)).arraySync()
      const file = path.join(folder, 'model.safetensors')
      await saveSafetensors(file, model.stateDict(), { metadata: metadata(model) })
      const { metadata: found } = await readSafetensorsInfo(file)
      const fresh = applyMetadata(mlp(5, sizes).to(dtype), found)
      t.same(fresh.loadStateDict(await loadSafetensors(file)), { missing: [], unexpected: [] })
      t.same(fresh.forward(x.to(dtype)).arraySync(), wanted, `${name}, ${dtype}`)
      t.same(String(fresh), String(model))
      const dtypes = (m: AnyModule) => m.namedBuffers().map(([key, b]) => `${key} ${b}`)
      t.same(dtypes(fresh), dtypes(model))
    }
})

t.test('a model with attention, one that is a Linear, shared layers, training mode', async (t) => {
  const data = calibrationData.map((b) => b.reshape([10, 3, 21]))
  const model = await quantizeModel(new Net(), int8Static(), { calibrationData: data, skip: ['attention.vProj'] })
  const bytes = await serializeSafetensors(model.stateDict(), { metadata: metadata(model) })
  const file = await parseSafetensors(bytes)
  const fresh = applyMetadata(new Net(), file.metadata)
  fresh.loadStateDict(file.tensors)
  const batch = x.reshape([3, 3, 21])
  t.same(fresh.forward(batch).arraySync(), model.forward(batch).arraySync())
  t.equal(fresh.attention.vProj.constructor, nn.Linear)
  t.same(
    fresh.modules().map((m) => m.training),
    new Net().modules().map((m) => m.training),
  )

  const root = await quantizeModel(mlp(6, [21, 4]).at(0) as nn.Module, weightOnly({ bits: 4 }))
  const other = applyMetadata(mlp(7, [21, 4]).at(0) as nn.Module, metadata(root))
  t.ok(other instanceof QuantizedLinear)
  t.equal(other.training, false)
  other.loadStateDict(root.stateDict())
  t.same(other.forward(x).arraySync(), root.forward(x).arraySync())

  const sharing = () => {
    const layer = mlp(8, [21, 21]).at(0)
    return new nn.Sequential({ a: layer, b: new nn.Sequential(layer) })
  }
  const shared = await quantizeModel(sharing(), int8Dynamic())
  const loaded = applyMetadata(sharing(), metadata(shared))
  t.equal(loaded.getModule('a'), loaded.getModule('b.0'))
  loaded.loadStateDict(shared.stateDict())
  t.same(loaded.forward(x).arraySync(), shared.forward(x).arraySync())
  t.same(metadata(mlp(1, sizes)), { [KEY]: '{}' }, 'a float model')
  applyMetadata(mlp(1, sizes), { [KEY]: '{}' })
})

t.test('names that mean something to JavaScript are names like others', async (t) => {
  const make = () =>
    new nn.Sequential(
      Object.fromEntries(['__proto__', 'constructor', 'toString'].map((n, i) => [n, mlp(i + 1, [21, 21]).at(0)])),
    )
  const model = await quantizeModel(make(), int8Dynamic())
  t.equal(model.modules().filter((m) => m instanceof QuantizedLinear).length, 3)
  const file = await parseSafetensors(await serializeSafetensors(model.stateDict(), { metadata: metadata(model) }))
  const fresh = applyMetadata(make(), file.metadata)
  fresh.loadStateDict(file.tensors)
  t.same(fresh.forward(x).arraySync(), model.forward(x).arraySync())
  const q = quant.quantize(x)
  const { tensors, metadata: about } = toTensors(Object.fromEntries([['__proto__', q]]))
  const [[name, back] = []] = Object.entries(fromTensors(tensors, about))
  t.equal(name, '__proto__')
  t.same(back?.values.arraySync(), q.values.arraySync())
})

const entry = { shape: [13, 21], dtype: 'int8', granularity: { kind: 'tensor' }, input: 'token', has: ['bias'] }

t.test('hostile metadata is refused, and the model is what it was', (t) => {
  const model = mlp(9, sizes)
  const before = model.modules()
  const good = { ...entry, shape: [5, 13] }
  const values: [unknown, RegExp][] = [
    [undefined, /the metadata has no "kerf.quantized_layers"/],
    ['', /is not JSON/],
    ['{"0": {', /is not JSON/],
    ['['.repeat(100_000), /is not JSON/],
    ['[]', /must be an object, got \[\]/],
    ['null', /must be an object, got null/],
    ['7', /must be an object, got 7/],
    ['"layers"', /must be an object, got "layers"/],
  ]
  const entries: [unknown, RegExp][] = [
    [null, /layer '0': shape must be two or four sizes, got undefined/],
    ['int8', /shape must be two or four sizes/],
    [[], /shape must be two or four sizes/],
    [{ ...entry, shape: [13] }, /shape must be two or four sizes, got \[13\]/],
    [{ ...entry, shape: [13, 21, 1] }, /shape must be two or four sizes/],
    [{ ...entry, shape: '13,21' }, /shape must be two or four sizes/],
    [{ ...entry, shape: [13, 2 ** 53] }, /shape must be two or four sizes/],
    [{ ...entry, shape: [13, -21] }, /shape must be two or four sizes/],
    [{ ...entry, shape: [13, 21.5] }, /shape must be two or four sizes/],
    [{ ...entry, shape: [21, 13] }, /must be Linear\(13, 21\), it is Linear\(21, 13\)/],
    [{ ...entry, shape: [2 ** 40, 2 ** 12] }, /must be Linear\(4096, 1099511627776\)/],
    [{ ...entry, dtype: 'int2' }, /dtype must be int8, uint8, int4 or uint4, got "int2"/],
    [{ ...entry, dtype: '__proto__' }, /dtype must be/],
    [{ ...entry, granularity: 'tensor' }, /granularity must be/],
    [{ ...entry, granularity: { kind: 'toString' } }, /granularity must be/],
    [{ ...entry, granularity: { kind: 'channel', axis: 2 } }, /axis/],
    [{ ...entry, granularity: { kind: 'channel', axis: 0.5 } }, /axis/],
    [{ ...entry, granularity: { kind: 'channel', axis: 1 } }, /along their inputs/],
    [{ ...entry, granularity: { kind: 'group', size: 0 }, input: 'float' }, /size must be a positive integer/],
    [{ ...entry, granularity: { kind: 'group', size: 1e300 }, input: 'float' }, /size must be a positive integer/],
    [{ ...entry, granularity: { kind: 'group', size: 8 } }, /input 'token' needs int8 or uint8 weights per tensor/],
    [{ ...entry, dtype: 'int4' }, /input 'token' needs int8 or uint8 weights/],
    [{ ...entry, input: 'bytes' }, /input must be float tensor token uint8 int8, got "bytes"/],
    [{ ...entry, input: 'uint8' }, /input 'uint8' needs inputScale/],
    [{ ...entry, has: 'bias' }, /has must be a list of/],
    [{ ...entry, has: ['__proto__'] }, /has must be a list of/],
    [{ ...entry, has: undefined }, /has must be a list of/],
  ]
  const paths: [string, RegExp][] = [
    ['', /layer '' must be Linear\(21, 13\), it is Sequential/],
    ['1', /layer '1' must be Linear\(21, 13\), it is ReLU/],
    ['7', /no module at '7'/],
    ['0.weight', /no module at '0.weight'/],
    ['__proto__', /no module at '__proto__'/],
    ['constructor.prototype', /no module at 'constructor.prototype'/],
    ['0..', /no module/],
  ]
  // Always behind a layer that is all right.
  const text = (path: string, value: unknown) =>
    `{"2": ${JSON.stringify(good)}, ${JSON.stringify(path)}: ${JSON.stringify(value)}}`
  for (const [value, message] of [
    ...values,
    ...entries.map(([value, message]) => [text('0', value), message] as const),
    ...paths.map(([path, message]) => [text(path, entry), message] as const),
  ]) {
    const given: Record<string, string> = value === undefined ? {} : { [KEY]: value as string }
    t.throws(() => applyMetadata(model, given), { name: 'FormatError', code: 'ERR_FORMAT', message }, String(message))
    t.ok(
      model.modules().every((m, i) => m === before[i]),
      'the model is what it was',
    )
  }
  t.equal(({} as Record<string, unknown>).shape, undefined)
  t.throws(() => applyMetadata(model, null as never), { code: 'ERR_ARGUMENT' })
  t.throws(() => applyMetadata({} as never, { [KEY]: '{}' }), { code: 'ERR_ARGUMENT', message: /expected a Module/ })
  t.throws(() => metadata({} as never), { code: 'ERR_ARGUMENT', message: /expected a Module/ })
  const twice = applyMetadata(model, { [KEY]: JSON.stringify({ 0: entry }) })
  t.throws(() => applyMetadata(twice, { [KEY]: JSON.stringify({ 0: entry }) }), {
    code: 'ERR_FORMAT',
    message: /must be Linear\(21, 13\), it is QuantizedLinear/,
  })
  t.end()
})

t.test('a file whose tensors do not fit its metadata changes nothing', async (t) => {
  const model = await quantizeModel(mlp(10, sizes), int8Static(), { calibrationData })
  const dict = model.stateDict()
  const fresh = applyMetadata(mlp(11, sizes), metadata(model))
  const blank = Object.fromEntries(Object.entries(fresh.stateDict()).map(([name, v]) => [name, v.arraySync()]))
  const wrong: [string, Tensor | undefined][] = [
    ['0.weight', inputs(1, 13, 20)],
    ['0.weightScale', tensor([1])],
    ['0.inputScale', undefined],
    ['2.inputMultiplier', tensor([1, 2, 3])],
  ]
  for (const [name, value] of wrong) {
    const changed: Record<string, Tensor> = { ...dict }
    if (value) changed[name] = value
    else delete changed[name]
    t.throws(() => fresh.loadStateDict(changed), new RegExp(name))
    const now = Object.fromEntries(Object.entries(fresh.stateDict()).map(([key, v]) => [key, v.arraySync()]))
    t.same(now, blank)
  }
})

t.test('tensors of every format go to a file and come back', async (t) => {
  const values = inputs(12, 6, 21)
  const quantized: Record<string, quant.QuantizedTensor> = {}
  for (const dtype of ['int8', 'uint8', 'int4', 'uint4'] as const)
    for (const granularity of [perTensor, perToken, perChannel(0), perChannel(-1), perGroup(8)])
      for (const convention of [undefined, 'affine'] as const)
        quantized[`${dtype} ${granularity.kind} ${JSON.stringify(granularity)} ${convention}`] = quant.quantize(
          values.reshape([2, 3, 21]),
          { dtype, granularity, convention },
        )
  quantized['no rows'] = quant.quantize(tensor([], { shape: [0, 4] }), { granularity: perToken })
  const { tensors, metadata: about } = toTensors(quantized)
  const file = await parseSafetensors(await serializeSafetensors(tensors, { metadata: about }))
  const back = fromTensors(file.tensors, file.metadata)
  t.same(Object.keys(back), Object.keys(quantized))
  for (const [name, q] of Object.entries(quantized)) {
    const r = back[name] as quant.QuantizedTensor
    t.same([r.shape, r.dtype, r.granularity, r.bytes], [q.shape, q.dtype, q.granularity, q.bytes], name)
    for (const part of ['values', 'scale', 'zeroPoint'] as const) t.same(r[part]?.arraySync(), q[part]?.arraySync())
    if (q.size > 0) t.equal(relativeError(quant.dequantize(r), quant.dequantize(q)), 0)
  }
})

t.test('toTensors and fromTensors refuse what would mean something else', (t) => {
  const q = quant.quantize(inputs(1, 2, 4))
  const affine = quant.quantize(inputs(1, 2, 4), { dtype: 'uint8' })
  const refuse = (names: Record<string, unknown>, message: RegExp) =>
    t.throws(() => toTensors(names as never), { code: 'ERR_ARGUMENT', message })
  refuse({ a: inputs(1, 2, 2) }, /'a' must be a QuantizedTensor, got a Tensor/)
  refuse({ a: q, 'a.scale': q }, /'a.scale' is the name of a part of 'a'/)
  refuse({ 'a.scale': q, a: q }, /'a.scale' is the name of a part of 'a'/)
  refuse({ a: q, 'a.zeroPoint': q }, /'a.zeroPoint' is the name of a part of 'a'/)
  const gone = quant.quantize(inputs(1, 2, 4))
  gone.dispose()
  t.throws(() => toTensors({ gone }), { code: 'ERR_DISPOSED' })

  const { tensors, metadata: about } = toTensors({ a: affine })
  const text = (value: object) => ({ [TENSORS]: JSON.stringify({ a: value }) })
  const valid = JSON.parse(about[TENSORS] as string).a as object
  const wrong: [Record<string, Tensor>, Record<string, string>, RegExp][] = [
    [tensors, {}, /the metadata has no "kerf.quantized_tensors"/],
    [tensors, { [TENSORS]: '{' }, /is not JSON/],
    [tensors, text({ ...valid, shape: [2, 5] }), /tensor 'a': .*values of uint8 \[2, 5\]/],
    [tensors, text({ ...valid, shape: [2 ** 53] }), /bad shape/],
    [tensors, text({ ...valid, shape: null }), /bad shape/],
    [tensors, text({ ...valid, dtype: 'float32' }), /bad dtype "float32"/],
    [tensors, text({ ...valid, dtype: 'int4' }), /tensor 'a'/],
    [tensors, text({ ...valid, granularity: { kind: 'group', size: 2 } }), /tensor 'a': .*scale per group\(2\)/],
    [tensors, text({ ...valid, granularity: null }), /tensor 'a': .*granularity must be/],
    [tensors, { [TENSORS]: '{"__proto__": {"shape": [], "dtype": "int8"}}' }, /values or its scale are missing/],
    [tensors, { [TENSORS]: '{"toString": {"shape": [], "dtype": "int8"}}' }, /values or its scale are missing/],
    [{ ...tensors, a: tensors['a.scale'] as Tensor }, about, /tensor 'a': .*values of uint8/],
    [{ ...tensors, 'a.scale': tensor([1, 2]) }, about, /tensor 'a': .*scale/],
    [{ ...tensors, 'a.zeroPoint': tensor(1, { dtype: 'int8' as DType }) }, about, /tensor 'a': .*zeroPoint/],
    [{ ...tensors, 'a.scale': 7 as never }, about, /tensor 'a': .*scale must be a tensor/],
    [{}, about, /values or its scale are missing/],
  ]
  for (const [given, metadata, message] of wrong)
    t.throws(() => fromTensors(given, metadata), { code: 'ERR_FORMAT', message }, String(message))
  t.throws(() => fromTensors(null as never, about), { code: 'ERR_ARGUMENT', message: /tensors must be an object/ })
  t.throws(() => fromTensors(tensors, null as never), { code: 'ERR_ARGUMENT', message: /metadata must be an object/ })
  t.end()
})
