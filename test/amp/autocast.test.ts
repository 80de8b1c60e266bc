// Autocast: the published lists, casts on the tape, the cache of weights, and regions that end as they should.

import * as all from 'kerf'
import {
  amp,
  batchNorm,
  cat,
  conv1d,
  conv2d,
  convTranspose2d,
  crossEntropy,
  cumsum,
  type DType,
  exp,
  indexAdd,
  klDiv,
  l1Loss,
  layerNorm,
  linear,
  log,
  log1p,
  logSoftmax,
  matmul,
  mean,
  mseLoss,
  mul,
  nllLoss,
  nn,
  noGrad,
  optim,
  pack,
  pow,
  quant,
  randn,
  relu,
  rmsNorm,
  rsqrt,
  scatterAdd,
  scope,
  softmax,
  stack,
  std,
  sum,
  type Tensor,
  tensor,
  variance,
  where,
} from 'kerf'
import t from 'tap'
import { context } from '#lib/tensor/context'

const half = ['bfloat16', 'float16'] as const
const of = (dtype: DType) =>
  tensor(
    [
      [1, 2],
      [3, 4],
    ],
    { dtype: dtype as 'float32' },
  ) as Tensor

t.test('every op of the lists exists and runs in the precision of its list', (t) => {
  const labels = tensor([0, 1], { dtype: 'int64' })
  const target = (x: Tensor) => where(x.gt(2), 1, 0)
  const run: Record<(typeof amp.float32Ops)[number] | (typeof amp.lowerOps)[number], (x: Tensor) => Tensor> = {
    matmul: (x) => matmul(x, x),
    linear: (x) => linear(x, x, tensor([1, 1])),
    conv1d: (x) => conv1d(x.reshape([1, 2, 2]), x.reshape([2, 2, 1])),
    conv2d: (x) => conv2d(x.reshape([1, 2, 2]), x.reshape([4, 1, 1, 1])),
    convTranspose2d: (x) => convTranspose2d(x.reshape([1, 2, 2]), x.reshape([1, 4, 1, 1])),
    lstm: (x) => new nn.LSTM(2, 3).forward(x).output,
    gru: (x) => new nn.GRU(2, 3).forward(x).hidden,
    rnn: (x) => new nn.RNN(2, 3).forward(x).output,
    exp,
    log,
    log1p,
    pow: (x) => pow(x, 2),
    rsqrt,
    sum: (x) => sum(x),
    cumsum: (x) => cumsum(x, 0),
    variance: (x) => variance(x),
    std: (x) => std(x),
    softmax: (x) => softmax(x),
    logSoftmax: (x) => logSoftmax(x),
    layerNorm: (x) => layerNorm(x, 2),
    rmsNorm: (x) => rmsNorm(x, 2),
    batchNorm: (x) => batchNorm(x, { training: true }),
    crossEntropy: (x) => crossEntropy(x, labels),
    nllLoss: (x) => nllLoss(x, labels),
    mseLoss: (x) => mseLoss(x, x),
    l1Loss: (x) => l1Loss(x, x),
    klDiv: (x) => klDiv(x, x),
    binaryCrossEntropyWithLogits: (x) => all.binaryCrossEntropyWithLogits(x, target(x)),
  }
  t.same(Object.keys(run).sort(), [...amp.lowerOps, ...amp.float32Ops].sort())
  for (const dtype of half) {
    amp.autocast(dtype, () => {
      for (const given of ['float32', ...half] as const) {
        const x = of(given)
        for (const op of amp.lowerOps) t.equal(run[op](x).dtype, dtype, `${op} of ${given}`)
        for (const op of amp.float32Ops) t.equal(run[op](x).dtype, 'float32', `${op} of ${given}`)
        t.equal(relu(x).dtype, given)
        t.equal(mean(x).dtype, given)
        t.equal(mul(x, 2).dtype, given)
      }
      t.equal(matmul(of('int8'), of('int8')).dtype, 'int32', 'integers stay exact')
      t.equal(sum(of('int32')).dtype, 'int64')
      t.equal(matmul(of('float32'), of('float32'), { dtype: 'float32' }).dtype, 'float32', 'dtype of the result')
    })
  }
  t.end()
})

