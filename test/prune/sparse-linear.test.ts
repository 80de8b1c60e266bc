// SparseLinear as a module: against float64 loops over the same zeros, saved, loaded, converted, damaged.
import path from 'node:path'
import { type DType, info, nn, prune, quant, scope, summary, type Tensor, tensor, zeros } from 'kerf'
import { loadSafetensors, parseSafetensors, readSafetensorsInfo, saveSafetensors, serializeSafetensors } from 'kerf/io'
import t from 'tap'
import { generator } from '../matrix'
import { inputs, mlp } from '../quant/models'
import { flat, setWeight } from './oracle'

const { applyMetadata, convert, fromTensors, metadata, SparseLinear, sparsify, toTensors } = prune
const KEY = 'kerf.sparse_layers'
const TENSORS = 'kerf.sparse_tensors'
const U = 2 ** -24

const formats: prune.SparseFormat[] = ['csr', '2:4', { block: [1, 16] }, { block: [3, 5] }]
const sizes = [20, 12, 8]

/** Two layers of weights with at most two non-zeros in four, one row without any; every format takes them. */
async function pruned(seed: number, options?: nn.LinearOptions): Promise<nn.Sequential> {
  const model = mlp(seed, sizes, options)
  await prune.semiStructured(model)
  const first = model.at(0) as nn.Linear
  setWeight(
    first,
    flat(first.weight).map((w, i) => (i < 20 ? 0 : w)),
  )
  return model
}

const sparseLayers = (model: nn.Module) =>
  model.modules().filter((m): m is prune.SparseLinear => (m as unknown) instanceof SparseLinear)

/** y = x W^T + b in float64, and how far float32 sums in any order may be from it: a rounding for each term and a few more. */
function exact(x: Tensor, layer: nn.Linear): { y: number[]; bound: number[] } {
  const { outFeatures: n, inFeatures: k } = layer
  const [a, w] = [flat(x), flat(layer.weight)]
  const b = layer.bias ? flat(layer.bias) : new Array<number>(n).fill(0)
  const y: number[] = []
  const bound: number[] = []
  for (let i = 0; i < a.length / k; i++) {
    for (let j = 0; j < n; j++) {
      let sum = b[j] as number
      let size = Math.abs(sum)
      for (let p = 0; p < k; p++) {
        const term = (a[i * k + p] as number) * (w[j * k + p] as number)
        sum += term
        size += Math.abs(term)
      }
      y.push(sum)
      bound.push((k + 4) * U * size)
    }
  }
  return { y, bound }
}

t.test('every format computes what the dense layer does, and passes the gradient of its input', async (t) => {
  for (const format of formats)
    for (const bias of [true, false])
      for (const rows of [1, 9]) {
        const dense = (await pruned(1, { bias })).at(0) as nn.Linear
        const { model: layer } = await convert(dense as nn.Module, format)
        t.ok(layer instanceof SparseLinear)
        const x = inputs(2, rows, 20)
        const { y, bound } = exact(x, dense)
        const got = flat(layer.forward(x))
        t.ok(
          got.every((v, i) => Math.abs(v - (y[i] as number)) <= (bound[i] as number)),
          `${JSON.stringify(format)}, ${rows} rows, ${bias ? 'with' : 'no'} bias`,
        )
        // The gradient of sum(y * g) is g W.
        const input = tensor(flat(x), { shape: [rows, 20], requiresGrad: true })
        const g = inputs(3, rows, 12)
        layer.forward(input).mul(g).sum().backward()
        const w = flat(dense.weight)
        const gradient = flat(input.grad as Tensor)
        for (let at = 0; at < gradient.length; at++) {
          const [i, p] = [Math.floor(at / 20), at % 20]
          const terms = w.flatMap((v, q) =>
            q % 20 === p ? [v * (flat(g)[i * 12 + Math.floor(q / 20)] as number)] : [],
          )
          const sum = terms.reduce((a, b) => a + b, 0)
          const size = terms.reduce((a, b) => a + Math.abs(b), 0)
          if (!(Math.abs((gradient[at] as number) - sum) <= 16 * U * size))
            t.fail(`gradient ${at}: ${gradient[at]}, ${sum}`)
        }
        t.equal(layer.parameters().length, 0)
      }
})

