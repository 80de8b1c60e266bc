/** The digits network trains on the emulated device to the losses of the CPU: real data, every kernel of a step. */
import { crossEntropy, data, info, manualSeed, nn, optim, type Tensor } from 'kerf'
import t from 'tap'
import { noDevice } from './emulated'

const STEPS = 6
const BATCH = 32
const WIDTH = 32

interface Step {
  loss: number
  /** Largest sum of magnitudes behind a logit: |W2| (|W1| |x| + |b1|) + |b2|. */
  magnitude: number
}

const abs = (a: Tensor) => Float64Array.from(a.dataSync() as Float32Array, Math.abs)

function magnitudeOf(layers: readonly nn.Linear[], x: Tensor): number {
  let rows = abs(x)
  for (const layer of layers) {
    const [out, inputs] = layer.weight.shape as [number, number]
    const w = abs(layer.weight)
    const b = abs(layer.bias as Tensor)
    rows = Float64Array.from({ length: BATCH * out }, (_, at) => {
      const [row, column] = [Math.floor(at / out), at % out]
      let sum = b[column] as number
      for (let k = 0; k < inputs; k++) sum += (rows[row * inputs + k] as number) * (w[column * inputs + k] as number)
      return sum
    })
  }
  return Math.max(...rows)
}

async function train(device: 'cpu' | 'cuda', optimizerOf: (parameters: Tensor[]) => optim.Optimizer): Promise<Step[]> {
  manualSeed(11)
  const first = new nn.Linear(784, WIDTH)
  const second = new nn.Linear(WIDTH, 10)
  const model = new nn.Sequential(first, new nn.ReLU(), second).to(device)
  const optimizer = optimizerOf(model.parameters())
  const steps: Step[] = []
  for await (const [images, digits] of data.loader(await data.mnist({ split: 'test' }), { batchSize: BATCH })) {
    const [x, y] = [(images as Tensor).to(device), (digits as Tensor).to(device)]
    const magnitude = magnitudeOf([first, second], x)
    optimizer.zeroGrad()
    const loss = crossEntropy(model.forward(x), y)
    loss.backward()
    optimizer.step()
    steps.push({ loss: (await loss.data())[0] as number, magnitude })
    if (steps.length === STEPS) break
  }
  t.equal(first.weight.device, device === 'cpu' ? 'cpu' : 'cuda:0')
  return steps
}

// A product of length k sums with an error below 6 sqrt(k) 2^-24 of its magnitude but for one in 10^7 (Higham and Mary 2019);
// cross-entropy moves by at most twice the largest error of a logit. Each step before adds once more what its gradients,
// sums over the same terms, were off: steps of these sizes move a logit by less than its magnitude.
const tolerance = (step: number, magnitude: number) =>
  (step + 1) * 2 * 6 * (Math.sqrt(784) + Math.sqrt(WIDTH)) * 2 ** -24 * magnitude

for (const [name, optimizerOf] of Object.entries({
  'SGD with momentum': (p: Tensor[]) => new optim.SGD(p, { lr: 0.1, momentum: 0.9, weightDecay: 1e-4 }),
  AdamW: (p: Tensor[]) => new optim.AdamW(p, { lr: 1e-3 }),
})) {
  t.test(name, { skip: noDevice }, async (t) => {
    t.equal(info().cuda.available, true)
    const cpu = await train('cpu', optimizerOf)
    const cuda = await train('cuda', optimizerOf)
    t.equal(cuda.length, STEPS)
    for (const [i, { loss, magnitude }] of cpu.entries()) {
      const off = Math.abs((cuda[i] as Step).loss - loss)
      t.ok(off <= tolerance(i, magnitude), `step ${i}: ${loss}, off by ${off}, may be ${tolerance(i, magnitude)}`)
    }
    t.ok((cpu.at(-1) as Step).loss < (cpu[0] as Step).loss, 'it learns')
  })
}
