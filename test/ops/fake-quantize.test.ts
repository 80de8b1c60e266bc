// fakeQuantize is dequantize(quantize), bit for bit, and its gradient passes where nothing was clipped.
import fc from 'fast-check'
import t from 'tap'
import { type Granularity, integerRange, perChannel, perGroup, perTensor, perToken } from '#lib/core/quantization'
import { tensor, zeros } from '#lib/ops/create'
import { fakeQuantize } from '#lib/ops/quantize'
import { sum } from '#lib/ops/reduce'
import { noGrad } from '#lib/tensor/context'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, floats, generator, gradients, lay, layoutNames, onEveryTarget, random, read } from '../matrix'
import { at, type Nd, nd } from '../oracle/array'
import { halfToEven, roundTo } from '../oracle/float'
import { dequantize, f, line, quantize, type Scaled, scalar, whereOf } from '../oracle/quantize'
import { holds, seed } from '../quant/values'

const shape = [3, 4, 5]
const granularities: [Granularity, number[]][] = [
  [perTensor, []],
  [perChannel(0), [3]],
  [perChannel(-2), [4]],
  [perChannel(2), [5]],
  [perGroup(1), [3, 4, 5]],
  [perGroup(2), [3, 4, 3]],
  [perGroup(5), [3, 4, 1]],
  [perGroup(9), [3, 4, 1]],
  [perToken, [3, 4]],
]

/** 1 where rint(x / scale) + zero lies in the range, else 0; NaN lies nowhere. */
function inside(x: Nd, by: Scaled, low: number, high: number): Nd {
  return nd(x.shape, (index, flat) => {
    const own = by.where(index)
    const q = halfToEven(f((x.data[flat] as number) / at(by.scale, own))) + (by.zero ? at(by.zero, own) : 0)
    return q >= low && q <= high ? 1 : 0
  })
}

/** compare(), where zeros must have the right sign too. */
function same(label: string, got: Tensor, want: Nd): string[] {
  const { data } = read(got)
  const found = compare(label, got, want)
  const at = data.findIndex((x, i) => x === 0 && !Object.is(x, want.data[i]))
  return found.length > 0 || at < 0 ? found : [`${label}: element ${at} is a zero of the other sign`]
}

onEveryTarget('by every granularity, layout, dtype and format, with its gradient', () => {
  const failures: string[] = []
  for (const [i, layout] of layoutNames.entries()) {
    for (const [granularity, own] of granularities) {
      for (const format of ['int8', 'uint8', 'int4', 'uint4'] as const) {
        const dtype = floats[(i + own.length) % 3] as (typeof floats)[number]
        const { qmin, qmax } = integerRange(format)
        const step = 6 / (qmax - qmin)
        const x = lay(layout, dtype, random(dtype, shape, 9, [-4, 4]))
        const scale = lay(layout, 'float32', random('float32', own, 4, [step / 2, step]))
        const zero = lay(layout, 'int32', random('int32', own, 5, [qmin, qmax]))
        const label = `${layout} ${dtype} ${format} ${JSON.stringify(granularity)}`
        x.tensor.requiresGrad = true
        for (const [z, from, to] of [
          [zero, qmin, qmax],
          [null, qmin, qmax],
          [zero, qmin + 1, qmax - 2],
        ] as const) {
          const by = { scale: scale.values, zero: z?.values ?? null, where: whereOf(granularity, 3) }
          const narrow = from === qmin ? {} : { qmin: from, qmax: to }
          const out = fakeQuantize(x.tensor as Tensor<'float32'>, scale.tensor, z?.tensor, {
            granularity,
            dtype: format,
            ...narrow,
          })
          const want = dequantize(quantize(x.values, by, from, to), by)
          failures.push(...same(label, out, { ...want, data: want.data.map((v) => roundTo(dtype, v)) }))
          const grad = lay(layoutNames[(i + 2) % layoutNames.length] as string, dtype, random(dtype, shape, 6))
          const mask = inside(x.values, by, from, to)
          const wantGrad = nd(shape, (_, flat) => (mask.data[flat] ? (grad.values.data[flat] as number) : 0))
          failures.push(...compare(`gradient ${label}`, gradients(out, grad.tensor)[0] as Tensor, wantGrad))
        }
      }
    }
  }
  return failures
})

const bits = fc
  .integer({ min: 0, max: 2 ** 32 - 1 })
  .map((b) => new Float32Array(Uint32Array.of(b).buffer)[0] as number)

/** A scale and values around both ends of what it reaches. */
function drawn(scale: number, zero: number, s: number): Float32Array {
  const next = generator(s)
  const near = (q: number) => f((q - zero + next() * 2 - 1) * scale)
  return Float32Array.from({ length: 33 }, (_, i) => near(i % 3 === 0 ? -128 : i % 3 === 1 ? 127 : next() * 255 - 128))
}

