// QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear against their definitions: every integer and every float32
// is the one that the definition gives, on every row of kernels, so all rows agree bit for bit.
import fc from 'fast-check'
import t from 'tap'
import { integerRange } from '#lib/core/quantization'
import { addon } from '#lib/native/load'
import { tensor, zeros } from '#lib/ops/create'
import { type AxisOptions, dequantizeLinear, dynamicQuantizeLinear, quantizeLinear } from '#lib/ops/quantize'
import type { Tensor } from '#lib/tensor/tensor'
import {
  compare,
  floats,
  generator,
  lay,
  layoutNames,
  onEveryTarget,
  random,
  read,
  shapes,
  useThreads,
} from '../matrix'
import { type Nd, nd } from '../oracle/array'
import { roundTo } from '../oracle/float'
import { dequantize, dynamicScale, f, line, quantize, scalar, whereOf } from '../oracle/quantize'
import { holds, seed } from '../quant/values'

const bytes = ['int8', 'uint8'] as const
type Byte = (typeof bytes)[number]

/** What ONNX can say with a scale's shape, `axis` and `blockSize`, for a tensor's shape. */
function* spreads(shape: readonly number[]): Generator<[AxisOptions, number[], Parameters<typeof whereOf>[0]]> {
  yield [{}, [], { kind: 'tensor' }]
  yield [{ axis: -1 }, [1], { kind: 'tensor' }]
  for (let axis = 0; axis < shape.length; axis++) {
    const n = shape[axis] as number
    if (n !== 1) yield [{ axis: axis % 2 ? axis - shape.length : axis }, [n], { kind: 'channel', axis }]
    for (const size of [1, 2, 3, n + 1]) {
      const blocks = shape.map((m, i) => (i === axis ? Math.ceil(m / size) : m))
      yield [{ axis, blockSize: size }, blocks, { kind: 'block', axis, size }]
    }
  }
}

/** Scales of both signs, whose products with small halves are exact: many ties. */
function scales(shape: readonly number[], from: number): Nd {
  const next = generator(from)
  return nd(shape, () => (next() < 0.3 ? -1 : 1) * (1 + Math.floor(next() * 15)) * 2 ** -5)
}

const rounded = (a: Nd, dtype: (typeof floats)[number]): Nd => ({ ...a, data: a.data.map((x) => roundTo(dtype, x)) })

/** The float32 numbers around x: x itself and two on each side. */
function around(x: number): number[] {
  const bits = new Int32Array(Float32Array.of(x).buffer)
  const near = [-2, -1, 0, 1, 2].map((d) => (bits[0] as number) + d)
  return Array.from(new Float32Array(Int32Array.from(near).buffer)).filter((y) => !Number.isNaN(y))
}

/** Where quantization by `scale` decides: every tie in reach, its neighbours, and the ends of float32. */
function hardValues(scale: number, zero: number): Float32Array {
  const values = [0, -0, 2 ** -149, -(2 ** -149), 2 ** -126, 1, -1, 3.4e38, -3.4e38, Infinity, -Infinity, Number.NaN]
  for (let h = -130; h <= 256; h += h > -4 && h < 4 ? 1 : 13) values.push(...around(f((h - zero + 0.5) * scale)))
  for (const end of [-128, 0, 127, 255]) values.push(...around(f((end - zero) * scale)))
  return Float32Array.from(values)
}

const hardScales = [2 ** -149, 1e-45 * 3, 1e-40, 2 ** -126, 1e-38, 9.9e-31, f(1e-30), 1.1e-30, 1e-20, 1 / 3, 0.1, 1]
  .concat([1.5, 1 + 2 ** -23, 2 - 2 ** -23, 127.5, 1e20, 9.9e29, f(1e30), 1.1e30, 1e37, 1e38, 3.4e38])
  .flatMap((s) => [f(s), f(-s)])

