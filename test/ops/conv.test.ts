// Convolutions and their gradients against float64 loop nests, with the bound that float32 accumulation allows.
import t from 'tap'
import { backward } from '#lib/autograd/backward'
import { info } from '#lib/info'
import { choose } from '#lib/native/load'
import { syncBlocking } from '#lib/native/stream'
import { add } from '#lib/ops/arithmetic'
import { conv1d, conv2d, convTranspose2d } from '#lib/ops/conv'
import { tensor, zeros } from '#lib/ops/create'
import { reshape, slice } from '#lib/ops/shape'
import { gelu, relu } from '#lib/ops/unary'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, floats, generator, gradients, lay, layoutNames, onEveryTarget, random, read } from '../matrix'
import { abs, type Nd, nd } from '../oracle/array'
import { type ConvSpec, conv, convInput, convWeight } from '../oracle/conv'
import { roundTo, ulp, unit } from '../oracle/float'

const U = unit('float32')
type Float = (typeof floats)[number]
type Two = readonly [number, number]

interface Example {
  x: readonly [number, number, number, number]
  /** Output channels, kernel. */
  out: number
  kernel: Two
  stride?: Two
  padding?: Two
  dilation?: Two
  groups?: number
}

// Around the tiles' 32 columns and 14 rows; images of fewer pixels than a vector; strides, dilations, edges; one line of
// tasks (groups), depthwise with one and several outputs, few and many output channels; an input used as it is and laid.
const examples: Example[] = [
  { x: [1, 1, 1, 1], out: 1, kernel: [1, 1] },
  { x: [1, 1, 5, 5], out: 1, kernel: [3, 3] },
  { x: [2, 3, 9, 11], out: 5, kernel: [3, 3], padding: [1, 1] },
  { x: [2, 3, 8, 33], out: 15, kernel: [3, 3], padding: [1, 1] },
  { x: [1, 2, 7, 40], out: 29, kernel: [5, 3], padding: [0, 2] },
  { x: [3, 5, 4, 4], out: 6, kernel: [1, 1] },
  { x: [2, 7, 6, 9], out: 8, kernel: [1, 1], stride: [2, 2] },
  { x: [2, 3, 12, 13], out: 6, kernel: [3, 3], stride: [2, 2], padding: [1, 1] },
  { x: [1, 2, 17, 19], out: 7, kernel: [5, 4], stride: [3, 2], padding: [2, 3] },
  { x: [1, 3, 15, 16], out: 5, kernel: [3, 2], dilation: [3, 2], padding: [2, 1] },
  { x: [2, 2, 11, 18], out: 6, kernel: [2, 3], stride: [2, 3], dilation: [2, 2], padding: [1, 4] },
  { x: [2, 6, 9, 10], out: 10, kernel: [3, 3], padding: [1, 1], groups: 2 },
  { x: [2, 5, 9, 35], out: 5, kernel: [3, 3], padding: [1, 1], groups: 5 },
  { x: [1, 4, 10, 7], out: 8, kernel: [3, 3], stride: [2, 2], padding: [1, 1], groups: 4 },
  { x: [1, 3, 6, 21], out: 9, kernel: [3, 2], groups: 3 },
  { x: [2, 4, 6, 6], out: 20, kernel: [6, 6] },
  { x: [5, 1, 3, 2], out: 17, kernel: [2, 2] },
  { x: [1, 70, 6, 6], out: 16, kernel: [3, 3], padding: [1, 1] },
  { x: [2, 1, 9, 2], out: 3, kernel: [7, 2], padding: [6, 1] },
  { x: [2, 6, 7, 10], out: 5, kernel: [3, 4], stride: [2, 3], padding: [1, 1] },
  { x: [1, 6, 1, 1], out: 5, kernel: [3, 3], stride: [2, 2], padding: [1, 1] },
  { x: [0, 3, 5, 5], out: 4, kernel: [3, 3] },
]

