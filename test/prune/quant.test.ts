// A pruned model quantized: what is pruned is 0 there too, also after training with the rounding.
import { mseLoss, type nn, optim, prune, quant, scope, type Tensor } from 'kerf'
import t from 'tap'
import { inputs } from '../quant/models'
import { flat, masks, net } from './oracle'

const layersOf = (model: nn.Module) =>
  model.modules().filter((m): m is quant.QuantizedLinear => (m as unknown) instanceof quant.QuantizedLinear)

/** Whether every quantized weight is 0 where a mask prunes. */
const keepsZeros = (model: nn.Module, pruned: (number[] | null)[]) =>
  layersOf(model).every((layer, l) =>
    flat(quant.dequantize(layer.quantizedWeight) as Tensor).every((w, i) => pruned[l]?.[i] !== 0 || w === 0),
  )

t.test('rounding keeps zeros', async (t) => {
  const calibrationData = [inputs(1, 32, 24)]
  for (const config of [
    quant.int8Dynamic(),
    quant.int8Static(),
    quant.weightOnly({ bits: 8, granularity: quant.perChannel(0) }),
    quant.weightOnly({ bits: 4, granularity: quant.perGroup(16) }),
    quant.weightOnly({ bits: 4, granularity: quant.perGroup(16), symmetric: false }),
  ]) {
    const model = net(1, [24, 16, 8])
    await prune.semiStructured(model)
    const pruned = masks(model)
    await quant.quantizeModel(model, config, { calibrationData })
    t.equal(layersOf(model).length, 2)
    t.ok(keepsZeros(model, pruned), JSON.stringify(config))
  }
})

t.test('quantization-aware training keeps zeros', async (t) => {
  const model = net(2, [24, 16, 8])
  await prune.magnitude(model, { sparsity: 0.7 })
  const pruned = masks(model)
  quant.prepareQat(model, quant.int8Static())
  const optimizer = new optim.AdamW(model.parameters(), { lr: 0.01 })
  for (let i = 0; i < 50; i++) {
    scope(() => {
      optimizer.zeroGrad()
      mseLoss(model.forward(inputs(i, 8, 24)), inputs(i + 1, 8, 8)).backward()
      optimizer.step()
    })
  }
  t.equal(Object.keys(model.stateDict()).filter((name) => name.endsWith('.mask')).length, 2)
  quant.convert(model)
  t.equal(layersOf(model).length, 2)
  t.ok(keepsZeros(model, pruned))
})