onEveryTarget('any scale: the value of dequantize(quantize), the gradient 1 inside and 0 outside', () => {
  const zeroPoint = fc.integer({ min: -128, max: 127 })
  const property = fc.property(bits, zeroPoint, seed, fc.boolean(), (scale, zero, s, apart) => {
    const values = [...drawn(scale, zero, s), 0, -0, Infinity, -Infinity, Number.NaN, 2 ** -149]
    const own = apart ? [values.length] : []
    const of = (v: number, dtype: 'float32' | 'int32') =>
      tensor(nd(own, () => v).data, { shape: own, dtype }) as Tensor<'float32'>
    const x = tensor(values, { dtype: 'float32', requiresGrad: true })
    const granularity = apart ? perChannel(0) : perTensor
    const out = fakeQuantize(x, of(scale, 'float32'), of(zero, 'int32'), { granularity })
    const by = { scale: scalar(scale), zero: scalar(zero), where: () => [] }
    const grad = gradients(out, tensor(new Array(values.length).fill(1)))[0] as Tensor
    const want = dequantize(quantize(line(values), by, -128, 127), by)
    return same('', out, want).length === 0 && compare('', grad, inside(line(values), by, -128, 127)).length === 0
  })
  const result = fc.check(property, { seed: 20240229, numRuns: 200 })
  return result.failed ? [fc.defaultReportMessage(result) ?? ''] : []
})

holds(
  'what is not clipped moves by half a step at most, and doing it twice changes nothing',
  fc.property(seed, fc.integer({ min: 1, max: 60 }), fc.double({ min: 1e-3, max: 1e3, noNaN: true }), (s, n, wide) => {
    const x = random('float32', [n], s, [-wide, wide])
    const scale = f(wide / 100)
    const once = fakeQuantize(tensor(x.data, { dtype: 'float32' }), tensor(scale))
    const back = read(once).data
    // |x| is at most 100 steps, and two operations are rounded: the quotient and the product.
    const most = scale * (0.5 + 2 * 101 * 2 ** -24)
    return (
      back.every((y, i) => Math.abs(y - (x.data[i] as number)) <= most) &&
      compare('', fakeQuantize(once, tensor(scale)), read(once)).length === 0
    )
  }),
  100,
)

t.test('the gradient of a sum reaches x and nothing else', (t) => {
  const x = tensor([-200, -1, 0.4, 127.4, 127.6, 300], { requiresGrad: true })
  const scale = tensor(1, { requiresGrad: true })
  const out = sum(fakeQuantize(x, scale))
  const one = out.node?.vjp(tensor(1))[0] as Tensor // expanded: all its strides are 0
  const grads = gradients(out.node?.inputs[0] as Tensor, one)
  t.equal(grads.length, 1)
  t.same(Array.from(read(grads[0] as Tensor).data), [0, 1, 1, 1, 0, 0])
  t.equal(noGrad(() => fakeQuantize(x, scale)).requiresGrad, false)
  t.end()
})

t.test('no elements, no axes', (t) => {
  t.same(fakeQuantize(zeros([0]), tensor(1)).shape, [0])
  t.same(fakeQuantize(zeros([2, 0]), zeros([2, 0]), null, { granularity: perGroup(3) }).shape, [2, 0])
  t.same(fakeQuantize(zeros([0, 3]), zeros([0]), null, { granularity: perToken }).shape, [0, 3])
  t.equal(fakeQuantize(tensor(0.7), tensor(0.5)).item(), 0.5)
  t.end()
})

t.test('errors name op, argument and value', (t) => {
  const x = zeros([2, 3])
  const refused = (options: object, code: string, message: string | RegExp, scale = tensor(1), zero?: Tensor) =>
    t.throws(() => fakeQuantize(x, scale, zero, options), { code, message })
  refused({ granularity: perChannel(1) }, 'ERR_SHAPE', 'fakeQuantize: scale must be float32 [3], it is float32 []')
  refused(
    {},
    'ERR_SHAPE',
    'fakeQuantize: scale must be float32 [], it is float16 []',
    tensor(1, { dtype: 'float16' }) as never,
  )
  refused({}, 'ERR_SHAPE', 'fakeQuantize: zeroPoint must be int32 [], it is float32 []', tensor(1), tensor(0))
  refused({ granularity: perChannel(2) }, 'ERR_SHAPE', /^fakeQuantize: .*axis/)
  refused({ granularity: 'tensor' }, 'ERR_ARGUMENT', /^fakeQuantize: granularity must be .*, got "tensor"/)
  const wrongEnds = /^fakeQuantize: qmin and qmax must be integers in \[-128, 127\], qmin first, got \[/
  for (const [qmin, qmax] of [
    [5, 4],
    [-129, 0],
    [0, 128],
    [0.5, 3],
    [-1, 2.5],
    [Number.NaN, 3],
    ['x', 3],
  ])
    refused({ qmin, qmax }, 'ERR_ARGUMENT', wrongEnds)
  t.throws(() => fakeQuantize(zeros([2], { dtype: 'int8' }) as never, tensor(1)), {
    code: 'ERR_DTYPE',
    message: 'fakeQuantize: x must be float32 or float16 or bfloat16, got int8',
  })
  const deep = zeros([1, 1, 1, 1, 1, 1, 1, 4])
  t.throws(() => fakeQuantize(deep, zeros([1, 1, 1, 1, 1, 1, 1, 2]), null, { granularity: perGroup(2) }), {
    code: 'ERR_SHAPE',
    message: 'fakeQuantize: groups need a tensor of at most 7 axes',
  })
  t.end()
})
