/**
 * Runs in a process of its own (hostile.test.ts), as hostile-calls.ts does: quantized tensors whose parts are not what
 * they say, and calls of the native ops of quantization that are nearly right.
 */
import * as kerf from 'kerf'
import * as quant from 'kerf/quant'
import { changedWeights, nearlyRight, raw } from './hostile-raw'
import { callsMade, notTensors, refused, survives, throwing } from './hostile-tools'

const { tensor, zeros, ones, expand } = kerf
const { QuantizedTensor } = quant

const bytes = (shape: number[], dtype: 'int8' | 'uint8' = 'int8') => zeros(shape, { dtype })
const weights = (
  dtype: 'int8' | 'uint8' | 'int4' | 'uint4' = 'int8',
  granularity: quant.Granularity = quant.perChannel(0),
) => quant.quantize(ones([8, 8]), { dtype, granularity })
const gone = zeros([2, 8])
gone.dispose()

/** A right call of everything new, and which of its arguments must be tensors. */
const calls: Record<string, { call: (...args: never[]) => unknown; args: unknown[]; tensors: number[] }> = {
  quantize: {
    call: quant.quantize,
    args: [ones([2, 8]), { dtype: 'int4', granularity: quant.perGroup(3) }],
    tensors: [0],
  },
  dequantize: { call: quant.dequantize, args: [weights(), 'float16'], tensors: [] },
  quantizeLinear: {
    call: quant.quantizeLinear,
    args: [ones([2, 8]), tensor(1), bytes([]), { axis: 1, blockSize: 0 }],
    tensors: [0, 1],
  },
  dequantizeLinear: {
    call: quant.dequantizeLinear,
    args: [bytes([2, 8]), tensor(1), bytes([]), { axis: 1 }],
    tensors: [0, 1],
  },
  dynamicQuantizeLinear: { call: quant.dynamicQuantizeLinear, args: [ones([2, 8]), { perToken: true }], tensors: [0] },
  fakeQuantize: {
    call: quant.fakeQuantize,
    args: [ones([2, 8]), tensor(1), zeros([], { dtype: 'int32' }), { qmin: -3, qmax: 3 }],
    tensors: [0, 1],
  },
  matmulInteger: {
    call: quant.matmulInteger,
    args: [bytes([2, 8]), bytes([8, 3]), bytes([]), bytes([3])],
    tensors: [0, 1],
  },
  qlinearMatmul: {
    call: quant.qlinearMatmul,
    args: [bytes([2, 8]), tensor(1), bytes([]), bytes([8, 3]), tensor(1), bytes([]), tensor(1), bytes([])],
    tensors: [0, 1, 3, 4, 6, 7],
  },
  linear: { call: kerf.linear, args: [ones([2, 8]), weights(), zeros([8]), { quantizeInput: 'token' }], tensors: [0] },
  'linear by groups': {
    call: kerf.linear,
    args: [ones([2, 8]), weights('uint4', quant.perGroup(3)), zeros([8]), {}],
    tensors: [0],
  },
  matmul: {
    call: kerf.matmul,
    args: [ones([2, 8]), weights('int4', quant.perChannel(1)), { bias: zeros([8]) }],
    tensors: [0],
  },
}