t.test('saved, loaded into a fresh dense model, the same bits', async (t) => {
  const folder = t.testdir()
  for (const format of formats)
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const { model } = await convert((await pruned(4)).to(dtype), format)
      const x = inputs(5, 7, 20).to(dtype)
      const wanted = model.forward(x).arraySync()
      const file = path.join(folder, 'model.safetensors')
      await saveSafetensors(file, model.stateDict(), { metadata: metadata(model) })
      const { metadata: found } = await readSafetensorsInfo(file)
      const fresh = applyMetadata(mlp(6, sizes).to(dtype), found)
      t.throws(() => fresh.forward(x), { code: 'ERR_ARGUMENT', message: /damaged or not yet loaded/ })
      t.same(fresh.loadStateDict(await loadSafetensors(file)), { missing: [], unexpected: [] })
      const label = `${JSON.stringify(format)}, ${dtype}`
      t.same(fresh.forward(x).arraySync(), wanted, label)
      t.equal(String(fresh), String(model))
      const buffers = (m: nn.Module) => m.namedBuffers().map(([name, b]) => `${name} ${b}`)
      t.same(buffers(fresh), buffers(model))
      t.same(
        fresh.modules().map((m) => m.training),
        model.modules().map((m) => m.training),
      )
    }
  t.same(metadata(mlp(1, sizes)), { [KEY]: '{}' }, 'a dense model')
})

t.test('the names of the state', async (t) => {
  const names = async (format: prune.SparseFormat, bias: boolean) =>
    Object.keys((await convert((await pruned(1, { bias })).at(0) as nn.Module, format)).model.stateDict())
  t.same(await names('csr', true), ['weight', 'weightPointers', 'weightColumns', 'bias'])
  t.same(await names('2:4', true), ['weight', 'weightMetadata', 'bias'])
  t.same(await names({ block: [3, 5] }, false), ['weight', 'weightPointers', 'weightColumns'])
})

t.test('state that is loaded is what is computed with; to() and replaced buffers too', async (t) => {
  const x = inputs(7, 6, 20)
  for (const format of ['2:4', { block: [12, 20] }] as const) {
    const [a, b] = [(await convert(await pruned(8), format)).model, (await convert(await pruned(9), format)).model]
    const wanted = a.forward(x).arraySync()
    t.notSame(b.forward(x).arraySync(), wanted)
    // b has packed its own weights by now.
    b.loadStateDict(a.stateDict())
    t.same(b.forward(x).arraySync(), wanted)
    t.equal(String(b), String(a))
    a.to('bfloat16')
    const [first] = sparseLayers(a) as [prune.SparseLinear]
    t.equal(first.weight.dtype, 'bfloat16')
    t.equal((first.weightPointers ?? first.weightMetadata)?.dtype, format === '2:4' ? 'uint8' : 'int32')
    const half = a.forward(x.to('bfloat16'))
    t.equal(half.dtype, 'bfloat16')
    b.to('bfloat16')
    t.same(half.arraySync(), b.forward(x.to('bfloat16')).arraySync())
    first.weight = zeros(first.weight.shape, { dtype: 'bfloat16' })
    t.notSame(a.forward(x.to('bfloat16')).arraySync(), half.arraySync())
  }
  const inside = scope(() => sparsify(inputs(1, 8, 8), 'csr'))
  const layer = scope(() => new SparseLinear({ weight: inside, bias: tensor([1, 2, 3, 4, 5, 6, 7, 8]) }))
  t.equal(layer.forward(inputs(2, 2, 8)).shape[1], 8, 'no scope takes its tensors')
})

