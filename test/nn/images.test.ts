// The layers around convolutions: what they keep, save, and do in train() and eval().
import {
  adaptiveAvgPool2d,
  avgPool2d,
  batchNorm,
  checkpoint,
  io,
  manualSeed,
  maxPool2d,
  nn,
  ones,
  optim,
  randn,
  type Tensor,
  tensor,
} from 'kerf'
import t from 'tap'

const values = (a: Tensor | null) => Array.from((a as Tensor).dataSync() as Float32Array)
const near = (got: readonly number[], want: readonly number[], tolerance: number) =>
  got.length === want.length && got.every((x, i) => Math.abs(x - (want[i] as number)) <= tolerance)

t.test('BatchNorm1d moves its statistics while training and uses them in eval()', (t) => {
  const bn = new nn.BatchNorm1d(2)
  const x = tensor([1, 10, 3, 30, 5, 50], { shape: [3, 2], dtype: 'float32' })
  const y = bn.forward(x)
  // Means 3 and 30, biased variances 8/3 and 800/3, unbiased 4 and 400.
  t.ok(near(values(bn.runningMean), [0.3, 3], 1e-6))
  t.ok(near(values(bn.runningVar), [0.9 + 0.4, 0.9 + 40], 1e-5))
  t.equal(bn.numBatchesTracked?.item(), 1n)
  t.ok(near(values(y).slice(0, 2), [-2 / Math.sqrt(8 / 3 + 1e-5), -20 / Math.sqrt(800 / 3 + 1e-5)], 1e-6))
  bn.eval()
  const kept = values(bn.runningMean)
  t.ok(near(values(bn.forward(x)).slice(0, 1), [(1 - 0.3) / Math.sqrt(1.3 + 1e-5)], 1e-6))
  t.same(values(bn.runningMean), kept)
  t.equal(bn.numBatchesTracked?.item(), 1n)
  t.end()
})

t.test('momentum null averages all batches', (t) => {
  const bn = new nn.BatchNorm2d(1, { momentum: null })
  for (const m of [1, 2, 6]) bn.forward(tensor([m - 1, m + 1], { shape: [1, 1, 1, 2], dtype: 'float32' }))
  t.ok(near(values(bn.runningMean), [3], 1e-6))
  t.ok(near(values(bn.runningVar), [2], 1e-6))
  t.end()
})

t.test('names, buffers and files of BatchNorm are those of PyTorch', async (t) => {
  const bn = new nn.BatchNorm2d(3)
  t.same(Object.keys(bn.stateDict()), ['weight', 'bias', 'runningMean', 'runningVar', 'numBatchesTracked'])
  t.same(
    bn.namedBuffers().map(([name]) => name),
    ['runningMean', 'runningVar', 'numBatchesTracked'],
  )
  t.equal(bn.parameters().length, 2)
  bn.forward(randn([2, 3, 2, 2]))
  const file = `${t.testdir()}/bn.safetensors`
  await io.saveSafetensors(file, bn.stateDict())
  const other = new nn.BatchNorm2d(3)
  other.loadStateDict(await io.loadSafetensors(file))
  for (const [name, value] of Object.entries(bn.stateDict()))
    t.same((other.stateDict()[name] as Tensor).arraySync(), value.arraySync(), name)
  other.loadStateDict({
    weight: ones([3]),
    bias: ones([3]),
    running_mean: tensor([1, 2, 3]),
    running_var: tensor([4, 5, 6]),
    num_batches_tracked: tensor(7, { dtype: 'int64' }),
  })
  t.same(values(other.runningMean), [1, 2, 3])
  t.equal(other.numBatchesTracked?.item(), 7n)
  t.end()
})

t.test('BatchNorm in 16 bits keeps float32 statistics', (t) => {
  const bn = new nn.BatchNorm2d(2).to('bfloat16')
  t.equal(bn.weight?.dtype, 'bfloat16')
  t.equal(bn.runningMean?.dtype, 'float32')
  t.equal(bn.numBatchesTracked?.dtype, 'int64')
  t.equal(bn.forward(randn([2, 2, 3, 3], { dtype: 'bfloat16' })).dtype, 'bfloat16')
  t.end()
})

t.test('options of BatchNorm', (t) => {
  const plain = new nn.BatchNorm1d(2, { affine: false, trackRunningStats: false })
  t.same(Object.keys(plain.stateDict()), [])
  const x = randn([4, 2, 3])
  const want = batchNorm(x, { training: true }).arraySync()
  t.same(plain.forward(x).arraySync(), want)
  t.same(plain.eval().forward(x).arraySync(), want, 'without running statistics eval() takes the batch')
  t.equal(
    new nn.BatchNorm1d(2).toString(),
    'BatchNorm1d(2, eps=0.00001, momentum=0.1, affine=true, trackRunningStats=true)',
  )
  t.throws(() => new nn.BatchNorm1d(0), { message: 'BatchNorm1d: numFeatures must be a whole number >= 1, got 0' })
  t.throws(() => new nn.BatchNorm2d(2, { momentum: 'x' as never }), { code: 'ERR_ARGUMENT' })
  t.throws(() => new nn.BatchNorm2d(2, { trackRunningStats: 1 as never }), { code: 'ERR_ARGUMENT' })
  t.throws(() => new nn.BatchNorm2d(2).forward(randn([2, 2])), {
    message: 'BatchNorm2d: input must be [n, channels, height, width], got [2, 2]',
  })
  t.throws(() => new nn.BatchNorm1d(2).forward(randn([2, 2, 2, 2])), { code: 'ERR_SHAPE' })
  t.throws(() => new nn.BatchNorm1d(2).forward('x' as never), { code: 'ERR_ARGUMENT' })
  t.end()
})

