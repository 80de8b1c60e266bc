// quantize and dequantize of a tensor by the range of its own values: scales by affineOf, an element at a time.
import fc from 'fast-check'
import t from 'tap'
import {
  type Affine,
  affineOf,
  type Convention,
  conventions,
  type Granularity,
  perChannel,
  perGroup,
  perTensor,
  perToken,
  type QuantDType,
} from '#lib/core/quantization'
import { tensor, zeros } from '#lib/ops/create'
import { dequantize } from '#lib/ops/quantize'
import { quantize } from '#lib/quant/quantize'
import { QuantizedTensor } from '#lib/tensor/quantized'
import { compare, floats, lay, layoutNames, onEveryTarget, random, read } from '../matrix'
import { type Nd, nd, size } from '../oracle/array'
import { roundTo } from '../oracle/float'
import * as oracle from '../oracle/quantize'
import { normalWeights } from './data'
import { holds, seed } from './values'

const formats: [QuantDType, Convention][] = conventions.flatMap((convention) =>
  (['int8', 'uint8', 'int4', 'uint4'] as const)
    .filter((dtype) => convention === 'affine' || !dtype.startsWith('u'))
    .map((dtype): [QuantDType, Convention] => [dtype, convention]),
)

/** Granularities of a shape with the scales' shapes. */
function spreads(shape: readonly number[]): [Granularity, number[]][] {
  const lead = shape.slice(0, -1)
  const last = shape.at(-1) as number
  const found: [Granularity, number[]][] = [[perTensor, []]]
  if (shape.length === 0) return found
  found.push(
    [perToken, lead],
    ...[1, 2, 3, last + 1].map((n): [Granularity, number[]] => [perGroup(n), [...lead, Math.ceil(last / n)]]),
  )
  for (const axis of shape.keys())
    found.push([perChannel(axis % 2 ? axis - shape.length : axis), [shape[axis] as number]])
  return found
}

/** The least and largest value of everything that shares a scale. */
function ranges(x: Nd, own: readonly number[], where: oracle.Where): { min: number; max: number }[] {
  const found = Array.from({ length: size(own) }, () => ({ min: Infinity, max: -Infinity }))
  const number = nd(own, (_, flat) => flat)
  nd(x.shape, (index, flat) => {
    const range = found[number.data.length === 1 ? 0 : flatOf(where(index), own)] as { min: number; max: number }
    range.min = Math.min(range.min, x.data[flat] as number)
    range.max = Math.max(range.max, x.data[flat] as number)
    return 0
  })
  return found
}

const flatOf = (index: readonly number[], shape: readonly number[]) =>
  index.reduce((at, m, i) => at * (shape[i] as number) + m, 0)

/** Values as bytes, two a byte along the last axis for 4 bits. */
function stored(codes: Nd, dtype: QuantDType): Nd {
  if (dtype.endsWith('8')) return codes
  const n = codes.shape.at(-1) as number
  const half = Math.ceil(n / 2)
  const nibble = (row: number, i: number) => (i < n ? (codes.data[row * n + i] as number) & 15 : 0)
  return nd([...codes.shape.slice(0, -1), half], (index, flat) => {
    const [row, i] = [Math.floor(flat / half), index.at(-1) as number]
    return nibble(row, 2 * i) + 16 * nibble(row, 2 * i + 1)
  })
}

function checkQuantize(
  label: string,
  x: { tensor: ReturnType<typeof tensor>; values: Nd },
  how: [Granularity, number[]],
  format: [QuantDType, Convention],
): string[] {
  const [granularity, own] = how
  const [dtype, convention] = format
  const where = oracle.whereOf(granularity, x.values.shape.length)
  const by = ranges(x.values, own, where).map(({ min, max }) =>
    min > max ? affineOf(0, 0, dtype, convention) : affineOf(min, max, dtype, convention),
  )
  const { qmin, qmax } = by[0] ?? affineOf(0, 0, dtype, convention)
  const scale = nd(own, (_, flat) => (by[flat] as Affine).scale)
  const zero = nd(own, (_, flat) => (by[flat] as Affine).zeroPoint)
  const codes = oracle.quantize(x.values, { scale, zero, where }, qmin, qmax)
  const q = quantize(x.tensor, { dtype, granularity, convention })
  const back = dequantize(q)
  const half = dequantize(q, 'float16')
  const want = oracle.dequantize(codes, { scale, zero, where })
  return [
    ...compare(`${label} scale`, q.scale, scale),
    ...(convention === 'affine'
      ? compare(`${label} zero`, q.zeroPoint as never, zero)
      : q.zeroPoint
        ? [`${label}: has a zero point`]
        : []),
    ...compare(`${label} values`, q.values, stored(codes, dtype)),
    ...compare(`${label} back`, back, want),
    ...compare(`${label} back to float16`, half, { ...want, data: want.data.map((v) => roundTo('float16', v)) }),
  ]
}

