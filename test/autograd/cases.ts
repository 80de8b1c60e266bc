// Every differentiable op with inputs on which it is smooth: one table for the gradient checks.
import * as k from 'kerf'
import { gru, lstm, rnn } from '#lib/ops/recurrent'

type Tensor = k.Tensor
export interface Case {
  /** The op's name on the tape. */
  op: string
  /** What this case adds, when an op has several. */
  what?: string
  /** Shapes of the inputs that get gradients; values are filled in by `range`. */
  shapes: number[][]
  /** Values are uniform in this range, [-1.5, 1.5] by default ... */
  range?: [number, number]
  /** ... and at least this far from 0 and from each other: for kinks (relu, max). Then they are a shuffled grid. */
  apart?: true
  run: (...inputs: Tensor[]) => Tensor
}

const recurrent = { lstm, gru, rnn }
const index = (values: number[] | number[][]) => k.tensor(values, { dtype: 'int64' })

const unary = (op: string, run: (a: Tensor) => Tensor, range?: [number, number]): Case => ({
  op,
  shapes: [[2, 5]],
  range,
  run,
})
const kinked = (op: string, run: (...a: Tensor[]) => Tensor, shapes: number[][] = [[3, 4]]): Case => ({
  op,
  shapes,
  apart: true,
  run,
})
const view = (op: string, run: (a: Tensor) => Tensor, shape = [2, 3, 4]): Case => ({ op, shapes: [shape], run })