function spec(e: Example): ConvSpec & { size: number[] } {
  const { stride = [1, 1], padding = [0, 0], dilation = [1, 1], groups = 1 } = e
  const size = ([0, 1] as const).map(
    (i) => Math.floor(((e.x[2 + i] as number) + 2 * padding[i] - dilation[i] * (e.kernel[i] - 1) - 1) / stride[i]) + 1,
  )
  return { stride, pad: padding, dilation, groups, size: [e.x[0], e.out, ...size] }
}

const options = (e: Example) => ({
  stride: e.stride ?? 1,
  padding: e.padding ?? 0,
  dilation: e.dilation ?? 1,
  groups: e.groups ?? 1,
})
const weightShape = (e: Example) => [e.out, e.x[1] / (e.groups ?? 1), ...e.kernel]

/** k float32 steps of products as large as `magnitude` says, and one rounding to the dtype. */
function bound(k: number, magnitude: Nd, dtype: Float) {
  return (i: number, want: number) =>
    (k + 2) * U * (magnitude.data[i] as number) + (dtype === 'float32' ? 0 : ulp(dtype, want) / 2)
}

onEveryTarget('conv2d and its gradients', () => {
  const failures: string[] = []
  for (const [i, e] of examples.entries()) {
    const s = spec(e)
    const shape = weightShape(e)
    const taps = shape.slice(1).reduce((n, m) => n * m, 1)
    for (const dtype of floats) {
      const x = random(dtype, e.x, i + 1, [-1, 1])
      const w = random(dtype, shape, i + 101, [-1, 1])
      const g = random(dtype, s.size, i + 201, [-1, 1])
      const a = lay('contiguous', dtype, x).tensor
      const b = lay('contiguous', dtype, w).tensor
      a.requiresGrad = b.requiresGrad = true
      const out = conv2d(a, b, null, options(e))
      const label = `${dtype} ${JSON.stringify(e)}`
      failures.push(...compare(label, out, conv(x, w, s.size, s), bound(taps, conv(abs(x), abs(w), s.size, s), dtype)))
      const [dx, dw] = gradients(out, lay('contiguous', dtype, g).tensor) as [Tensor, Tensor]
      const perInput = e.out * e.kernel[0] * e.kernel[1]
      failures.push(
        ...compare(
          `${label} dx`,
          dx,
          convInput(g, w, e.x, s),
          bound(perInput, convInput(abs(g), abs(w), e.x, s), dtype),
        ),
        ...compare(
          `${label} dw`,
          dw,
          convWeight(g, x, shape, s),
          bound(e.x[0] * (s.size[2] as number) * (s.size[3] as number), convWeight(abs(g), abs(x), shape, s), dtype),
        ),
      )
    }
  }
  return failures
})

onEveryTarget('any layout of input, weight and gradient', () => {
  const failures: string[] = []
  const e: Example = { x: [2, 4, 5, 9], out: 6, kernel: [3, 3], padding: [1, 1], groups: 2 }
  const s = spec(e)
  for (const layout of layoutNames) {
    for (const dtype of floats) {
      const x = lay(layout, dtype, random(dtype, e.x, 1, [-1, 1]))
      const w = lay(layout, dtype, random(dtype, weightShape(e), 2, [-1, 1]))
      const g = lay(layout, dtype, random(dtype, s.size, 3, [-1, 1]))
      x.tensor.requiresGrad = true
      const out = conv2d(x.tensor, w.tensor, null, options(e))
      const magnitude = conv(abs(x.values), abs(w.values), s.size, s)
      failures.push(
        ...compare(`${layout} ${dtype}`, out, conv(x.values, w.values, s.size, s), bound(18, magnitude, dtype)),
      )
      const [dx] = gradients(out, g.tensor) as [Tensor]
      failures.push(
        ...compare(
          `${layout} ${dtype} dx`,
          dx,
          convInput(g.values, w.values, e.x, s),
          bound(27, convInput(abs(g.values), abs(w.values), e.x, s), dtype),
        ),
      )
    }
  }
  return failures
})

