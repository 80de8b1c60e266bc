// Gradients through linear() and matmul() of quantized weights, and what these calls refuse.
import t from 'tap'
import { gradcheck } from '#lib/autograd/gradcheck'
import { perChannel, perGroup, perTensor } from '#lib/core/quantization'
import { tensor, zeros } from '#lib/ops/create'
import { linear, matmul } from '#lib/ops/matmul'
import type { InputQuantization } from '#lib/ops/quantized-linear'
import { transpose } from '#lib/ops/shape'
import { quantize } from '#lib/quant/quantize'
import { noGrad } from '#lib/tensor/context'
import type { QuantizedTensor } from '#lib/tensor/quantized'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, floats, gradients, lay, onEveryTarget, random, read } from '../matrix'
import type { Nd } from '../oracle/array'
import * as oracle from '../oracle/array'
import { ulp } from '../oracle/float'
import { activationNames, weights } from './weights'

const U = 2 ** -24
const inputs: (InputQuantization | undefined)[] = [
  undefined,
  'tensor',
  'token',
  { scale: tensor(0.02), zeroPoint: tensor(99, { dtype: 'uint8' }) },
]

/** A chain of float32 multiply-adds, and what else may round. */
const bound = (a: Nd, b: Nd) => {
  const size = oracle.matmul(oracle.abs(a), oracle.abs(b))
  const k = a.shape.at(-1) as number
  return (flat: number) => (k + 4) * U * (size.data[flat] as number)
}

onEveryTarget(
  'the gradient of x is g W, straight through whatever made bytes of x; that of the bias is the sum of g',
  () => {
    const failures: string[] = []
    for (const dtype of floats) {
      for (const [i, quantizeInput] of inputs.entries()) {
        const w = weights(i === 0 ? 'int4' : 'uint8', [7, 10], i === 0 ? perGroup(4) : perChannel(0), true, 3)
        const x = lay('permuted', dtype, random(dtype, [2, 3, 10], 4))
        const bias = lay('contiguous', 'float32', random('float32', [7], 5))
        const multiplier = i > 0 ? random('float32', [10], 6, [0.5, 2]) : null
        x.tensor.requiresGrad = true
        bias.tensor.requiresGrad = true
        const option = {
          quantizeInput,
          multiplier: multiplier && (tensor(multiplier.data, { dtype: 'float32' }) as Tensor<'float32'>),
        }
        const out = linear(x.tensor, w.q, bias.tensor, option)
        const g = lay('strided', dtype, random(dtype, [2, 3, 7], 7))
        const [dx, db] = gradients(out, g.tensor) as [Tensor, Tensor]
        const rows = { shape: [6, 7], data: g.values.data }
        const factor = (flat: number) => (multiplier ? (multiplier.data[flat % 10] as number) : 1)
        const want = oracle.map(oracle.matmul(rows, w.values), (v, flat) => v * factor(flat))
        const most = bound(rows, w.values)
        const label = `${dtype} ${JSON.stringify(quantizeInput)}`
        failures.push(
          ...compare(
            `x ${label}`,
            dx,
            { ...want, shape: [2, 3, 10] },
            (flat, v) => 2 * most(flat) + (dtype === 'float32' ? 0 : ulp(dtype, v) / 2),
          ),
        )
        if (dx.dtype !== dtype) failures.push(`${label}: the gradient is ${dx.dtype}`)
        const sums = oracle.fold(rows, [0], oracle.sum)
        failures.push(...compare(`bias ${label}`, db, { shape: [7], data: sums.data }, () => 8 * U * 24))
      }
    }
    return failures
  },
)

t.test('gradients through every activation', (t) => {
  const make = (shape: number[], seed: number) =>
    tensor(random('float32', shape, seed, [0.3, 1]).data, { shape, dtype: 'float32', requiresGrad: true })
  const q = quantize(tensor(random('float32', [4, 6], 3, [0.1, 1]).data, { shape: [4, 6], dtype: 'float32' }), {
    granularity: perChannel(0),
  })
  const turned = quantize(
    transpose(tensor(random('float32', [4, 6], 3, [0.1, 1]).data, { shape: [4, 6], dtype: 'float32' })),
    { granularity: perChannel(1) },
  )
  for (const activation of [undefined, ...activationNames]) {
    // x is rounded to 2^-16 of 1, weights are at most 1, and the differences span 2^-4: 6 * 2^-12 at 6 products.
    const tolerance = { tolerance: 2 ** -9 }
    t.ok(
      gradcheck(
        (x, bias) => linear(x as Tensor<'float32'>, q, bias, { activation }),
        [make([3, 6], 4), make([4], 5)],
        tolerance,
      ),
      `linear, ${activation}`,
    )
    t.ok(
      gradcheck(
        (x, bias) => matmul(x as Tensor<'float32'>, turned, { bias, activation }),
        [make([3, 6], 4), make([4], 5)],
        tolerance,
      ),
      `matmul, ${activation}`,
    )
  }
  t.end()
})

