// Real data: a small network on a few thousand MNIST images, trained in float32, bfloat16, and float16 with a scaler.
import { amp, argmax, crossEntropy, data, eq, manualSeed, nn, noGrad, optim, scope, type Tensor } from 'kerf'
import t from 'tap'

type Digits = data.Dataset<[Tensor<'float32'>, Tensor<'int64'>]>
type How = 'float32' | 'bfloat16' | 'float16'

const EPOCHS = 3
// Too large on purpose: the first steps must be skipped.
const FIRST_SCALE = 2 ** 24
const half = ['bfloat16', 'float16'] as const

async function train(how: How, digits: Digits) {
  manualSeed(7)
  const model = new nn.Sequential(new nn.Linear(784, 100), new nn.ReLU(), new nn.LayerNorm(100), new nn.Linear(100, 10))
  const batches = data.loader(digits, { batchSize: 64, shuffle: true, seed: 1, dropLast: true, recycle: true })
  const optimizer = new optim.AdamW(model.parameters(), { lr: 2e-3 })
  const scaler = new amp.GradScaler({ enabled: how === 'float16', initScale: FIRST_SCALE })
  let steps = 0
  for (let epoch = 0; epoch < EPOCHS; epoch++)
    for await (const [x, y] of batches)
      await scope(async () => {
        const loss = amp.autocast(how === 'float32' ? null : how, () => crossEntropy(model.forward(x), y))
        optimizer.zeroGrad()
        scaler.scale(loss).backward()
        if (await scaler.step(optimizer)) steps++
        scaler.update()
      })
  return { model, steps, all: batches.length * EPOCHS, scale: scaler.getScale() }
}

/** Percent. */
async function accuracy(model: nn.Module, digits: Digits): Promise<number> {
  let right = 0
  for await (const [x, y] of data.loader(digits, { batchSize: 1000, recycle: true }))
    right += scope(() =>
      noGrad(() =>
        Number(
          eq(argmax(model.forward(x), -1), y)
            .sum()
            .item(),
        ),
      ),
    )
  return (100 * right) / digits.length
}

t.test('16-bit training is as accurate as float32', async (t) => {
  const everything = await data.mnist({ split: 'train' })
  const [training, validation] = data.split(everything, [6000, 4000, everything.length - 10000], {
    seed: 3,
  }) as Digits[]
  const found: Record<string, number> = {}
  for (const how of ['float32', 'bfloat16', 'float16'] as const) {
    const { model, steps, all, scale } = await train(how, training as Digits)
    for (const [name, p] of model.namedParameters()) t.equal(p.dtype, 'float32', `${how}: ${name} stays float32`)
    found[how] = await accuracy(model, validation as Digits)
    // One backoff halves the factor: what was skipped is what it says. It does not grow in fewer than 2000 steps.
    t.equal(all - steps, how === 'float16' ? Math.log2(FIRST_SCALE / scale) : 0, `${how}: skipped steps`)
    if (how === 'float16') t.ok(steps < all && steps > 0.9 * all, `${steps} of ${all} steps`)
    t.comment(`${how}: ${found[how]} %, factor ${scale}`)
  }
  const float = found.float32 as number
  t.ok(float > 92, `float32 learned: ${float} %`)
  // Guesses that change where two models of 94 % differ on 4,000 images: a standard error of some 0.3 points.
  for (const how of half) t.ok(Math.abs((found[how] as number) - float) < 1, `${how}: ${found[how]} %`)
})