onEveryTarget('bias and activation are those of the ops', () => {
  const failures: string[] = []
  for (const out of [2, 20]) {
    const x = lay('contiguous', 'float32', random('float32', [2, 3, 6, 7], 1, [-1, 1])).tensor
    const w = lay('contiguous', 'float32', random('float32', [out, 3, 3, 3], 2, [-1, 1])).tensor
    const bias = lay('contiguous', 'float32', random('float32', [out], 3, [-1, 1])).tensor
    const plain = add(conv2d(x, w), reshape(bias, [out, 1, 1]))
    failures.push(
      ...compare(`bias ${out}`, conv2d(x, w, bias), read(plain)),
      ...compare(`relu ${out}`, conv2d(x, w, bias, { activation: 'relu' }), read(relu(plain))),
      ...compare(`gelu ${out}`, conv2d(x, w, bias, { activation: 'gelu' }), read(gelu(plain))),
    )
    // a kernel smaller than the stride leaves pixels that no input reaches
    for (const kernel of [1, 3]) {
      const turned = lay('contiguous', 'float32', random('float32', [3, out, kernel, kernel], 4, [-1, 1])).tensor
      const wide = add(convTranspose2d(x, turned, null, { stride: 2 }), reshape(bias, [out, 1, 1]))
      failures.push(
        ...compare(`transposed ${kernel}, ${out}`, convTranspose2d(x, turned, bias, { stride: 2 }), read(wide)),
      )
    }
  }
  return failures
})

onEveryTarget('convTranspose2d is the gradient of conv2d, and its own gradients', () => {
  const failures: string[] = []
  for (const [i, e] of examples.entries()) {
    const s = spec(e)
    if (s.size.includes(0)) continue
    const g = random('float32', s.size, i + 1, [-1, 1])
    const w = random('float32', weightShape(e), i + 50, [-1, 1])
    const stride = e.stride ?? [1, 1]
    const rest = ([0, 1] as const).map((d) => {
      const span = (e.dilation?.[d] ?? 1) * (e.kernel[d] - 1)
      return ((e.x[2 + d] as number) + 2 * (e.padding?.[d] ?? 0) - span - 1) % stride[d]
    }) as unknown as Two
    const a = lay('contiguous', 'float32', g).tensor
    const b = lay('contiguous', 'float32', w).tensor
    a.requiresGrad = b.requiresGrad = true
    const out = convTranspose2d(a, b, null, { ...options(e), outputPadding: rest })
    const k = e.out * e.kernel[0] * e.kernel[1]
    failures.push(
      ...compare(
        JSON.stringify(e),
        out,
        convInput(g, w, e.x, s),
        bound(k, convInput(abs(g), abs(w), e.x, s), 'float32'),
      ),
    )
    // <u, out> is <conv2d(u, w), g>: the gradients are those of that
    const u = random('float32', e.x, i + 150, [-1, 1])
    backward(out, lay('contiguous', 'float32', u).tensor)
    const [dg, dw] = [a.grad as Tensor, b.grad as Tensor]
    const [perOutput, perWeight] = [(k / e.out) * e.x[1], e.x[0] * (s.size[2] as number) * (s.size[3] as number)]
    const size = convWeight(abs(g), abs(u), weightShape(e), s)
    failures.push(
      ...compare(
        `${JSON.stringify(e)} dx`,
        dg,
        conv(u, w, s.size, s),
        bound(perOutput, conv(abs(u), abs(w), s.size, s), 'float32'),
      ),
      ...compare(`${JSON.stringify(e)} dw`, dw, convWeight(g, u, weightShape(e), s), bound(perWeight, size, 'float32')),
    )
  }
  return failures
})