// The nonlinear function after a linear op makes a wrong gradient visible that is right for constant ones.
export const cases: Case[] = [
  {
    op: 'add',
    shapes: [
      [3, 4],
      [3, 4],
    ],
    run: (a, b) => a.add(b).tanh(),
  },
  { op: 'add', what: 'broadcast', shapes: [[3, 1], [4]], run: (a, b) => a.add(b).tanh() },
  { op: 'add', what: 'the same tensor twice', shapes: [[3]], run: (a) => a.add(a).mul(a) },
  { op: 'sub', shapes: [[3, 4], [4]], run: (a, b) => a.sub(b).tanh() },
  {
    op: 'mul',
    shapes: [
      [3, 4],
      [3, 1],
    ],
    run: (a, b) => a.mul(b),
  },
  { op: 'div', shapes: [[3, 4], [4]], range: [0.7, 2], run: (a, b) => a.div(b) },
  { op: 'pow', shapes: [[3, 4], [4]], range: [0.7, 2], run: (a, b) => a.pow(b) },
  { op: 'pow', what: 'number', shapes: [[3, 4]], run: (a) => a.pow(3) },
  kinked('maximum', (a, b) => k.maximum(a as Tensor, b as Tensor), [
    [3, 4],
    [3, 4],
  ]),
  kinked('minimum', (a, b) => k.minimum(a as Tensor, b as Tensor), [
    [3, 4],
    [3, 4],
  ]),
  { op: 'where', shapes: [[2, 3], [3]], run: (a, b) => k.where(k.tensor([true, false, true]), a.mul(a), b) },
  kinked('clamp', (a) => k.clamp(a as Tensor, -1, 1.03).mul(a as Tensor)),
  unary('neg', (a) => a.neg().tanh()),
  kinked('abs', (a) => (a as Tensor).abs().tanh()),
  unary('exp', k.exp),
  unary('log', k.log, [0.7, 2]),
  unary('log1p', k.log1p, [-0.2, 2]),
  unary('sqrt', k.sqrt, [0.7, 2]),
  unary('rsqrt', k.rsqrt, [0.7, 2]),
  unary('sin', k.sin),
  unary('cos', k.cos),
  unary('tanh', k.tanh),
  unary('sigmoid', k.sigmoid),
  unary('gelu', k.gelu),
  unary('silu', k.silu),
  unary('erf', k.erf),
  kinked('relu', (a) => k.relu(a as Tensor).mul(a as Tensor)),
  unary('cast', (a) => k.cast(a.mul(a), 'float32')),
  unary('clone', (a) => k.clone(a).mul(a)),
  { op: 'sum', shapes: [[2, 3, 4]], run: (a) => a.sum(1).tanh() },
  { op: 'sum', what: 'all', shapes: [[2, 3]], run: (a) => a.sum().tanh() },
  { op: 'mean', shapes: [[2, 3, 4]], run: (a) => a.mean([0, 2], { keepdim: true }).tanh() },
  kinked('max', (a) => (a as Tensor).max(1), [[3, 4]]),
  kinked('min', (a) => (a as Tensor).min(0), [[3, 4]]),
  { op: 'variance', shapes: [[3, 5]], run: (a) => a.variance(1) },
  {
    op: 'variance',
    what: 'of several axes',
    shapes: [[2, 3, 2]],
    run: (a) => k.variance(a, [0, 2], { keepdim: true }),
  },
  { op: 'std', shapes: [[3, 5]], run: (a) => a.std(0) },
  { op: 'cumsum', shapes: [[2, 4]], run: (a) => a.cumsum(1).tanh() },
  { op: 'softmax', shapes: [[3, 5]], run: (a) => a.softmax() },
  { op: 'softmax', what: 'other axis', shapes: [[3, 5]], run: (a) => a.softmax(0) },
  { op: 'logSoftmax', shapes: [[3, 5]], run: (a) => a.logSoftmax() },
  { op: 'layerNorm', shapes: [[3, 6], [6], [6]], run: (a, w, b) => k.layerNorm(a, 6, w, b) },
  { op: 'rmsNorm', shapes: [[3, 6], [6]], run: (a, w) => k.rmsNorm(a, 6, w, 1e-5) },
  {
    op: 'batchNorm',
    shapes: [[4, 3], [3], [3]],
    run: (x, weight, bias) => k.batchNorm(x, { weight, bias, training: true }).tanh(),
  },
  {
    op: 'batchNorm',
    what: 'planes',
    shapes: [[2, 3, 2, 2], [3], [3]],
    run: (x, weight, bias) => k.batchNorm(x, { weight, bias, training: true }).tanh(),
  },
  {
    op: 'batchNorm',
    what: 'by given statistics',
    shapes: [[2, 3, 2], [3], [3]],
    run: (x, weight, bias) =>
      k.batchNorm(x, { weight, bias, runningMean: k.tensor([0.5, -1, 0]), runningVar: k.tensor([1, 0.5, 2]) }).tanh(),
  },
  kinked('maxPool2d', (a) => k.maxPool2d(a as Tensor, { kernelSize: 2 }).tanh(), [[1, 2, 4, 5]]),
  kinked('maxPool2d', (a) => k.maxPool2d(a as Tensor, { kernelSize: 3, stride: 2, padding: 1 }).tanh(), [[1, 2, 5, 4]]),
  {
    op: 'avgPool2d',
    shapes: [[1, 2, 5, 4]],
    run: (a) => k.avgPool2d(a, { kernelSize: 3, stride: 2, padding: 1, ceilMode: true }).tanh(),
  },
  { op: 'adaptiveAvgPool2d', shapes: [[1, 2, 5, 4]], run: (a) => k.adaptiveAvgPool2d(a, [3, 2]).tanh() },
  { op: 'resize', shapes: [[1, 2, 3, 2]], run: (a) => k.resize(a, { scale: 2 }).tanh() },
  {
    op: 'resize',
    what: 'bilinear',
    shapes: [[1, 2, 3, 4]],
    run: (a) => k.resize(a, { size: [5, 3], mode: 'bilinear' }).tanh(),
  },
  { op: 'crossEntropy', shapes: [[4, 5]], run: (a) => k.crossEntropy(a, index([0, 3, 4, 1])) },
  {
    op: 'crossEntropy',
    what: 'smoothed, with an ignored row',
    shapes: [[4, 5]],
    run: (a) => k.crossEntropy(a, index([0, -100, 4, 1]), { labelSmoothing: 0.1 }),
  },
  { op: 'nllLoss', shapes: [[4, 5]], run: (a) => k.nllLoss(a.mul(a), index([0, 3, 4, 1])) },
  {
    op: 'mseLoss',
    shapes: [
      [3, 4],
      [3, 4],
    ],
    run: (a, b) => k.mseLoss(a, b),
  },
  kinked('l1Loss', (a, b) => k.l1Loss(a as Tensor, b as Tensor), [
    [2, 3],
    [2, 3],
  ]),
  {
    op: 'klDiv',
    shapes: [[3, 4]],
    run: (a) => k.klDiv(a.logSoftmax(), k.full([3, 4], 0.25), { reduction: 'batchmean' }),
  },
  {
    op: 'binaryCrossEntropyWithLogits',
    shapes: [[2, 4]],
    run: (a) => k.binaryCrossEntropyWithLogits(a, k.tensor([0, 1, 1, 0]).expand([2, 4]).cast('float32')),
  },
  { op: 'indexSelect', shapes: [[4, 3]], run: (a) => a.indexSelect(0, index([1, 1, 3])).tanh() },
  {
    op: 'indexAdd',
    shapes: [
      [4, 3],
      [2, 3],
    ],
    run: (a, b) => a.indexAdd(0, index([1, 1]), b).tanh(),
  },
  {
    op: 'gather',
    shapes: [[3, 4]],
    run: (a) =>
      a
        .gather(
          1,
          index([
            [0, 0],
            [3, 1],
            [2, 2],
          ]),
        )
        .tanh(),
  },
  {
    op: 'scatterAdd',
    shapes: [
      [3, 4],
      [3, 2],
    ],
    run: (a, b) =>
      a
        .scatterAdd(
          1,
          index([
            [0, 0],
            [3, 1],
            [2, 2],
          ]),
          b,
        )
        .tanh(),
  },
  {
    op: 'embedding',
    shapes: [[4, 3]],
    run: (w) =>
      k
        .embedding(
          index([
            [0, 2],
            [2, 3],
          ]),
          w,
        )
        .tanh(),
  },
  {
    op: 'cat',
    shapes: [
      [2, 3],
      [2, 1],
    ],
    run: (a, b) => k.cat([a, b], 1).tanh(),
  },
  {
    op: 'stack',
    shapes: [
      [2, 3],
      [2, 3],
    ],
    run: (a, b) => k.stack([a, b], 1).tanh(),
  },
  { op: 'pad', shapes: [[2, 3]], run: (a) => a.pad([1, 2]).add(1).tanh() },
  { op: 'triu', shapes: [[3, 4]], run: (a) => a.triu(1).add(1).tanh() },
  { op: 'tril', shapes: [[3, 4]], run: (a) => a.tril().add(1).tanh() },
  { op: 'slice', what: 'split', shapes: [[5, 2]], run: (a) => k.cat(a.split(2).reverse(), 0).tanh() },
  {
    op: 'slice',
    shapes: [[4, 5]],
    run: (a) =>
      a
        .slice([
          [3, 0, -2],
          [1, 4],
        ])
        .tanh(),
  },
  view('reshape', (a) => a.reshape([4, -1]).tanh()),
  view('reshape', (a) => a.transpose().reshape([-1]).tanh()),
  view('contiguous', (a) => k.contiguous(a.transpose()).tanh()),
  view('permute', (a) => a.permute([2, 0, 1]).tanh()),
  view('transpose', (a) => a.transpose(0, 2).tanh()),
  view('squeeze', (a) => a.squeeze(1).tanh(), [2, 1, 3]),
  view('unsqueeze', (a) => a.unsqueeze(1).tanh()),
  view(
    'expand',
    (a) =>
      a
        .expand([2, 3, 4])
        .mul(k.arange(24).reshape([2, 3, 4]).div(12))
        .tanh(),
    [3, 1],
  ),
  view('flip', (a) =>
    a
      .flip([0, 2])
      .mul(k.arange(24).reshape([2, 3, 4]).div(12))
      .tanh(),
  ),
  {
    op: 'matmul',
    shapes: [
      [3, 4],
      [4, 2],
    ],
    run: (a, b) => k.matmul(a, b) as Tensor,
  },
  {
    op: 'matmul',
    what: 'batched, broadcast',
    shapes: [
      [2, 1, 3, 2],
      [2, 2, 3],
    ],
    run: (a, b) => k.matmul(a, b) as Tensor,
  },
  {
    op: 'matmul',
    what: 'batch by shared matrix',
    shapes: [
      [2, 3, 2],
      [2, 3],
    ],
    run: (a, b) => k.matmul(a, b) as Tensor,
  },
  { op: 'matmul', what: 'vectors', shapes: [[3], [3]], run: (a, b) => k.matmul(a, b) as Tensor },
  ...(['relu', 'gelu', 'silu', 'sigmoid', 'tanh'] as const).map(
    (activation): Case => ({
      op: 'matmul',
      what: `bias and ${activation}`,
      shapes: [[3, 2], [2, 4], [4]],
      range: [0.3, 1],
      run: (a, b, bias) => k.matmul(a, b, { bias, activation }) as Tensor,
    }),
  ),
  { op: 'linear', shapes: [[3, 4], [2, 4], [2]], run: (x, w, b) => k.linear(x, w, b) as Tensor },
  { op: 'linear', what: 'batched', shapes: [[2, 3, 4], [2, 4], [2]], run: (x, w, b) => k.linear(x, w, b) as Tensor },
  { op: 'conv2d', shapes: [[2, 3, 4, 5], [4, 3, 2, 3], [4]], run: (x, w, b) => k.conv2d(x, w, b, { padding: 1 }) },
  {
    op: 'conv2d',
    what: 'stride, dilation, groups, gelu',
    shapes: [[1, 4, 6, 7], [2, 2, 2, 2], [2]],
    run: (x, w, b) => k.conv2d(x, w, b, { stride: 2, dilation: [1, 2], groups: 2, activation: 'gelu' }),
  },
  {
    op: 'conv2d',
    what: 'depthwise',
    shapes: [
      [2, 3, 4, 4],
      [3, 1, 3, 3],
    ],
    run: (x, w) => k.conv2d(x, w, null, { padding: 1, groups: 3 }),
  },
  { op: 'conv1d', shapes: [[2, 2, 6], [3, 2, 3], [3]], run: (x, w, b) => k.conv1d(x, w, b, { stride: 2, padding: 1 }) },
  {
    op: 'convTranspose2d',
    shapes: [[1, 4, 3, 3], [4, 3, 3, 2], [6]],
    run: (x, w, b) => k.convTranspose2d(x, w, b, { stride: 2, padding: 1, outputPadding: 1, groups: 2 }),
  },
  ...(['lstm', 'gru', 'rnn'] as const).flatMap((op) => {
    const gates = { lstm: 4, gru: 3, rnn: 1 }[op]
    const states = op === 'lstm' ? 2 : 1
    const state = Array.from({ length: states }, () => [2, 2])
    return [false, true].map(
      (reverse): Case => ({
        op,
        what: reverse ? 'reverse, no bias' : '',
        shapes: [[3, 2, gates * 2], [gates * 2, 2], [gates * 2], ...state],
        run: (projected, weight, bias, ...initial) =>
          recurrent[op]({
            projected: projected as Tensor,
            weight: weight as Tensor,
            bias: reverse ? null : (bias as Tensor),
            initial,
            reverse,
          }),
      }),
    )
  }),
]

/** Inputs of a case, the same at every call. */
export function inputsOf({ shapes, range = [-1.5, 1.5], apart }: Case): Tensor[] {
  const size = (shape: number[]) => shape.reduce((n, s) => n * s, 1)
  const total = shapes.reduce((n, shape) => n + size(shape), 0)
  // 0.2 apart and 0.1 from 0 and 0.03 from 1: wider than the 2^-4 that a gradient check moves an element by.
  const grid = Array.from({ length: total }, (_, i) => (i - total / 2 + 0.5) * 0.2)
  let state = 12345
  const random = () => {
    state = (state * 1103515245 + 12345) % 2 ** 31
    return state / 2 ** 31
  }
  for (let i = total - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    ;[grid[i], grid[j]] = [grid[j] as number, grid[i] as number]
  }
  let next = 0
  return shapes.map((shape) => {
    const values = Float32Array.from({ length: size(shape) }, () =>
      apart ? (grid[next++] as number) : range[0] + (range[1] - range[0]) * random(),
    )
    return k.tensor(values, { shape, requiresGrad: true })
  })
}
