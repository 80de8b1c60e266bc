// Recurrent layers as modules: names, layouts, stacks of layers and directions, states, and what is refused.
import { amp, nn, optim, prune, randn, sum, type Tensor, tensor, zeros } from 'kerf'
import t from 'tap'
import { compare, read } from '../matrix'
import { type Nd, nd } from '../oracle/array'
import { type Estimate, type Layer, projected, recurrent } from '../oracle/recurrent'

const layers = { LSTM: nn.LSTM, GRU: nn.GRU, RNN: nn.RNN } as const
type Kind = keyof typeof layers
const kinds = Object.keys(layers) as Kind[]
type Result = { output: Tensor; hidden: Tensor; cell?: Tensor }

t.test('parameters have the names, order and shapes of PyTorch, whose state dictionaries load', (t) => {
  const lstm = new nn.LSTM(3, 4, { numLayers: 2, bidirectional: true })
  t.same(
    lstm.namedParameters().map(([name, p]) => `${name} ${p.shape}`),
    ['L0', 'L0Reverse', 'L1', 'L1Reverse'].flatMap((s) => [
      `weightIh${s} 16,${s.startsWith('L0') ? 3 : 8}`,
      `weightHh${s} 16,4`,
      `biasIh${s} 16`,
      `biasHh${s} 16`,
    ]),
  )
  for (const p of lstm.parameters()) {
    const values = Array.from(p.dataSync() as Float32Array)
    t.ok(values.every((v) => Math.abs(v) <= 0.5) && new Set(values).size > 8, 'uniform in +-1 / sqrt(4)')
  }
  const torch = Object.fromEntries(
    lstm
      .namedParameters()
      .map(([name, p]) => [
        name
          .replace(/(weight|bias)(I|H)hL(\d)/, (_, a, b, n) => `${a}_${b.toLowerCase()}h_l${n}`)
          .replace('Reverse', '_reverse'),
        randn(p.shape),
      ]),
  )
  t.ok(torch.weight_hh_l1_reverse)
  lstm.loadStateDict(torch)
  t.same(
    (lstm as unknown as Record<string, Tensor>).weightHhL1Reverse?.dataSync(),
    torch.weight_hh_l1_reverse?.dataSync(),
  )
  t.equal(new nn.GRU(3, 4, { bias: false }).parameters().length, 2)
  t.same(
    new nn.GRUCell(3, 4).namedParameters().map(([name]) => name),
    ['weightIh', 'weightHh', 'biasIh', 'biasHh'],
  )
  t.equal(String(lstm), 'LSTM(3, 4, numLayers=2, bidirectional=true)')
  t.equal(String(new nn.RNN(3, 4, { nonlinearity: 'relu', bias: false })), 'RNN(3, 4, bias=false, nonlinearity=relu)')
  t.end()
})

/** A stack of layers and directions by the oracle of one. */
function oracle(
  kind: Kind,
  layer: nn.LSTM | nn.GRU | nn.RNN,
  x: Nd,
  initial: Nd[],
): { output: Estimate; states: Estimate[] } {
  const parameters = new Map(layer.namedParameters().map(([name, p]) => [name, read(p)]))
  const get = (name: string) => parameters.get(name) as Nd
  const [steps, batch] = x.shape as [number, number]
  const h = layer.hiddenSize
  const directions = layer.bidirectional ? 2 : 1
  let input: Estimate = { want: x, error: nd(x.shape, () => 0) }
  const states: Estimate[] = initial.map(({ shape }) => ({ want: nd(shape, () => 0), error: nd(shape, () => 0) }))
  for (let n = 0; n < layer.numLayers; n++) {
    const wide = [steps, batch, directions * h]
    const output: Estimate = { want: nd(wide, () => 0), error: nd(wide, () => 0) }
    for (let d = 0; d < directions; d++) {
      const suffix = `L${n}${d ? 'Reverse' : ''}`
      const slot = n * directions + d
      const p = projected(input, get(`weightIh${suffix}`), get(`biasIh${suffix}`))
      const one = recurrent({
        kind: kind.toLowerCase() as Layer['kind'],
        dtype: 'float32',
        x: p.want,
        xError: p.error,
        w: get(`weightHh${suffix}`),
        bias: get(`biasHh${suffix}`),
        initial: initial.map((s) => nd([batch, h], (_, i) => s.data[slot * batch * h + i] as number)),
        reverse: d === 1,
      }).states
      for (const part of ['want', 'error'] as const) {
        const from = one[part].data
        const at = (s: number, time: number, i: number) => from[(s * (steps + 1) + time) * batch * h + i] as number
        for (let i = 0; i < batch * h; i++) {
          for (let time = 0; time < steps; time++)
            output[part].data[(time * batch + Math.floor(i / h)) * directions * h + d * h + (i % h)] = at(
              0,
              time + 1 - d,
              i,
            )
          for (const [s, state] of states.entries()) state[part].data[slot * batch * h + i] = at(s, d ? 0 : steps, i)
        }
      }
    }
    input = output
  }
  return { output: input, states }
}

