/**
 * A training step of LeNet-300-100: forward, loss, backward, AdamW; batch of 64. In float32 (peers by hand: bench/peers/), and
 * in mixed precision against that.
 */
import { autocast } from '#lib/amp/index'
import type { BenchOptions, BenchRow } from '#lib/cli/report'
import '#lib/fluent'
import { addon } from '#lib/native/load'
import { syncBlocking } from '#lib/native/stream'
import { Linear, ReLU, Sequential } from '#lib/nn/index'
import { rand, tensor } from '#lib/ops/create'
import { crossEntropy } from '#lib/ops/loss'
import { AdamW } from '#lib/optim/index'
import type { Contender } from './measure'
import { type Case, measureRow, threadCounts, withThreads } from './row'
import { asked } from './wanted'

const BATCH = 64
const dtypes = ['float32', 'bfloat16'] as const
type TrainDType = (typeof dtypes)[number]

/** Steps of a model of its own; bfloat16 is autocast over float32 weights. */
function steps(dtype: TrainDType): Contender {
  const model = new Sequential(new Linear(784, 300), new ReLU(), new Linear(300, 100), new ReLU(), new Linear(100, 10))
  const optimizer = new AdamW(model.parameters(), { lr: 1e-3 })
  const x = rand([BATCH, 784])
  const labels = tensor(
    Array.from({ length: BATCH }, (_, i) => i % 10),
    { dtype: 'int64' },
  )
  const forward = () => crossEntropy(model.forward(x), labels)
  return {
    run(times) {
      for (let i = 0; i < times; i++) {
        const loss = dtype === 'float32' ? forward() : autocast(dtype, forward)
        optimizer.zeroGrad()
        loss.backward()
        optimizer.step()
      }
      syncBlocking()
    },
  }
}

async function step(options: BenchOptions, threads: number, dtype: TrainDType): Promise<BenchRow> {
  const mixed = dtype !== 'float32'
  return measureRow(
    {
      suite: 'train',
      name: `LeNet-300-100 step, batch 64, AdamW${mixed ? `, autocast to ${dtype}` : ''}`,
      why: mixed
        ? 'what 16-bit products gain in a whole step, less the casts of the weights'
        : 'everything together: matmul, loss, autograd, optimizer, and the memory between them',
      dtype,
      shape: [BATCH, 784],
      threads,
      kernel: null,
      contender: steps(dtype),
      ...(mixed ? { baseline: { name: 'float32', contender: steps('float32') } } : {}),
    },
    options,
  )
}

export function trainCases(options: BenchOptions): Case[] {
  if (options.shapes.length > 0) return []
  return dtypes
    .filter((dtype) => asked(options, 'train', dtype))
    .flatMap((dtype) =>
      threadCounts(options).map((threads) => ({
        name: `LeNet-300-100 step in ${dtype}, ${threads} threads`,
        run: () => withThreads(threads, addon.machine().target, () => step(options, threads, dtype)),
      })),
    )
}