t.test('what is recorded, and what is not', (t) => {
  const q = quantize(tensor(random('float32', [4, 6], 3).data, { shape: [4, 6], dtype: 'float32' }))
  const x = zeros([2, 6], { requiresGrad: true })
  const bias = zeros([4], { requiresGrad: true })
  t.equal(linear(x, q).requiresGrad, true)
  t.equal(linear(zeros([2, 6]), q).requiresGrad, false)
  t.equal(linear(zeros([2, 6]), q, bias).requiresGrad, true)
  t.equal(noGrad(() => linear(x, q, bias)).requiresGrad, false)
  const grads = gradients(linear(zeros([2, 6]), q, bias), zeros([2, 4]))
  t.equal(grads[0], null, 'no gradient for an x that asks for none')
  t.equal(gradients(linear(x, q, zeros([4])), zeros([2, 4]))[1], null)
  const withGrad = read(linear(x, q, bias, { activation: 'gelu' }))
  t.same(
    compare(
      '',
      noGrad(() => linear(x, q, bias, { activation: 'gelu' })),
      withGrad,
      () => 2 ** -22,
    ),
    [],
  )
  const later = linear(x, q)
  q.dispose()
  t.throws(() => gradients(later, zeros([2, 4])), { code: 'ERR_DISPOSED' }, 'weights must live until backward()')
  t.end()
})

const matrix = (shape: number[], options: object = {}) => quantize(zeros(shape), options)

t.test('linear: errors name op, argument and value', (t) => {
  const x = zeros([2, 6])
  const q = matrix([4, 6], { granularity: perChannel(0) })
  const refused = (run: () => unknown, code: string, message: string | RegExp) => t.throws(run, { code, message })
  const given =
    (w: unknown, options: object = {}, of: unknown = x, bias?: unknown) =>
    () =>
      linear(of as typeof x, w as QuantizedTensor, bias as Tensor, options)
  refused(given(q, {}, zeros([2, 5])), 'ERR_SHAPE', 'linear: x [2, 5] does not end in the 6 inputs of w [4, 6]')
  refused(given(q, {}, tensor(1)), 'ERR_SHAPE', 'linear: x [] does not end in the 6 inputs of w [4, 6]')
  refused(
    given(q, {}, zeros([2, 6], { dtype: 'int8' })),
    'ERR_DTYPE',
    'linear: x must be float32 or float16 or bfloat16, got int8',
  )
  refused(given(q, {}, 3), 'ERR_ARGUMENT', 'linear: x must be a tensor, got 3')
  refused(given(matrix([4, 6, 2])), 'ERR_SHAPE', 'linear: w must be [out, in], it is [4, 6, 2]')
  refused(given(q, {}, x, zeros([6])), 'ERR_SHAPE', 'linear: bias must be [4], it is [6]')
  refused(
    given(q, {}, x, zeros([4], { dtype: 'int32' })),
    'ERR_DTYPE',
    'linear: bias must be a float tensor, it is int32',
  )
  refused(given(q, { activation: 'selu' }), 'ERR_ARGUMENT', /^linear: activation must be relu, .* got "selu"/)
  refused(
    given(q, { dtype: 'float16' }),
    'ERR_DTYPE',
    'linear: with quantized weights dtype must be float32, got float16',
  )
  refused(
    given(q, { dtype: 'int8' }, zeros([2, 6], { dtype: 'float16' })),
    'ERR_DTYPE',
    'linear: with quantized weights dtype must be float16 or float32, got int8',
  )
  refused(
    given(matrix([4, 6], { granularity: perChannel(1) })),
    'ERR_DTYPE',
    'linear: weights must be quantized along their inputs, not per channel(1)',
  )
  refused(given(q, { multiplier: zeros([6]) }), 'ERR_ARGUMENT', 'linear: multiplier needs quantizeInput')
  for (const quantizeInput of [null, 'row', 3, true])
    refused(
      given(q, { quantizeInput }),
      'ERR_ARGUMENT',
      /^linear: quantizeInput must be 'tensor', 'token' or \{ scale, zeroPoint, dtype \}, got/,
    )
  refused(
    given(q, { quantizeInput: {} }),
    'ERR_ARGUMENT',
    'linear: quantizeInput.scale must be a tensor, got undefined',
  )
  refused(
    given(q, { quantizeInput: { scale: zeros([2]) } }),
    'ERR_SHAPE',
    'linear: quantizeInput.scale must have one element or be [1], it is [2]',
  )
  refused(
    given(q, { quantizeInput: { scale: tensor(1), zeroPoint: tensor(0.5) } }),
    'ERR_DTYPE',
    /^linear: quantizeInput.zeroPoint must be int8 or uint8 or int32, got float32/,
  )
  refused(
    given(q, { quantizeInput: { scale: tensor(1), dtype: 'int4' } }),
    'ERR_DTYPE',
    'linear: quantizeInput.dtype must be int8 or uint8, got "int4"',
  )
  const tokens = { quantizeInput: 'token' }
  refused(
    given(matrix([4, 6], { dtype: 'int4' }), tokens),
    'ERR_DTYPE',
    'linear: quantizeInput needs int8 or uint8 weights per tensor or per channel(0), they are int4 per tensor',
  )
  refused(given(matrix([4, 6], { granularity: perGroup(3) }), tokens), 'ERR_DTYPE', /they are int8 per group\(3\)/)
  refused(given(matrix([4, 6], { granularity: perChannel(1) }), tokens), 'ERR_DTYPE', /they are int8 per channel\(1\)/)
  refused(
    given(q, { ...tokens, multiplier: zeros([5]) }),
    'ERR_SHAPE',
    'linear: multiplier must be float32 [6], it is float32 [5]',
  )
  refused(
    given(q, { ...tokens, multiplier: zeros([6], { dtype: 'float16' }) }),
    'ERR_SHAPE',
    'linear: multiplier must be float32 [6], it is float16 [6]',
  )
  refused(given(q, { ...tokens, multiplier: 2 }), 'ERR_ARGUMENT', 'linear: multiplier must be a tensor, got 2')
  const gone = zeros([2, 6])
  gone.dispose()
  refused(given(q, {}, gone), 'ERR_DISPOSED', /^linear: /)
  refused(given(q, {}, x, gone), 'ERR_DISPOSED', /^linear: /)
  refused(given(q, { ...tokens, multiplier: gone }), 'ERR_DISPOSED', /^linear: /)
  t.end()
})

