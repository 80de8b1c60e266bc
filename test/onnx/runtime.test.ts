// Random products and quantizations by onnxruntime-node beside kerf's: a third opinion on what the operators mean.
//
// Everything has to be equal, but for two differences that are proven here: QLinearMatMul of onnxruntime adds the zero
// point after rounding, where the operator's definition adds it before; and its DynamicQuantizeLinear gives zeros only
// the scale 1, ONNX's reference 1 / 255.
//
// On machines without a dot product of bytes onnxruntime adds pairs of products up in int16, which saturates (its issue
// 7524): matrices of int8 on the right have 7 bits here, as its documentation asks for.
import fc from 'fast-check'
import t from 'tap'
import { nodeModel, type OnnxType } from '#lib/bench/onnx'
import { type Operand, peerResults, peerVersion } from '#lib/bench/peer'
import { integerRange } from '#lib/core/quantization'
import { tensor } from '#lib/ops/create'
import { matmulInteger, qlinearMatmul } from '#lib/ops/qmatmul'
import { dynamicQuantizeLinear, quantizeLinear } from '#lib/ops/quantize'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, generator, random } from '../matrix'
import { type Nd, nd } from '../oracle/array'
import { halfToEven } from '../oracle/float'
import { f, integerProduct, requantized } from '../oracle/quantize'

const missing = (() => {
  try {
    peerVersion()
    return false
  } catch (error) {
    return (error as Error).message
  }
})()

type Type = Exclude<OnnxType, 'float16' | 'bfloat16'>
const arrays = { float32: Float32Array, uint8: Uint8Array, int8: Int8Array, int32: Int32Array }
type Byte = 'int8' | 'uint8'

const given = (type: Type, { shape, data }: Nd): Operand => ({ type, shape, data: arrays[type].from(data) })
const made = <D extends Type>(type: D, { shape, data }: Nd) => tensor(data, { shape, dtype: type }) as Tensor<D>
const scalar = (x: number): Nd => ({ shape: [], data: Float64Array.of(x) })

async function run(
  op: string,
  inputs: Record<string, Operand>,
  outputs: Record<string, { type: Type; shape: readonly number[] }>,
  attributes = {},
): Promise<Nd[]> {
  const results = await peerResults(nodeModel(op, inputs, outputs, attributes), inputs)
  return Object.entries(outputs).map(([name, { shape }]) => ({
    shape: [...shape],
    data: Float64Array.from(results[name] as ArrayLike<number>),
  }))
}

const size = fc.integer({ min: 1, max: 40 })
const seed = fc.integer({ min: 1, max: 1e6 })
const byte = fc.constantFrom<Byte>('int8', 'uint8')

function agrees<T>(name: string, property: fc.IAsyncProperty<T>): void {
  t.test(name, { skip: missing }, async (t) => {
    const result = await fc.check(property, { seed: 20240229, numRuns: 60 })
    t.notOk(result.failed, fc.defaultReportMessage(result) ?? name)
  })
}

const same = (got: Tensor, want: Nd | undefined) => {
  const differences = compare('', got, want as Nd)
  if (differences.length > 0) throw new Error(differences[0])
}

/** Random numbers with ties of `scale` among them. */
function ties(shape: readonly number[], scale: number, from: number): Nd {
  const next = generator(from)
  return nd(shape, () =>
    f(next() < 0.5 ? (Math.floor(next() * 300) - 150 + 0.5) * scale : (next() * 300 - 150) * scale),
  )
}

agrees(
  'QuantizeLinear per tensor and per axis',
  fc.asyncProperty(size, size, seed, byte, fc.constantFrom(null, 0, 1), async (m, n, s, dtype, axis) => {
    const own = axis === null ? [] : [axis === 0 ? m : n]
    const { qmin, qmax } = integerRange(dtype)
    const scale = random('float32', own, s, [0.01, 2])
    const zero = random(dtype, own, s + 1, [qmin, qmax])
    const x = ties([m, n], scale.data[0] as number, s + 2)
    const inputs = { x: given('float32', x), scale: given('float32', scale), zero: given(dtype, zero) }
    const [want] = await run(
      'QuantizeLinear',
      inputs,
      { y: { type: dtype, shape: [m, n] } },
      axis === null ? {} : { axis },
    )
    same(quantizeLinear(made('float32', x), made('float32', scale), made(dtype, zero), { axis: axis ?? 1 }), want)
  }),
)

agrees(
  'DynamicQuantizeLinear',
  fc.asyncProperty(
    size,
    size,
    seed,
    fc.constantFrom([-3, 5], [0.5, 2], [-7, -1], [-1e-3, 1e-3]),
    async (m, n, s, range) => {
      const x = random('float32', [m, n], s, range as [number, number])
      const outputs = {
        y: { type: 'uint8', shape: [m, n] },
        scale: { type: 'float32', shape: [] },
        zero: { type: 'uint8', shape: [] },
      } as const
      const [y, scale, zero] = await run('DynamicQuantizeLinear', { x: given('float32', x) }, outputs)
      const got = dynamicQuantizeLinear(made('float32', x))
      same(got.values, y)
      same(got.scale, scale)
      same(got.zeroPoint, zero)
    },
  ),
)

t.test('DynamicQuantizeLinear of zeros only: the scale is 1 / 255 here, 1 there', { skip: missing }, async (t) => {
  const x = nd([3], () => 0)
  const outputs = {
    y: { type: 'uint8', shape: [3] },
    scale: { type: 'float32', shape: [] },
    zero: { type: 'uint8', shape: [] },
  } as const
  const [y, scale, zero] = await run('DynamicQuantizeLinear', { x: given('float32', x) }, outputs)
  const got = dynamicQuantizeLinear(made('float32', x))
  t.same(compare('values', got.values, y as Nd), [])
  t.same(compare('zero point', got.zeroPoint, zero as Nd), [])
  t.same([got.scale.item(), scale?.data[0]], [f(1 / 255), 1])
})

