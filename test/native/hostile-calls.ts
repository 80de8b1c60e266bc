/**
 * Runs in a process of its own (hostile.test.ts): calls that no sane program makes. Prints a line for every call that
 * did not end as it should, then `survived <calls>`. A crash ends the process before that line.
 */
import { setTimeout as delay } from 'node:timers/promises'
import * as kerf from 'kerf'
import { addon } from '#lib/native/load'
import { callsMade, keep, notTensors, oddNumbers, pick, random, refused, survives, throwing } from './hostile-tools'

const { tensor, zeros, ones, Tensor } = kerf

const disposed = zeros([2, 2])
disposed.dispose()
const forged = Object.create(Tensor.prototype)
const forgedFields = Object.assign(Object.create(Tensor.prototype), {
  dtype: 'float32',
  code: 0,
  shape: [2, 2],
  strides: [2, 1],
  offset: 0,
  size: 4,
  buffer: new ArrayBuffer(1),
})
const a = ones([2, 2])

/** Every function of the public API that takes a tensor first. */
const takesTensor = Object.entries(kerf as unknown as Record<string, (x: unknown, y: unknown) => unknown>).filter(
  ([name]) =>
    (
      'matmul linear add mul div pow maximum eq sum mean max exp log relu gelu softmax logSoftmax reshape permute transpose ' +
      'expand slice flip crossEntropy embedding gather indexSelect cumsum argmax layerNorm pack cast ' +
      'batchNorm maxPool2d avgPool2d adaptiveAvgPool2d resize'
    )
      .split(' ')
      .includes(name),
)

function wrongTensors(): void {
  for (const [name, call] of takesTensor) {
    for (const [what, value] of notTensors) {
      const number = typeof value === 'number' || typeof value === 'bigint' || typeof value === 'string'
      if (!number) refused(`${name}(${what})`, () => call(value, a))
    }
    refused(`${name}(disposed)`, () => call(disposed, a), 'ERR_DISPOSED')
    for (const value of [forged, forgedFields, throwing, new Proxy(a, {}), new Proxy(Tensor, {})])
      survives(() => call(value, a))
    for (const value of [forged, forgedFields, throwing, disposed, ...notTensors.map(([, v]) => v)])
      survives(() => call(a, value))
  }
}

function wrongShapes(): void {
  const hugeList = new Array(9).fill(1)
  for (const shape of [
    [-1],
    [Number.NaN],
    [1.5],
    ['2'],
    [2 ** 53],
    [Number.POSITIVE_INFINITY],
    [null],
    [undefined],
    [2n],
    [Symbol('x')],
    [{}],
    [[2]],
    hugeList,
    [2 ** 41],
    [2 ** 30, 2 ** 30],
    'x',
    null,
    {},
    Symbol('x'),
  ]) {
    refused(`zeros(${String(Array.isArray(shape) ? shape.map(String) : String(shape))})`, () => zeros(shape as never))
    survives(() => a.reshape(shape as never))
    survives(() => a.expand(shape as never))
  }
  for (const shape of [[2 ** 40], [2 ** 20, 2 ** 20], [2 ** 38]]) {
    refused(`zeros([${shape}])`, () => zeros(shape), 'ERR_OUT_OF_MEMORY')
    refused(
      `expand to [${shape}], then exp`,
      () => kerf.exp(kerf.expand(tensor([1]), shape.length === 1 ? shape : [2 ** 40])),
      'ERR_OUT_OF_MEMORY',
    )
  }
  refused('zeros of no elements but endless strides', () => zeros([0, 2 ** 52, 2 ** 52]), 'ERR_SHAPE')
  for (const axis of [9, -9, 1.5, Number.NaN, 'x', null, {}, Symbol('x'), 2 ** 60]) {
    survives(() => kerf.sum(a, axis as never))
    survives(() => kerf.transpose(a, axis as never, axis as never))
    survives(() => kerf.permute(a, [axis, axis] as never))
    survives(() => kerf.slice(a, [axis as never]))
    survives(() => kerf.slice(a, [[axis, axis, axis] as never]))
    survives(() => kerf.flip(a, axis as never))
    survives(() => kerf.squeeze(a, axis as never))
  }
  for (const options of [
    null,
    3,
    'x',
    throwing,
    { dtype: 'float64' },
    { dtype: Symbol('x') },
    { dtype: {} },
    { device: 'tpu' },
    { dtype: '__proto__' },
    { dtype: 'toString' },
  ]) {
    survives(() => zeros([2], options as never))
    survives(() => tensor([1], options as never))
    survives(() => kerf.matmul(a, a, options as never))
    survives(() => kerf.cast(a, options as never))
  }
  refused('unknown dtype', () => zeros([2], { dtype: 'float64' as never }), 'ERR_ARGUMENT')
  refused('unknown device', () => zeros([2], { device: 'tpu' }), 'ERR_ARGUMENT')
}

