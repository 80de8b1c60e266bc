// Recurrent layers of floats.
import { nn, type Tensor, tensor } from 'kerf'
import { type Nd, nd } from '../../oracle/array'
import { recurrent as estimate, type Layer, projected } from '../../oracle/recurrent'
import type { Adapter, Adapters } from '../adapter'
import type { Call } from '../call'
import { Skip } from '../skip'

type Kind = 'LSTM' | 'GRU' | 'RNN'
/** ONNX's place of each of kerf's gates: i o f c and z r h there. */
const order: Record<Kind, readonly number[]> = { LSTM: [0, 2, 3, 1], GRU: [1, 0, 2], RNN: [0] }

interface Read {
  hidden: number
  /** [steps, batch, features] */
  x: Nd
  /** In kerf's order, of the one direction that the cases have. */
  ih: Nd
  hh: Nd
  biasIh: Nd
  biasHh: Nd
  /** [batch, hidden] */
  initial: Nd[]
  batchwise: boolean
}

/** Blocks of `rows` rows from `first` on, in kerf's order. */
function gates(kind: Kind, from: Nd, first: number, columns: number, hidden: number): Nd {
  const blocks = order[kind]
  return nd([blocks.length * hidden, columns], (index) => {
    const [row, column] = index as [number, number]
    const source = first + (blocks[Math.floor(row / hidden)] as number) * hidden + (row % hidden)
    return from.data[source * columns + column] as number
  })
}

function read(kind: Kind, call: Call): Read {
  if (call.has(7)) throw new Skip('kerf has no peepholes')
  if (call.text('direction', 'forward') !== 'forward') throw new Skip('no case of version 1.12 has another direction')
  const batchwise = call.number('layout', 0) === 1
  const given = call.values(0)
  const [a, b, features] = given.shape as [number, number, number]
  const x = batchwise
    ? nd(
        [b, a, features],
        ([t, n, i]) => given.data[((n as number) * b + (t as number)) * features + (i as number)] as number,
      )
    : given
  const [steps, batch] = x.shape as [number, number]
  if (call.integers(4)?.some((n) => n !== steps)) throw new Skip('kerf runs all sequences of a batch to the end')
  const hidden = call.number('hidden_size', 0)
  const rows = order[kind].length * hidden
  const bias = call.has(3) ? call.values(3) : nd([2 * rows], () => 0)
  const state = (i: number) => (call.has(i) ? call.values(i).data : null)
  const initial = [5, ...(kind === 'LSTM' ? [6] : [])].map((i) => nd([batch, hidden], (_, at) => state(i)?.[at] ?? 0))
  const r = {
    hidden,
    x,
    ih: gates(kind, call.values(1), 0, features, hidden),
    hh: gates(kind, call.values(2), 0, hidden, hidden),
    biasIh: gates(kind, bias, 0, 1, hidden),
    biasHh: gates(kind, bias, rows, 1, hidden),
    initial,
    batchwise,
  }
  if (kind === 'GRU' && !call.flag('linear_before_reset')) {
    // r (h W + b) is what (r h) W + b is where h and b are 0: in one step from zeros.
    const zero = (values: Nd) => values.data.every((v) => v === 0)
    if (steps > 1 || !zero(initial[0] as Nd) || !zero(r.biasHh))
      throw new Skip('kerf resets after the product, as PyTorch and cuDNN do')
  }
  return r
}

const put = (a: Nd, shape: readonly number[] = a.shape): Tensor => tensor(Float32Array.from(a.data), { shape })

function run(kind: Kind, call: Call): Tensor[] {
  const r = read(kind, call)
  const [steps, batch, features] = r.x.shape as [number, number, number]
  const x = put(r.x)
  const layer = new nn[kind](features, r.hidden)
  layer.to(x.device)
  layer.loadStateDict({
    weightIhL0: put(r.ih),
    weightHhL0: put(r.hh),
    biasIhL0: put(r.biasIh, [r.biasIh.data.length]),
    biasHhL0: put(r.biasHh, [r.biasHh.data.length]),
  })
  const [hidden, cell] = r.initial.map((s) => put(s, [1, batch, r.hidden]))
  const out = layer.forward(x, { hidden, cell } as nn.LSTMState)
  const states = [out.hidden, ...('cell' in out ? [(out as nn.LSTMState).cell] : [])]
  if (!r.batchwise) return [out.output.reshape([steps, 1, batch, r.hidden]), ...states]
  return [
    out.output.permute([1, 0, 2]).reshape([batch, steps, 1, r.hidden]),
    ...states.map((s) => s.permute([1, 0, 2])),
  ]
}

/** numpy's sigmoid is within 5 ulp (exp 4, two operations), kerf's within 2; all else rounds alike: one bound and 2.5 of it. */
const BOTH = 3.5

function adapter(kind: Kind): Adapter {
  return {
    run: (call) => run(kind, call),
    bound: (call, _want, output) => {
      const r = read(kind, call)
      const [steps, batch] = r.x.shape as [number, number]
      const bias: Nd = { shape: [r.biasHh.data.length], data: r.biasHh.data }
      const input = projected({ want: r.x, error: nd(r.x.shape, () => 0) }, r.ih, r.biasIh)
      const layer: Layer = {
        kind: kind.toLowerCase() as Layer['kind'],
        dtype: 'float32',
        x: input.want,
        xError: input.error,
        w: r.hh,
        bias,
        initial: r.initial,
        reverse: false,
      }
      const { error } = estimate(layer).states
      const at = (s: number, slot: number, n: number, j: number) =>
        BOTH * (error.data[((s * (steps + 1) + slot) * batch + n) * r.hidden + j] as number)
      return (flat) => {
        const j = flat % r.hidden
        const row = Math.floor(flat / r.hidden)
        if (output > 0) return at(output - 1, steps, row, j)
        const [t, n] = r.batchwise ? [row % steps, Math.floor(row / steps)] : [Math.floor(row / batch), row % batch]
        return at(0, t + 1, n, j)
      }
    },
  }
}

export const recurrent: Adapters = { LSTM: adapter('LSTM'), GRU: adapter('GRU'), RNN: adapter('RNN') }
