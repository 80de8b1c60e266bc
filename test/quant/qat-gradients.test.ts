// Gradients of quantization-aware training against float64 loops written from the documentation: straight through where
// nothing was clipped, and LSQ's for learned scales, the latter against finite differences too.
import { type nn, quant, type Tensor, tensor } from 'kerf'
import t from 'tap'
import type { Granularity, QuantDType } from '#lib/core/quantization'
import { integerRange } from '#lib/core/quantization'
import { learnedQuantize } from '#lib/quant/lsq'
import { generator } from '../matrix'
import { rint } from './data'
import { at, floatsOf, inputs, mlp, type Rows, rowsOf, storedIn, weightsIn } from './models'

const { int8Dynamic, int8Static, perChannel, perGroup, perTensor, perToken, prepareQat, weightOnly } = quant
const f = Math.fround

/** What was clipped, and what the values become. */
interface Rounded {
  passes: boolean[][]
  value: Rows
  /** Integer less zero point, and the quotient before rounding. */
  q: Rows
  v: Rows
}

function fake(x: Rows, scale: (r: number, j: number) => number, zero: number, low: number, high: number): Rounded {
  const each = (fn: (v: number, r: number, j: number) => number) => x.map((row, r) => row.map((v, j) => fn(v, r, j)))
  const v = each((value, r, j) => f(value / scale(r, j)))
  const q = v.map((row) => row.map((value) => Math.min(high, Math.max(low, rint(value) + zero)) - zero))
  const passes = v.map((row) => row.map((value) => rint(value) + zero >= low && rint(value) + zero <= high))
  return { passes, q, v, value: each((_, r, j) => f(at(q, r, j) * scale(r, j))) }
}

/** a^T b for a [m, i] and b [m, j], and the sum of magnitudes. */
function product(rows: number, i: number, j: number, a: (r: number, i: number) => number, b: typeof a): [Rows, Rows] {
  const make = (size: (x: number) => number) =>
    Array.from({ length: i }, (_, p) =>
      Array.from({ length: j }, (_, q) => {
        let sum = 0
        for (let r = 0; r < rows; r++) sum += size(a(r, p) * b(r, q))
        return sum
      }),
    )
  return [make((x) => x), make(Math.abs)]
}

function mismatch(found: Tensor | null | undefined, wanted: Rows, size: Rows, roundings = 40): string | null {
  const values = rowsOf(found as Tensor)
  for (const [i, row] of wanted.entries())
    for (const [j, x] of row.entries()) {
      const off = Math.abs(at(values, i, j) - x)
      if (!(off <= roundings * 2 ** -24 * at(size, i, j))) return `[${i}, ${j}] is ${at(values, i, j)}, should be ${x}`
    }
  return null
}

const IN = 21
const OUT = 6
const ROWS = 12

t.test('observed ranges: straight through, 0 where an input was clipped', async (t) => {
  for (const [name, config] of Object.entries({
    'static uint8': int8Static(),
    'static int8': int8Static({ input: 'int8' }),
    token: int8Dynamic(),
    tensor: int8Dynamic({ input: 'tensor' }),
    '8 bits': weightOnly({ granularity: perChannel(0) }),
    '4 bits': weightOnly({ bits: 4, granularity: perGroup(8) }),
    '4 bits with zero points': weightOnly({ bits: 4, granularity: perGroup(8), symmetric: false }),
  })) {
    const layer = prepareQat(mlp(1, [IN, OUT]).at(0) as nn.Module, config) as unknown as quant.QatLinear
    layer.train().forward(inputs(2, ROWS, IN))
    // Three times as wide as the range: a third of the values is clipped.
    const x = inputs(3, ROWS, IN, () => 3)
    x.requiresGrad = true
    const g = inputs(4, ROWS, OUT)
    layer.forward(x).mul(g).sum().backward()

    const converted = layer.convert()
    const w = weightsIn(storedIn(converted))
    const rows = rowsOf(x)
    let passes = rows.map((row) => row.map(() => true))
    let taken = rows
    if (config.kind === 'int8Static') {
      const signed = config.input === 'int8'
      const zero = (converted.inputZeroPoint?.item() as number | undefined) ?? 0
      const scale = converted.inputScale?.item() as number
      ;({ passes, value: taken } = fake(rows, () => scale, zero, signed ? -128 : 0, signed ? 127 : 255))
      const clipped = passes.flat().filter((p) => !p).length / passes.flat().length
      t.ok(clipped > 0.1 && clipped < 0.6, `${name}: ${clipped} are clipped`)
    }
    if (config.kind === 'int8Dynamic') {
      const bytes = quant.dynamicQuantizeLinear(x.detach(), { perToken: config.input === 'token' })
      const [scale, zero] = [bytes.scale, bytes.zeroPoint].map((s) => [s.arraySync()].flat() as number[])
      const of = (list: number[] | undefined, r: number) => list?.[config.input === 'token' ? r : 0] as number
      taken = rowsOf(bytes.values).map((row, r) => row.map((code) => f((code - of(zero, r)) * of(scale, r))))
    }
    const grad = rowsOf(g)
    const [toW, sizeW] = product(
      ROWS,
      OUT,
      IN,
      (r, o) => at(grad, r, o),
      (r, j) => at(taken, r, j),
    )
    t.equal(mismatch(layer.weight.grad, toW, sizeW), null, `${name}: weight, all of them`)
    const [toX, sizeX] = product(
      OUT,
      ROWS,
      IN,
      (o, r) => at(grad, r, o),
      (o, j) => at(w, o, j),
    )
    const masked = toX.map((row, r) => row.map((v, j) => (passes[r]?.[j] ? v : 0)))
    t.equal(mismatch(x.grad, masked, sizeX), null, `${name}: input`)
    const [toB, sizeB] = product(
      ROWS,
      1,
      OUT,
      () => 1,
      (r, o) => at(grad, r, o),
    )
    t.equal(mismatch(layer.bias?.grad, toB, sizeB), null, `${name}: bias`)
  }
})