/** int8 on the right in 7 bits (see above). */
const right = (dtype: Byte, shape: readonly number[], from: number) =>
  random(dtype, shape, from, dtype === 'int8' ? [-64, 63] : [0, 255])

agrees(
  'MatMulInteger, with zero points per tensor and per column',
  fc.asyncProperty(
    size,
    size,
    fc.integer({ min: 1, max: 300 }),
    seed,
    byte,
    byte,
    fc.boolean(),
    async (m, n, k, s, da, db, columns) => {
      const [a, b] = [random(da, [m, k], s), right(db, [k, n], s + 1)]
      const [za, zb] = [random(da, [], s + 2), right(db, columns ? [n] : [], s + 3)]
      const inputs = { a: given(da, a), b: given(db, b), za: given(da, za), zb: given(db, zb) }
      const [want] = await run('MatMulInteger', inputs, { y: { type: 'int32', shape: [m, n] } })
      same(matmulInteger(made(da, a), made(db, b), made(da, za), made(db, zb)), want)
    },
  ),
)

interface Layer {
  inputs: Record<string, Operand>
  got: Tensor
  /** By the definition, and with the zero point added after rounding. */
  before: Nd
  after: Nd
}

function layer(
  a: Nd,
  b: Nd,
  [da, db, dy]: [Byte, Byte, Byte],
  za: Nd,
  zb: Nd,
  zy: number,
  sa: Nd,
  sb: Nd,
  sy: number,
): Layer {
  const { qmin, qmax } = integerRange(dy)
  const sums = integerProduct(
    a,
    b,
    () => za.data[0] as number,
    (j) => zb.data[zb.data.length > 1 ? j : 0] as number,
  )
  const factor = (j: number) => f(f((sa.data[0] as number) * (sb.data[sb.data.length > 1 ? j : 0] as number)) / sy)
  const zeroPoint = scalar(zy)
  return {
    inputs: {
      a: given(da, a),
      sa: given('float32', sa),
      za: given(da, za),
      b: given(db, b),
      sb: given('float32', sb),
      zb: given(db, zb),
      sy: given('float32', scalar(sy)),
      zy: given(dy, zeroPoint),
    },
    got: qlinearMatmul(
      made(da, a),
      made('float32', sa),
      made(da, za),
      made(db, b),
      made('float32', sb),
      made(db, zb),
      made('float32', scalar(sy)),
      made(dy, zeroPoint),
    ),
    before: nd(sums.shape, ([, j], i) => requantized(sums.data[i] as number, factor(j as number), zy, qmin, qmax)),
    after: nd(sums.shape, ([, j], i) => {
      const q = halfToEven(f(f(sums.data[i] as number) * factor(j as number))) + zy
      return Math.min(qmax, Math.max(qmin, q))
    }),
  }
}

// Signs that onnxruntime has a kernel for: an int8 matrix on the left only by one on the right.
const signs = fc.constantFrom<[Byte, Byte]>(['uint8', 'int8'], ['uint8', 'uint8'], ['int8', 'int8'])

agrees(
  'QLinearMatMul: each by its own order of rounding and adding the zero point',
  fc.asyncProperty(
    size,
    size,
    fc.integer({ min: 1, max: 200 }),
    seed,
    signs,
    fc.boolean(),
    async (m, n, k, s, [da, db], columns) => {
      const [a, b] = [random(da, [m, k], s), right(db, [k, n], s + 1)]
      const scales = columns ? [n] : []
      const [za, zb] = [random(da, [], s + 2), right(db, scales, s + 3)]
      const [sa, sb] = [random('float32', [], s + 4, [0.01, 0.03]), random('float32', scales, s + 5, [0.005, 0.02])]
      const zero = random(da, [], s + 6).data[0] as number
      const { inputs, got, before, after } = layer(
        a,
        b,
        [da, db, da],
        za,
        zb,
        zero,
        sa,
        sb,
        f(0.01 * Math.sqrt(k) * 20),
      )
      const [theirs] = await run('QLinearMatMul', inputs, { y: { type: da, shape: [m, n] } })
      same(got, before)
      same(made(da, theirs as Nd), after)
    },
  ),
)

t.test(
  'QLinearMatMul at ties: the definition adds the zero point before rounding, onnxruntime after',
  { skip: missing },
  async (t) => {
    // Sums 0 to 19 by the factor 1 / 4 and an odd zero point: 0.5 + 1 is 2 before, 0 + 1 after.
    const a = nd([20, 1], ([i]) => i as number)
    const one = scalar(1)
    const quarter = layer(
      a,
      { shape: [1, 1], data: one.data },
      ['uint8', 'uint8', 'uint8'],
      scalar(0),
      scalar(0),
      1,
      scalar(0.5),
      scalar(0.5),
      1,
    )
    const [theirs] = await run('QLinearMatMul', quarter.inputs, { y: { type: 'uint8', shape: [20, 1] } })
    t.same(compare('kerf', quarter.got, quarter.before), [])
    t.same(theirs?.data, quarter.after.data)
    const different = Array.from(quarter.before.data.keys()).filter(
      (i) => quarter.before.data[i] !== quarter.after.data[i],
    )
    t.same(different, [2, 6, 10, 14, 18], 'the halves: 0.5, 1.5, 2.5, 3.5, 4.5')
  },
)
