// Quantization-aware training of convolutions: the converted model gives the same bits, gradients are those of float64 loops
// written from the documentation, and it learns.
import { mseLoss, nn, optim, quant, type Tensor } from 'kerf'
import t from 'tap'
import { read } from '../matrix'
import { abs, map, type Nd } from '../oracle/array'
import { convInput, convWeight } from '../oracle/conv'
import { unit } from '../oracle/float'
import { cnn, codesIn, drawn, images, SHAPE, specOf } from './convs'
import { rint } from './data'

const { convert, int8Dynamic, int8Static, perChannel, perGroup, perTensor, prepareQat, QatConv2d, weightOnly } = quant
type Ranges = 'observed' | 'learned'

const configs: Record<string, quant.QuantConfig> = {
  dynamic: int8Dynamic(),
  'static uint8': int8Static(),
  'static int8, per tensor': int8Static({ input: 'int8', granularity: perTensor }),
  'weights only': weightOnly({ granularity: perChannel(0) }),
  'weights only, 4 bits in the Linear': weightOnly({ bits: 4, granularity: perGroup(8) }),
}
const choices = Object.entries(configs).flatMap(([name, config]) =>
  (['observed', 'learned'] as const).map((ranges): [string, quant.QuantConfig, Ranges] => [
    `${name}, ${ranges}`,
    config,
    ranges,
  ]),
)

/** Steps on random targets; answers the losses. */
function train(model: nn.Module, steps: number, dtype: 'float32' | 'bfloat16' = 'float32'): number[] {
  const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-2, weightDecay: 0 })
  model.train()
  const losses = Array.from({ length: steps }, (_, i) => {
    const loss = mseLoss(
      model.forward(images(200 + (i % 2), [6, 3, 9, 8], dtype)),
      images(300 + (i % 2), [6, 4], dtype),
    )
    optimizer.zeroGrad()
    loss.backward()
    optimizer.step()
    return loss.item() as number
  })
  model.eval()
  return losses
}

for (const [name, config, ranges] of choices) {
  t.test(`${name}: converted, the model gives the same bits; files of the state go on`, (t) => {
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const model = prepareQat(cnn(1).to(dtype), config, { ranges })
      t.equal(model.modules().filter((m) => m instanceof QatConv2d).length, 4)
      t.ok(train(model, 4, dtype).every(Number.isFinite))
      const x = images(2, SHAPE, dtype)
      const kept = read(model.forward(x))
      const copy = prepareQat(cnn(9).to(dtype), config, { ranges })
      copy.loadStateDict(model.stateDict())
      t.same(read(copy.eval().forward(x)), kept, 'the state is all of it')
      t.equal(convert(model), model)
      t.equal(model.modules().filter((m) => m instanceof quant.QuantizedConv2d).length, 4)
      const y = model.forward(x)
      t.same(read(y), kept, dtype)
      t.equal(y.dtype, dtype)
    }
    t.end()
  })

  t.test(`${name}: it learns`, (t) => {
    const sum = (list: number[]) => list.reduce((s, v) => s + v, 0)
    const losses = train(prepareQat(cnn(3), config, { ranges }), 40)
    // Random targets, no more than which float layers learn.
    const float = sum(train(cnn(3), 40).slice(-4))
    t.comment(`from ${sum(losses.slice(0, 4))} to ${sum(losses.slice(-4))}; float layers get to ${float}`)
    t.ok(sum(losses.slice(-4)) < 0.5 * sum(losses.slice(0, 4)))
    t.end()
  })
}

function mismatch(found: Tensor | null | undefined, wanted: Nd, size: Nd, k: number): string | null {
  for (const [i, v] of read(found as Tensor).data.entries()) {
    const exact = wanted.data[i] as number
    const bound = (k + 8) * unit('float32') * (size.data[i] as number)
    if (!(Math.abs(v - exact) <= bound)) return `[${i}] is ${v}, should be ${exact} +- ${bound}`
  }
  return null
}