function wrongValues(): void {
  const cyclic: unknown[] = []
  cyclic.push(cyclic)
  for (const values of [
    cyclic,
    [1, 'a'],
    [[1], [1, 2]],
    [1, 2n],
    [[], 1],
    [throwing],
    [{}],
    [Symbol('x')],
    {},
    throwing,
    Symbol('x'),
    null,
    undefined,
    new DataView(new ArrayBuffer(8)),
    new Array(3),
  ]) {
    survives(() => tensor(values as never))
  }
  refused('ragged', () => tensor([[1], [1, 2]] as never), 'ERR_SHAPE')
  refused('cyclic', () => tensor(cyclic as never), 'ERR_SHAPE')
  refused('mixed', () => tensor([1, true] as never), 'ERR_ARGUMENT')
  for (const value of [300, -1, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 70])
    refused(`uint8 of ${value}`, () => tensor([value], { dtype: 'uint8' }), 'ERR_ARGUMENT')

  const detached = new Float32Array(8)
  structuredClone(detached.buffer, { transfer: [detached.buffer] })
  survives(() => tensor(detached))
  survives(() => tensor(detached, { shape: [8] }))
  const Resizable = ArrayBuffer as unknown as new (
    bytes: number,
    options: { maxByteLength: number },
  ) => ArrayBuffer & { resize?(bytes: number): void }
  const resizable = new Resizable(4096, { maxByteLength: 8192 })
  const onResizable = new Float32Array(resizable)
  const copied = tensor(onResizable)
  resizable.resize?.(0)
  if (copied.dataSync().length !== 1024)
    console.log('a tensor changed with the resizable buffer that it was copied from')
  survives(() => tensor(onResizable))
  const shared = new Float32Array(new SharedArrayBuffer(64)).fill(2)
  if (tensor(shared as never).dataSync()[15] !== 2) console.log('shared memory was not copied')

  // What JavaScript can reach of a live tensor: its buffer taken away under queued work.
  const victim = kerf.rand([256, 256])
  for (let i = 0; i < 20; i++) keep.push(kerf.matmul(victim, victim))
  survives(() => void structuredClone(victim.buffer, { transfer: [victim.buffer as ArrayBuffer] })) // nobody keeps the clone
  survives(() => kerf.matmul(victim, victim).dataSync())
  survives(() => victim.dataSync())
  const view = kerf.rand([64]) as unknown as Record<string, unknown>
  for (const [field, value] of [
    ['shape', [2 ** 40]],
    ['strides', [2 ** 40]],
    ['offset', -1],
    ['offset', 2 ** 50],
    ['code', 99],
    ['code', Number.NaN],
    ['buffer', {}],
    ['buffer', new ArrayBuffer(0)],
    ['shape', null],
  ] as const) {
    const before = view[field]
    view[field] = value
    survives(() => kerf.exp(view as never))
    survives(() => (view as unknown as kerf.Tensor).dataSync())
    view[field] = before
  }
}

const buffers = [
  new ArrayBuffer(0),
  new ArrayBuffer(1),
  new ArrayBuffer(64),
  new ArrayBuffer(4096),
  new ArrayBuffer(65536),
]
const notBuffers = [
  undefined,
  null,
  {},
  3,
  'x',
  Symbol('x'),
  new Float32Array(4),
  new SharedArrayBuffer(64),
  throwing,
  [],
  () => 1,
]

/** Fills the page of arguments with views that are right, nearly right, or garbage. */
function fillPage(letters: number): void {
  const page = addon.arguments
  if (random(4) === 0) {
    for (let i = 0; i < page.length; i++) page[i] = random(3) === 0 ? pick(oddNumbers) : random(10)
    return
  }
  let at = 0
  const rank = random(4)
  const shape = Array.from({ length: rank }, () => pick([0, 1, 2, 3, 5, 8]))
  const dtype = random(8)
  for (let v = 0; v < letters && at < 200; v++) {
    if (random(12) === 0) {
      page[at++] = -1
      continue
    }
    const same = random(3) > 0
    page[at++] = same ? dtype : random(9)
    page[at++] = rank
    page[at++] = random(3) * 4
    let step = 1
    for (const [i, size] of shape.entries()) {
      page[at + i] = same ? size : random(6)
      page[at + rank + i] = pick([step, step, step, 0, 1, -1, 7])
      step *= Math.max(size, 1)
    }
    at += 2 * rank
  }
  for (let i = at; i < at + 12; i++) page[i] = pick([0, 1, -1, 2, 0.5, -100])
  if (random(3) === 0) page[random(at + 3)] = pick(oddNumbers)
}

