/**
 * What makes models smaller, on the emulated device: every technique gives there what it gives on the CPU. Data stay on the CPU where
 * a function takes batches; files are read on the CPU and loaded into models that are on a GPU.
 */
import path from 'node:path'
import {
  amp,
  crossEntropy,
  distill,
  io,
  manualSeed,
  nn,
  optim,
  prune,
  quant,
  randn,
  type Tensor,
  tensor,
  train,
} from 'kerf'
import t from 'tap'
import { noDevice } from './emulated'
import { scratch } from './programs'

type Place = 'cpu' | 'cuda'

/** The same on every device: random numbers are. */
function dense(place: Place, hidden = 32): nn.Sequential {
  manualSeed(3)
  return new nn.Sequential(new nn.Linear(16, hidden), new nn.ReLU(), new nn.Linear(hidden, 8)).to(place)
}
function images(place: Place): nn.Sequential {
  manualSeed(4)
  return new nn.Sequential(
    new nn.Conv2d(3, 8, 3, { padding: 1 }),
    new nn.BatchNorm2d(8),
    new nn.ReLU(),
    new nn.MaxPool2d(2),
    new nn.Conv2d(8, 16, 3),
    new nn.ReLU(),
    new nn.Flatten(),
    new nn.Linear(64, 10),
  ).to(place)
}
function drawn(shape: number[], seed: number): Tensor {
  manualSeed(seed)
  return randn(shape)
}
const ROWS = 24
const x = drawn([ROWS, 16], 9)
const y = tensor(
  Array.from({ length: ROWS }, (_, i) => BigInt(i % 8)),
  { dtype: 'int64' },
)
const pictures = drawn([6, 3, 8, 8], 10)
const calibrationData = [x]

function steps(model: nn.Module, place: Place, optimizer: optim.Optimizer, count = 3): void {
  const [input, labels] = [x.to(place), y.to(place)]
  for (let i = 0; i < count; i++) {
    optimizer.zeroGrad()
    crossEntropy(model.forward(input), labels).backward()
    optimizer.step()
  }
}
const sgd = (model: nn.Module) => new optim.SGD(model.parameters(), { lr: 0.1 })

/** A model to be changed, then asked; its input where it is not x. */
type Technique = (place: Place) => Promise<nn.Module | [nn.Module, Tensor]>

const quantized =
  (config: quant.QuantConfig): Technique =>
  (place) =>
    quant.quantizeModel(dense(place).eval(), config, { calibrationData })
const pruned =
  (how: (model: nn.Sequential) => unknown, format?: 'csr' | '2:4'): Technique =>
  async (place) => {
    const model = dense(place)
    await how(model)
    if (format) await prune.convert(model.eval(), format)
    return model
  }
const aware =
  (ranges: 'observed' | 'learned'): Technique =>
  async (place) => {
    const model = quant.prepareQat(dense(place), quant.int8Static(), { ranges })
    steps(model, place, sgd(model))
    return quant.convert(model.eval())
  }

