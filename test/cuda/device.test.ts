/** What a GPU is to a program: names, moving, mixing, errors; on the emulated device, and without one. */

import {
  add,
  arange,
  crossEntropy,
  device,
  info,
  manualSeed,
  matmul,
  mul,
  nn,
  ones,
  optim,
  pack,
  quant,
  rand,
  randn,
  sum,
  type Tensor,
  tensor,
} from 'kerf'
import t from 'tap'
import { native } from '#lib/native/call'
import { noDevice, root } from './emulated'
import { run } from './programs'

const skip = noDevice

t.test('there and back, with gradients', { skip }, async (t) => {
  const x = tensor(
    [
      [1, 2, 3],
      [4, 5, 6],
    ],
    { requiresGrad: true },
  )
  const there = x.to('cuda')
  t.equal(there.device, 'cuda:0')
  t.equal(there.to('cuda:0'), there)
  t.same(there.arraySync(), x.arraySync())
  t.same(await there.transpose().array(), await x.transpose().array())
  t.same(there.to('cuda:1').to('cpu').arraySync(), x.arraySync())
  sum(mul(there, there)).backward()
  t.equal(x.grad?.device, 'cpu')
  t.same(x.grad?.arraySync(), [
    [2, 4, 6],
    [8, 10, 12],
  ])
  t.same(tensor([1n, 2n], { device: 'cuda' }).to('float16').to('cpu').arraySync(), [1, 2])
  t.equal(ones([2], { device: 'cuda:1' }).device, 'cuda:1')
  t.same(device('cuda:1'), { type: 'cuda', name: 'cuda:1', description: 'emulated' })
  t.equal(info().cuda.devices.length, 2)
})

t.test('layers of images and sequences make what they need where their input is', { skip }, (t) => {
  const trained = (layer: { parameters(): Tensor[] }, x: Tensor, run: () => Tensor) => {
    x.requiresGrad = true
    const out = run()
    sum(out).backward()
    const found = [out, x.grad as Tensor, ...layer.parameters().map((p) => p.grad as Tensor)]
    t.same(new Set(found.map((a) => a.device)), new Set(['cuda:0']), layer.constructor.name)
    t.ok(
      found.every((a) => (a.dataSync() as Float32Array).every(Number.isFinite)),
      'finite',
    )
  }
  const layers = [
    new nn.Conv2d(3, 8, 3, { padding: 1, stride: 2 }),
    new nn.ConvTranspose2d(3, 8, 3, { stride: 2 }),
    new nn.BatchNorm2d(3),
    new nn.MaxPool2d(2),
    new nn.AvgPool2d(2),
    new nn.AdaptiveAvgPool2d(1),
    new nn.Dropout2d(0.5),
  ]
  for (const layer of layers) {
    const x = randn([2, 3, 9, 9], { device: 'cuda' })
    layer.to('cuda')
    trained(layer, x, () => layer.forward(x))
  }
  for (const layer of [new nn.LSTM(5, 6, { bidirectional: true }), new nn.GRU(5, 6), new nn.RNN(5, 6)]) {
    const x = randn([4, 2, 5], { device: 'cuda' })
    layer.to('cuda')
    trained(layer, x, () => layer.forward(x).output)
  }
  const mask = (place: string) => {
    manualSeed(3)
    return new nn.Dropout2d(0.5).forward(ones([4, 6, 2], { device: place as 'cpu' })).arraySync()
  }
  t.same(mask('cuda'), mask('cpu'), 'the same channels are dropped')
  t.end()
})

t.test('larger than the staging pieces', { skip }, (t) => {
  const n = (9 << 20) / 4 + 3 // more than 8 MiB, not whole
  t.same(arange(0, n, 1).to('cuda').dataSync().subarray(-3), Float32Array.of(n - 3, n - 2, n - 1))
  t.end()
})

t.test('the same random numbers as on the CPU', { skip }, (t) => {
  const makers = { rand: rand as typeof randn, randn }
  for (const [name, make] of Object.entries(makers)) {
    for (const dtype of ['float32', 'float16', 'bfloat16'] as const) {
      manualSeed(5)
      const want = make([1001], { dtype }).dataSync()
      manualSeed(5)
      t.same(make([1001], { dtype, device: 'cuda' }).dataSync(), want, `${name} ${dtype}`)
    }
  }
  t.end()
})

