/** Networks on digits train on the emulated device to the losses of the CPU: real data, every kernel of a step. */
import {
  abs,
  conv2d,
  crossEntropy,
  data,
  info,
  linear,
  manualSeed,
  maxPool2d,
  nn,
  noGrad,
  optim,
  reshape,
  type Tensor,
} from 'kerf'
import t, { type Test } from 'tap'
import { noDevice } from './emulated'

interface Network {
  model: nn.Sequential
  /** A batch of flat images as the model takes them. */
  input(images: Tensor): Tensor
  /** Lengths of the sums that follow each other on the way to a logit. */
  sums: number[]
  batch: number
  steps: number
}

const WIDTH = 32

const networks: Record<string, () => Network> = {
  'two linear layers': () => ({
    model: new nn.Sequential(new nn.Linear(784, WIDTH), new nn.ReLU(), new nn.Linear(WIDTH, 10)),
    input: (images) => images,
    sums: [784, WIDTH],
    batch: 32,
    steps: 6,
  }),
  // LeCun et al. 1998, with ReLU and maxima and fewer linear layers
  'LeNet-5': () => ({
    model: new nn.Sequential(
      new nn.Conv2d(1, 6, 5, { padding: 2 }),
      new nn.ReLU(),
      new nn.MaxPool2d(2),
      new nn.Conv2d(6, 16, 5),
      new nn.ReLU(),
      new nn.MaxPool2d(2),
      new nn.Flatten(),
      new nn.Linear(400, 10),
    ),
    input: (images) => reshape(images, [images.shape[0] as number, 1, 28, 28]),
    sums: [25, 150, 400],
    batch: 8,
    steps: 4,
  }),
}

interface Step {
  loss: number
  /** Largest sum of magnitudes behind a logit: |W2| (|W1| |x| + |b1|) + |b2|, and so on; maxima are of magnitudes. */
  magnitude: number
}

function magnitudeOf(model: nn.Sequential, x: Tensor): number {
  let rows = abs(x)
  for (const [, layer] of model.namedChildren()) {
    if (layer instanceof nn.Linear) rows = linear(rows, abs(layer.weight), abs(layer.bias as Tensor))
    else if (layer instanceof nn.Conv2d)
      rows = conv2d(rows, abs(layer.weight), abs(layer.bias as Tensor), layer.options)
    else if (layer instanceof nn.MaxPool2d) rows = maxPool2d(rows, { kernelSize: 2 })
    else if (layer instanceof nn.Flatten) rows = reshape(rows, [rows.shape[0] as number, -1])
  }
  return Math.max(...(rows.dataSync() as Float32Array))
}

type OptimizerOf = (parameters: Tensor[]) => optim.Optimizer

async function train(t: Test, device: 'cpu' | 'cuda', make: () => Network, optimizerOf: OptimizerOf): Promise<Step[]> {
  manualSeed(11)
  const { model, input, batch, steps: most } = make()
  model.to(device)
  const optimizer = optimizerOf(model.parameters())
  const steps: Step[] = []
  for await (const [images, digits] of data.loader(await data.mnist({ split: 'test' }), { batchSize: batch })) {
    const [x, y] = [input((images as Tensor).to(device)), (digits as Tensor).to(device)]
    const magnitude = noGrad(() => magnitudeOf(model, x))
    optimizer.zeroGrad()
    const loss = crossEntropy(model.forward(x), y)
    loss.backward()
    optimizer.step()
    steps.push({ loss: (await loss.data())[0] as number, magnitude })
    if (steps.length === most) break
  }
  t.equal((model.parameters()[0] as Tensor).device, device === 'cpu' ? 'cpu' : 'cuda:0')
  return steps
}

// A product of length k sums with an error below 6 sqrt(k) 2^-24 of its magnitude but for one in 10^7 (Higham and Mary 2019);
// cross-entropy moves by at most twice the largest error of a logit. Each step before adds once more what its gradients,
// sums over the same terms, were off: steps of these sizes move a logit by less than its magnitude.
const tolerance = (step: number, sums: number[], magnitude: number) =>
  (step + 1) * 2 * 6 * sums.reduce((s, k) => s + Math.sqrt(k), 0) * 2 ** -24 * magnitude

for (const [network, make] of Object.entries(networks))
  for (const [name, optimizerOf] of Object.entries<OptimizerOf>({
    'SGD with momentum': (p) => new optim.SGD(p, { lr: 0.03, momentum: 0.9, weightDecay: 1e-4 }),
    AdamW: (p) => new optim.AdamW(p, { lr: 1e-3 }),
  })) {
    t.test(`${network}, ${name}`, { skip: noDevice }, async (t) => {
      t.equal(info().cuda.available, true)
      const cpu = await train(t, 'cpu', make, optimizerOf)
      const cuda = await train(t, 'cuda', make, optimizerOf)
      const { sums, steps } = make()
      t.equal(cuda.length, steps)
      for (const [i, { loss, magnitude }] of cpu.entries()) {
        const off = Math.abs((cuda[i] as Step).loss - loss)
        const most = tolerance(i, sums, magnitude)
        t.ok(off <= most, `step ${i}: ${loss}, off by ${off}, may be ${most}`)
      }
      t.ok((cpu.at(-1) as Step).loss < (cpu[0] as Step).loss, 'it learns')
    })
  }
