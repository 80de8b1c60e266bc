/**
 * Recurrent layers over a whole sequence, each one node on the tape. The inputs' product is done for all steps before; a
 * step is one product with the recurrent weights and one kernel for the gates; and the gradient of those weights is one
 * product over all steps. docs/numerics.md says where roundings are.
 */
import { promote } from '../core/dtype'
import { ShapeError } from '../core/errors'
import { sameShape, showShape } from '../core/shape'
import { native, type View } from '../native/call'
import type { DeviceName } from '../tensor/device'
import { biasRow, checkBias } from './epilogue'
import { pack } from './matmul'
import { arg, converted, empty, gapless, needsGrad, type Tensor, taped, transposedView } from './op'
import { gradOfBias } from './product-with-weights'

export interface Recurrence {
  /** [steps, batch, gates * hidden]: the inputs' product with their weights, and its bias. */
  projected: Tensor
  /** [gates * hidden, hidden] */
  weight: Tensor
  /** [gates * hidden] */
  bias: Tensor | null
  /** What the first step starts from, each [batch, hidden]: h, and for an LSTM c. */
  initial: readonly Tensor[]
  /** Goes from the last step to the first. */
  reverse?: boolean
}

/** What the kernels of one kind of layer do at a step. */
interface Rule {
  op: string
  gates: number
  /** States a step hands on. */
  states: number
  /** Blocks of `hidden` that the gradient needs of a step; 0: none. */
  saved: number
  /** The gradients before the two products differ. */
  apart: boolean
  /** `recurrent` may be overwritten. */
  step(after: View[], saved: View | null, input: View, recurrent: Tensor, before: View[]): void
  /** `carried`: in, what reaches this step's last state past the next step's product; out, the same of the step before. */
  back(to: { input: View; recurrent: View; carried: View }, from: Back): void
}

interface Back {
  /** Of this step's states as results. */
  grads: View[]
  /** Of this step's h, through the next step's product; may be overwritten. */
  dh: Tensor
  saved: View | null
  after: View[]
  before: View[]
}

const lstmRule: Rule = {
  op: 'lstm',
  gates: 4,
  states: 2,
  saved: 4,
  apart: false,
  step: ([h, c], saved, input, recurrent, [, cBefore]) =>
    native.lstmGates(h as View, c as View, saved, input, recurrent, cBefore as View),
  back: ({ input, carried }, { grads: [gh, gc], dh, saved, after: [, c], before: [, cBefore] }) =>
    native.lstmGatesGrad(input, carried, dh, gh as View, gc as View, saved as View, c as View, cBefore as View),
}

const gruRule: Rule = {
  op: 'gru',
  gates: 3,
  states: 1,
  saved: 4,
  apart: true,
  step: ([h], saved, input, recurrent, [before]) => native.gruGates(h as View, saved, input, recurrent, before as View),
  back: ({ input, recurrent, carried }, { grads: [grad], dh, saved, before: [before] }) =>
    native.gruGatesGrad(input, recurrent, carried, dh, grad as View, saved as View, before as View),
}

/** h = f(input + recurrent), by ops that are there: a step has one function, not five. Sums and f are float32. */
const rnnRule = (f: 'tanh' | 'relu'): Rule => ({
  op: 'rnn',
  gates: 1,
  states: 1,
  saved: 1,
  apart: false,
  step: ([h], saved, input, recurrent) => {
    const wide = saved ?? recurrent
    native.add(wide, recurrent, float32(input, recurrent.device))
    native[f](wide, wide)
    native.copy(h as View, wide)
  },
  back: ({ input }, { grads: [grad], dh, saved }) => {
    native.add(dh, dh, float32(grad as View, dh.device))
    native[f === 'tanh' ? 'tanhGrad' : 'reluGrad'](dh, dh, saved as View)
    native.copy(input, dh)
  },
})

/** The matrix in float32: itself, if it is. */
function float32(a: View, device: DeviceName): View {
  const wide = empty('float32', a.shape, device)
  if (a.code === wide.code) return a
  native.copy(wide, a)
  return wide
}

/** Matrix number i of a contiguous [..., rows, columns] tensor. */
function matrix(a: Tensor, i: number): View {
  const [rows, columns] = a.shape.slice(-2) as [number, number]
  return {
    buffer: a.buffer,
    code: a.code,
    shape: [rows, columns],
    strides: [columns, 1],
    offset: a.offset + i * rows * columns,
  }
}

function filled(shape: readonly number[], device: DeviceName): Tensor<'float32'> {
  const out = empty('float32', shape, device)
  native.fill(out, 0)
  return out
}

/**
 * The states [states, steps + 1, batch, hidden], the initial one among them: first, or last when going in reverse. So is
 * what each step started from again a contiguous part, and the last state of no steps is the initial one.
 */