t.test('a model with sparse, quantized and shared layers, and one that is a layer', async (t) => {
  const x = inputs(10, 5, 20)
  const both = await pruned(11)
  await convert(both, 'csr', { include: ['0'] })
  await quant.quantizeModel(both, quant.int8Dynamic())
  const about = { ...quant.metadata(both), ...metadata(both) }
  const file = await parseSafetensors(await serializeSafetensors(both.stateDict(), { metadata: about }))
  const fresh = applyMetadata(quant.applyMetadata(mlp(12, sizes), file.metadata), file.metadata)
  fresh.loadStateDict(file.tensors)
  t.same(fresh.forward(x).arraySync(), both.forward(x).arraySync())
  t.same(
    fresh.modules().map((m) => m.constructor.name),
    ['Sequential', 'SparseLinear', 'ReLU', 'QuantizedLinear'],
  )

  const layer = (await pruned(13)).at(0) as nn.Module
  const { model: root } = await convert(layer, '2:4')
  const other = applyMetadata(mlp(14, sizes).at(0) as nn.Module, metadata(root))
  t.ok(other instanceof SparseLinear)
  other.loadStateDict(root.stateDict())
  t.same(other.forward(x).arraySync(), root.forward(x).arraySync())

  const sharing = () => {
    const one = mlp(15, [20, 20]).at(0) as nn.Module
    return new nn.Sequential({ a: one, b: one })
  }
  const shared = (await convert(sharing(), 'csr')).model
  t.equal(shared.getModule('a'), shared.getModule('b'))
  const loaded = applyMetadata(sharing(), metadata(shared))
  t.equal(loaded.getModule('a'), loaded.getModule('b'))
  loaded.loadStateDict(shared.stateDict())
  t.same(loaded.forward(x).arraySync(), shared.forward(x).arraySync())
})

t.test('what it is made of is checked', (t) => {
  const weight = sparsify(tensor([[0, 1, 2, 0]]), 'csr')
  const refuse = (parts: unknown, code: string, message: RegExp) =>
    t.throws(() => new SparseLinear(parts as never), { code, message })
  refuse(undefined, 'ERR_ARGUMENT', /weight must be a SparseTensor \[out, in\], got undefined/)
  refuse({ weight: 7 }, 'ERR_ARGUMENT', /got 7/)
  refuse({ weight: { ...weight, shape: [4] } }, 'ERR_ARGUMENT', /must be \[out, in\], got \[4\]/)
  refuse({ weight: { ...weight, format: 'coo' } }, 'ERR_ARGUMENT', /format must be/)
  refuse({ weight: { shape: [1, 4], format: 'csr' } }, 'ERR_ARGUMENT', /values must be a tensor/)
  refuse({ weight, bias: tensor([1, 2]) }, 'ERR_SHAPE', /bias must be \[1\]/)
  refuse({ weight, bias: tensor([1], { dtype: 'int32' }) }, 'ERR_DTYPE', /bias must be a float/)
  t.end()
})

t.test('summary and info know sparse layers', async (t) => {
  const model = await pruned(16)
  const dense = summary(model, { print: false })
  await convert(model, '2:4', { include: ['0'] })
  const sparse = summary(model, { print: false })
  t.equal(sparse.parameters, dense.parameters)
  t.equal(sparse.sparsity, dense.sparsity)
  const none = 20 + 11 * 10
  t.match(sparse.layers[0], {
    type: 'SparseLinear',
    options: `inFeatures=20, outFeatures=12, bias=true, 2:4, ${((100 * none) / 240).toFixed(1)} % zeros`,
    dtypes: ['float32', 'uint8'],
    parameters: 252,
    bytes: 12 * 10 * 4 + 12 * 3 + 12 * 4,
  })
  const layer = model.at(0) as unknown as prune.SparseLinear
  t.equal(layer.zeros, none)
  layer.loadStateDict({ weight: zeros([12, 10]) }, { strict: false })
  t.equal(layer.zeros, 240, 'of what was loaded')
  t.match(sparse.toString(), /0: SparseLinear +inFeatures=20, .* 54.2 % zeros +float32 uint8 +252 +51.6 % +564/)
  t.match(info().spmatmul.panels, /^spmatmul_panels@\w+$/)
  t.match(info().spqmatmul.panels, /^spqmatmul_panels@\w+$/)
})

