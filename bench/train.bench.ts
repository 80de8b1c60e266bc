/**
 * A training step: forward, loss, backward, AdamW. In float32 (peers by hand: bench/peers/), and in mixed
 * precision against that.
 */
import { autocast } from '#lib/amp/index'
import type { BenchOptions, BenchRow } from '#lib/cli/report'
import '#lib/fluent'
import { addon } from '#lib/native/load'
import { syncBlocking } from '#lib/native/stream'
import { Conv2d, Flatten, Linear, MaxPool2d, type Module, ReLU, Sequential } from '#lib/nn/index'
import { rand, tensor } from '#lib/ops/create'
import { crossEntropy } from '#lib/ops/loss'
import { AdamW } from '#lib/optim/index'
import { scope } from '#lib/tensor/context'
import type { Contender } from './measure'
import { type Case, measureRow, threadCounts, withThreads } from './row'
import { asked } from './wanted'

const dtypes = ['float32', 'bfloat16'] as const
type TrainDType = (typeof dtypes)[number]

export interface Net {
  name: string
  why: string
  batch: number
  shape: number[] // of an example
  make(): Module
}

export const nets: Net[] = [
  {
    name: 'LeNet-300-100',
    why: 'everything together: matmul, loss, autograd, optimizer, and the memory between them',
    batch: 64,
    shape: [784],
    make: () => new Sequential(new Linear(784, 300), new ReLU(), new Linear(300, 100), new ReLU(), new Linear(100, 10)),
  },
  {
    name: 'LeNet-5',
    why: 'the same with convolutions and pooling',
    batch: 64,
    shape: [1, 28, 28],
    make: () =>
      new Sequential(
        ...[new Conv2d(1, 6, 5, { padding: 2 }), new ReLU(), new MaxPool2d(2)],
        ...[new Conv2d(6, 16, 5), new ReLU(), new MaxPool2d(2), new Flatten()],
        ...[new Linear(400, 120), new ReLU(), new Linear(120, 84), new ReLU(), new Linear(84, 10)],
      ),
  },
  { ...wide(64), why: 'half products, half AdamW over 6.3 million parameters' },
  { ...wide(512), why: 'bound by its products' },
]

function wide(batch: number): Omit<Net, 'why'> {
  return {
    name: 'MLP 1024-2048-2048-10',
    batch,
    shape: [1024],
    make: () =>
      new Sequential(new Linear(1024, 2048), new ReLU(), new Linear(2048, 2048), new ReLU(), new Linear(2048, 10)),
  }
}

/** Steps of a model of its own; bfloat16 is autocast over float32 weights. */
export function steps(net: Net, dtype: TrainDType): Contender {
  const model = net.make()
  const optimizer = new AdamW(model.parameters(), { lr: 1e-3 })
  const x = rand([net.batch, ...net.shape])
  const labels = tensor(
    Array.from({ length: net.batch }, (_, i) => i % 10),
    { dtype: 'int64' },
  )
  const forward = () => crossEntropy(model.forward(x), labels)
  return {
    run(times) {
      // a step's tensors are given back at its end, as by kerf/train
      for (let i = 0; i < times; i++)
        scope(() => {
          const loss = dtype === 'float32' ? forward() : autocast(dtype, forward)
          optimizer.zeroGrad()
          loss.backward()
          optimizer.step()
        })
      syncBlocking()
    },
  }
}

async function step(options: BenchOptions, threads: number, net: Net, dtype: TrainDType): Promise<BenchRow> {
  const mixed = dtype !== 'float32'
  return measureRow(
    {
      suite: 'train',
      name: `${net.name} step, batch ${net.batch}, AdamW${mixed ? `, autocast to ${dtype}` : ''}`,
      why: mixed ? 'what 16-bit products gain in a whole step, less the casts of the weights' : net.why,
      dtype,
      shape: [net.batch, ...net.shape],
      threads,
      kernel: null,
      contender: steps(net, dtype),
      ...(mixed ? { baseline: { name: 'float32', contender: steps(net, 'float32') } } : {}),
    },
    options,
  )
}

export function trainCases(options: BenchOptions): Case[] {
  if (options.shapes.length > 0) return []
  return nets.flatMap((net) =>
    dtypes
      .filter((dtype) => asked(options, 'train', dtype))
      .flatMap((dtype) =>
        threadCounts(options).map((threads) => ({
          name: `${net.name} step, batch ${net.batch}, in ${dtype}, ${threads} threads`,
          run: () => withThreads(threads, addon.machine().target, () => step(options, threads, net, dtype)),
        })),
      ),
  )
}