t.test('what is on no list promotes', (t) => {
  const index = tensor([0, 1], { dtype: 'int64' })
  const index2 = tensor(
    [
      [0, 1],
      [1, 0],
    ],
    { dtype: 'int64' },
  )
  const wide = of('float32')
  const narrow = of('bfloat16')
  amp.autocast('bfloat16', () => {
    t.equal(cat([narrow, wide]).dtype, 'float32')
    t.equal(stack([narrow, wide]).dtype, 'float32')
    t.equal(cat([narrow, narrow]).dtype, 'bfloat16')
    t.equal(narrow.add(wide).dtype, 'float32')
    t.equal(indexAdd(narrow, 0, index, wide).dtype, 'float32')
    t.equal(scatterAdd(wide, 0, index2, narrow).dtype, 'float32')
  })
  t.throws(() => indexAdd(narrow, 0, index, wide), { code: 'ERR_DTYPE' }, 'as before outside')
  t.end()
})

t.test('a product under autocast is the product of the rounded operands, bit for bit', (t) => {
  const a = randn([5, 7])
  const b = randn([7, 3])
  for (const dtype of half) {
    const wanted = matmul(a.to(dtype), b.to(dtype))
    t.same(amp.autocast(dtype, () => matmul(a, b)).dataSync(), wanted.dataSync())
    const mixed = amp.autocast(dtype, () => matmul(a.to(dtype), b))
    t.same(mixed.dataSync(), wanted.dataSync())
  }
  t.end()
})

t.test('gradients are float32 and within the bound of the rounded operands', (t) => {
  for (const dtype of half) {
    // u: half an ulp of the 16-bit format, 8 and 11 bits of significand
    const u = dtype === 'bfloat16' ? 2 ** -8 : 2 ** -11
    const x = randn([6, 9])
    const layer = new nn.Linear(9, 4)
    const g = randn([6, 4])
    const y = amp.autocast(dtype, () => layer.forward(x))
    t.equal(y.dtype, dtype)
    y.backward(g.to(dtype))
    const dw = layer.weight.grad as Tensor
    const db = layer.bias?.grad as Tensor
    t.equal(dw.dtype, 'float32')
    t.equal(db.dtype, 'float32')
    const exact = matmul(g.transpose(), x)
    const size = matmul(g.abs().transpose(), x.abs())
    const [found, wanted, sizes] = [dw, exact, size].map((v) => v.dataSync() as Float32Array)
    // docs/numerics.md: each factor rounded once, the float32 sum of 6 products, the result rounded once
    for (const [i, v] of (wanted as Float32Array).entries()) {
      const bound = ((1 + u) ** 3 * (1 + 8 * 2 ** -24) - 1) * ((sizes as Float32Array)[i] as number)
      t.ok(Math.abs(((found as Float32Array)[i] as number) - v) <= bound, `${dtype} dw[${i}]`)
    }
    // The bias's gradient is a float32 sum of the gradient as it came.
    t.same(db.dataSync(), g.to(dtype).to('float32').sum(0).dataSync())
  }
  t.end()
})

t.test('a bias of many rows collects a sum that float16 could not hold', (t) => {
  const layer = new nn.Linear(1, 1)
  const y = amp.autocast('float16', () => layer.forward(tensor(new Float32Array(4096), { shape: [4096, 1] })))
  y.backward(all.full([4096, 1], 32, { dtype: 'float16' }))
  t.equal(layer.bias?.grad?.item(), 131072)
  t.end()
})