onEveryTarget('by every convention, format, granularity and layout', () => {
  const failures: string[] = []
  for (const [i, layout] of layoutNames.entries()) {
    for (const shape of [[], [5], [4, 7], [1, 9], [2, 3, 5]]) {
      const dtype = floats[i % 3] as 'float32'
      for (const [j, range] of (
        [
          [-3, 5],
          [-5, 3],
          [1, 2],
          [-2, -1],
        ] as [number, number][]
      ).entries()) {
        const x = lay(layout, dtype, random(dtype, shape, 3 + j, range))
        for (const how of spreads(shape)) {
          for (const format of formats) {
            if (shape.length === 0 && format[0].endsWith('4')) continue
            const label = `${layout} ${dtype} [${shape}] ${range} ${JSON.stringify(how[0])} ${format}`
            failures.push(...checkQuantize(label, x, how, format))
          }
        }
      }
    }
  }
  return failures
})

onEveryTarget('zeros, constants, a few subnormals, the largest ranges that have a scale', () => {
  const failures: string[] = []
  for (const values of [
    [0, 0, 0],
    [-0, 0, -0],
    [3, 3, 3],
    [-3, -3, -3],
    [-3, 1, 3],
    [1e-45, 0, 1e-45],
    [-1e-45, 2e-45, 0],
    [1e-43, 1e-42, 0],
    [3e38, 1, 0],
    [-1e38, 2e38, 0],
  ]) {
    const data = values.map(oracle.f)
    const x = { tensor: tensor(data, { dtype: 'float32' }), values: oracle.line(data) }
    for (const how of spreads([3]))
      for (const format of formats)
        failures.push(...checkQuantize(`${values} ${JSON.stringify(how[0])} ${format}`, x, how, format))
  }
  return failures
})

onEveryTarget('no elements', () => {
  const failures: string[] = []
  for (const shape of [[0], [3, 0], [0, 3], [2, 0, 3]]) {
    const x = { tensor: zeros(shape) as ReturnType<typeof tensor>, values: nd(shape, () => 0) }
    for (const how of spreads(shape))
      for (const format of formats)
        failures.push(...checkQuantize(`[${shape}] ${JSON.stringify(how[0])} ${format}`, x, how, format))
  }
  return failures
})

onEveryTarget('a NaN or an infinity makes what shares its scale NaN, and nothing else', () => {
  const failures: string[] = []
  for (const odd of [Number.NaN, Infinity, -Infinity]) {
    for (const [granularity, hit] of [
      [perTensor, () => true],
      [perChannel(0), (r: number) => r === 1],
      [perToken, (r: number) => r === 1],
      [perChannel(1), (_: number, c: number) => c === 2],
      [perGroup(2), (r: number, c: number) => r === 1 && (c === 2 || c === 3)],
    ] as [Granularity, (r: number, c: number) => boolean][]) {
      for (const [dtype, convention] of formats) {
        const x = nd([3, 5], ([r, c]) => (r === 1 && c === 2 ? odd : (r as number) + (c as number) / 4 - 1))
        const back = read(
          dequantize(quantize(tensor(x.data, { shape: [3, 5], dtype: 'float32' }), { dtype, granularity, convention })),
        )
        const wrong = back.data.findIndex((v, i) => Number.isNaN(v) !== hit(Math.floor(i / 5), i % 5))
        if (wrong >= 0)
          failures.push(
            `${odd} ${JSON.stringify(granularity)} ${dtype} ${convention}: element ${wrong} is ${back.data[wrong]}`,
          )
      }
    }
  }
  return failures
})

holds(
  'values that are not clipped come back within half a step',
  fc.property(
    seed,
    fc.constantFrom(...formats),
    fc.double({ min: -3, max: 3, noNaN: true }),
    (s, [dtype, convention], shift) => {
      const x = random('float32', [6, 17], s, [shift - 2, shift + 2])
      const q = quantize(tensor(x.data, { shape: x.shape, dtype: 'float32' }), {
        dtype,
        convention,
        granularity: perChannel(0),
      })
      const [back, scale] = [read(dequantize(q)).data, read(q.scale).data]
      const zero = q.zeroPoint ? read(q.zeroPoint).data : new Float64Array(6)
      const { qmin, qmax } = affineOf(-1, 1, dtype, convention)
      return x.data.every((v, i) => {
        const [step, z] = [scale[Math.floor(i / 17)] as number, zero[Math.floor(i / 17)] as number]
        const exact = v / step + z
        // The end opposite the extreme, and one that the rounding of a zero point pushes out, are clipped.
        const clipped = exact < qmin - 0.5 || exact > qmax + 0.5
        const most = clipped && (convention === 'extreme' || convention === 'affine') ? 1 : 0.5
        // The quotient and the product are rounded, each relative to at most 256 steps.
        return Math.abs((back[i] as number) - v) <= Math.abs(step) * (most + 2 * 256 * 2 ** -24)
      })
    },
  ),
  200,
)