t.test('stacks of layers and directions against the oracle', (t) => {
  for (const kind of kinds)
    for (const options of [{}, { numLayers: 2 }, { bidirectional: true }, { numLayers: 2, bidirectional: true }]) {
      const layer = new layers[kind](3, 5, options)
      const slots = (options.numLayers ?? 1) * (options.bidirectional ? 2 : 1)
      const x = randn([4, 2, 3])
      const [hidden, cell] = [randn([slots, 2, 5]), randn([slots, 2, 5])]
      const initial = kind === 'LSTM' ? [hidden, cell] : [hidden]
      const got = layer.forward(x, { hidden, cell }) as Result
      const want = oracle(kind, layer, read(x), initial.map(read))
      const label = `${kind} ${JSON.stringify(options)}`
      const near = (name: string, a: Tensor, e: Estimate) =>
        t.same(
          compare(`${label} ${name}`, a, e.want, (i) => e.error.data[i] as number),
          [],
          `${label} ${name}`,
        )
      near('output', got.output, want.output)
      near('hidden', got.hidden, want.states[0] as Estimate)
      if (got.cell) near('cell', got.cell, want.states[1] as Estimate)
      t.equal(got.cell === undefined, kind !== 'LSTM')
    }
  t.end()
})

t.test('batchFirst, one sequence, and a sequence in two parts are the same numbers', (t) => {
  for (const kind of kinds) {
    const layer = new layers[kind](3, 5, { numLayers: 2 })
    const first = new layers[kind](3, 5, { numLayers: 2, batchFirst: true })
    first.loadStateDict(layer.stateDict())
    const x = randn([4, 2, 3])
    const whole = layer.forward(x) as Result
    const turned = first.forward(x.permute([1, 0, 2])) as Result
    t.same(turned.output.shape, [2, 4, 5])
    t.same(turned.output.permute([1, 0, 2]).arraySync(), whole.output.arraySync())
    t.same(turned.hidden.arraySync(), whole.hidden.arraySync(), 'states do not turn')
    const single = (layer.forward as (x: Tensor) => Result)(x.slice([null, 1]))
    t.same(single.output.shape, [4, 5])
    t.same(single.hidden.shape, [2, 5])
    const half = layer.forward(x.slice([[0, 3]])) as Result
    const rest = layer.forward(x.slice([[3, 4]]), half) as Result
    const far = (a: Tensor, b: Tensor) => a.sub(b).abs().max().item() as number
    t.ok(far(rest.hidden, whole.hidden) < 1e-6, `${kind}: the state goes on`)
    const none = layer.forward(zeros([0, 2, 3]), half) as Result
    t.same(none.output.shape, [0, 2, 5])
    t.same(none.hidden.arraySync(), half.hidden.arraySync(), 'no steps leave the state')
    if (half.cell) t.same(none.cell?.arraySync(), half.cell.arraySync())
    t.same((layer.forward(zeros([3, 0, 3])) as Result).hidden.shape, [2, 0, 5])
  }
  t.end()
})

t.test('cells are one step of a layer', (t) => {
  const lstm = new nn.LSTM(3, 5)
  const gru = new nn.GRU(3, 5)
  const x = randn([2, 3])
  const state = { hidden: randn([2, 5]), cell: randn([2, 5]) }
  const named = (layer: nn.LSTM | nn.GRU) =>
    Object.fromEntries(Object.entries(layer.stateDict()).map(([name, p]) => [name.replace('L0', ''), p]))
  const lifted = { hidden: state.hidden.unsqueeze(0), cell: state.cell.unsqueeze(0) }
  const cell = new nn.LSTMCell(3, 5)
  cell.loadStateDict(named(lstm))
  const [one, all] = [cell.forward(x, state), lstm.forward(x.unsqueeze(0), lifted)]
  t.same(one.hidden.arraySync(), (all.hidden.arraySync() as unknown[])[0])
  t.same(one.cell.arraySync(), (all.cell.arraySync() as unknown[])[0])
  const gruCell = new nn.GRUCell(3, 5)
  gruCell.loadStateDict(named(gru))
  t.same(
    gruCell.forward(x, state).hidden.arraySync(),
    (gru.forward(x.unsqueeze(0), lifted).hidden.arraySync() as unknown[])[0],
  )
  t.same(cell.forward(x.slice([0])).hidden.shape, [5])
  t.end()
})

t.test('gradients reach everything; training mode drops between layers only', (t) => {
  for (const kind of kinds) {
    const layer = new layers[kind](3, 5, { numLayers: 2, bidirectional: true, dropout: 0.5 })
    const x = randn([4, 2, 3], { requiresGrad: true })
    const out = layer.forward(x) as Result
    sum(out.output.mul(out.output)).backward()
    t.ok(x.grad && layer.parameters().every((p) => p.grad?.abs().sum().item() !== 0))
    const again = (mode: boolean) => (layer.train(mode).forward(x) as Result).output.dataSync()
    t.notSame(again(true), again(true))
    t.same(again(false), again(false))
    const one = new layers[kind](3, 5, { dropout: 0.5 })
    t.same((one.forward(x) as Result).output.dataSync(), (one.forward(x) as Result).output.dataSync())
  }
  t.end()
})