/** The same values as one run with one scale, and as single elements each with a scale of its own. */
function quantizedBothWays(x: Float32Array, scale: number, zero: number, dtype: Byte): [string, Tensor][] {
  const z = tensor([zero], { dtype })
  const each = (value: number, of: 'float32' | Byte) => tensor(new Array<number>(x.length).fill(value), { dtype: of })
  return [
    ['one scale', quantizeLinear(tensor(x), tensor([scale]), z)],
    ['a scale each', quantizeLinear(tensor(x), each(scale, 'float32'), each(zero, dtype) as Tensor<Byte>, { axis: 0 })],
  ]
}

const differs = (got: Tensor, want: Nd) => read(got).data.findIndex((x, i) => x !== want.data[i])

onEveryTarget('at ties, at the ends of float32, by scales of every size and sign', () => {
  const failures: string[] = []
  for (const scale of [...hardScales, 0, Infinity, Number.NaN]) {
    for (const dtype of bytes) {
      const { qmin, qmax } = integerRange(dtype)
      for (const zero of [qmin, qmin + 1, 0, 42, qmax - 7, qmax]) {
        const x = hardValues(scale, zero)
        const by = {
          where: () => [],
          scale: scalar(scale),
          zero: scalar(zero),
        }
        const want = quantize(line(x), by, qmin, qmax)
        for (const [how, got] of quantizedBothWays(x, scale, zero, dtype))
          failures.push(
            ...compare(`${dtype} scale ${scale} zero ${zero}, ${how}, x ${x[differs(got, want)]}`, got, want),
          )
        const all = Float64Array.from({ length: 256 }, (_, i) => qmin + i)
        const back = dequantizeLinear(tensor(all, { dtype }), tensor(scale), tensor(zero, { dtype }))
        failures.push(
          ...compare(`dequantize ${dtype} scale ${scale}`, back, dequantize({ shape: [256], data: all }, by)),
        )
      }
    }
  }
  return failures
})

onEveryTarget('by every granularity and layout', () => {
  const failures: string[] = []
  for (const shape of shapes.filter((s) => s.length < 4)) {
    for (const [i, layout] of layoutNames.entries()) {
      const dtype = floats[(i + shape.length) % 3] as 'float32'
      const x = lay(layout, dtype, random(dtype, shape, 3, [-9, 9]))
      for (const [options, own, spread] of spreads(shape)) {
        const to = bytes[own.length % 2] as Byte
        const { qmin, qmax } = integerRange(to)
        const scale = lay(layout, 'float32', scales(own, 4))
        const zero = lay(layout, to, random(to, own, 5, [qmin, qmax]))
        const by = { scale: scale.values, zero: zero.values, where: whereOf(spread, shape.length) }
        const label = `${layout} ${dtype} [${shape}] ${JSON.stringify(spread)}`
        const q = quantizeLinear(x.tensor, scale.tensor, zero.tensor as Tensor<Byte>, options)
        const codes = quantize(x.values, by, qmin, qmax)
        failures.push(...compare(`quantize ${label}`, q, codes))
        const plain = { ...by, zero: null }
        const signed = quantizeLinear(x.tensor, scale.tensor, null, { ...options, dtype: 'int8' })
        failures.push(...compare(`no zero point ${label}`, signed, quantize(x.values, plain, -128, 127)))
        const back = lay(layout, to, codes)
        const want = dequantize(back.values, by)
        failures.push(
          ...compare(`dequantize ${label}`, dequantizeLinear(back.tensor, scale.tensor, zero.tensor, options), want),
        )
        const half = dequantizeLinear(back.tensor, scale.tensor, zero.tensor, { ...options, dtype })
        failures.push(...compare(`to ${dtype} ${label}`, half, rounded(want, dtype)))
      }
    }
  }
  return failures
})

const bits = fc
  .integer({ min: 0, max: 2 ** 32 - 1 })
  .map((b) => new Float32Array(Uint32Array.of(b).buffer)[0] as number)
const number = bits.filter(Number.isFinite)