t.test('random geometries (property)', (t) => {
  const next = generator(Number(process.env.KERF_TEST_SEED ?? 7))
  const pick = (low: number, high: number) => low + Math.floor(next() * (high - low + 1))
  for (let round = 0; round < 150; round++) {
    const groups = pick(1, 3)
    const kernel: Two = [pick(1, 4), pick(1, 4)]
    const dilation: Two = [pick(1, 3), pick(1, 3)]
    const padding: Two = [pick(0, 4), pick(0, 4)]
    const least = (d: 0 | 1) => Math.max(1, dilation[d] * (kernel[d] - 1) + 1 - 2 * padding[d])
    const e: Example = {
      x: [pick(1, 3), groups * pick(1, 4), least(0) + pick(0, 9), least(1) + pick(0, 20)],
      out: groups * pick(1, 7),
      kernel,
      dilation,
      padding,
      stride: [pick(1, 4), pick(1, 4)],
      groups,
    }
    const s = spec(e)
    const shape = weightShape(e)
    // small integers: every sum is exact
    const whole = (of: readonly number[]) => nd(of, () => pick(-4, 4))
    const [x, w, g] = [whole(e.x), whole(shape), whole(s.size)]
    const a = lay('contiguous', 'float32', x).tensor
    const b = lay('contiguous', 'float32', w).tensor
    a.requiresGrad = b.requiresGrad = true
    const out = conv2d(a, b, null, options(e))
    const [dx, dw] = gradients(out, lay('contiguous', 'float32', g).tensor) as [Tensor, Tensor]
    const failures = [
      ...compare('out', out, conv(x, w, s.size, s)),
      ...compare('dx', dx, convInput(g, w, e.x, s)),
      ...compare('dw', dw, convWeight(g, x, shape, s)),
    ]
    t.same(failures, [], JSON.stringify(e))
  }
  t.end()
})

t.test('results do not depend on the number of threads', (t) => {
  const before = info().threads
  const x = lay('contiguous', 'float32', random('float32', [9, 16, 40, 40], 1)).tensor
  const w = lay('contiguous', 'float32', random('float32', [33, 16, 3, 3], 2)).tensor
  x.requiresGrad = w.requiresGrad = true
  const run = (threads: number) => {
    syncBlocking()
    choose('', threads)
    const out = conv2d(x, w, null, { padding: 1 })
    return [out, ...(gradients(out, out) as Tensor[])].map((y) => read(y).data)
  }
  const one = run(1)
  for (const threads of [2, 3]) t.same(run(threads), one, `${threads} threads`)
  syncBlocking()
  choose('', before)
  t.end()
})

t.test('conv1d, images without a batch, padding by name', (t) => {
  const x = random('float32', [2, 3, 10], 1)
  const w = random('float32', [4, 3, 3], 2)
  const flat = (a: Nd, shape: readonly number[]): Nd => ({ shape, data: a.data })
  const s: ConvSpec = { stride: [1, 2], pad: [0, 1], dilation: [1, 1], groups: 1 }
  const want = conv(flat(x, [2, 3, 1, 10]), flat(w, [4, 3, 1, 3]), [2, 4, 1, 5], s)
  const [a, b] = [lay('contiguous', 'float32', x).tensor, lay('contiguous', 'float32', w).tensor]
  const out = conv1d(a, b, null, { stride: 2, padding: 1 })
  t.same(
    compare('conv1d', out, flat(want, [2, 4, 5]), () => 1e-4),
    [],
  )
  t.same(conv1d(reshape(slice(a, [[0, 1], null, null]), [3, 10]), b, null, { stride: 2, padding: 1 }).shape, [4, 5])
  const image = lay('contiguous', 'float32', random('float32', [3, 6, 7], 3)).tensor
  const kernel = lay('contiguous', 'float32', random('float32', [5, 3, 2, 4], 4)).tensor
  t.same(conv2d(image, kernel).shape, [5, 5, 4])
  t.same(conv2d(image, kernel, null, { padding: 'valid' }).shape, [5, 5, 4])
  const same = conv2d(image, kernel, null, { padding: 'same', dilation: [1, 2] })
  t.same(same.shape, [5, 6, 7])
  // total padding is dilation * (kernel - 1): 1 row at the end; 6 columns, 3 on each side
  const lone: ConvSpec = { stride: [1, 1], pad: [0, 3], dilation: [1, 2], groups: 1 }
  const [i, k] = [read(image), read(kernel)]
  t.same(
    compare('same', same, flat(conv(flat(i, [1, 3, 6, 7]), k, [1, 5, 6, 7], lone), [5, 6, 7]), () => 1e-4),
    [],
  )
  t.same(convTranspose2d(image, zeros([3, 2, 3, 3]), null, { stride: 2, outputPadding: 1 }).shape, [2, 14, 16])
  t.end()
})