t.test(
  'the squared error of normal weights: per group <= per channel <= per tensor, and the formats in their order',
  (t) => {
    const error = (granularity: Granularity, dtype: QuantDType, convention?: Convention) => {
      const w = normalWeights(5, 32, 96).map((v, i) => v * 4 ** ((Math.floor(i / 96) % 5) - 2))
      const back = dequantize(quantize(tensor(w, { shape: [32, 96] }), { granularity, dtype, convention })).dataSync()
      return w.reduce((sum, v, i) => sum + (v - (back[i] as number)) ** 2, 0)
    }
    for (const dtype of ['int8', 'uint8', 'int4', 'uint4'] as const) {
      t.ok(error(perChannel(0), dtype) <= error(perTensor, dtype), dtype)
      t.ok(error(perGroup(32), dtype) <= error(perChannel(0), dtype), dtype)
      t.equal(error(perToken, dtype), error(perChannel(0), dtype), 'rows of a matrix are its tokens')
    }
    t.ok(error(perGroup(32), 'int4', 'extreme') < error(perGroup(32), 'int4', 'narrow'))
    t.ok(error(perTensor, 'int8') < error(perTensor, 'int4'))
    t.end()
  },
)

t.test('int4: the first of two in the low half, two to a byte, the last of an odd row alone', (t) => {
  const q = quantize(
    tensor(
      [
        [-8, 7, -1],
        [0, 1, 2],
      ],
      { dtype: 'float32' },
    ),
    { dtype: 'int4', convention: 'noClip' },
  )
  t.equal(q.scale.item(), 1)
  t.same(q.values.shape, [2, 2])
  t.same(Array.from(q.values.dataSync()), [0x78, 0x0f, 0x10, 0x02])
  t.equal(q.bytes, 4 + 4)
  t.equal(q.bits, 4)
  // many short rows too: on a GPU neighbours are then in different blocks
  const shapes = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 65].map((n) => [3, n]).concat([[300, 3]])
  for (const shape of shapes) {
    const n = shape[1] as number
    for (const [dtype, low] of [
      ['int4', -8],
      ['uint4', 0],
    ] as const) {
      const codes = nd(shape, (_, flat) => ((flat * 7) % 16) + low)
      const packed = new QuantizedTensor({
        shape,
        dtype,
        granularity: perTensor,
        values: tensor(stored(codes, dtype).data, { shape: [shape[0] as number, Math.ceil(n / 2)], dtype: 'uint8' }),
        scale: tensor(1),
      })
      t.same(compare(`${dtype}`, dequantize(packed), codes), [])
      const again = quantize(dequantize(packed), { dtype, convention: dtype === 'int4' ? 'extreme' : 'affine' })
      if (codes.data.length >= 48)
        t.same(compare(`again ${dtype}`, dequantize(again), codes), [], 'all sixteen codes are used')
    }
  }
  t.end()
})

t.test('errors name op, argument and value', (t) => {
  const x = zeros([2, 3])
  const refused = (options: object, code: string, message: string | RegExp, of: unknown = x) =>
    t.throws(() => quantize(of as typeof x, options), { code, message })
  refused({}, 'ERR_ARGUMENT', 'quantize: x must be a tensor, got 3', 3)
  refused(
    {},
    'ERR_DTYPE',
    'quantize: x must be float32 or float16 or bfloat16, got int8',
    zeros([2], { dtype: 'int8' }),
  )
  refused({ dtype: 'int16' }, 'ERR_ARGUMENT', 'quantize: dtype must be int8, uint8, int4 or uint4, got "int16"')
  refused({ convention: 'wide' }, 'ERR_ARGUMENT', /^quantize: convention must be narrow .* got "wide"/)
  refused(
    { dtype: 'uint8', convention: 'narrow' },
    'ERR_ARGUMENT',
    "quantize: the convention 'narrow' needs a signed format, got uint8",
  )
  refused({ granularity: 'row' }, 'ERR_ARGUMENT', /^quantize: granularity must be perTensor, .* got "row"/)
  refused({ granularity: { kind: 'group', size: 0 } }, 'ERR_ARGUMENT', /size must be a positive integer, got 0/)
  refused({ granularity: perChannel(2) }, 'ERR_SHAPE', /^quantize: .*2/)
  refused({ granularity: perToken }, 'ERR_ARGUMENT', 'quantize: per token needs at least one axis', tensor(1))
  refused({ dtype: 'int4' }, 'ERR_SHAPE', 'quantize: int4 needs at least one axis', tensor(1))
  refused(
    { granularity: perGroup(2) },
    'ERR_SHAPE',
    'quantize: groups need a tensor of at most 7 axes',
    zeros([1, 1, 1, 1, 1, 1, 2, 4]),
  )
  const gone = zeros([2])
  gone.dispose()
  refused({}, 'ERR_DISPOSED', /^quantize: /, gone)
  t.throws(() => dequantize(x as never), { code: 'ERR_ARGUMENT', message: /^dequantize: q must be a QuantizedTensor/ })
  t.throws(() => dequantize(quantize(x), 'int8' as never), {
    code: 'ERR_DTYPE',
    message: /^dequantize: dtype must be a float dtype, got "int8"/,
  })
  t.throws(() => perGroup(1.5), { code: 'ERR_ARGUMENT', message: 'perGroup: size must be a positive integer, got 1.5' })
  t.throws(() => perChannel('0' as never), {
    code: 'ERR_ARGUMENT',
    message: 'perChannel: axis must be an integer, got "0"',
  })
  t.end()
})