onEveryTargetHolds(
  'any scale, any float32, any zero point',
  fc.property(number, number, fc.integer({ min: -128, max: 127 }), seed, (scale, x, zero, s) => {
    const next = generator(s)
    const ties = Array.from({ length: 40 }, () => around(f((Math.floor(next() * 256) - 128 - zero + 0.5) * scale)))
    const values = Float32Array.from([x, -x, ...ties.flat()])
    const by = {
      where: () => [],
      scale: scalar(scale),
      zero: scalar(zero),
    }
    const want = quantize(line(values), by, -128, 127)
    return quantizedBothWays(values, scale, zero, 'int8').every(([, got]) => compare('', got, want).length === 0)
  }),
)

/** A property on every row of kernels. */
function onEveryTargetHolds<T>(name: string, property: fc.IProperty<T>): void {
  onEveryTarget(name, () => {
    const result = fc.check(property, { seed: 20240229, numRuns: 150 })
    return result.failed ? [fc.defaultReportMessage(result) ?? name] : []
  })
}

onEveryTarget('int32: biases of integer layers, any difference that fits', () => {
  const failures: string[] = []
  const values = [0, 1, -1, 16777217, -16777217, 2 ** 31 - 1, -(2 ** 31), 123456789]
  for (const zero of [0, 1, -1]) {
    const x = values.filter((v) => Math.abs(v - zero) < 2 ** 31)
    const by = {
      where: () => [],
      scale: scalar(f(0.1)),
      zero: scalar(zero),
    }
    const got = dequantizeLinear(tensor(x, { dtype: 'int32' }), tensor(0.1), tensor(zero, { dtype: 'int32' }))
    failures.push(...compare(`zero ${zero}`, got, dequantize(line(x), by)))
  }
  return failures
})

t.test("scales of 16 bits, dtypes, ONNX's own example", (t) => {
  const x = tensor([0, 2, 3, 1000, -254, -1000])
  const q = quantizeLinear(x, tensor(2), tensor(128, { dtype: 'uint8' }))
  t.equal(q.dtype, 'uint8')
  t.same(Array.from(q.dataSync()), [128, 129, 130, 255, 1, 0])
  t.equal(quantizeLinear(x, tensor(2)).dtype, 'uint8')
  t.equal(quantizeLinear(x, tensor(2), tensor(1, { dtype: 'int8' })).dtype, 'int8')
  t.same(Array.from(quantizeLinear(x, tensor(2, { dtype: 'bfloat16' })).dataSync()), [0, 1, 2, 255, 0, 0])
  const back = dequantizeLinear(
    tensor([0, 3, 128, 255], { dtype: 'uint8' }),
    tensor(2),
    tensor(128, { dtype: 'uint8' }),
  )
  t.same(Array.from(back.dataSync()), [-256, -250, 0, 254])
  t.end()
})

const dynamicCases: [number[], number, number, number[]][] = [
  [[0, 2, -3, -2.5, 1.34, 0.5], 0.0196078438, 153, [153, 255, 0, 26, 221, 179]],
  [[-1, -2.1, -1.3, -2.5, -3.34, -4], 0.0156862754, 255, [191, 121, 172, 96, 42, 0]],
  [
    [1, 2.1, 1.3, 2.5, 3.34, 4, 1.5, 2.6, 3.9, 4, 3, 2.345],
    0.0156862754,
    0,
    [64, 134, 83, 159, 213, 255, 96, 166, 249, 255, 191, 149],
  ],
]

onEveryTarget("DynamicQuantizeLinear: ONNX's numbers, bit for bit", () =>
  dynamicCases.flatMap(([x, scale, zero, values]) => {
    const got = dynamicQuantizeLinear(tensor(x))
    return [
      ...compare(
        'scale',
        got.scale,
        nd([], () => f(scale)),
      ),
      ...compare(
        'zero point',
        got.zeroPoint,
        nd([], () => zero),
      ),
      ...compare('values', got.values, { shape: [x.length], data: Float64Array.from(values) }),
    ]
  }),
)