t.test('float16 beyond its range, NaN and infinity go where they belong', (t) => {
  const big = tensor(new Float64Array(4).fill(60000), { shape: [1, 1, 2, 2], dtype: 'float16' })
  const ones = tensor(new Float64Array(4).fill(1), { shape: [1, 1, 2, 2], dtype: 'float16' })
  t.equal(conv2d(big, ones).item(), Infinity)
  const x = tensor(new Float32Array(9).fill(1), { shape: [1, 1, 3, 3] })
  const nan = tensor([1, 1, 1, 1, NaN, 1, 1, 1, 1], { shape: [1, 1, 3, 3] } as never) as Tensor
  for (const out of [1, 6])
    for (const activation of [undefined, 'relu'] as const) {
      const y = conv2d(reshape(nan, [1, 1, 3, 3]), zeros([out, 1, 2, 2]), null, { activation })
      t.ok(Array.from(y.dataSync() as Float32Array).every(Number.isNaN), `${out} channels, ${activation}`)
    }
  t.equal(roundTo('float32', conv2d(x, x).item() as number), 9)
  t.end()
})

t.test('errors name op, argument and value', (t) => {
  const x = zeros([1, 4, 5, 5])
  const w = zeros([6, 4, 3, 3])
  const cases: [() => unknown, RegExp][] = [
    [
      () => conv2d(x, zeros([6, 3, 3, 3])),
      /conv2d: weight \[6, 3, 3, 3\] does not fit the channels of x \[1, 4, 5, 5\]/,
    ],
    [() => conv2d(x, zeros([6, 2, 3, 3]), null, { groups: 4 }), /in 4 groups/],
    [() => conv2d(x, zeros([5, 2, 3, 3]), null, { groups: 2 }), /in 2 groups/],
    [() => conv2d(x, zeros([6, 4, 6, 3])), /larger than the padded input/],
    [() => conv2d(x, zeros([6, 4, 3])), /weight must have 4 axes, it is \[6, 4, 3\]/],
    [() => conv2d(zeros([5, 5]), w), /x must be \[images, channels, height, width\]/],
    [() => conv2d(x, zeros([6, 4, 0, 3])), /empty kernel/],
    [() => conv2d(x, w, null, { stride: 0 }), /conv2d: stride/],
    [() => conv2d(x, w, null, { stride: [1, 2, 3] as never }), /stride must be a number or \[height, width\]/],
    [() => conv2d(x, w, null, { padding: -1 }), /conv2d: padding/],
    [() => conv2d(x, w, null, { padding: 2 ** 40 }), /conv2d: padding/],
    [() => conv2d(x, w, null, { padding: 'same', stride: 2 }), /padding 'same' needs stride 1/],
    [() => conv2d(x, w, zeros([5])), /bias must be \[6\]/],
    [() => conv2d(x, w, null, { activation: 'softmax' as never }), /activation/],
    [() => conv2d(zeros([1, 4, 5, 5], { dtype: 'int8' }), w), /conv2d: x must be a float tensor, it is int8/],
    [() => conv2d(zeros([1, 1, 2, 2]), zeros([1, 1, 1, 1]), null, { padding: 2 ** 20 }), /too large/],
    [() => convTranspose2d(x, w), /convTranspose2d: weight/],
    [() => convTranspose2d(x, zeros([4, 2, 3, 3]), null, { outputPadding: 1 }), /outputPadding 1 must be less than/],
    [() => convTranspose2d(x, zeros([4, 2, 1, 1]), null, { padding: 3 }), /leaves nothing/],
  ]
  for (const [run, message] of cases) t.throws(run, { message })
  t.end()
})
