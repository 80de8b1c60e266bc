/** The ways to keep and run the trained digits models: every entry is a row of the demo's table. */
import { data, type nn, prune, quant } from 'kerf'
import { SPARSITY, STUDENT } from './digits-chain'
import { copyOf, type Digits, lenet, train, type Weights } from './digits-training'

/** What a format is made of. */
export interface Trained {
  weights: Weights
  /** Of the student that LeNet-300-100 taught, before and after it was pruned. */
  student: Weights
  pruned: Weights
  training: Digits
}

export interface Format {
  name: string
  make(trained: Trained): Promise<nn.Module>
  /** An untrained float model that a saved file of this format is loaded into. */
  empty(): nn.Module
  /** How much less accurate than float32 it may be; the demo fails beyond it. */
  tolerated: number
  /** Another network than LeNet-300-100: its file is compressed, and a short run may lose more of it. */
  student?: boolean
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
    async make({ weights, training }) {
      const model = quant.prepareQat(copyOf(weights), config)
      await train(model, training, { epochs: 1, maxSteps: Number.POSITIVE_INFINITY, lr: 2e-4 })
      return quant.convert(model)
    },
    empty: lenet,
    tolerated,
  }
}

const int4 = quant.weightOnly({ bits: 4, granularity: quant.perGroup(128) })

/** Zeros instead of masks: nothing is trained any more. */
function withoutMasks(weights: Weights): nn.Module {
  const model = copyOf(weights)
  prune.removeMasks(model)
  return model
}

const small = () => lenet(STUDENT)
const int8 = quant.int8Static({ calibration: 'percentile' })
const pruned = `student, ${100 * SPARSITY} % pruned`

const students: Format[] = [
  { name: 'student', make: async ({ student }) => copyOf(student), empty: small, tolerated: 0.008 },
  { name: pruned, make: async ({ pruned }) => withoutMasks(pruned), empty: small, tolerated: 0.012 },
  {
    name: `${pruned}, int8`,
    make: ({ pruned, training }) =>
      quant.quantizeModel(withoutMasks(pruned), int8, { calibrationData: calibration(training) }),
    ...{ empty: small, tolerated: 0.012 },
  },
]

export const formats: Format[] = [
  { name: 'float32', make: async ({ weights }) => copyOf(weights), empty: lenet, tolerated: 0 },
  half('float16'),
  half('bfloat16'),
  quantized('int8 dynamic', quant.int8Dynamic(), 0.002),
  quantized('int8 static', int8, 0.002),
  quantized('int4 weights', int4, 0.01),
  trainedAware('int4 weights after QAT', int4, 0.005),
  ...students.map((format) => ({ ...format, student: true })),
]
