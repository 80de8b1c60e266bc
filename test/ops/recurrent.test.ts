// Recurrent layers and their gradients against float64 loops that carry their own error bounds, on every row.
import t from 'tap'
import { info } from '#lib/info'
import { choose } from '#lib/native/load'
import { syncBlocking } from '#lib/native/stream'
import { zeros } from '#lib/ops/create'
import { gru, lstm, type Recurrence, rnn } from '#lib/ops/recurrent'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, floats, gradients, lay, layoutNames, onEveryTarget, random, read } from '../matrix'
import { type Layer, recurrent } from '../oracle/recurrent'

// A broadcast layout repeats values, which are then others than those given.
const layouts = layoutNames.filter((name) => name !== 'broadcast')
const kinds = ['lstm', 'gru', 'rnn', 'relu'] as const
const gatesOf = { lstm: 4, gru: 3, rnn: 1, relu: 1 } as const
const run = (kind: Layer['kind'], r: Recurrence): Tensor =>
  kind === 'lstm' ? lstm(r) : kind === 'gru' ? gru(r) : rnn({ ...r, nonlinearity: kind === 'relu' ? 'relu' : 'tanh' })

// Hidden units around the vectors' 4, 8 and 16 lanes; one step (no packing) and several; no steps; an empty batch.
const sizes: readonly (readonly [steps: number, batch: number, hidden: number])[] = [
  [1, 1, 1],
  [3, 2, 3],
  [2, 3, 16],
  [2, 1, 17],
  [4, 5, 9],
  [1, 4, 33],
  [0, 2, 5],
  [2, 0, 5],
]

function example(kind: Layer['kind'], dtype: Layer['dtype'], size: (typeof sizes)[number], seed: number): Layer {
  const [steps, batch, hidden] = size
  const width = gatesOf[kind] * hidden
  const initial = Array.from({ length: kind === 'lstm' ? 2 : 1 }, (_, s) =>
    random(dtype, [batch, hidden], seed + s, [-1, 1]),
  )
  const x = random(dtype, [steps, batch, width], seed + 10, [-2, 2])
  const w = random(dtype, [width, hidden], seed + 20, [-0.5, 0.5])
  const bias = seed % 2 ? random(dtype, [width], seed + 30, [-1, 1]) : null
  return { kind, dtype, x, w, bias, initial, reverse: seed % 3 === 0 }
}

function tensors(l: Layer, layout: string): Recurrence {
  const put = (values: Layer['x']) => {
    const { tensor } = lay(layout, l.dtype, values)
    tensor.requiresGrad = true
    return tensor
  }
  const { x, w, bias, initial, reverse } = l
  return { projected: put(x), weight: put(w), bias: bias && put(bias), initial: initial.map(put), reverse }
}

onEveryTarget('lstm, gru, rnn and their gradients', () => {
  const failures: string[] = []
  let seed = 0
  for (const kind of kinds)
    for (const dtype of floats)
      for (const size of sizes) {
        const l = example(kind, dtype, size, ++seed)
        const label = `${kind} ${dtype} [${size}]${l.reverse ? ' reverse' : ''}`
        const want = recurrent(l)
        const layout = layouts[seed % layouts.length] as string
        const out = run(kind, tensors(l, layout))
        const bounded = (name: string, got: Tensor, e: typeof want.states) =>
          compare(`${label} ${layout}: ${name}`, got, e.want, (i) => e.error.data[i] as number)
        failures.push(...bounded('states', out, want.states))
        if (out.dtype !== dtype) failures.push(`${label}: dtype ${out.dtype}`)
        const grad = random(dtype, out.shape, seed + 7, [-1, 1])
        const got = gradients(out, lay('strided', dtype, grad).tensor)
        for (const [i, e] of want.back(grad).entries()) failures.push(...bounded(`gradient ${i}`, got[i] as Tensor, e))
      }
  return failures
})

t.test('the bounds are small: a wrong gate would not pass', (t) => {
  for (const kind of kinds) {
    const l = example(kind, 'float32', [4, 5, 9], 1)
    const { states, back } = recurrent(l)
    const grads = back(random('float32', states.want.shape, 3, [-1, 1]))
    for (const e of [states, ...grads]) t.ok(Math.max(...e.error.data) < 1e-3, kind)
  }
  t.end()
})

t.test('results do not depend on the number of threads, nor on whether a gradient follows', (t) => {
  const before = info().threads
  for (const kind of ['lstm', 'gru'] as const) {
    const l = example(kind, 'float32', [2, 300, 70], 1)
    const all = (threads: number) => {
      syncBlocking()
      choose('', threads)
      const out = run(kind, tensors(l, 'contiguous'))
      return [out, ...(gradients(out, out) as Tensor[])].map((y) => read(y).data)
    }
    const one = all(1)
    for (const threads of [2, 3]) t.same(all(threads), one, `${kind}, ${threads} threads`)
    const r = tensors(l, 'contiguous')
    for (const x of [r.projected, r.weight, r.bias as Tensor, ...r.initial]) x.requiresGrad = false
    t.same(read(run(kind, r)).data, one[0])
  }
  syncBlocking()
  choose('', before)
  t.end()
})

t.test('errors name op and shapes', (t) => {
  const good: Recurrence = {
    projected: zeros([2, 3, 16]),
    weight: zeros([16, 4]),
    bias: null,
    initial: [zeros([3, 4]), zeros([3, 4])],
  }
  t.same(lstm(good).shape, [2, 3, 3, 4])
  t.throws(() => lstm({ ...good, weight: zeros([12, 4]) }), { message: /lstm: weight \[12, 4\]/ })
  t.throws(() => lstm({ ...good, projected: zeros([2, 3, 12]) }), { message: /lstm: .* projected \[2, 3, 12\]/ })
  t.throws(() => lstm({ ...good, initial: [zeros([3, 4]), zeros([2, 4])] }), {
    message: /lstm: a state must be \[3, 4\]/,
  })
  t.throws(() => gru({ ...good, projected: zeros([2, 3, 12]), weight: zeros([12, 4]), bias: zeros([4]) }), {
    message: /gru: bias must be \[12\]/,
  })
  t.end()
})
