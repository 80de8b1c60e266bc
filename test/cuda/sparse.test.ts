/**
 * Sparse weights on the emulated device as a program sees them: moving, layers that have them, CSR that is none. Products of every
 * format, size and dtype are those of test/ops/ (ops.test.ts); here nothing is made on a device that was not asked for.
 */
import { abs, conv2d, linear, matmul, nn, noGrad, prune, reshape, sum, type Tensor, tensor, zeros } from 'kerf'
import t, { type Test } from 'tap'
import { dtypeCode } from '#lib/core/dtype'
import { native } from '#lib/native/call'
import { sparseBytesCuda } from '#lib/native/cuda'
import { empty } from '#lib/tensor/tensor'
import { inputs, mlp } from '../quant/models'
import { noDevice } from './emulated'

const skip = noDevice
const U = 2 ** -24
const formats: prune.SparseFormat[] = ['csr', '2:4', { block: [1, 16] }, { block: [3, 5] }]

const floatsOf = (x: Tensor) => x.dataSync() as Float32Array

/** Two results of sums of `terms` float32 terms with the magnitudes `sizes`, each a rounding a term off at most, and a few more. */
function near(t: Test, what: string, a: Tensor, b: Tensor, terms: number, sizes: Tensor) {
  const [x, y, size] = [floatsOf(a), floatsOf(b), floatsOf(sizes)]
  const worst = Math.max(...x.map((v, i) => Math.abs(v - (y[i] as number)) - 2 * terms * U * (size[i] as number)))
  t.ok(worst <= 0, `${what}: beyond the bound by ${worst}`)
}

t.test('sparsify, densify and to(): on the device that the matrix is on', { skip }, (t) => {
  const w = tensor([
    [0, 5, 0, 7],
    [0, 0, 0, 0],
    [1, 0, 2, 0],
  ])
  for (const format of formats) {
    const here = prune.sparsify(w, format)
    const there = prune.sparsify(w.to('cuda'), format)
    t.same([here.device, there.device], ['cpu', 'cuda:0'])
    t.ok([there, here.to('cuda')].every((s) => s.parts().every((part) => part.device === 'cuda:0')))
    for (const s of [there, here.to('cuda'), here.to('cuda:1').to('cuda:0')]) {
      const dense = prune.densify(s)
      t.equal(dense.device, 'cuda:0')
      t.same(dense.dataSync(), w.dataSync(), JSON.stringify(format))
    }
    t.equal(here.to('cpu'), here)
    t.equal(there.to('cuda'), there, 'itself where it is there')
    t.same(prune.densify(there.to('cpu')).dataSync(), w.dataSync())
  }
  const s = prune.sparsify(w, 'csr')
  t.throws(() => s.to('gpu' as 'cuda'), {
    code: 'ERR_ARGUMENT',
    message: "to: device must be 'cpu' or 'cuda', got \"gpu\"",
  })
  t.throws(() => s.to('cuda:7'), { code: 'ERR_DEVICE' })
  const { shape, format, values, pointers, columns } = s
  const mixed = () => new prune.SparseTensor({ shape, format, values: values.to('cuda'), pointers, columns })
  t.throws(mixed, { code: 'ERR_DEVICE', message: /^SparseTensor: its parts are on cuda:0 and cpu/ })
  s.dispose()
  t.throws(() => s.to('cuda'), { code: 'ERR_DISPOSED' })
  t.end()
})

t.test('devices do not mix', { skip }, (t) => {
  const w = prune.sparsify(tensor([[0, 5, 0, 7]]), 'csr')
  const mixed = { name: 'DeviceError', code: 'ERR_DEVICE', message: /its tensors are on/ }
  t.throws(() => linear(zeros([2, 4], { device: 'cuda' }), w), mixed)
  t.throws(() => linear(zeros([2, 4]), w.to('cuda')), mixed)
  t.throws(() => conv2d(zeros([1, 4, 3, 3], { device: 'cuda' }), w, null, { kernelSize: 1 }), mixed)
  t.same(linear(zeros([2, 4]), w).dataSync(), [0, 0], 'and all goes on')
  t.end()
})

