/** A training step of LeNet-300-100: forward, loss, backward, AdamW; batch of 64. Peers by hand: bench/peers/. */
import type { BenchOptions, BenchRow } from '#lib/cli/report'
import '#lib/fluent'
import { addon } from '#lib/native/load'
import { syncBlocking } from '#lib/native/stream'
import { Linear, ReLU, Sequential } from '#lib/nn/index'
import { rand, tensor } from '#lib/ops/create'
import { crossEntropy } from '#lib/ops/loss'
import { AdamW } from '#lib/optim/index'
import { type Case, measureRow, threadCounts, withThreads } from './row'
import { asked } from './wanted'

const BATCH = 64

async function step(options: BenchOptions, threads: number): Promise<BenchRow> {
  const model = new Sequential(new Linear(784, 300), new ReLU(), new Linear(300, 100), new ReLU(), new Linear(100, 10))
  const optimizer = new AdamW(model.parameters(), { lr: 1e-3 })
  const x = rand([BATCH, 784])
  const labels = tensor(
    Array.from({ length: BATCH }, (_, i) => i % 10),
    { dtype: 'int64' },
  )
  return measureRow(
    {
      suite: 'train',
      name: 'LeNet-300-100 step, batch 64, AdamW',
      why: 'everything together: matmul, loss, autograd, optimizer, and the memory between them',
      dtype: 'float32',
      shape: [BATCH, 784],
      threads,
      kernel: null,
      contender: {
        run(times) {
          for (let i = 0; i < times; i++) {
            const loss = crossEntropy(model.forward(x), labels)
            optimizer.zeroGrad()
            loss.backward()
            optimizer.step()
          }
          syncBlocking()
        },
      },
    },
    options,
  )
}

export function trainCases(options: BenchOptions): Case[] {
  if (!asked(options, 'train', 'float32') || options.shapes.length > 0) return []
  return threadCounts(options).map((threads) => ({
    name: `LeNet-300-100 step, ${threads} threads`,
    run: () => withThreads(threads, addon.machine().target, () => step(options, threads)),
  }))
}
