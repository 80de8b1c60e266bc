// Convolutions of bytes: sums are exact, and float layers are what their codes say.
import t from 'tap'
import { perChannel, perTensor } from '#lib/core/quantization'
import { conv2d } from '#lib/ops/conv'
import { tensor, zeros } from '#lib/ops/create'
import { dequantize, dynamicQuantizeLinear, quantizeLinear } from '#lib/ops/quantize'
import { convInteger } from '#lib/ops/quantized-conv'
import { quantize } from '#lib/quant/quantize'
import type { QuantizedTensor } from '#lib/tensor/quantized'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, floats, generator, gradients, lay, layoutNames, onEveryTarget, random, read } from '../matrix'
import { abs, map, type Nd, nd } from '../oracle/array'
import { type ConvSpec, conv, convInput } from '../oracle/conv'
import { ulp, unit } from '../oracle/float'

const U = unit('float32')

interface Example {
  x: readonly [number, number, number, number]
  out: number
  kernel: readonly [number, number]
  stride?: readonly [number, number]
  padding?: readonly [number, number]
  dilation?: readonly [number, number]
}

// Channels around the vectors' widths, 1x1 kernels (read in place), strides, dilations, images below a chunk and above.
const examples: Example[] = [
  { x: [1, 1, 1, 1], out: 1, kernel: [1, 1] },
  { x: [2, 3, 7, 9], out: 5, kernel: [3, 3], padding: [1, 1] },
  { x: [2, 16, 6, 17], out: 33, kernel: [3, 3], padding: [1, 1] },
  { x: [1, 19, 9, 5], out: 16, kernel: [2, 3], stride: [2, 2], padding: [0, 2] },
  { x: [3, 33, 5, 6], out: 7, kernel: [1, 1] },
  { x: [2, 8, 6, 6], out: 9, kernel: [1, 1], stride: [2, 3], padding: [1, 0] },
  { x: [1, 5, 13, 12], out: 32, kernel: [3, 2], dilation: [2, 3], padding: [2, 1] },
  { x: [1, 40, 30, 31], out: 20, kernel: [3, 3], padding: [1, 1] },
  { x: [1, 2, 4, 3], out: 3, kernel: [4, 3], padding: [5, 4] },
  { x: [0, 2, 4, 3], out: 3, kernel: [1, 1] },
]

function spec(e: Example): ConvSpec & { size: number[] } {
  const { stride = [1, 1], padding = [0, 0], dilation = [1, 1] } = e
  const size = ([0, 1] as const).map(
    (i) => Math.floor(((e.x[2 + i] as number) + 2 * padding[i] - dilation[i] * (e.kernel[i] - 1) - 1) / stride[i]) + 1,
  )
  return { stride, pad: padding, dilation, groups: 1, size: [e.x[0], e.out, ...size] }
}
const options = (e: Example) => ({ stride: e.stride ?? 1, padding: e.padding ?? 0, dilation: e.dilation ?? 1 })
const weightShape = (e: Example) => [e.out, e.x[1], ...e.kernel]
const less = (a: Nd, zero: (channel: number) => number, per: number): Nd =>
  map(a, (v, i) => v - zero(Math.floor(i / Math.max(per, 1))))

onEveryTarget('convInteger is exact, with zero points of both sides', () => {
  const failures: string[] = []
  for (const [i, e] of examples.entries()) {
    const s = spec(e)
    const shape = weightShape(e)
    const taps = shape.slice(1).reduce((n, m) => n * m, 1)
    for (const [xType, wType] of [
      ['uint8', 'int8'],
      ['int8', 'int8'],
      ['uint8', 'uint8'],
    ] as const) {
      const x = random(xType, e.x, i + 1)
      const w = random(wType, shape, i + 51)
      const xZero = xType === 'uint8' ? 93 : -7
      const wZeros = Array.from({ length: e.out }, (_, j) => (wType === 'uint8' ? 120 + j : (j % 5) - 2))
      const a = lay('contiguous', xType, x).tensor
      const b = lay('contiguous', wType, w).tensor
      const label = `${xType} by ${wType} ${JSON.stringify(e)}`
      failures.push(
        ...compare(label, convInteger(a, b, options(e)), conv(x, w, s.size, s)),
        ...compare(
          `${label} zero points`,
          convInteger(a, b, {
            ...options(e),
            xZeroPoint: tensor([xZero], { dtype: xType }),
            wZeroPoint: tensor(wZeros, { dtype: wType }),
          }),
          conv(
            less(x, () => xZero, x.data.length),
            less(w, (o) => wZeros[o] as number, taps),
            s.size,
            s,
          ),
        ),
      )
    }
  }
  return failures
})