t.test('an LSTM learns to tell which of two symbols came first', (t) => {
  const lstm = new nn.LSTM(1, 8)
  const head = new nn.Linear(8, 1)
  const x = tensor([
    [1, 0, 0, -1],
    [-1, 0, 0, 1],
    [0, 1, 0, -1],
    [0, -1, 1, 0],
  ])
    .transpose(0, 1)
    .unsqueeze(2)
  const y = tensor([[1], [0], [1], [0]])
  const loss = () => {
    const d = head.forward((lstm.forward(x).hidden as Tensor).squeeze(0)).sub(y)
    return sum(d.mul(d))
  }
  const parameters = [...lstm.parameters(), ...head.parameters()]
  const before = loss().item() as number
  const optimizer = new optim.Adam(parameters, { lr: 0.05 })
  for (let step = 0; step < 150; step++) {
    optimizer.zeroGrad()
    loss().backward()
    optimizer.step()
  }
  t.ok((loss().item() as number) < before / 100)
  t.end()
})

t.test('autocast: products in the lower dtype, parameters and their gradients as they are', (t) => {
  for (const kind of kinds) {
    const layer = new layers[kind](3, 5)
    const x = randn([4, 2, 3])
    const plain = layer.forward(x) as Result
    const out = amp.autocast('bfloat16', () => layer.forward(x) as Result)
    t.equal(out.output.dtype, 'bfloat16')
    t.ok((out.output.to('float32').sub(plain.output).abs().max().item() as number) < 0.1)
    sum(out.output.to('float32')).backward()
    t.ok(layer.parameters().every((p) => p.grad?.dtype === 'float32'))
    const half = new layers[kind](3, 5, { dtype: 'float16' })
    t.equal((half.forward(x.to('float16')) as Result).hidden.dtype, 'float16')
  }
  t.end()
})

t.test('structured pruning takes inputs of an LSTM away; its units stay', async (t) => {
  class Net extends nn.Module {
    first = new nn.Linear(3, 8)
    lstm = new nn.LSTM(8, 4)
    head = new nn.Linear(4, 2)
    forward(x: Tensor): Tensor {
      return this.head.forward(this.lstm.forward(this.first.forward(x)).output)
    }
  }
  const net = new Net()
  const x = randn([5, 2, 3])
  const report = await prune.structured(net, { ratio: 0.5, exampleInput: x })
  t.same([net.first.outFeatures, net.lstm.inputSize, net.lstm.hiddenSize], [4, 4, 4])
  t.same(net.forward(x).shape, [5, 2, 2])
  t.same(
    report.leftAlone.map(({ layers }) => layers),
    [['head']],
  )
  t.same(net.head.inFeatures, 4)
})

t.test('errors name layer, argument and value', (t) => {
  const lstm = new nn.LSTM(3, 5, { numLayers: 2 })
  const x = zeros([4, 2, 3])
  const bad = (value: unknown) => value as never
  const cases: [() => unknown, RegExp][] = [
    [() => new nn.LSTM(0, 5), /LSTM: inputSize must be a whole number >= 1, got 0/],
    [() => new nn.GRU(3, bad('5')), /GRU: hiddenSize/],
    [() => new nn.GRU(3, 5, { numLayers: 0 }), /GRU: numLayers/],
    [() => new nn.RNN(3, 5, { dropout: 2 }), /RNN: dropout must be a number from 0 to 1, got 2/],
    [() => new nn.RNN(3, 5, { nonlinearity: bad('sigmoid') }), /RNN: nonlinearity must be tanh or relu, got "sigmoid"/],
    [() => new nn.LSTMCell(3, 0), /LSTMCell: hiddenSize/],
    [() => lstm.forward(bad(null)), /LSTM: input must be a tensor/],
    [() => lstm.forward(zeros([3])), /LSTM: input must be \[steps, batch, features\]/],
    [() => lstm.forward(zeros([4, 2, 5])), /does not end in the 3 features/],
    [() => lstm.forward(x, bad(7)), /LSTM: state must be an object/],
    [() => lstm.forward(x, { hidden: zeros([1, 2, 5]) }), /LSTM: state.hidden must be \[2, 2, 5\], it is \[1, 2, 5\]/],
    [() => lstm.forward(x, { cell: bad([1]) }), /LSTM: state.cell must be a tensor/],
    [() => new nn.GRUCell(3, 5).forward(zeros([2, 4])), /GRUCell: input must be \[batch, 3\] or \[3\]/],
    [
      () => new nn.GRUCell(3, 5).forward(zeros([2, 3]), { hidden: zeros([5]) }),
      /GRUCell: state.hidden must be \[2, 5\]/,
    ],
  ]
  for (const [run, message] of cases) t.throws(run, { message })
  const gone = zeros([4, 2, 3])
  gone.dispose()
  t.throws(() => lstm.forward(gone), { code: 'ERR_DISPOSED' })
  t.end()
})