function wrongArguments(): void {
  const options = [
    throwing,
    { dtype: Symbol('x') },
    { axis: 1e300 },
    { axis: Number.NaN, blockSize: 2 ** 53 },
    { blockSize: 2 ** 40 },
    { granularity: throwing },
  ]
    .concat([
      { granularity: { kind: 'group', size: 1e300 } },
      { granularity: { kind: 'channel', axis: 2 ** 53 } },
      { qmin: -1e300, qmax: 1e300 },
    ] as never[])
    .concat([
      { quantizeInput: throwing },
      { quantizeInput: { scale: throwing } },
      { quantizeInput: 'tensor', multiplier: throwing },
      { convention: throwing },
    ] as never[])
  for (const [name, { call, args, tensors }] of Object.entries(calls)) {
    for (const i of args.keys()) {
      const wrong = (value: unknown) => () =>
        (call as (...args: unknown[]) => unknown)(...args.map((x, j) => (i === j ? value : x)))
      for (const [what, value] of notTensors)
        tensors.includes(i) ? refused(`${name}: argument ${i} ${what}`, wrong(value)) : survives(wrong(value))
      if (tensors.includes(i)) refused(`${name}: argument ${i} disposed`, wrong(gone), 'ERR_DISPOSED')
      for (const value of [throwing, new Proxy(Object(args[i]), {}), ...options]) survives(wrong(value))
      for (const shape of [[], [0], [1], [3], [8], [2, 8], [8, 8], [0, 8], [8, 0], [1, 2, 8], [2, 1, 1, 8]])
        for (const dtype of ['float32', 'float16', 'int8', 'uint8', 'int32', 'bool'] as const)
          survives(wrong(zeros(shape, { dtype })))
    }
  }
  refused('quantize a disposed tensor', () => quant.quantize(gone), 'ERR_DISPOSED')
}

const wide = expand(tensor([[1]]), [1, 2 ** 40])
const uses: ((q: never) => unknown)[] = [
  (q) => quant.dequantize(q),
  (q) => kerf.linear(ones([2, 8]), q),
  (q) => kerf.linear(ones([2, 8]), q, null, { quantizeInput: 'token' }),
  (q) => kerf.linear(wide, q),
  (q) => kerf.linear(wide, q, null, { quantizeInput: 'tensor' }),
  (q) => kerf.matmul(ones([2, 8]), q),
  (q) => String(q) + (q as quant.QuantizedTensor).bytes,
]
const lies: Record<string, unknown>[] = [
  ...[
    [2 ** 40, 8],
    [8, 2 ** 40],
    [0, 2 ** 40],
    [8, 2 ** 53],
    [16, 8],
    [8, 16],
    [8, 7],
    [1, 1],
    [],
    [8],
    null,
    [8.5, 8],
    [Number.NaN, 8],
    [-8, 8],
    'ab',
    throwing,
  ].map((shape) => ({ shape })),
  ...['int4', 'uint4', 'uint8', 'float32', '', null, Symbol('x')].map((dtype) => ({ dtype })),
  ...[0, -1, Number.NaN, 0.5, 1, 3, 9, 2 ** 40, 2 ** 53, 1e300].flatMap((size) => [
    { granularity: { kind: 'group', size } },
    { granularity: { kind: 'group', size }, shape: [8, 2 ** 40] },
  ]),
  ...[
    { kind: 'token' },
    { kind: 'tensor' },
    { kind: 'channel', axis: 1 },
    { kind: 'channel', axis: 99 },
    { kind: 'x' },
    null,
    throwing,
  ].map((granularity) => ({ granularity })),
  ...[
    bytes([1]),
    bytes([8, 8], 'uint8'),
    zeros([8, 8]),
    bytes([8, 4], 'uint8'),
    gone,
    null,
    {},
    throwing,
    expand(bytes([1, 1]), [8, 8]),
  ].map((values) => ({ values })),
  ...[
    zeros([0]),
    zeros([7]),
    zeros([8, 8]),
    bytes([8]),
    tensor(1),
    gone,
    null,
    {},
    throwing,
    expand(zeros([1]), [8]),
  ].map((scale) => ({ scale })),
  ...[zeros([0], { dtype: 'int32' }), zeros([8], { dtype: 'int32' }), zeros([8]), bytes([8]), gone, {}, throwing].map(
    (zeroPoint) => ({ zeroPoint }),
  ),
  { made: null },
  { made: { packed: {}, transposed: {} } },
]

