// conv2d() by sparse weights against float64 loop nests over the same zeros, on every row of kernels.
import t from 'tap'
import { perChannel } from '#lib/core/quantization'
import { syncBlocking } from '#lib/native/stream'
import { conv2d } from '#lib/ops/conv'
import { tensor, zeros } from '#lib/ops/create'
import { reshape } from '#lib/ops/shape'
import { sparsify } from '#lib/ops/sparse'
import { silu } from '#lib/ops/unary'
import { QuantizedTensor } from '#lib/tensor/quantized'
import type { SparseFormat } from '#lib/tensor/sparse'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, floats, generator, gradients, onEveryTarget, random, read } from '../matrix'
import { abs, type Nd, nd } from '../oracle/array'
import { conv, convInput } from '../oracle/conv'
import { ulp, unit } from '../oracle/float'

const U = unit('float32')
type Float = (typeof floats)[number]
type Two = readonly [number, number]

interface Example {
  x: readonly [number, number, number, number]
  out: number
  kernel: Two
  stride?: Two
  padding?: Two
  dilation?: Two
}

// Panels of 48 pixels and groups of 128 outputs, and around them; taps that 8 does not divide; several chunks; an input that is
// used as it is and one that is laid; one image in chunks of rows.
const examples: Example[] = [
  { x: [1, 1, 1, 1], out: 1, kernel: [1, 1] },
  { x: [1, 8, 6, 8], out: 128, kernel: [1, 1] },
  { x: [2, 3, 7, 7], out: 129, kernel: [3, 3], padding: [1, 1] },
  { x: [2, 16, 9, 11], out: 20, kernel: [3, 3], padding: [1, 1] },
  { x: [3, 5, 8, 33], out: 7, kernel: [2, 3], stride: [2, 2], padding: [1, 0] },
  { x: [1, 4, 13, 12], out: 9, kernel: [3, 2], dilation: [2, 3], padding: [2, 1] },
  { x: [5, 2, 3, 3], out: 33, kernel: [3, 3] },
  { x: [1, 9, 40, 40], out: 11, kernel: [1, 1], stride: [1, 3] },
  { x: [1, 3, 70, 50], out: 6, kernel: [5, 5], padding: [2, 2] },
  { x: [0, 2, 4, 4], out: 3, kernel: [3, 3] },
]
const formats: SparseFormat[] = [{ block: [1, 8] }, { block: [4, 16] }, { block: [3, 5] }, 'csr']

/** Random weights [out, taps], whole blocks of 8 taps zero, and single ones too. */
function sparseWeights(dtype: Float, out: number, taps: number, seed: number): Nd {
  const next = generator(seed)
  const values = random(dtype, [out, taps], seed + 1, [-1, 1])
  const kept = Array.from({ length: out * Math.ceil(taps / 8) }, () => next() < 0.4)
  return nd([out, taps], ([row, tap], flat) => {
    const block = (row as number) * Math.ceil(taps / 8) + Math.floor((tap as number) / 8)
    return kept[block] && next() < 0.8 ? (values.data[flat] as number) : 0
  })
}

function described(e: Example) {
  const { stride = [1, 1], padding = [0, 0], dilation = [1, 1] } = e
  const size = ([0, 1] as const).map(
    (i) => Math.floor(((e.x[2 + i] as number) + 2 * padding[i] - dilation[i] * (e.kernel[i] - 1) - 1) / stride[i]) + 1,
  )
  return {
    options: { kernelSize: e.kernel, stride, padding, dilation },
    spec: { stride, pad: padding, dilation, groups: 1 },
    size: [e.x[0], e.out, ...size],
    dense: [e.out, e.x[1], ...e.kernel],
    taps: e.x[1] * e.kernel[0] * e.kernel[1],
  }
}

const of = (dtype: Float, v: Nd) => tensor(v.data, { shape: v.shape, dtype })
const shaped = (v: Nd, shape: readonly number[]): Nd => ({ shape, data: v.data })
/** k float32 steps of products as large as `magnitude` says, and one rounding to the dtype. */
const bound = (k: number, magnitude: Nd, dtype: Float) => (i: number, want: number) =>
  (k + 3) * U * (magnitude.data[i] as number) + (dtype === 'float32' ? 0 : ulp(dtype, want) / 2)

onEveryTarget('conv2d by sparse weights, and the gradients of input and bias', () =>
  examples.flatMap((e, i) => {
    const { options, spec, size, dense, taps } = described(e)
    return floats.flatMap((dtype, j) => {
      const x = random(dtype, e.x, i + 1, [-1, 1])
      const g = random(dtype, size, i + 201, [-1, 1])
      const flat = sparseWeights(dtype, e.out, taps, i + 101)
      const w = shaped(flat, dense)
      const bias = random('float32', [e.out], i + 301, [-1, 1])
      const plane = (size[2] as number) * (size[3] as number)
      const b = (at: number) => bias.data[Math.floor(at / plane) % e.out] as number
      const product = conv(x, w, size, spec)
      const exact = nd(size, (_, at) => (product.data[at] as number) + b(at))
      const products = conv(abs(x), abs(w), size, spec)
      const large = nd(size, (_, at) => (products.data[at] as number) + Math.abs(b(at)))
      return formats.flatMap((format, l) => {
        const label = `${dtype} ${JSON.stringify(e)} ${JSON.stringify(format)}`
        const a = of(dtype, x)
        a.requiresGrad = true
        const out = conv2d(a, sparsify(of(dtype, flat), format), of('float32', bias), options)
        const failures = compare(label, out, exact, bound(taps, large, dtype))
        if (l !== j % formats.length) return failures
        const [dx] = gradients(out, of(dtype, g)) as [Tensor]
        const back = convInput(abs(g), abs(w), e.x, spec)
        const steps = e.out * e.kernel[0] * e.kernel[1]
        return [...failures, ...compare(`${label} dx`, dx, convInput(g, w, e.x, spec), bound(steps, back, dtype))]
      })
    })
  }),
)