/** (codes - zero) convolved, times the scales: what a layer of bytes is, with the roundings of its last steps. */
onEveryTarget('a quantized layer is what its codes say', () => {
  const failures: string[] = []
  for (const [i, e] of examples.entries()) {
    if (e.x[0] === 0) continue
    const s = spec(e)
    const shape = weightShape(e)
    const w = quantize(lay('contiguous', 'float32', random('float32', shape, i + 7, [-1, 1])).tensor, {
      dtype: 'int8',
      granularity: i % 2 ? perTensor : perChannel(0),
    })
    const codes = read(w.values)
    const scales = read(w.scale).data
    const bias = random('float32', [e.out], i + 9)
    const pixels = (s.size[2] as number) * (s.size[3] as number)
    for (const dtype of floats) {
      const x = lay('contiguous', dtype, random(dtype, e.x, i + 3)).tensor
      const dynamic = dynamicQuantizeLinear(x)
      const fixed = { scale: tensor(0.031), zeroPoint: tensor(7, { dtype: 'int32' }), dtype: 'int8' as const }
      const given = quantizeLinear(x, tensor(0.031), tensor(7, { dtype: 'int8' }))
      const ways = [
        ['tensor' as const, read(dynamic.values), read(dynamic.scale).data[0], read(dynamic.zeroPoint).data[0]],
        [fixed, read(given), Math.fround(0.031), 7],
      ] as const
      for (const [quantizeInput, bytes, scale, zero] of ways) {
        const sums = conv(
          less(bytes, () => zero as number, bytes.data.length),
          codes,
          s.size,
          s,
        )
        const channel = (flat: number) => Math.floor(flat / pixels) % e.out
        const factor = (flat: number) => (scale as number) * (scales[scales.length > 1 ? channel(flat) : 0] as number)
        const want = nd(s.size, (_, flat) =>
          Math.max(0, (sums.data[flat] as number) * factor(flat) + (bias.data[channel(flat)] as number)),
        )
        const out = conv2d(x, w, tensor(bias.data, { shape: [e.out] }), {
          ...options(e),
          activation: 'relu',
          quantizeInput,
        })
        // the sum to float32, two scales, their product, the bias; then the dtype
        const bound = (flat: number, y: number) =>
          5 *
            U *
            (Math.abs((sums.data[flat] as number) * factor(flat)) + Math.abs(bias.data[channel(flat)] as number)) +
          (dtype === 'float32' ? 0 : ulp(dtype, y) / 2)
        failures.push(...compare(`${dtype} ${JSON.stringify(e)}`, out, want, bound))
      }
    }
  }
  return failures
})

t.test('any layout of x; no images; float input dequantizes the weights', (t) => {
  const w = quantize(lay('contiguous', 'float32', random('float32', [4, 3, 2, 2], 1)).tensor, {
    dtype: 'int8',
    granularity: perChannel(0),
  })
  for (const layout of layoutNames) {
    const { tensor: x, values } = lay(layout, 'float32', random('float32', [2, 3, 5, 6], 2))
    const plain = lay('contiguous', 'float32', values).tensor
    t.same(
      compare(
        layout,
        conv2d(x, w, null, { quantizeInput: 'tensor' }),
        read(conv2d(plain, w, null, { quantizeInput: 'tensor' })),
      ),
      [],
    )
  }
  const one = lay('contiguous', 'float32', random('float32', [3, 5, 6], 3)).tensor
  t.same(conv2d(one, w, null, { quantizeInput: 'tensor' }).shape, [4, 4, 5])
  t.same(compare('float', conv2d(one, w), read(conv2d(one, dequantize(w)))), [])
  t.end()
})