/** All three results of dynamicQuantizeLinear by its definition. */
function checkDynamic(label: string, x: Tensor, values: Nd, perToken: boolean): string[] {
  const n = perToken ? (values.shape.at(-1) as number) : values.data.length
  const lead = perToken ? values.shape.slice(0, -1) : []
  const own = nd(lead, (_, flat) => flat).data
  const ranges = Array.from(own, (row) => dynamicScale(values.data.subarray(row * n, (row + 1) * n)))
  const scale = nd(lead, (_, flat) => (ranges[flat] as { scale: number }).scale)
  const zero = nd(lead, (_, flat) => (ranges[flat] as { zero: number }).zero)
  const where = whereOf({ kind: perToken ? 'token' : 'tensor' }, values.shape.length)
  const got = dynamicQuantizeLinear(x, { perToken })
  return [
    ...compare(`${label} scale`, got.scale, scale),
    ...compare(`${label} zero`, got.zeroPoint, zero),
    ...compare(`${label} values`, got.values, quantize(values, { scale, zero, where }, 0, 255)),
  ]
}

onEveryTarget('DynamicQuantizeLinear of every shape and layout, per tensor and per token', () => {
  const failures: string[] = []
  const more = [31, 32, 33, 63, 64, 65].map((n) => [3, n])
  for (const shape of [...shapes, ...more]) {
    for (const [i, layout] of layoutNames.entries()) {
      const dtype = floats[i % 3] as 'float32'
      for (const range of [
        [-3, 5],
        [1, 2],
        [-4, -1],
        [0, 0],
      ] as [number, number][]) {
        const x = lay(layout, dtype, random(dtype, shape, 7, range))
        for (const perToken of shape.length > 0 ? [false, true] : [false])
          failures.push(
            ...checkDynamic(`${dtype} ${layout} [${shape}] ${range} ${perToken}`, x.tensor, x.values, perToken),
          )
      }
    }
  }
  return failures
})

onEveryTarget('DynamicQuantizeLinear: NaN, infinities and subnormals, at every place of a row', () => {
  const failures: string[] = []
  for (const odd of [Number.NaN, Infinity, -Infinity, 1e-45, -1e-45, 3e-43, 3.4e38]) {
    for (let at = 0; at < 37; at += 3) {
      const x = nd([3, 37], ([r, c]) => (r === 1 ? (c === at ? f(odd) : odd < 1e-40 && odd > -1e-40 ? 0 : -1) : 1))
      for (const perToken of [false, true])
        failures.push(
          ...checkDynamic(
            `${odd} at ${at} ${perToken}`,
            tensor(x.data, { shape: x.shape, dtype: 'float32' }),
            x,
            perToken,
          ),
        )
    }
  }
  const wide = nd([2], ([i]) => (i ? f(3e38) : f(-3e38)))
  failures.push(...checkDynamic('a width that overflows', tensor(wide.data, { dtype: 'float32' }), wide, false))
  return failures
})

t.test('one thread and two give the same bytes', (t) => {
  const { threads } = addon.machine()
  const values = random('float32', [70_001], 11)
  const run = (count: number) => {
    useThreads(count)
    const x = tensor(values.data, { dtype: 'float32' })
    const got = dynamicQuantizeLinear(x)
    const back = dequantizeLinear(got.values, got.scale, got.zeroPoint)
    return [got.values, got.scale, got.zeroPoint, back].map((part) =>
      Buffer.from(part.dataSync().buffer).toString('base64'),
    )
  }
  const one = run(1)
  t.same(run(2), one)
  const x = tensor(values.data, { dtype: 'float32' })
  t.same(checkDynamic('70,001 elements', x, values, false), [])
  useThreads(threads)
  t.end()
})