const techniques: Record<string, Technique> = {
  'int8 weights': quantized(quant.weightOnly({ bits: 8 })),
  'int4 weights by GPTQ': quantized(quant.weightOnly({ bits: 4, method: 'gptq' })),
  'int4 weights by AWQ': quantized(quant.weightOnly({ bits: 4, method: 'awq' })),
  'int8, dynamic': quantized(quant.int8Dynamic()),
  'int8, static': quantized(quant.int8Static()),
  'int8 convolutions': async (place) => {
    const model = await quant.quantizeModel(images(place).eval(), quant.int8Static(), { calibrationData: [pictures] })
    return [model, pictures]
  },
  SmoothQuant: async (place) => {
    const model = dense(place).eval()
    await quant.smoothQuant(model, { calibrationData })
    return model
  },
  'QAT, observed ranges': aware('observed'),
  'QAT, learned ranges': aware('learned'),
  magnitude: pruned((model) => prune.magnitude(model, { sparsity: 0.5 })),
  'CSR layers': pruned((model) => prune.magnitude(model, { sparsity: 0.8 }), 'csr'),
  '2:4 layers': pruned((model) => prune.semiStructured(model), '2:4'),
  Wanda: pruned((model) => prune.wanda(model, { calibrationData, sparsity: 0.5 })),
  SparseGPT: pruned((model) => prune.sparseGpt(model, { calibrationData, sparsity: 0.5 })),
  movement: pruned(async (model) => {
    const scores = new prune.MovementScores(model)
    const { device } = model.parameters()[0] as Tensor
    crossEntropy(model.forward(x.to(device)), y.to(device)).backward()
    scores.accumulate()
    await prune.movement(model, { scores, sparsity: 0.5 })
  }),
  'whole channels': async (place) => {
    const model = images(place).eval()
    await prune.structured(model, { ratio: 0.5, exampleInput: pictures.to(place) })
    return [model, pictures]
  },
  distillation: async (place) => {
    const [teacher, student] = [dense(place), dense(place, 8)]
    const optimizer = new optim.Adam(student.parameters(), { lr: 1e-2 })
    await distill.distill({ teacher, student, data: [[x, y]], optimizer, epochs: 3, temperature: 2, alpha: 0.5 })
    return student
  },
  'mixed precision with scaled gradients': async (place) => {
    const model = dense(place)
    const [optimizer, scaler] = [sgd(model), new amp.GradScaler()]
    for (let i = 0; i < 3; i++) {
      optimizer.zeroGrad()
      const loss = amp.autocast('float16', () => crossEntropy(model.forward(x.to(place)), y.to(place)))
      scaler.scale(loss).backward()
      await scaler.step(optimizer)
      scaler.update()
    }
    return model
  },
  'Trainer with batches of the CPU': async (place) => {
    const model = dense(place)
    const data = [[x, y]]
    const metrics = { accuracy: train.accuracy }
    const loss = (out: Tensor, labels: Tensor) => crossEntropy(out, labels)
    const trainer = new train.Trainer({ model, optimizer: sgd(model), loss, metrics, progress: false })
    await trainer.fit(data, { epochs: 3, validation: data })
    return model
  },
  'an average of the weights': async (place) => {
    const model = dense(place)
    const ema = new train.Ema(model, { decay: 0.5 })
    for (let i = 0; i < 3; i++) {
      steps(model, place, sgd(model), 1)
      ema.update()
    }
    ema.copyTo()
    return model
  },
  'files, and a checkpoint of the optimizer': async (place) => {
    const [model, again] = [dense(place), dense(place)]
    const adam = () => new optim.Adam(model.parameters(), { lr: 1e-2 })
    const optimizer = adam()
    steps(model, place, optimizer)
    const file = path.join(scratch, `${place}.safetensors`)
    await io.saveSafetensors(file, model.stateDict())
    again.loadStateDict(await io.loadSafetensors(file))
    await train.saveCheckpoint(file, { optimizer: optimizer.stateDict() })
    const next = new optim.Adam(again.parameters(), { lr: 1e-2 })
    next.loadStateDict(((await train.loadCheckpoint(file)) as { optimizer: optim.OptimizerState }).optimizer)
    steps(again, place, next, 1)
    return again
  },
  'masks that a file brings': async (place) => {
    const [model, again] = [dense('cpu'), dense(place)]
    await prune.magnitude(model, { sparsity: 0.5 })
    again.loadStateDict(model.stateDict())
    steps(again, place, sgd(again))
    return again
  },
}

/**
 * Logits are sums of at most 64 products of about 1; the paths differ by the order of sums and by activations of 22 bits instead of 16,
 * which makes about 2^-15 in weight-only products and, of float16 regions, 2^-11 of a logit.
 */
const tolerance = (name: string) =>
  name.startsWith('mixed') ? 2 ** -8 : name.endsWith('weights') || name.includes('weights by') ? 2 ** -12 : 2 ** -17

for (const [name, technique] of Object.entries(techniques)) {
  t.test(name, { skip: noDevice }, async (t) => {
    const answers: Float32Array[] = []
    for (const place of ['cpu', 'cuda'] as const) {
      const made = await technique(place)
      const [model, input] = Array.isArray(made) ? made : [made, x]
      const out = model.forward(input.to(place))
      t.equal(out.device, place === 'cpu' ? 'cpu' : 'cuda:0')
      const states = Object.values(model.stateDict())
      t.ok(states.length > 0 && states.every((state) => state.device === out.device), 'and so is all of the model')
      answers.push(out.dataSync() as Float32Array)
    }
    const [here, there] = answers as [Float32Array, Float32Array]
    const off = Math.max(...here.map((value, i) => Math.abs(value - (there[i] as number))))
    t.ok(here.some((value) => Math.abs(value) > 0.1) && off <= tolerance(name), `off by ${off}`)
  })
}