t.test('packed once on each device, one form for all products', { skip }, (t) => {
  const w = prune.sparsify(inputs(1, 5, 12), 'csr')
  const there = w.to('cuda')
  const x = inputs(2, 20, 12)
  linear(x, w)
  const packed = () => [...there.made.packed.values()].map((known) => known.packed)
  linear(x.to('cuda'), there)
  const [first] = packed()
  t.equal(first?.device, 'cuda:0')
  linear(x.to('cuda'), there)
  linear(x.to('cuda:0').transpose().transpose(), there)
  conv2d(zeros([1, 3, 5, 5], { device: 'cuda' }), there, null, { kernelSize: 2 })
  t.same([packed().length, packed()[0] === first], [1, true])
  t.ok([...w.made.packed.values()].every((known) => known.packed.device === 'cpu'))
  matmul(zeros([2, 5], { device: 'cuda' }), there)
  t.equal(there.made.transposed?.device, 'cuda:0')
  there.dispose()
  t.ok(first?.disposed)
  t.end()
})

/** Sparse weights that are no layer's buffers: two convolutions by the same ones. */
class Convolutions extends nn.Module {
  readonly bias = new nn.Parameter(tensor([0.5, -0.5, 0.25, 0]))
  weights: prune.SparseTensor
  readonly second: { weights: prune.SparseTensor } & nn.Module

  constructor(weights: prune.SparseTensor) {
    super()
    this.weights = weights
    this.second = new (class extends nn.Module {
      weights = weights
      forward(x: Tensor): Tensor {
        return conv2d(x, this.weights, null, { kernelSize: 3, padding: 1 })
      }
    })()
  }

  forward(x: Tensor): Tensor {
    const first = conv2d(x, this.weights, this.bias, { kernelSize: 3, padding: 1, activation: 'relu' })
    return (this.second as unknown as { forward(x: Tensor): Tensor }).forward(first)
  }
}

t.test('a model of sparse layers goes to the GPU, gives what it gave, and comes back', { skip }, async (t) => {
  for (const format of formats) {
    const sizes = [20, 12, 8]
    const model = mlp(1, sizes)
    await prune.semiStructured(model)
    const layers = model.modules().filter((m): m is nn.Linear => (m as unknown) instanceof nn.Linear)
    const x = inputs(2, 11, 20)
    const magnitude = noGrad(() =>
      layers.reduce((rows, { weight, bias }) => linear(rows, abs(weight), bias && abs(bias)), abs(x)),
    )
    await prune.convert(model, format)
    const before = model.forward(x)
    t.equal(model.to('cuda'), model)
    const input = x.to('cuda')
    input.requiresGrad = true
    const there = model.forward(input)
    t.equal(there.device, 'cuda:0')
    // sums of k products and a bias; what the first layer is off is a part of the second one's magnitude
    near(
      t,
      JSON.stringify(format),
      there,
      before,
      sizes.slice(0, 2).reduce((n, k) => n + k + 2, 0),
      magnitude,
    )
    sum(there).backward()
    t.equal(input.grad?.device, 'cuda:0')
    x.requiresGrad = true
    sum(model.to('cpu').forward(x)).backward()
    const back = noGrad(() =>
      layers.reduceRight(
        (rows, { weight }) => matmul(rows, abs(weight)),
        tensor(new Array(88).fill(1), { shape: [11, 8] }) as Tensor,
      ),
    )
    near(
      t,
      'gradient',
      input.grad as Tensor,
      x.grad as Tensor,
      sizes.slice(1).reduce((n, k) => n + k + 2, 0),
      back,
    )
    t.same(model.forward(x).dataSync(), before.dataSync(), 'the same bits when it is back')
  }
})

t.test('weights in plain properties move with their module, once where they are shared', { skip }, (t) => {
  const dense = inputs(3, 4, 36)
  const w = prune.sparsify(dense.mul(dense.gt(0.3).to('float32')), { block: [1, 8] })
  const magnitudes = reshape(abs(prune.densify(w)), [4, 4, 3, 3])
  const model = new Convolutions(w)
  const x = reshape(inputs(4, 8, 36), [2, 4, 6, 6])
  const size = conv2d(conv2d(abs(x), magnitudes, abs(model.bias), { padding: 1 }), magnitudes, null, { padding: 1 })
  const before = model.forward(x).clone()
  model.to('float32')
  t.equal(model.weights, w, 'a dtype is nothing to them')
  model.to('cuda')
  t.equal(model.weights.device, 'cuda:0')
  t.equal(model.second.weights, model.weights)
  t.ok(w.disposed, 'as parameters are: the module has new ones')
  near(t, 'result', model.forward(x.to('cuda')), before, 2 * (36 + 2), size)
  t.equal(model.to('cuda').weights, model.weights)
  const moved = model.weights
  t.same(model.to('cpu').forward(x).dataSync(), before.dataSync())
  t.ok(moved.disposed)
  t.same(Object.keys(model.stateDict()), ['bias'])
  t.end()
})

