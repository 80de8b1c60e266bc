// Trains LeNet-300-100 for 10,000 steps without a single dispose() and prints resident memory along the way, in MiB.
// Usage: node memory-child.js <awaiting|scoped|plain>
import { crossEntropy, manualSeed, nn, optim, randn, scope, type Tensor, tensor } from 'kerf'

const STEPS = 10000
const EVERY = 250

manualSeed(1)
const model = new nn.Sequential(
  new nn.Linear(784, 300),
  new nn.ReLU(),
  new nn.Linear(300, 100),
  new nn.ReLU(),
  new nn.Linear(100, 10),
)
const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-3 })
const images = randn([16, 784])
const labels = tensor(
  Array.from({ length: 16 }, (_, i) => i % 10),
  { dtype: 'int64' },
)

function step(): Tensor {
  const loss = crossEntropy(model.forward(images), labels)
  optimizer.zeroGrad()
  loss.backward()
  optimizer.step()
  return loss
}

const sizes: number[] = []
const note = (i: number) => i % EVERY === EVERY - 1 && sizes.push(Math.round(process.memoryUsage.rss() / 2 ** 20))

async function main() {
  let last = Number.NaN
  for (let i = 0; i < STEPS; i++) {
    if (process.argv[2] === 'awaiting') [last] = (await step().data()) as unknown as [number]
    else if (process.argv[2] === 'scoped') scope(() => void step())
    else step()
    note(i)
  }
  if (process.argv[2] !== 'awaiting') last = scope(() => step().item() as number)
  console.log(JSON.stringify({ sizes, loss: last }))
}

void main()