holds(
  'what comes back is within half a step',
  fc.property(seed, fc.integer({ min: 1, max: 90 }), fc.double({ min: 1e-3, max: 1e3, noNaN: true }), (s, n, size) => {
    const x = random('float32', [n], s, [-size, size])
    const { values, scale, zeroPoint } = dynamicQuantizeLinear(tensor(x.data, { dtype: 'float32' }))
    const step = scale.item()
    const back = read(dequantizeLinear(values, scale, zeroPoint)).data
    // The zero point is rounded too, so an end of the range may be clipped by half a step more. The quotient and the
    // product are rounded, each relative to at most 256 steps.
    return back.every((y, i) => Math.abs(y - (x.data[i] as number)) <= step * (1 + 2 * 256 * 2 ** -24))
  }),
  100,
)

t.test('errors name op, argument and value', (t) => {
  const x = zeros([2, 3])
  const int = zeros([2, 3], { dtype: 'int8' })
  const refused = (what: () => unknown, code: string, message: string | RegExp) => t.throws(what, { code, message })
  refused(
    () => quantizeLinear(int, tensor(1)),
    'ERR_DTYPE',
    'quantizeLinear: x must be float32 or float16 or bfloat16, got int8',
  )
  refused(() => quantizeLinear(x, int), 'ERR_DTYPE', /^quantizeLinear: scale must be float32/)
  refused(
    () => quantizeLinear(x, tensor([1, 2])),
    'ERR_SHAPE',
    'quantizeLinear: scale must be [3] for x [2, 3], it is [2]',
  )
  refused(() => quantizeLinear(x, tensor([1, 2]), null, { axis: 2 }), 'ERR_SHAPE', /^quantizeLinear: .*axis.* 2/)
  refused(
    () => quantizeLinear(x, tensor(1), tensor([0], { dtype: 'int8' })),
    'ERR_SHAPE',
    'quantizeLinear: zeroPoint must be [] like scale, it is [1]',
  )
  refused(
    () => quantizeLinear(x, tensor(1), tensor(0) as never),
    'ERR_DTYPE',
    'quantizeLinear: zeroPoint must be int8 or uint8 or int32, got float32',
  )
  refused(
    () => quantizeLinear(x, tensor(1), null, { dtype: 'int32' as never }),
    'ERR_DTYPE',
    'quantizeLinear: dtype must be int8 or uint8, got "int32"',
  )
  refused(
    () => quantizeLinear(x, zeros([2, 2]), null, { blockSize: 1.5 }),
    'ERR_ARGUMENT',
    /^quantizeLinear: blockSize/,
  )
  refused(
    () => quantizeLinear(x, zeros([2, 3]), null, { blockSize: 2 }),
    'ERR_SHAPE',
    'quantizeLinear: scale must be [2, 2] for x [2, 3], it is [2, 3]',
  )
  refused(() => quantizeLinear(x, 1 as never), 'ERR_ARGUMENT', 'quantizeLinear: scale must be a tensor, got 1')
  refused(
    () => dequantizeLinear(x, tensor(1)),
    'ERR_DTYPE',
    'dequantizeLinear: x must be int8 or uint8 or int32, got float32',
  )
  refused(
    () => dequantizeLinear(int, tensor(1), null, { dtype: 'int8' as never }),
    'ERR_DTYPE',
    'dequantizeLinear: dtype must be a float dtype, got "int8"',
  )
  refused(
    () => dynamicQuantizeLinear(int),
    'ERR_DTYPE',
    'dynamicQuantizeLinear: x must be float32 or float16 or bfloat16, got int8',
  )
  refused(
    () => dynamicQuantizeLinear(tensor(1), { perToken: true }),
    'ERR_SHAPE',
    'dynamicQuantizeLinear: perToken needs at least one axis',
  )
  const gone = zeros([2])
  gone.dispose()
  refused(() => quantizeLinear(gone, tensor(1)), 'ERR_DISPOSED', /^quantizeLinear: /)
  refused(() => quantizeLinear(x, gone), 'ERR_DISPOSED', /^quantizeLinear: /)
  refused(() => dequantizeLinear(int, tensor(1), gone), 'ERR_DISPOSED', /^dequantizeLinear: /)
  t.end()
})