/** The addon itself, behind TypeScript's back. What its checks let through must stay inside the buffers. */
async function rawCalls(): Promise<void> {
  const guards = buffers.map((b) => b.byteLength)
  for (const [name, op] of Object.entries(addon.ops) as [string, (...buffers: unknown[]) => void][]) {
    survives(() => op())
    for (const bad of notBuffers) survives(() => op(bad, bad, bad, bad))
    survives(() => op.call(null, buffers[2]))
    survives(() => Reflect.construct(op, [buffers[2]]))
    for (let i = 0; i < 300; i++) {
      fillPage(6)
      const given = Array.from({ length: random(9) }, () => (random(10) === 0 ? pick(notBuffers) : pick(buffers)))
      survives(() => op(...given))
    }
    // one at a time: whatever was enqueued must run without harm, too
    addon.wait(addon.state[0] as number)
    if (addon.state[3] !== 0 && typeof addon.lastError() !== 'string') console.log(`${name}: no message`)
    addon.takeError()
  }
  if (buffers.some((b, i) => b.byteLength !== guards[i])) console.log('a buffer changed its size')
  for (const [name, call] of Object.entries(addon)) {
    if (typeof call !== 'function' || name === 'onFinished') continue
    for (const bad of [...notBuffers, ...oddNumbers.slice(0, 3), -5, 99]) {
      if (name === 'setup' && typeof bad === 'number') continue // a number of threads is its job
      survives(() => (call as (...rest: unknown[]) => unknown)(bad, bad, bad))
      survives(() => (call as (...rest: unknown[]) => unknown).call(undefined))
    }
  }
  survives(() => addon.onFinished(() => {}))
  await delay(10)
}

function recurrentLayers(): void {
  const { LSTM, GRU, RNN, LSTMCell, GRUCell, Parameter } = kerf.nn
  const x = ones([3, 2, 4])
  for (const Layer of [LSTM, GRU, RNN, LSTMCell, GRUCell]) {
    const cell = Layer === LSTMCell || Layer === GRUCell
    const good = cell ? ones([2, 4]) : x
    const layer = new Layer(4, 5)
    const forward = layer.forward.bind(layer) as (...args: unknown[]) => unknown
    for (const [what, value] of notTensors) {
      refused(`${Layer.name}(${what})`, () => forward(value))
      if (value !== undefined) refused(`${Layer.name} with ${what} for a state`, () => forward(good, { hidden: value }))
      survives(() => forward(good, value))
    }
    refused(`${Layer.name}(disposed)`, () => forward(disposed), 'ERR_DISPOSED')
    for (const value of [forged, forgedFields, throwing, new Proxy(a, {})]) {
      survives(() => forward(value))
      survives(() => forward(good, { hidden: value, cell: value }))
      survives(() => forward(good, value))
    }
    for (const number of [...oddNumbers, -5, 99]) {
      survives(() => new Layer(4, 5, { numLayers: number === 99 ? 2 : number, dropout: number } as object))
      refused(`${Layer.name} of NaN`, () => new Layer(Number.NaN, number))
    }
    // Parameters that somebody replaced.
    const fields = layer as unknown as Record<string, unknown>
    for (const name of layer.namedParameters().map(([n]) => n)) {
      const before = fields[name]
      for (const shape of [[], [0], [5], [20], [20, 4], [20, 5], [0, 0], [20, 0], [3, 7]]) {
        fields[name] = new Parameter(zeros(shape))
        survives(() => forward(good))
      }
      fields[name] = before
    }
  }
}

async function main(): Promise<void> {
  wrongTensors()
  recurrentLayers()
  wrongShapes()
  wrongValues()
  const x = tensor([
    [1, 2],
    [3, 4],
  ])
  if (String(kerf.matmul(x, x).dataSync()) !== '7,10,15,22') console.log('kerf does not compute any more')
  await rawCalls()
  console.log(`survived ${callsMade()}`)
}

void main()