t.test('the gradient of x is that of the weights that the codes stand for', (t) => {
  const e: Example = { x: [2, 3, 6, 7], out: 5, kernel: [3, 3], padding: [1, 1] }
  const s = spec(e)
  const w = quantize(lay('contiguous', 'float32', random('float32', weightShape(e), 1)).tensor, {
    dtype: 'int8',
    granularity: perChannel(0),
  })
  const x = lay('contiguous', 'float32', random('float32', e.x, 2)).tensor
  x.requiresGrad = true
  const g = random('float32', s.size, 3)
  const [dx] = gradients(
    conv2d(x, w, null, { ...options(e), quantizeInput: 'tensor' }),
    lay('contiguous', 'float32', g).tensor,
  ) as [Tensor]
  const values = read(dequantize(w))
  const magnitude = convInput(abs(g), abs(values), e.x, s)
  t.same(
    compare('dx', dx, convInput(g, values, e.x, s), (i) => 47 * U * (magnitude.data[i] as number)),
    [],
  )
  t.end()
})

t.test('random geometries (property)', (t) => {
  const next = generator(11)
  const pick = (low: number, high: number) => low + Math.floor(next() * (high - low + 1))
  for (let round = 0; round < 100; round++) {
    const kernel = [pick(1, 4), pick(1, 4)] as const
    const dilation = [pick(1, 3), pick(1, 3)] as const
    const padding = [pick(0, 4), pick(0, 4)] as const
    const least = (d: 0 | 1) => Math.max(1, dilation[d] * (kernel[d] - 1) + 1 - 2 * padding[d])
    const e: Example = {
      x: [pick(1, 3), pick(1, 35), least(0) + pick(0, 9), least(1) + pick(0, 20)],
      out: pick(1, 40),
      ...{ kernel, dilation, padding, stride: [pick(1, 4), pick(1, 4)] as const },
    }
    const s = spec(e)
    const x = random('uint8', e.x, round + 1)
    const w = random('int8', weightShape(e), round + 200)
    const out = convInteger(lay('contiguous', 'uint8', x).tensor, lay('contiguous', 'int8', w).tensor, options(e))
    t.same(compare(JSON.stringify(e), out, conv(x, w, s.size, s)), [])
  }
  t.end()
})

t.test('errors name op, argument and value', (t) => {
  const x = zeros([1, 4, 5, 5], { dtype: 'uint8' })
  const w = zeros([6, 4, 3, 3], { dtype: 'int8' })
  const q = (granularity: object, dtype = 'int8') =>
    quantize(zeros([6, 4, 3, 3]), { dtype, granularity } as never) as QuantizedTensor
  const image = zeros([1, 4, 5, 5])
  const cases: [() => unknown, RegExp][] = [
    [() => convInteger(image, w), /convInteger: x must be int8 or uint8, got float32/],
    [() => convInteger(x, zeros([6, 3, 3, 3], { dtype: 'int8' })), /does not fit the channels/],
    [() => convInteger(x, w, { groups: 2 }), /one group, got 2/],
    [
      () => convInteger(x, w, { wZeroPoint: zeros([5], { dtype: 'int8' }) }),
      /wZeroPoint must have one element or be \[6\]/,
    ],
    [
      () => convInteger(zeros([1, 70000, 1, 1], { dtype: 'uint8' }), zeros([1, 70000, 1, 1], { dtype: 'int8' })),
      /could overflow int32/,
    ],
    [() => conv2d(image, q(perChannel(1)), null, { quantizeInput: 'tensor' }), /per tensor or per channel\(0\)/],
    [() => conv2d(image, q(perTensor, 'int4'), null, { quantizeInput: 'tensor' }), /int8 or uint8 weights/],
    [() => conv2d(image, q(perTensor), null, { quantizeInput: 'token' as never }), /got 'token'/],
    [() => conv2d(image, q(perTensor), null, { quantizeInput: 'tensor', groups: 2 }), /one group/],
    [() => conv2d(zeros([4, 4]), q(perTensor), null, { quantizeInput: 'tensor' }), /x must be \[images/],
  ]
  for (const [run, message] of cases) t.throws(run, { message })
  t.end()
})