t.test('devices do not mix, and nothing runs on the CPU unasked', { skip }, (t) => {
  const [here, there] = [ones([2, 2]), ones([2, 2], { device: 'cuda' })]
  const mixed = (message: string) => ({ name: 'DeviceError', code: 'ERR_DEVICE', message })
  t.throws(() => add(there, here), mixed('add: its tensors are on cuda:0 and cpu: to() brings them together'))
  t.throws(() => matmul(here, there), mixed('matmul: its tensors are on cpu and cuda:0: to() brings them together'))
  t.throws(() => matmul(there, ones([2, 2], { device: 'cuda:1' })), {
    code: 'ERR_DEVICE',
    message: /cuda:0 and cuda:1/,
  })
  t.throws(() => crossEntropy(there, tensor([0n, 1n])), { code: 'ERR_DEVICE', message: /^crossEntropy: .* cpu/ })
  const [codes, scale] = [quant.quantize(there).values, tensor(1)]
  t.throws(
    () => quant.dequantizeLinear(codes, scale),
    mixed('dequantize: its tensors are on cuda:0 and cpu: to() brings them together'),
  )
  t.throws(() => native.exp(codes, codes), mixed('exp: no CUDA kernel of exp for int8 yet'))
  t.throws(() => there.to('cuda:7'), mixed('to: no cuda:7: there are 2 devices'))
  t.same(
    add(there, 1).arraySync(),
    [
      [2, 2],
      [2, 2],
    ],
    'and all goes on',
  )
  t.end()
})

t.test('packed weights, modules, masks and optimizers move along', { skip }, (t) => {
  const x = randn([3, 20])
  const w = randn([20, 7])
  const apart = matmul(x, w).dataSync() as Float32Array
  const packed = matmul(x.to('cuda'), pack(w.to('cuda'))).dataSync() as Float32Array
  for (const [i, value] of packed.entries()) {
    // 20 products of standard normal numbers, each sum within 20 roundings of its magnitudes: below 100
    t.ok(Math.abs(value - (apart[i] as number)) <= 2 * 20 * 2 ** -24 * 100)
  }
  const layer = new nn.Linear(4, 2)
  layer.weight.mask = tensor([
    [true, false, true, true],
    [true, true, true, false],
  ])
  layer.to('cuda')
  t.same([layer.weight.device, layer.bias?.device, layer.weight.mask?.device], ['cuda:0', 'cuda:0', 'cuda:0'])
  const adam = new optim.Adam(layer.parameters(), { lr: 0.1 })
  sum(layer.forward(ones([1, 4], { device: 'cuda' }))).backward()
  adam.step()
  const after = layer.weight.dataSync()
  t.same([after[1], after[7]], [0, 0], 'what the mask prunes stays 0')
  t.same(layer.to('cpu').weight.dataSync(), after)
  t.end()
})

t.test('disposed memory is used again, in the order of the program', { skip }, async (t) => {
  let x = ones([1000], { device: 'cuda' })
  for (let i = 0; i < 100; i++) {
    const next = add(x, 1)
    x.dispose()
    x = next
  }
  t.ok((await x.data()).every((v) => v === 101))
})

const programs: Record<string, string> = {
  off: "console.log(kerf.info().cuda.reason); try { kerf.ones([1]).to('cuda') } catch (e) { console.log(e.code, e.message) }",
  // A launch goes wrong: reported by the promise, the process lives and the CPU works.
  fault: `(async () => {
    const x = kerf.ones([4], { device: 'cuda' })
    await kerf.add(x, 1).data().catch((e) => console.log(e.code, e.message))
    try { kerf.add(x, 1).dataSync() } catch (e) { console.log(e.code, e.message) }
    console.log(String(kerf.add(kerf.ones([2]), 1).dataSync()))
  })()`,
}
const program = (name: string, environment: Record<string, string>) =>
  run(process.execPath, ['-e', `const kerf = require('kerf'); ${programs[name]}`], root, environment)

t.test('KERF_CUDA=0 says so', async (t) => {
  const { code, text } = await program('off', { KERF_CUDA: '0' })
  t.equal(code, 0)
  t.same(text.trim().split('\n'), ['KERF_CUDA=0', 'ERR_DEVICE to: no CUDA device: KERF_CUDA=0'])
})

t.test('a kernel that fails is a rejected promise, and the process lives', { skip }, async (t) => {
  const { code, text, errors } = await program('fault', { KERF_EMULATOR_FAULT: '2' })
  t.equal(code, 0, errors)
  const [first, second, last] = text.trim().split('\n')
  t.match(first, /^ERR_DEVICE .*a fault that was asked for/)
  t.match(second, /^ERR_DEVICE .*a fault that was asked for/)
  t.equal(last, '2,2')
})