const csr = { shape: [12, 20], format: 'csr', dtype: 'float32', count: 120, bias: true }

t.test('hostile metadata is refused, and the model is what it was', (t) => {
  const model = mlp(17, sizes)
  const before = model.modules()
  const good = { ...csr, shape: [8, 12], count: 3 }
  const texts: [unknown, RegExp][] = [
    [undefined, /the metadata has no "kerf.sparse_layers"/],
    ['{"0": {', /is not JSON/],
    ['[]', /must be an object, got \[\]/],
    ['null', /must be an object, got null/],
  ]
  const entries: [unknown, RegExp][] = [
    [null, /layer '0': shape must be two sizes, got undefined/],
    [{ ...csr, shape: [12, -20] }, /layer '0': shape must be two sizes/],
    [{ ...csr, shape: [12, 20, 1] }, /layer '0': shape must be two sizes/],
    [{ ...csr, shape: [2 ** 40, 2 ** 12] }, /layer '0' must be Linear\(4096, 1099511627776\)/],
    [{ ...csr, shape: [20, 12] }, /layer '0' must be Linear\(12, 20\), it is Linear\(20, 12\)/],
    [{ ...csr, format: undefined }, /layer '0': format must be 'csr', '2:4' or/],
    [{ ...csr, format: '__proto__' }, /layer '0': format must be/],
    [{ ...csr, format: { block: [0, 1] } }, /layer '0': block\[0\] must be/],
    [{ ...csr, format: { block: [1e9, 1] } }, /layer '0': block\[0\] must be/],
    [{ ...csr, format: { block: [1, 16, 2] } }, /layer '0': format must be/],
    [{ ...csr, format: '2:4' }, /layer '0': count must be/],
    [{ ...csr, dtype: 'int2' }, /layer '0': dtype must be a float dtype or int8, got "int2"/],
    [{ ...csr, dtype: 'int32' }, /layer '0': dtype must be a float dtype/],
    [{ ...csr, dtype: ['float32'] }, /layer '0': dtype must be a float dtype/],
    [{ ...csr, count: 241 }, /layer '0': count must be .*240, got 241/],
    [{ ...csr, count: 2 ** 53 }, /layer '0': count must be/],
    [{ ...csr, count: -1 }, /layer '0': count must be/],
    [{ ...csr, count: 1.5 }, /layer '0': count must be/],
    [{ ...csr, count: undefined }, /layer '0': count must be/],
    [{ ...csr, format: { block: [3, 16] }, count: 9 }, /layer '0': count must be .*8, got 9/],
    [{ ...csr, bias: 'yes' }, /layer '0': bias must be true or false, got "yes"/],
  ]
  const paths: [string, RegExp][] = [
    ['', /layer '' must be Linear\(20, 12\), it is Sequential/],
    ['1', /layer '1' must be Linear\(20, 12\), it is ReLU/],
    ['7', /no module at '7'/],
    ['__proto__', /no module at '__proto__'/],
  ]
  // Always behind a layer that is all right.
  const text = (at: string, value: unknown) =>
    `{"2": ${JSON.stringify(good)}, ${JSON.stringify(at)}: ${JSON.stringify(value)}}`
  for (const [value, message] of [
    ...texts,
    ...entries.map(([value, message]) => [text('0', value), message] as const),
    ...paths.map(([at, message]) => [text(at, csr), message] as const),
  ]) {
    const given: Record<string, string> = value === undefined ? {} : { [KEY]: value as string }
    t.throws(() => applyMetadata(model, given), { name: 'FormatError', code: 'ERR_FORMAT', message }, String(message))
    t.ok(
      model.modules().every((m, i) => m === before[i]),
      'the model is what it was',
    )
  }
  const odd = mlp(18, [21, 13])
  t.throws(
    () => applyMetadata(odd, { [KEY]: JSON.stringify({ 0: { ...csr, shape: [13, 21], format: '2:4', count: 0 } }) }),
    {
      code: 'ERR_FORMAT',
      message: /layer '0': 2:4 needs a multiple of 4 inputs, there are 21/,
    },
  )
  t.throws(() => applyMetadata(model, null as never), { code: 'ERR_ARGUMENT' })
  t.throws(() => applyMetadata({} as never, { [KEY]: '{}' }), { code: 'ERR_ARGUMENT', message: /expected a Module/ })
  t.throws(() => metadata({} as never), { code: 'ERR_ARGUMENT', message: /expected a Module/ })
  t.end()
})