t.test('observed ranges: straight through, 0 where an input was clipped', (t) => {
  for (const [name, config] of Object.entries(configs))
    for (const options of [{ padding: 1 }, { stride: [2, 1] as const, dilation: 2, bias: false }, { groups: 2 }]) {
      const model = prepareQat(drawn(new nn.Conv2d(4, 6, [3, 2], options) as nn.Module, 4), config)
      const layer = model as unknown as quant.QatConv2d
      layer.train().forward(images(5, [2, 4, 8, 7]))
      // Three times as wide as the range: a third of the values is clipped.
      const x = images(6, [2, 4, 8, 7]).mul(3)
      x.requiresGrad = true
      const y = layer.forward(x)
      const g = images(7, y.shape)
      y.mul(g).sum().backward()

      const made = layer.convert()
      const label = `${name}, ${JSON.stringify(options)}`
      const [input, grad, w] = [read(x), read(g), read(quant.dequantize(made.quantizedWeight))]
      const spec = specOf(made)
      let taken = input
      let passes = map(input, () => 1)
      if (made.input !== 'float') {
        const { codes, scale } = codesIn(made, input)
        taken = map(codes, (q) => Math.fround(q * scale))
        if (config.kind === 'int8Static') {
          const zero = (made.inputZeroPoint?.item() as number | undefined) ?? 0
          const [low, high] = config.input === 'int8' ? [-128, 127] : [0, 255]
          const code = (v: number) => rint(Math.fround(v / scale)) + zero
          passes = map(input, (v) => Number(code(v) >= low && code(v) <= high))
          const part = [...passes.data].filter((p) => p === 0).length / passes.data.length
          t.ok(part > 0.1 && part < 0.6, `${label}: ${part} are clipped`)
        }
      }
      const outputs = grad.data.length / 6
      const weightShape = layer.weight.shape
      t.equal(
        mismatch(
          layer.weight.grad,
          convWeight(grad, taken, weightShape, spec),
          convWeight(abs(grad), abs(taken), weightShape, spec),
          outputs,
        ),
        null,
        `${label}: weight, all of them`,
      )
      const through = (a: Nd) => map(a, (v, i) => v * (passes.data[i] as number))
      t.equal(
        mismatch(
          x.grad,
          through(convInput(grad, w, x.shape, spec)),
          convInput(abs(grad), abs(w), x.shape, spec),
          w.data.length / 4,
        ),
        null,
        `${label}: input`,
      )
      const sums = (a: Nd): Nd => ({
        shape: [6],
        data: Float64Array.from({ length: 6 }, (_, o) => {
          const per = a.data.length / 12
          let sum = 0
          for (let n = 0; n < 2; n++) for (let i = 0; i < per; i++) sum += a.data[(n * 6 + o) * per + i] as number
          return sum
        }),
      })
      if (layer.bias) t.equal(mismatch(layer.bias.grad, sums(grad), sums(abs(grad)), outputs), null, `${label}: bias`)
      // The value is that of the integers.
      t.same(read(y), read(made.forward(x)))
    }
  t.end()
})

t.test('learned scales have gradients, one an output channel; they are parameters from the start', (t) => {
  const model = prepareQat(cnn(5), int8Static(), { ranges: 'learned' })
  const layer = model.getModule('strided') as quant.QatConv2d
  t.same(layer.weightLogScale?.shape, [6])
  t.same(layer.inputLogScale?.shape, [])
  model.train().forward(images(8, SHAPE)).pow(2).sum().backward()
  for (const [path, parameter] of model.namedParameters())
    t.ok(parameter.grad && [...read(parameter.grad).data].some((v) => v !== 0), path)
  t.equal((model.getModule('depthwise') as quant.QatConv2d).inputLogScale, null, 'in groups the input stays float')
  t.end()
})

t.test('skip, a convolution that is the model, what is shown, and no range yet', (t) => {
  const model = prepareQat(cnn(6), int8Static(), { skip: ['plain', 'fc'] })
  t.equal(model.getModule('plain').constructor, nn.Conv2d)
  t.equal(String(model.getModule('strided')), 'QatConv2d(8, 6, kernelSize=[2,3], stride=2, bias=false, int8Static)')
  t.match(String(model.getModule('depthwise')), /groups=6.*, weightOnly\)$/)
  const x = images(9, SHAPE)
  t.throws(() => model.eval().forward(x), {
    code: 'ERR_ARGUMENT',
    message: /^QatConv2d: no training batch has shown a range/,
  })
  t.throws(() => convert(model), { message: /no training batch has shown a range/ })
  const before = cnn(6)
  const parameters = before.parameters()
  prepareQat(before, int8Dynamic())
  t.ok(
    before.parameters().every((p, i) => p === parameters[i]),
    'the same parameters',
  )
  const root = convert(prepareQat(drawn(new nn.Conv2d(3, 2, 1) as nn.Module, 1), int8Dynamic()))
  t.ok(root instanceof quant.QuantizedConv2d)
  t.end()
})