t.test('matmul: errors name op, argument and value', (t) => {
  const a = zeros([2, 6])
  const q = matrix([6, 4], { granularity: perChannel(1) })
  const refused = (run: () => unknown, code: string, message: string | RegExp) => t.throws(run, { code, message })
  refused(() => matmul(zeros([2, 5]), q), 'ERR_SHAPE', 'matmul: inner sizes differ: a is [2, 5], b is [6, 4]')
  refused(() => matmul(tensor(1), q), 'ERR_SHAPE', 'matmul: inner sizes differ: a is [], b is [6, 4]')
  refused(
    () => matmul(zeros([2, 6], { dtype: 'int8' }), q as never),
    'ERR_DTYPE',
    'matmul: a must be float32 or float16 or bfloat16, got int8',
  )
  refused(() => matmul(a, matrix([2, 6, 4])), 'ERR_SHAPE', 'matmul: a quantized b must be [k, n], it is [2, 6, 4]')
  refused(
    () => matmul(a, matrix([6, 4], { granularity: perChannel(0) })),
    'ERR_DTYPE',
    /^matmul: a quantized b must be quantized per tensor or per channel\(1\), not per channel\(0\)/,
  )
  refused(() => matmul(a, matrix([6, 4], { granularity: perGroup(2) })), 'ERR_DTYPE', /not per group\(2\)/)
  refused(() => matmul(a, q, { bias: zeros([6]) }), 'ERR_SHAPE', 'matmul: bias must be [4], it is [6]')
  refused(() => matmul(a, q, { activation: 'selu' as never }), 'ERR_ARGUMENT', /^matmul: activation must be/)
  refused(
    () => matmul(a, q, { dtype: 'float16' }),
    'ERR_DTYPE',
    'matmul: with quantized weights dtype must be float32, got float16',
  )
  refused(() => matmul(q as never, a), 'ERR_ARGUMENT', /^matmul: a must be a tensor/)
  t.same(matmul(a, matrix([6, 4], { granularity: perTensor, dtype: 'int4' })).shape, [2, 4])
  t.end()
})