t.test('damaged indices are refused by name before anything has changed', async (t) => {
  for (const format of formats) {
    const { model } = await convert(await pruned(19), format)
    const dict = model.stateDict()
    const fresh = applyMetadata(mlp(20, sizes), metadata(model))
    const state = () => Object.entries(fresh.stateDict()).map(([name, v]) => [name, flat(v)])
    const blank = state()
    const indices = ['2.weightPointers', '2.weightColumns', '2.weightMetadata'].filter((name) => dict[name])
    for (const name of indices) {
      const whole = dict[name] as Tensor
      const values = flat(whole)
      const places = [0, Math.floor(values.length / 2), values.length - 1]
      for (const at of places)
        for (const value of name.endsWith('Metadata') ? [0, 255] : [-1, 2 ** 31 - 1, -(2 ** 31)]) {
          const damaged = values.map((v, i) => (i === at ? value : v))
          const bad = tensor(damaged, { shape: whole.shape, dtype: whole.dtype })
          t.throws(
            () => fresh.loadStateDict({ ...dict, [name]: bad }),
            { code: 'ERR_ARGUMENT', message: /^loadStateDict: layer '2': SparseTensor: / },
            `${JSON.stringify(format)} ${name}[${at}] = ${value}`,
          )
        }
    }
    t.same(state(), blank, 'not even the layers before it')
    fresh.loadStateDict(dict)
    // Part of the state must fit what is there.
    const one = indices[0] as string
    const values = flat(dict[one] as Tensor).fill(0)
    const zero = tensor(values, { shape: (dict[one] as Tensor).shape, dtype: (dict[one] as Tensor).dtype as DType })
    t.throws(() => fresh.loadStateDict({ [one]: zero }, { strict: false }), /layer '2'/)
    fresh.loadStateDict({ '2.bias': dict['2.bias'] as Tensor }, { strict: false })
  }
})

t.test('random damage of metadata and indices: an error of kerf, or a layer that computes', async (t) => {
  const next = generator(7)
  const pick = <V>(list: readonly V[]): V => list[Math.floor(next() * list.length)] as V
  const x = inputs(1, 2, 20)
  let [refused, computed] = [0, 0]
  let model: nn.Module = new nn.Sequential()
  for (let round = 0; round < 300; round++) {
    if (round % 30 === 0) model = (await convert(await pruned(round + 1), pick(formats))).model
    const dict = model.stateDict()
    const name = pick(Object.keys(dict))
    const old = dict[name] as Tensor
    const values = flat(old)
    for (let n = 0; n < 1 + 2 * next(); n++)
      values[Math.floor(next() * values.length)] = pick([0, 1, -1, 5, 255, 2 ** 31 - 1, -(2 ** 31), 20])
    const bad = tensor(old.dtype === 'uint8' ? values.map((v) => v & 255) : values, {
      shape: old.shape,
      dtype: old.dtype,
    })
    const entries = JSON.parse(metadata(model)[KEY] as string)
    if (round % 3 === 0)
      entries['0'][pick(Object.keys(entries['0']))] = pick([null, 0, 1e308, 'csr', '2:4', [1, 1], {}])
    try {
      const fresh = applyMetadata(mlp(2, sizes), { [KEY]: JSON.stringify(entries) })
      fresh.loadStateDict({ ...dict, [name]: bad })
      fresh.forward(x).dataSync()
      computed++
    } catch (error) {
      if (!/^ERR_(FORMAT|ARGUMENT|SHAPE)$/.test((error as { code: string }).code)) throw error
      refused++
    }
  }
  t.ok(refused > 50 && computed > 50, `${refused} refused, ${computed} computed`)
})

