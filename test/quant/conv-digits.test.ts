// Real data: a small convolutional network with batch norm on a few thousand MNIST images. Decisions are made on a validation
// split of the training images; what is asserted was measured on the test images once.
import { data, manualSeed, nn, quant, summary } from 'kerf'
import t from 'tap'
import type { AnyModule } from '#lib/nn/module'
import { accuracy, splits, train } from './digits'

const net = () =>
  new nn.Sequential(
    new nn.Conv2d(1, 8, 3, { padding: 1, stride: 2, bias: false }),
    new nn.BatchNorm2d(8),
    new nn.ReLU(),
    new nn.Conv2d(8, 16, 3, { padding: 1, stride: 2, bias: false }),
    new nn.BatchNorm2d(16),
    new nn.ReLU(),
    new nn.Flatten(),
    new nn.Linear(16 * 49, 10),
  )

async function prepare() {
  const { training, calibration, test } = await splits('image')
  manualSeed(4)
  const model = net()
  await train(model, training, 3, 3e-3)
  const weights = model.stateDict()
  /** The trained network with its batch norms folded. */
  const copy = () => {
    const made = net().eval()
    made.loadStateDict(weights)
    nn.foldBatchNorm(made)
    return made
  }
  const calibrationData = data.loader(calibration, { batchSize: 125 })
  return { model, training, test, calibrationData, copy }
}
const prepared = prepare()

const bytesOf = (model: AnyModule) => summary(model, { print: false }).bytes

t.test('folded, the network answers as it did; int8 within 0.2 points, at least 3.8 times smaller', async (t) => {
  const { model, test, calibrationData, copy } = await prepared
  const float = await accuracy(model, test)
  // Measured: 95.31.
  t.ok(float > 94, `float: ${float} %`)
  const folded = await accuracy(copy(), test)
  t.ok(Math.abs(folded - float) <= 0.02, `folded: ${folded} %, before: ${float} %`)
  for (const [name, config] of Object.entries({
    static: quant.int8Static({ calibration: 'percentile' }),
    dynamic: quant.int8Dynamic(),
    weights: quant.weightOnly({ granularity: quant.perChannel(0) }),
  })) {
    const made = await quant.quantizeModel(copy(), config, { calibrationData })
    t.equal(made.modules().filter((m) => m instanceof quant.QuantizedConv2d).length, 2)
    const found = await accuracy(made, test)
    t.comment(`${name}: float ${float} %, int8 ${found} %`)
    t.ok(found > float - 0.2, `${name}: ${found} %, float: ${float} %`)
    const smaller = bytesOf(copy()) / bytesOf(made)
    t.ok(smaller >= 3.8, `${smaller} times smaller`)
  }
})

t.test('quantization-aware training goes on from the folded network, and converts to what it computed', async (t) => {
  const { training, test, copy } = await prepared
  const float = await accuracy(copy(), test)
  const model = quant.prepareQat(copy(), quant.int8Static())
  await train(model, training, 1, 3e-4)
  const trained = await accuracy(model, test)
  quant.convert(model)
  const found = await accuracy(model, test)
  t.equal(found, trained, 'converted, it answers as it did')
  t.comment(`float ${float} %, int8 ${found} %`)
  t.ok(found > float - 0.2, `int8: ${found} %, float: ${float} %`)
})
