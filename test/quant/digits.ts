// What the tests on real digits share: the splits of MNIST, training and accuracy.
import { argmax, crossEntropy, data, eq, type nn, noGrad, optim, scope, type Tensor } from 'kerf'
import type { AnyModule } from '#lib/nn/module'

export type Digits = data.Dataset<[Tensor<'float32'>, Tensor<'int64'>]>

/** 6000 training images, 2000 for decisions, 500 for calibration, and the test images. */
export async function splits(layout: 'flat' | 'image') {
  const all = await data.mnist({ split: 'train', layout })
  const parts = data.split(all, [6000, 2000, 500, all.length - 8500], { seed: 3 }) as Digits[]
  const [training, validation, calibration] = parts as [Digits, Digits, Digits]
  return { training, validation, calibration, test: (await data.mnist({ split: 'test', layout })) as Digits }
}

/** A few epochs of AdamW with a falling rate; in eval() afterwards. */
export async function train(model: nn.Module, digits: Digits, epochs: number, lr: number): Promise<void> {
  const batches = data.loader(digits, { batchSize: 64, shuffle: true, seed: 1, dropLast: true, recycle: true })
  const optimizer = new optim.AdamW(model.parameters(), { lr, weightDecay: 0.01 })
  const schedule = new optim.CosineAnnealingLR(optimizer, batches.length * epochs)
  model.train()
  for (let epoch = 0; epoch < epochs; epoch++)
    for await (const [x, y] of batches)
      scope(() => {
        const loss = crossEntropy(model.forward(x), y)
        optimizer.zeroGrad()
        loss.backward()
        optimizer.step()
        schedule.step()
      })
  model.eval()
}

/** Percent of the digits that the model names. */
export async function accuracy(model: AnyModule, digits: Digits): Promise<number> {
  let right = 0
  for await (const [x, y] of data.loader(digits, { batchSize: 1000, recycle: true }))
    right += scope(() =>
      noGrad(() =>
        Number(
          eq(argmax((model as nn.Module).forward(x), -1) as Tensor, y)
            .to('float32')
            .sum()
            .item(),
        ),
      ),
    )
  return (100 * right) / digits.length
}