t.test('sparse tensors of every format go to a file and come back', async (t) => {
  const first = (await pruned(21)).at(0) as nn.Linear
  const sparse = Object.fromEntries(formats.map((format) => [JSON.stringify(format), sparsify(first.weight, format)]))
  sparse.half = sparsify(first.weight.to('float16'), 'csr')
  sparse['no rows'] = sparsify(tensor([], { shape: [0, 4] }), 'csr')
  const { tensors, metadata: about } = toTensors(sparse)
  const file = await parseSafetensors(await serializeSafetensors(tensors, { metadata: about }))
  const back = fromTensors(file.tensors, file.metadata)
  t.same(Object.keys(back), Object.keys(sparse))
  for (const [name, s] of Object.entries(sparse)) {
    const r = back[name] as prune.SparseTensor<'float32'>
    t.equal(String(r), String(s))
    t.same(flat(prune.densify(r)), flat(prune.densify(s as prune.SparseTensor<'float32'>)), name)
  }

  const a = sparse['"csr"'] as prune.SparseTensor
  const refuse = (names: Record<string, unknown>, message: RegExp) =>
    t.throws(() => toTensors(names as never), { code: 'ERR_ARGUMENT', message })
  refuse({ a: first.weight }, /'a' must be a SparseTensor, got a Parameter/)
  for (const part of ['pointers', 'columns', 'metadata'])
    refuse({ a, [`a.${part}`]: a }, new RegExp(`'a.${part}' is the name of a part of 'a'`))
  const one = toTensors({ a })
  const text = (value: object) => ({ [TENSORS]: JSON.stringify({ a: value }) })
  const valid = JSON.parse(one.metadata[TENSORS] as string).a as object
  const wrong: [Record<string, Tensor>, Record<string, string>, RegExp][] = [
    [one.tensors, {}, /the metadata has no "kerf.sparse_tensors"/],
    [{}, one.metadata, /tensor 'a': its values are missing/],
    [{ a: one.tensors.a as Tensor }, one.metadata, /tensor 'a': SparseTensor: pointers must be a tensor/],
    [one.tensors, text({ ...valid, shape: [12] }), /tensor 'a': SparseTensor: shape must be \[rows, columns\]/],
    [one.tensors, text({ ...valid, shape: [14, 20] }), /tensor 'a': SparseTensor: pointers of csr/],
    [one.tensors, text({ ...valid, shape: [12, 1] }), /tensor 'a': SparseTensor: row 1 has column/],
    [one.tensors, text({ ...valid, shape: [2 ** 50, 20] }), /tensor 'a'/],
    [one.tensors, text({ ...valid, shape: 'ab' }), /tensor 'a': bad shape/],
    [one.tensors, text({ ...valid, format: '2:4' }), /tensor 'a': SparseTensor: metadata must be a tensor/],
    [one.tensors, text({ ...valid, format: null }), /tensor 'a': SparseTensor: format must be/],
    [
      { ...one.tensors, 'a.columns': one.tensors['a.pointers'] as Tensor },
      one.metadata,
      /tensor 'a': .*columns of csr/,
    ],
  ]
  for (const [given, metadata, message] of wrong)
    t.throws(() => fromTensors(given, metadata), { code: 'ERR_FORMAT', message }, String(message))
  // A tensor that the format has no use for is somebody else's.
  fromTensors({ ...one.tensors, 'a.metadata': first.weight }, one.metadata)
})
