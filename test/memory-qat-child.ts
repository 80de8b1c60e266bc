// Trains LeNet-300-100 with quantization in the forward pass for 500 steps without a single dispose() and prints resident
// memory along the way, in MiB. Usage: node memory-qat-child.js <static|int4> <awaiting|scoped>
import { crossEntropy, manualSeed, nn, optim, quant, randn, scope, type Tensor, tensor } from 'kerf'

const STEPS = 500
const EVERY = 10
const [, , format, how] = process.argv

manualSeed(1)
const model = new nn.Sequential(
  new nn.Linear(784, 300),
  new nn.ReLU(),
  new nn.Linear(300, 100),
  new nn.ReLU(),
  new nn.Linear(100, 10),
)
if (format === 'static') quant.prepareQat(model, quant.int8Static(), { ranges: 'learned' })
else quant.prepareQat(model, quant.weightOnly({ bits: 4 }))
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

async function main() {
  const sizes: number[] = []
  let last = Number.NaN
  for (let i = 0; i < STEPS; i++) {
    if (how === 'awaiting') [last] = (await step().data()) as unknown as [number]
    else last = scope(() => step().item() as number)
    if (i % EVERY === EVERY - 1) sizes.push(Math.round(process.memoryUsage.rss() / 2 ** 20))
  }
  console.log(JSON.stringify({ sizes, loss: last }))
}

void main()