interface Learned {
  toX: Rows
  toScale: number[]
  size: number[]
}

/** The documented gradients of learnedQuantize for x as rows; `place` says which scale an element has. */
function lsq(
  x: Rows,
  g: Rows,
  scales: number[],
  place: (r: number, j: number) => number,
  zero: number,
  dtype: QuantDType,
): Learned {
  const { qmin, qmax } = integerRange(dtype)
  const { passes, q, v } = fake(x, (r, j) => scales[place(r, j)] as number, zero, qmin, qmax)
  const factor = 1 / Math.sqrt(((x.length * (x[0] as number[]).length) / scales.length) * qmax)
  const toScale = scales.map(() => 0)
  const size = scales.map(() => 0)
  for (const [r, row] of g.entries())
    for (const [j, grad] of row.entries()) {
      const i = place(r, j)
      const slope = passes[r]?.[j] ? at(q, r, j) - at(v, r, j) : at(q, r, j)
      toScale[i] = (toScale[i] as number) + grad * slope * factor
      // The quotient is rounded before the difference: 2^-24 of it is what counts, not of the difference.
      size[i] = (size[i] as number) + Math.abs(grad) * (Math.abs(at(v, r, j)) + 1) * factor
    }
  return { toX: g.map((row, r) => row.map((grad, j) => (passes[r]?.[j] ? grad : 0))), toScale, size }
}

const spreads: Record<string, { granularity: Granularity; shape: number[]; place: (r: number, j: number) => number }> =
  {
    tensor: { granularity: perTensor, shape: [], place: () => 0 },
    channel: { granularity: perChannel(0), shape: [5], place: (r) => r },
    'last channel': { granularity: perChannel(-1), shape: [11], place: (_, j) => j },
    token: { granularity: perToken, shape: [5], place: (r) => r },
    group: { granularity: perGroup(4), shape: [5, 3], place: (r, j) => 3 * r + Math.floor(j / 4) },
    'one group': { granularity: perGroup(64), shape: [5, 1], place: (r) => r },
  }

t.test('learned ranges: LSQ, against its formula', (t) => {
  for (const [name, { granularity, shape, place }] of Object.entries(spreads))
    for (const dtype of ['int8', 'uint8', 'int4'] as const)
      for (const half of [false, true]) {
        const x = inputs(5, 5, 11, () => 3).to(half ? 'bfloat16' : 'float32')
        const next = generator(6)
        const { qmax } = integerRange(dtype)
        const count = shape.reduce((n, s) => n * s, 1)
        const list = Array.from({ length: count }, () => f((2 + 3 * next()) / qmax))
        const scale = tensor(list, { shape })
        const zero = dtype === 'uint8' ? 100 : 0
        const zeroPoint = zero === 0 ? null : tensor(new Array(count).fill(zero), { shape, dtype: 'int32' })
        x.requiresGrad = true
        scale.requiresGrad = true
        const g = inputs(7, 5, 11).to(x.dtype)
        const y = learnedQuantize(x, scale, zeroPoint, { dtype, granularity })
        const plain = quant.fakeQuantize(x.detach() as Tensor<'float32'>, scale.detach(), zeroPoint, {
          dtype,
          granularity,
        })
        t.same(y.arraySync(), plain.arraySync(), `${name}, ${dtype}: forward is fakeQuantize`)
        y.backward(g)
        const wanted = lsq(rowsOf(x), rowsOf(g), list, place, zero, dtype)
        t.equal(mismatch(x.grad, wanted.toX, wanted.toX, 0), null, `${name}, ${dtype}: input`)
        const found = [scale.grad?.arraySync()].flat(2) as number[]
        const off = found.map((v, i) => Math.abs(v - (wanted.toScale[i] as number)) / (wanted.size[i] as number))
        t.ok(Math.max(...off) <= 8 * 2 ** -24, `${name}, ${dtype}: scale, off by ${Math.max(...off)}`)
      }
  t.end()
})