onEveryTarget('zeros of the weights count as zero whatever they meet; the rest does not hide it', () => {
  // 16 taps in the run's block, one of them not zero: an infinity at another tap's place adds nothing.
  const x = nd([1, 16, 1, 60], ([, c, , column]) =>
    c === 3 && column === 50 ? Number.POSITIVE_INFINITY : c === 5 && column === 7 ? Number.NaN : 1,
  )
  const w = nd([2, 16], ([row, tap]) => (row === 0 && tap === 2 ? 2 : row === 1 && tap === 3 ? 3 : 0))
  const got = read(
    conv2d(of('float32', x), sparsify(of('float32', w), { block: [1, 16] }), null, { kernelSize: 1 }),
  ).data
  const want = Array.from({ length: 120 }, (_, i) => (i < 60 ? 2 : i === 110 ? Number.POSITIVE_INFINITY : 3))
  const wrong = want.findIndex((v, i) => !Object.is(v, got[i]))
  return wrong < 0 ? [] : [`element ${wrong}: ${got[wrong]}, not ${want[wrong]}`]
})

onEveryTarget('int8 weights serve as floats; activations; an image without batch', () => {
  const x = random('float32', [12, 6, 9], 3, [-1, 1])
  const flat = sparseWeights('float32', 10, 108, 4)
  const options = { kernelSize: 3, padding: 1 } as const
  const scale = random('float32', [10], 5, [0.008, 0.016])
  const codes = nd([10, 108], ([row], at) =>
    Math.round((flat.data[at] as number) / (scale.data[row as number] as number)),
  )
  const values = nd([10, 108], ([row], at) => (codes.data[at] as number) * (scale.data[row as number] as number))
  const spec = { stride: [1, 1], pad: [1, 1], dilation: [1, 1], groups: 1 } as const
  const want = conv(shaped(x, [1, 12, 6, 9]), shaped(values, [10, 12, 3, 3]), [1, 10, 6, 9], spec)
  const size = conv(abs(shaped(x, [1, 12, 6, 9])), abs(shaped(values, [10, 12, 3, 3])), [1, 10, 6, 9], spec)
  const q = new QuantizedTensor({
    ...{ shape: [10, 108], dtype: 'int8', granularity: perChannel(0) },
    values: tensor(codes.data, { shape: [10, 108], dtype: 'int8' }),
    scale: of('float32', scale) as Tensor<'float32'>,
  })
  const sparse = sparsify(q, { block: [1, 8] })
  const plain = conv2d(of('float32', x), sparse, null, options)
  // The scaled value is rounded to float32 once more.
  const failures = compare('int8', plain, shaped(want, [10, 6, 9]), (i) => 113 * U * (size.data[i] as number))
  const taking = of('float32', x)
  taking.requiresGrad = true
  const active = conv2d(taking, sparse, null, { ...options, activation: 'silu' })
  const apart = conv2d(of('float32', x), sparse, null, { ...options, activation: 'silu' })
  const same = read(silu(plain)).data
  for (const [name, other] of [
    ['recorded', active],
    ['fused', apart],
  ] as const)
    failures.push(...compare(name, other, { shape: [10, 6, 9], data: same }, (_, v) => 4 * U * Math.abs(v) + 2 ** -126))
  return failures
})

t.test('what does not fit is said', (t) => {
  const w = sparsify(zeros([4, 18]), { block: [1, 8] })
  const x = zeros([1, 2, 5, 5])
  t.throws(() => conv2d(x, w, null, { kernelSize: 2 }), {
    message: /conv2d: weight \[4, 18\] does not hold kernels of \[2, 2\]/,
  })
  t.throws(() => conv2d(x, w, null, {} as { kernelSize: number }), { message: /kernelSize must be a number or/ })
  t.throws(() => conv2d(x, w, null, { kernelSize: 3, groups: 2 }), {
    message: /sparse weights are convolved in one group/,
  })
  t.throws(() => conv2d(zeros([1, 2, 2, 2]), w, null, { kernelSize: 3 }), { message: /kernel of \[3, 3\] is larger/ })
  t.throws(() => conv2d(zeros([1, 2, 5, 5], { dtype: 'int32' }), w, null, { kernelSize: 3 }), {
    message: /need a float input/,
  })
  t.throws(() => conv2d(reshape(x, [2, 25]), w, null, { kernelSize: 3 }), { message: /x must be \[images/ })
  t.throws(() => conv2d(x, w, zeros([5]), { kernelSize: 3 }), { message: /bias/ })
  syncBlocking()
  w.dispose()
  t.throws(() => conv2d(x, w, null, { kernelSize: 3 }), { name: 'DisposedError' })
  t.end()
})