t.test('a weight is cast once in a region, until it changes', (t) => {
  const w = tensor(
    [
      [1, 2],
      [3, 4],
    ],
    { requiresGrad: true },
  )
  const x = of('bfloat16')
  const casts = (fn: () => void) => {
    const report = new amp.PrecisionReport()
    amp.autocast('bfloat16', fn, { report })
    return report.runs('cast', 'bfloat16')
  }
  const use = () => linear(x, w)
  t.equal(
    casts(() => [use(), use(), matmul(x, w)]),
    1,
  )
  t.equal(
    casts(() => noGrad(() => [use(), use()])),
    1,
    'off the tape too',
  )
  t.equal(
    casts(() => [noGrad(use), use()]),
    2,
    'not from off the tape onto it',
  )
  t.equal(
    casts(() => noGrad(() => [scope(use), scope(use)])),
    1,
    'a scope inside does not dispose it',
  )
  t.equal(
    casts(() => [scope(() => void use()), use()]),
    2,
    'on the tape it belongs to its scope',
  )
  t.equal(
    casts(() => [scope(() => void use()), noGrad(use)]),
    2,
    'what a scope disposed is made again',
  )
  const optimizer = new optim.SGD([w], { lr: 1 })
  w.grad = tensor([
    [1, 1],
    [1, 1],
  ])
  t.equal(
    casts(() =>
      noGrad(() => {
        use()
        optimizer.step()
        t.same(
          use().arraySync(),
          matmul(
            x,
            tensor([
              [0, 2],
              [1, 3],
            ]),
          ).arraySync(),
          'the new values',
        )
      }),
    ),
    2 + 1, // and the one that is compared with, which is no weight
    'an optimizer changes it',
  )
  t.equal(
    casts(() => [use(), nn.init.zeros(w), t.same(use().dataSync(), new Uint16Array(4))]),
    2,
    'an initialiser too',
  )
  t.equal(
    casts(() => {
      for (let i = 0; i < 2; i++) use().sum().backward()
    }),
    2,
    'backward() lets its graph go',
  )
  const frozen = of('float32')
  t.equal(
    casts(() => noGrad(() => [linear(x, frozen), linear(x, frozen)])),
    2,
    'only weights are kept',
  )
  t.equal(
    casts(() => [use(), amp.autocast('bfloat16', use), use()]),
    2,
    'every region has its own casts',
  )
  t.end()
})

t.test('casts off the tape end with the region, those on it with backward', async (t) => {
  const w = tensor(
    [
      [1, 2],
      [3, 4],
    ],
    { requiresGrad: true },
  )
  const x = of('float32')
  const cast = () => context().autocast?.casts.get(w)?.cast as Tensor
  const off = await amp.autocast('float16', async () => {
    noGrad(() => linear(x, w))
    await null
    t.notOk(cast().disposed)
    return cast()
  })
  t.ok(off.disposed)
  const { y, on } = amp.autocast('float16', () => ({ y: linear(x, w), on: cast() }))
  t.notOk(on.disposed)
  y.sum().backward()
  t.same(w.grad?.arraySync(), [
    [4, 6],
    [4, 6],
  ])
  t.end()
})

t.test('loadStateDict inside a region counts as a change', (t) => {
  const layer = new nn.Linear(2, 2, { bias: false })
  const x = of('float32')
  amp.autocast('float16', () => {
    layer.forward(x)
    layer.loadStateDict({
      weight: tensor([
        [1, 0],
        [0, 1],
      ]),
    })
    t.same(layer.forward(x).arraySync(), [
      [1, 2],
      [3, 4],
    ])
  })
  t.end()
})

t.test('packed and quantized weights keep their formats', (t) => {
  const w = randn([4, 8])
  const x = randn([3, 8])
  const q = quant.quantize(w, { dtype: 'int8', granularity: quant.perChannel(0) })
  const wanted = { packed: linear(x, pack(w)), half: linear(x.to('float16'), pack(w.to('float16'))), q: linear(x, q) }
  amp.autocast('bfloat16', () => {
    t.same(linear(x, pack(w)).dataSync(), wanted.packed.dataSync())
    t.same(linear(x, pack(w.to('float16'))).dataSync(), wanted.half.dataSync())
    t.same(linear(x.to('float16'), pack(w)).dtype, 'float32')
    t.same(linear(x, q).dataSync(), wanted.q.dataSync())
  })
  t.end()
})