t.test('learned ranges: LSQ, against finite differences', (t) => {
  // What is differentiated: s clip(x / s + r, qmin, qmax), r being what rounding added at the scale that is there.
  const s0 = f(0.05)
  const { qmin, qmax } = integerRange('int4')
  const x = inputs(8, 6, 10, () => 0.4)
  const rest = rowsOf(x).map((row) => row.map((v) => rint(v / s0) - v / s0))
  const reference = (s: number, g: Rows) => {
    let sum = 0
    for (const [r, row] of rowsOf(x).entries())
      for (const [j, v] of row.entries()) {
        const code = rint(v / s0)
        // At an end exactly, the slope is that of the inner side: rounding brought it there.
        const q = code < qmin ? qmin : code > qmax ? qmax : v / s + at(rest, r, j)
        sum += at(g, r, j) * s * q
      }
    return sum / Math.sqrt(60 * qmax)
  }
  const scale = tensor(s0)
  scale.requiresGrad = true
  const g = inputs(9, 6, 10)
  learnedQuantize(x, scale, null, { dtype: 'int4' }).backward(g)
  const h = 1e-5
  const slope = (reference(s0 + h, rowsOf(g)) - reference(s0 - h, rowsOf(g))) / (2 * h)
  const found = scale.grad?.item() as number
  t.ok(Math.abs(found - slope) < 1e-5 * Math.abs(slope) + 1e-5, `${found} and ${slope}`)
  t.end()
})

t.test('learned ranges in a layer: the same gradients, and the logarithm of a scale takes its own', async (t) => {
  for (const [name, config] of Object.entries({
    'static uint8': int8Static(),
    token: int8Dynamic({ granularity: perTensor }),
    '4 bits': weightOnly({ bits: 4, granularity: perGroup(8) }),
  })) {
    const float = mlp(10, [IN, OUT]).at(0) as nn.Linear
    const { w } = floatsOf(float)
    const layer = prepareQat(float as nn.Module, config, { ranges: 'learned' }) as unknown as quant.QatLinear
    layer.train().forward(inputs(11, ROWS, IN))
    // Scales a third less than at the start, so that weights are clipped as well.
    const log = layer.weightLogScale as nn.Parameter
    layer.loadStateDict({ weightLogScale: log.sub(0.4) as Tensor }, { strict: false })
    const x = inputs(12, ROWS, IN, () => 2)
    x.requiresGrad = true
    const g = inputs(13, ROWS, OUT)
    layer.forward(x).mul(g).sum().backward()
    const converted = layer.convert()
    const scales = [converted.weightScale.arraySync()].flat(2) as number[]
    const place = (r: number, j: number) =>
      config.granularity.kind === 'tensor' ? 0 : config.granularity.kind === 'group' ? 3 * r + Math.floor(j / 8) : r
    const { qmin, qmax } = integerRange(converted.weightDType)
    const weights = fake(w, (r, j) => scales[place(r, j)] as number, 0, qmin, qmax)
    t.ok(
      weights.passes.flat().some((p) => !p),
      `${name}: some weights are clipped`,
    )
    const grad = rowsOf(g)
    let taken = rowsOf(x)
    if (config.kind === 'int8Static') {
      const zero = converted.inputZeroPoint?.item() as number
      const scale = converted.inputScale?.item() as number
      const bytes = fake(rowsOf(x), () => scale, zero, 0, 255)
      taken = bytes.value
      const [upstream, size] = product(
        OUT,
        ROWS,
        IN,
        (o, r) => at(grad, r, o),
        (o, j) => at(weights.value, o, j),
      )
      const masked = upstream.map((row, r) => row.map((v, j) => (bytes.passes[r]?.[j] ? v : 0)))
      t.equal(mismatch(x.grad, masked, size), null, `${name}: input`)
      const { toScale, size: sizeS } = lsq(rowsOf(x), upstream, [scale], () => 0, zero, 'uint8')
      const found = (layer.inputLogScale?.grad?.item() as number) / scale
      t.ok(Math.abs(found - (toScale[0] as number)) <= 100 * 2 ** -24 * (sizeS[0] as number), `${name}: input scale`)
    } else if (config.kind === 'int8Dynamic') {
      const { values, scale, zeroPoint } = quant.dynamicQuantizeLinear(x.detach(), { perToken: true })
      const [s, z] = [scale, zeroPoint].map((v) => v.arraySync() as number[]) as [number[], number[]]
      taken = rowsOf(values).map((row, r) => row.map((code) => f((code - (z[r] as number)) * (s[r] as number))))
    }
    const [upstream, size] = product(
      ROWS,
      OUT,
      IN,
      (r, o) => at(grad, r, o),
      (r, j) => at(taken, r, j),
    )
    const masked = upstream.map((row, r) => row.map((v, j) => (weights.passes[r]?.[j] ? v : 0)))
    t.equal(mismatch(layer.weight.grad, masked, size), null, `${name}: weight`)
    const { toScale, size: sizeS } = lsq(w, upstream, scales, place, 0, converted.weightDType)
    const found = [log.grad?.arraySync()].flat(2) as number[]
    const off = found.map((v, i) => Math.abs(v / (scales[i] as number) - (toScale[i] as number)) / (sizeS[i] as number))
    t.ok(Math.max(...off) <= 100 * 2 ** -24, `${name}: weight scales, off by ${Math.max(...off)}`)
  }
})