t.test('a refused batch changes no statistics', (t) => {
  const bn = new nn.BatchNorm1d(2)
  t.throws(() => bn.forward(randn([1, 2])), { code: 'ERR_SHAPE' })
  t.same(values(bn.runningMean), [0, 0])
  t.equal(bn.numBatchesTracked?.item(), 0n)
  t.end()
})

t.test('the pooling modules are their functions', (t) => {
  const x = randn([2, 3, 7, 9])
  const same = (module: nn.Module, want: Tensor) => t.same(module.forward(x).arraySync(), want.arraySync())
  same(new nn.MaxPool2d(2), maxPool2d(x, { kernelSize: 2 }))
  const options = { stride: 2, padding: 1, ceilMode: true }
  same(new nn.MaxPool2d(3, options), maxPool2d(x, { kernelSize: 3, ...options }))
  same(new nn.AvgPool2d([3, 2], options), avgPool2d(x, { kernelSize: [3, 2], ...options }))
  same(new nn.AdaptiveAvgPool2d([2, 4]), adaptiveAvgPool2d(x, [2, 4]))
  same(new nn.Sequential(new nn.AdaptiveAvgPool2d(1), new nn.Flatten()), adaptiveAvgPool2d(x, 1).reshape([2, 3]))
  t.equal(new nn.MaxPool2d(3, { stride: 2 }).toString(), 'MaxPool2d(kernelSize=3, stride=2)')
  t.throws(() => new nn.MaxPool2d(0), {
    message: 'MaxPool2d: kernelSize must be a whole number from 1 to 16777216, got 0',
  })
  t.throws(() => new nn.AvgPool2d(2, { padding: 2 }), { code: 'ERR_ARGUMENT' })
  t.throws(() => new nn.AdaptiveAvgPool2d([2] as never), { code: 'ERR_ARGUMENT' })
  t.end()
})

t.test('Dropout2d drops whole channels', (t) => {
  manualSeed(3)
  const drop = new nn.Dropout2d(0.25)
  const y = values(drop.forward(ones([8, 16, 3, 3])))
  let dropped = 0
  for (let channel = 0; channel < 128; channel++) {
    const plane = new Set(y.slice(channel * 9, channel * 9 + 9))
    t.equal(plane.size, 1, 'one value a channel')
    if (plane.has(0)) dropped++
    else t.ok(plane.has(Math.fround(1 / 0.75)))
  }
  t.ok(dropped > 10 && dropped < 60, `${dropped} of 128 channels`)
  const x = randn([1, 2, 2, 2])
  t.equal(drop.eval().forward(x), x)
  t.throws(() => new nn.Dropout2d(2), { code: 'ERR_ARGUMENT' })
  t.throws(() => new nn.Dropout2d(0.5).forward(ones([3])), { code: 'ERR_SHAPE' })
  t.throws(() => new nn.Dropout2d(0.5).forward(3 as never), { code: 'ERR_ARGUMENT' })
  t.end()
})

t.test('a model of these layers learns', (t) => {
  manualSeed(1)
  const model = new nn.Sequential(
    new nn.BatchNorm2d(1),
    new nn.MaxPool2d(2),
    new nn.Flatten(),
    new nn.Linear(4, 8),
    new nn.BatchNorm1d(8),
    new nn.ReLU(),
    new nn.Linear(8, 1),
  )
  const x = randn([32, 1, 4, 4])
  const want = maxPool2d(x, { kernelSize: 4 }).reshape([32, 1])
  const optimizer = new optim.Adam(model.parameters(), { lr: 0.02 })
  const loss = () => model.forward(x).sub(want).pow(2).mean()
  const first = loss().item()
  for (let step = 0; step < 150; step++) {
    optimizer.zeroGrad()
    loss().backward()
    optimizer.step()
  }
  const last = loss().item()
  t.ok(last < first / 20, `${first} became ${last}`)
  t.end()
})

t.test('checkpoint() runs a batch norm twice, and so moves its statistics twice', (t) => {
  const bn = new nn.BatchNorm1d(2)
  const x = randn([4, 2], { requiresGrad: true })
  checkpoint((a: Tensor) => bn.forward(a), x)
    .sum()
    .backward()
  t.equal(bn.numBatchesTracked?.item(), 2n)
  t.end()
})
