/** The ways to keep and run the trained digits model: every entry is a row of the demo's table. */
import { crossEntropy, data, nn, optim, quant, scope, type Tensor } from 'kerf'

export type Digits = data.Dataset<[Tensor<'float32'>, Tensor<'int64'>]>
export type Weights = Record<string, Tensor>

export function lenet(): nn.Module {
  return new nn.Sequential(
    new nn.Linear(784, 300),
    new nn.ReLU(),
    new nn.Linear(300, 100),
    new nn.ReLU(),
    new nn.Linear(100, 10),
  )
}

export interface Training {
  epochs: number
  /** Stops an epoch early. */
  maxSteps: number
  lr: number
}

interface Steps extends Training {
  begin?(steps: number): void
  step?(loss: number): void
  epoch?(epoch: number, steps: number, loss: number): Promise<void>
}

/** Trains with AdamW on a cosine schedule. */
export async function train(model: nn.Module, digits: Digits, options: Steps): Promise<void> {
  const batches = data.loader(digits, { batchSize: 64, shuffle: true, seed: 1, dropLast: true, recycle: true })
  const steps = Math.min(batches.length, options.maxSteps)
  const optimizer = new optim.AdamW(model.parameters(), { lr: options.lr, weightDecay: 0.01 })
  const schedule = new optim.CosineAnnealingLR(optimizer, steps * options.epochs)
  options.begin?.(steps * options.epochs)
  let shown = Number.NaN
  for (let epoch = 0; epoch < options.epochs; epoch++) {
    let step = 0
    model.train()
    for await (const [x, y] of batches) {
      const loss = scope(() => {
        const loss = crossEntropy(model.forward(x), y)
        optimizer.zeroGrad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss
      })
      if (step % 50 === 0) shown = (await loss.data())[0] as number
      loss.dispose()
      options.step?.(shown)
      if (++step === steps) break
    }
    model.eval()
    await options.epoch?.(epoch, steps, shown)
  }
}

/** What a format is made of. */
export interface Trained {
  weights: Weights
  training: Digits
  maxSteps: number
}

export interface Format {
  name: string
  make(trained: Trained): Promise<nn.Module>
  /** An untrained float model that a saved file of this format is loaded into. */
  empty(): nn.Module
  /** How much less accurate than float32 it may be; the demo fails beyond it. */
  tolerated: number
}

function copyOf(weights: Weights): nn.Module {
  const model = lenet().eval()
  model.loadStateDict(weights)
  return model
}

function half(dtype: 'float16' | 'bfloat16'): Format {
  return {
    name: dtype,
    make: async ({ weights }) => copyOf(weights).to(dtype),
    empty: () => lenet().to(dtype),
    tolerated: 0.001,
  }
}

/** A thousand training images show the ranges of the activations. */
const CALIBRATION_IMAGES = 1000
const calibration = (digits: Digits) =>
  data.loader(data.split(digits, [CALIBRATION_IMAGES, digits.length - CALIBRATION_IMAGES], { seed: 2 })[0] as Digits, {
    batchSize: 250,
  })

function quantized(name: string, config: quant.QuantConfig, tolerated: number): Format {
  return {
    name,
    make: ({ weights, training }) =>
      quant.quantizeModel(copyOf(weights), config, { calibrationData: calibration(training) }),
    empty: lenet,
    tolerated,
  }
}

/** One more epoch with the rounding in the forward pass. */
function trainedAware(name: string, config: quant.QuantConfig, tolerated: number): Format {
  return {
    name,
    async make({ weights, training, maxSteps }) {
      const model = quant.prepareQat(copyOf(weights), config)
      await train(model, training, { epochs: 1, maxSteps, lr: 2e-4 })
      return quant.convert(model)
    },
    empty: lenet,
    tolerated,
  }
}

const int4 = quant.weightOnly({ bits: 4, granularity: quant.perGroup(128) })

export const formats: Format[] = [
  { name: 'float32', make: async ({ weights }) => copyOf(weights), empty: lenet, tolerated: 0 },
  half('float16'),
  half('bfloat16'),
  quantized('int8 dynamic', quant.int8Dynamic(), 0.002),
  quantized('int8 static', quant.int8Static({ calibration: 'percentile' }), 0.002),
  quantized('int4 weights', int4, 0.01),
  trainedAware('int4 weights after QAT', int4, 0.005),
]