function recur(rule: Rule, r: Recurrence): Tensor {
  const { op, gates, states } = rule
  const projected = arg(op, 'projected', r.projected)
  const weight = arg(op, 'weight', r.weight)
  const initial = r.initial.map((s) => arg(op, 'initial', s))
  const hidden = weight.shape[1] as number
  const [steps, batch] = projected.shape as [number, number]
  if (!sameShape(weight.shape, [gates * hidden, hidden]) || projected.shape[2] !== gates * hidden)
    throw new ShapeError(
      `${op}: weight ${showShape(weight.shape)} and projected ${showShape(projected.shape)} are not ${gates} gates of the same units`,
    )
  for (const s of initial)
    if (!sameShape(s.shape, [batch, hidden]))
      throw new ShapeError(`${op}: a state must be ${showShape([batch, hidden])}, it is ${showShape(s.shape)}`)
  if (r.bias) checkBias(op, r.bias, gates * hidden)

  const dtype = promote(projected.dtype, weight.dtype)
  const inputs = [projected, weight, ...(r.bias ? [r.bias] : []), ...initial]
  const recorded = needsGrad(inputs)
  const x = gapless(projected, dtype)
  const w = gapless(weight, dtype)
  const bias = r.bias && biasRow(r.bias)
  const out = empty(dtype, [states, steps + 1, batch, hidden], x.device)
  const saved = recorded ? empty('float32', [steps, batch, rule.saved * hidden], x.device) : null
  /** Where a step's states lie, and those it starts from. */
  const [late, early] = r.reverse ? [0, 1] : [1, 0]
  const at = (a: Tensor, slot: number) => Array.from({ length: states }, (_, s) => matrix(a, s * (steps + 1) + slot))
  const start = r.reverse ? steps : 0
  const order = Array.from({ length: steps }, (_, i) => (r.reverse ? steps - 1 - i : i))

  const first = at(out, start)
  for (let s = 0; s < states; s++) native.copy(first[s] as View, initial[s] as Tensor)
  const recurrent = empty('float32', [batch, gates * hidden], x.device)
  forEachProduct(w, true, steps, (times) => {
    for (const t of order) {
      const before = at(out, t + early)
      times(recurrent, before[0] as View, bias)
      rule.step(at(out, t + late), saved && matrix(saved, t), matrix(x, t), recurrent, before)
    }
  })
  return taped(op, out, inputs, (grad) => {
    const g = gapless(grad, dtype)
    const dx = empty(dtype, x.shape, x.device)
    const dp = rule.apart ? empty(dtype, x.shape, x.device) : dx
    const dh = filled([batch, hidden], x.device)
    const carried = filled([batch, hidden], x.device)
    forEachProduct(w, false, steps, (times) => {
      for (const t of [...order].reverse()) {
        const slot = t + late
        const from = { dh, saved: saved && matrix(saved, t), after: at(out, slot), before: at(out, t + early) }
        rule.back({ input: matrix(dx, t), recurrent: matrix(dp, t), carried }, { ...from, grads: at(g, slot) })
        times(dh, matrix(dp, t), null)
      }
    })
    const gradients: (Tensor | null)[] = [projected.requiresGrad ? converted(dx, projected.dtype) : null]
    gradients.push(weight.requiresGrad ? converted(gradOfWeight(dp, out, early, hidden), weight.dtype) : null)
    if (r.bias) gradients.push(gradOfBias(dp, r.bias))
    const last = at(g, start)
    // What is carried belongs to the last of the states: c of an LSTM, h itself otherwise.
    const through = states === 2 ? [dh, carried] : [dh]
    if (states === 1) native.add(dh, dh, carried)
    for (let s = 0; s < states; s++) {
      const sum = through[s] as Tensor
      native.add(sum, sum, float32(last[s] as View, sum.device))
      gradients.push((initial[s] as Tensor).requiresGrad ? converted(sum, (initial[s] as Tensor).dtype) : null)
    }
    return gradients
  })
}

type Times = (out: View, a: View, bias: View | null) => void

/** Hands `body` the product with w, or with its transpose, packed once if it is used often. */
function forEachProduct(w: Tensor, transposed: boolean, uses: number, body: (times: Times) => void): void {
  if (uses < 2) {
    const b = transposed ? transposedView(w) : w
    body((out, a, bias) => native.matmul(out, a, b, bias, 0))
    return
  }
  const packed = pack(w)
  try {
    const bytes = packed.bytes(transposed)
    body((out, a, bias) => native.matmulPacked(out, a, bytes, bias, 0))
  } finally {
    packed.dispose()
  }
}

/** The sum over steps and batch of a step's gradient by the h that it started from, in one product. */
function gradOfWeight(dp: Tensor, out: Tensor, early: number, hidden: number): Tensor {
  const [steps, batch, width] = dp.shape as [number, number, number]
  const rows = steps * batch
  const before = { buffer: out.buffer, code: out.code, shape: [rows, hidden], strides: [hidden, 1] }
  const gates = { buffer: dp.buffer, code: dp.code, shape: [width, rows], strides: [1, width], offset: dp.offset }
  const dw = empty('float32', [width, hidden], dp.device)
  native.matmul(dw, gates, { ...before, offset: out.offset + early * batch * hidden }, null, 0)
  return dw
}

/**
 * Long short-term memory (Hochreiter and Schmidhuber 1997; gates in PyTorch's order i, f, g, o), on inputs already multiplied
 * by their weights.
 *
 * @returns [2, steps + 1, batch, hidden]: h and c, each with the initial state
 */
export const lstm = (r: Recurrence): Tensor => recur(lstmRule, r)

/**
 * Gated recurrent unit, in the form that PyTorch and cuDNN compute (Cho et al. 2014, with the reset gate after the product);
 * gates r, z, n.
 *
 * @returns [1, steps + 1, batch, hidden]
 */
export const gru = (r: Recurrence): Tensor => recur(gruRule, r)

/** h = tanh or relu (input + recurrent product), Elman's network. @returns [1, steps + 1, batch, hidden] */
export const rnn = (r: Recurrence & { nonlinearity?: 'tanh' | 'relu' }): Tensor =>
  recur(rnnRule(r.nonlinearity ?? 'tanh'), r)