/** Quantized tensors that lie about themselves: made without the constructor, changed after use, behind a proxy. */
function forgedTensors(): void {
  for (const lie of lies) {
    for (const made of [weights(), weights('int4', quant.perGroup(3)), weights('uint8', quant.perTensor)]) {
      for (const use of uses) survives(() => use(made as never)) // so that something is packed for it
      const forged = Object.create(QuantizedTensor.prototype, Object.getOwnPropertyDescriptors({ ...made, ...lie }))
      for (const use of uses) survives(() => use(forged as never))
      for (const use of uses) survives(() => use(new Proxy(made, {}) as never))
      Object.assign(made, lie)
      for (const use of uses) survives(() => use(made as never))
      survives(() => made.dispose())
    }
  }
  for (const lie of lies) {
    const right = {
      shape: [8, 8],
      dtype: 'int8',
      granularity: quant.perChannel(0),
      values: bytes([8, 8]),
      scale: zeros([8]),
      zeroPoint: null,
    }
    for (const use of uses) survives(() => use(new QuantizedTensor({ ...right, ...lie } as never) as never))
  }
  // Its memory given away under queued work.
  const victim = quant.quantize(kerf.rand([8, 512]), { granularity: quant.perGroup(4) })
  for (const { buffer } of [victim.values, victim.scale]) {
    for (let i = 0; i < 20; i++) survives(() => kerf.linear(kerf.rand([64, 512]), victim))
    survives(() => void structuredClone(buffer, { transfer: [buffer as ArrayBuffer] }))
    for (const use of uses) survives(() => use(victim as never))
    survives(() => kerf.linear(kerf.rand([64, 512]), victim).dataSync())
  }
}

/** Sizes whose products are 2^64, which is 0 to 64 bits: the little that such a size asks for is there. */
function overflowing(): void {
  const of = (code: number, ...shape: number[]) => [code, shape.length, 0, ...shape]
  const [float32, int8, uint8] = [zeros([1]).code, bytes([1]).code, bytes([1], 'uint8').code]
  const flat = (code: number, n: number) => [...of(code, n), 1]
  const still = (code: number, ...shape: number[]) => [...of(code, ...shape), ...shape.map(() => 0)]
  const row = (code: number, n: number) => [...of(code, 1, n), n, 1]
  const [some, one] = [new ArrayBuffer(1 << 26), new ArrayBuffer(64)]
  raw('qpack', [...flat(uint8, 2 ** 26), ...still(int8, 2 ** 40, 2 ** 24)], [some, one])
  raw(
    'qmatmul',
    [...row(6, 2 ** 13), ...still(uint8, 1, 2 ** 51), 0, -1, -1, -1, ...flat(uint8, 2 ** 15), -1, -1, -1, -1, -1, 0],
    [some, one, some],
  )
  raw(
    'qmatmul',
    [
      ...row(zeros([1], { dtype: 'int32' }).code, 2 ** 13),
      ...still(uint8, 1, 2 ** 51),
      0,
      -1,
      -1,
      -1,
      ...flat(uint8, 2 ** 15),
      -1,
      -1,
      -1,
      -1,
      -1,
      0,
    ],
    [some, one, some],
  )
  raw(
    'wmatmul',
    [...row(float32, 2 ** 13), ...still(float32, 1, 2 ** 51), ...flat(uint8, 2 ** 15), -1, 0, 8, 2 ** 51, 1, 0],
    [some, one, some],
  )
  raw('pack', [...flat(uint8, 0), ...still(float32, 2 ** 40, 2 ** 22)], [one, one])
  raw(
    'matmulPacked',
    [...row(float32, 2 ** 11), ...still(float32, 1, 2 ** 51), ...flat(uint8, 0), -1, 0],
    [some, one, one],
  )
}

wrongArguments()
forgedTensors()
nearlyRight('cpu', 1500)
changedWeights('cpu', 4000)
overflowing()
const q = quant.quantize(tensor([[1, -1]]))
if (
  String(
    kerf
      .matmul(tensor([[3]]), q)
      .round()
      .dataSync(),
  ) !== '3,-3'
)
  console.log('kerf does not compute any more')
console.log(`survived ${callsMade()}`)