t.test('attention: products in 16 bits, softmax in float32', (t) => {
  const report = new amp.PrecisionReport()
  const attention = new nn.MultiHeadAttention(8, 2)
  const y = amp.autocast('bfloat16', () => attention.forward(randn([2, 3, 8])), { report })
  t.equal(y.dtype, 'bfloat16')
  t.equal(report.runs('linear', 'bfloat16'), 4)
  t.equal(report.runs('matmul', 'bfloat16'), 2)
  t.equal(report.runs('softmax', 'float32'), 1)
  t.equal(report.runs('softmax'), 1)
  sum(y).backward()
  for (const [name, p] of attention.namedParameters()) t.equal(p.grad?.dtype, 'float32', name)
  t.match(String(report), /^op +dtype +runs\ncast +bfloat16 +\d+\n/)
  t.equal(report.runs('reshape'), 0, 'views compute nothing')
  t.end()
})

t.test('backward inside a region casts nothing', (t) => {
  const model = () => {
    all.manualSeed(3)
    return new nn.Sequential(new nn.Linear(4, 5), new nn.GELU(), new nn.Linear(5, 2))
  }
  const [one, two] = [model(), model()]
  const x = randn([3, 4])
  const labels = tensor([0, 1, 1], { dtype: 'int64' })
  const loss = amp.autocast('float16', () => crossEntropy(one.forward(x), labels))
  loss.backward()
  const report = new amp.PrecisionReport()
  const inside = () => {
    const last = crossEntropy(two.forward(x), labels)
    const forward = report.ops
    last.backward()
    t.same(report.ops, forward)
  }
  amp.autocast('float16', inside, { report })
  const grads = (m: nn.Module) => m.parameters().map((p) => p.grad?.dataSync())
  t.same(grads(two), grads(one))
  t.end()
})

t.test('regions nest, end when they throw, and follow async functions', async (t) => {
  const x = of('float32')
  const dtype = () => matmul(x, x).dtype
  const inside: string[] = []
  amp.autocast('bfloat16', () => {
    inside.push(dtype(), amp.autocast('float16', dtype), amp.autocast(null, dtype), dtype())
    t.equal(noGrad(dtype), 'bfloat16')
    t.equal(scope(dtype), 'bfloat16')
    t.throws(() =>
      amp.autocast('float16', () => {
        throw new Error('inside')
      }),
    )
    inside.push(dtype())
  })
  t.same(inside, ['bfloat16', 'float16', 'float32', 'bfloat16', 'bfloat16'])
  t.equal(dtype(), 'float32')
  const later = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
  const slow = amp.autocast('bfloat16', async () => {
    await later(5)
    return dtype()
  })
  const quick = amp.autocast('float16', async () => {
    await later(1)
    return dtype()
  })
  t.equal(dtype(), 'float32', 'while both wait')
  t.same(await Promise.all([slow, quick]), ['bfloat16', 'float16'])
  await t.rejects(
    amp.autocast('float16', async () => {
      await later(1)
      throw new Error('later')
    }),
  )
  t.equal(dtype(), 'float32')
  t.equal(context().autocast, null)
  t.end()
})

t.test('hostile arguments', (t) => {
  const fails = (fn: () => unknown, message: RegExp) => t.throws(fn, { code: 'ERR_ARGUMENT', message })
  for (const dtype of ['float32', 'half', 1, undefined, {}] as never[])
    fails(() => amp.autocast(dtype, () => 0), /autocast: dtype must be 'bfloat16', 'float16' or null/)
  fails(() => amp.autocast('float16', 3 as never), /fn must be a function/)
  fails(() => amp.autocast('float16', () => 0, { report: {} as never }), /report must be a PrecisionReport/)
  amp.autocast('float16', () => {
    fails(() => matmul(1 as never, of('float32')), /matmul: a must be a tensor/)
    fails(() => exp('x' as never), /exp: a must be a tensor/)
    t.throws(() => linear(of('float32'), of('float32'), tensor([1])), { code: 'ERR_SHAPE' })
  })
  const gone = of('float32')
  gone.dispose()
  t.throws(() => amp.autocast('float16', () => matmul(gone, gone)), { code: 'ERR_DISPOSED' })
  t.end()
})