t.test('prune.convert of a model on the GPU: by format, and by timing it there', { skip }, async (t) => {
  const model = mlp(5, [16, 8, 4])
  await prune.semiStructured(model)
  const x = inputs(6, 3, 16)
  const before = model.forward(x)
  model.to('cuda')
  const { layers } = await prune.convert(model, 'auto', { rows: 3 })
  t.equal(layers.length, 2)
  t.ok(layers[0]?.costs.some(({ format, us }) => format === 'csr' && us !== null && us > 0))
  await prune.convert(model, 'csr')
  t.ok(model.namedBuffers().every(([, buffer]) => buffer.device === 'cuda:0'))
  const off = Math.max(
    ...floatsOf(model.forward(x.to('cuda'))).map((v, i) => Math.abs(v - (floatsOf(before)[i] as number))),
  )
  // 16 + 8 products of numbers below 8, and as many roundings, twice
  t.ok(off <= 2 * 28 * U * 8 * 24, `off by ${off}`)
})

/** sppack() and a product, past the checks of SparseTensor. */
function multiply(t: Test, pointers: number[], columns: number[], k: number): Float32Array {
  const int32 = (values: number[]) => tensor(values, { shape: [values.length], dtype: 'int32', device: 'cuda' })
  const values = tensor(
    columns.map((_, i) => i + 1),
    { shape: [columns.length], dtype: 'float32', device: 'cuda' },
  )
  const n = pointers.length - 1
  const packed = empty('uint8', [sparseBytesCuda(4, n, columns.length)], 'cuda:0')
  native.sppack(packed, values, int32(pointers), int32(columns), k, 0, columns.length)
  const outs = [1, 9].map((m) => {
    const out = zeros([m, n], { device: 'cuda' })
    const x = tensor(new Array(m * k).fill(1), { shape: [m, k], dtype: 'float32', device: 'cuda' })
    native.spmatmul(out, x, packed, null, 0, dtypeCode.float32, 0, columns.length)
    return out
  })
  const image = zeros([1, n, 2, 3], { device: 'cuda' })
  const x = tensor(new Array(6 * k).fill(1), { shape: [1, k, 2, 3], dtype: 'float32', device: 'cuda' })
  native.spconv2d(image, x, packed, null, 0, columns.length, 1, 1, 1, 1, 0, 0, 1, 1)
  const results = [...outs, image].map(floatsOf)
  t.same(results[1]?.subarray(0, n), results[0])
  t.same(
    results[2]?.filter((_, i) => i % 6 === 0),
    results[0],
  )
  return results[0] as Float32Array
}

t.test('what is no CSR fails the stream by row, and nothing outside is read', { skip }, (t) => {
  t.same(multiply(t, [0, 2, 2, 3], [0, 3, 1], 4), [3, 0, 3])
  const broken: [what: string, pointers: number[], columns: number[], k: number, row: number][] = [
    ['does not begin with 0', [1, 2, 2, 3], [0, 3, 1], 4, 0],
    ['goes back', [0, 2, 1, 3], [0, 3, 1], 4, 1],
    ['beyond the count', [0, 2, 900000000, 3], [0, 3, 1], 4, 1],
    ['below 0', [0, 2, -900000000, 3], [0, 3, 1], 4, 1],
    ['ends before the count', [0, 2, 2, 2], [0, 3, 1], 4, 3],
    ['a column beyond k', [0, 2, 2, 3], [0, 4, 1], 4, 0],
    ['a column far beyond k', [0, 2, 2, 3], [0, 3, 2147483647], 4, 2],
    ['a column below 0', [0, 2, 2, 3], [0, 3, -2147483648], 4, 2],
    ['the same column twice', [0, 2, 2, 3], [3, 3, 1], 4, 0],
    ['columns that fall', [0, 2, 2, 3], [3, 0, 1], 4, 0],
    ['columns where there are none', [0, 2, 2, 3], [0, 1, 0], 0, 0],
    ['no rows for values', [0], [0, 1, 0], 4, 0],
  ]
  for (const [what, pointers, columns, k, row] of broken) {
    t.throws(
      () => multiply(t, pointers, columns, k),
      {
        code: 'ERR_RANGE',
        message: new RegExp(`sppack: pointers or columns are not those of a CSR matrix of ${k} columns: row ${row}$`),
      },
      what,
    )
  }
  t.same(multiply(t, [0, 2, 2, 3], [0, 3, 1], 4), [3, 0, 3], 'and all goes on')
  // 40 columns: more than a warp looks at once, the fault in the second round
  const long = Array.from({ length: 40 }, (_, i) => (i === 36 ? 35 : i))
  t.throws(() => multiply(t, [0, 40], long, 40), { code: 'ERR_RANGE' })
  t.end()
})
