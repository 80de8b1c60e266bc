// checkpoint(): the gradients of the plain run bit for bit, in less memory.
import {
  add,
  amp,
  checkpoint,
  dropout,
  grad,
  gradcheck,
  manualSeed,
  mul,
  nn,
  noGrad,
  rand,
  randn,
  relu,
  scope,
  sum,
  type Tensor,
  tanh,
  tensor,
} from 'kerf'
import t, { type Test } from 'tap'
import { context } from '#lib/tensor/context'

type Call = <R extends Tensor>(fn: (...inputs: Tensor[]) => R, ...inputs: Tensor[]) => R
const plain: Call = (fn, ...inputs) => fn(...inputs)
const ways: [string, Call][] = [
  ['plain', plain],
  ['checkpointed', checkpoint],
]

const bits = (tensors: readonly (Tensor | null)[]) => tensors.map((x) => x?.dataSync())

/** Result and gradients of both ways must have the same bits. */
function same(t: Test, message: string, model: (run: Call) => { result: Tensor; leaves: Tensor[] }) {
  const [wanted, found] = ways.map(([, run]) => {
    manualSeed(5)
    const { result, leaves } = model(run)
    sum(result).backward()
    return { result: result.dataSync(), grads: bits(leaves.map((leaf) => leaf.grad)), next: rand([3]).dataSync() }
  })
  t.ok(
    wanted?.grads.every((g) => g?.some((x) => x !== 0)),
    `${message}: there are gradients`,
  )
  t.same(found, wanted, message)
}

t.test('the bits of the plain run', (t) => {
  same(t, 'a block of layers', (run) => {
    const block = new nn.Sequential(new nn.Linear(6, 8), new nn.GELU(), new nn.LayerNorm(8), new nn.Linear(8, 6))
    const x = randn([4, 6], { requiresGrad: true })
    return { result: run((a) => block.forward(a), x), leaves: [x, ...block.parameters()] }
  })
  same(t, 'several, with dropout, on data that needs no gradient', (run) => {
    const layers = [0, 1, 2].map(() => new nn.Linear(6, 6))
    let x = randn([4, 6]) as Tensor
    for (const layer of layers) x = run((a) => dropout(tanh(layer.forward(a)), 0.4), x)
    return { result: x, leaves: layers.flatMap((l) => l.parameters()) }
  })
  same(t, 'a leaf and an input that are used inside and outside', (run) => {
    const w = randn([5, 5], { requiresGrad: true })
    const x = randn([3, 5], { requiresGrad: true })
    const h = tanh(x)
    const inner = run((a) => add(mul(relu(a.matmul(w)), a), a.matmul(w)), h)
    return { result: add(add(inner.matmul(w), h), mul(h, inner)), leaves: [w, x] }
  })
  same(t, 'nested', (run) => {
    const w = randn([5, 5], { requiresGrad: true })
    const x = randn([3, 5], { requiresGrad: true })
    const inner = (a: Tensor) => dropout(tanh(a.matmul(w)), 0.3)
    const outer = (a: Tensor) => add(run(inner, run(inner, a)), a)
    return { result: run(outer, run(outer, x)), leaves: [w, x] }
  })
  for (const dtype of ['bfloat16', 'float16'] as const)
    same(t, `under autocast to ${dtype}`, (run) => {
      const layers = [0, 1].map(() => new nn.Linear(6, 6))
      const x = randn([4, 6], { requiresGrad: true })
      const forward = () => layers.reduce<Tensor>((a, layer) => run((b) => relu(layer.forward(b)), a), x)
      return { result: amp.autocast(dtype, forward), leaves: [x, ...layers.flatMap((l) => l.parameters())] }
    })
  t.end()
})

const ids = new WeakMap<ArrayBuffer, number>()
let lastId = 0
function bufferId(buffer: ArrayBuffer): number {
  if (!ids.has(buffer)) ids.set(buffer, lastId++)
  return ids.get(buffer) as number
}

t.test('live bytes: those of the checkpoints and of one stretch', (t) => {
  const DEPTH = 8
  const ELEMENTS = 64 * 64
  const live = (tensors: Iterable<Tensor>) => {
    const buffers = new Map<string, number>()
    for (const x of tensors) if (!x.disposed) buffers.set(`${bufferId(x.buffer as ArrayBuffer)} ${x.offset}`, x.bytes)
    return [...buffers.values()].reduce((a, b) => a + b, 0)
  }
  const w = randn([64, 64], { requiresGrad: true })
  // Four activations of its own a stretch; the most that is alive at a stretch's end counts.
  const measure = (run: Call) =>
    scope(() => {
      const outside = context().scope as Set<Tensor>
      // What a checkpoint forgot to dispose would still be in the scope that its function ran in.
      const scopes = new Set([outside])
      const now = () => live([...scopes].flatMap((made) => [...made]))
      let most = 0
      const stretch = (a: Tensor) => {
        const y = tanh(tanh(tanh(a.matmul(w))))
        scopes.add(context().scope as Set<Tensor>)
        most = Math.max(most, now())
        return y
      }
      let x: Tensor = randn([64, 64])
      for (let i = 0; i < DEPTH; i++) x = run(stretch, x)
      const after = now()
      sum(x).backward()
      w.grad = null
      return { after, most }
    })
  const activation = 4 * ELEMENTS
  const kept = measure(plain)
  const again = measure(checkpoint)
  t.equal(kept.after, (1 + 4 * DEPTH) * activation, 'everything')
  t.equal(again.after, (1 + DEPTH) * activation, 'a result for each stretch')
  // and the loss, one float32
  t.ok(again.most <= (1 + DEPTH + 4) * activation + 4, `${again.most / activation} activations at most`)
  t.ok(again.most < 0.45 * kept.most, `${again.most} of ${kept.most} bytes`)
  t.end()
})

t.test('retainGraph, grad(), gradcheck', (t) => {
  const w = randn([3, 3], { requiresGrad: true })
  const x = randn([2, 3], { requiresGrad: true })
  let calls = 0
  const y = checkpoint((a) => {
    calls++
    return tanh(a.matmul(w))
  }, x)
  t.same(bits(grad(sum(y), [w, x], null, { retainGraph: true })), bits(grad(sum(y), [w, x])))
  t.equal(calls, 3)
  t.throws(() => sum(y).backward(), { code: 'ERR_ARGUMENT', message: /let go/ })
  t.doesNotThrow(() =>
    gradcheck((a) => checkpoint((b) => tanh(mul(b, b)), a as Tensor), [randn([2, 2], { requiresGrad: true })]),
  )
  t.end()
})

t.test('where nothing is recorded fn runs once', (t) => {
  const w = randn([3, 3], { requiresGrad: true })
  const y = noGrad(() => checkpoint((a) => tanh(a.matmul(w)), randn([2, 3])))
  t.notOk(y.requiresGrad)
  t.notOk(checkpoint(tanh, randn([2])).requiresGrad)
  const x = randn([2], { requiresGrad: true })
  const h = tanh(x)
  t.equal(
    checkpoint((a) => a, h),
    h,
    'an input is itself',
  )
  t.equal(h.node?.op, 'tanh')
  t.end()
})

t.test('errors', (t) => {
  const x = randn([2], { requiresGrad: true })
  const argument = (message: RegExp) => ({ code: 'ERR_ARGUMENT', message })
  t.throws(() => checkpoint(3 as never, x), argument(/fn must be a function/))
  t.throws(() => checkpoint((() => 3) as never), argument(/must return a tensor/))
  t.throws(() => checkpoint((async () => x) as never), argument(/must return a tensor/))
  let kept: Tensor | null = null
  const boom = () => {
    kept = tanh(x)
    throw new Error('boom')
  }
  t.throws(() => checkpoint(boom as never), { message: 'boom' })
  t.ok((kept as Tensor | null)?.disposed, 'what a failed fn made is disposed')
  const h = tanh(x)
  const hidden = checkpoint((a) => mul(a, h), x)
  t.throws(() => sum(hidden).backward(), argument(/uses the result of 'tanh'.*not among its inputs/))
  t.equal(x.grad, null, 'nothing has changed')
  let n = 1
  const other = checkpoint((a) => mul(tanh(a), tensor(new Float32Array(n++), { shape: [n - 1, 1] })), x)
  t.throws(() => sum(other).backward(), argument(/ran again and made/))
  const gone = randn([2], { requiresGrad: true })
  const y = checkpoint((a) => tanh(a), gone)
  gone.dispose()
  t.throws(() => sum(y).backward(), { code: 'ERR_DISPOSED' })
  t.throws(() => checkpoint((a) => tanh(a), gone), { code: 'ERR_DISPOSED' })
  t.end()
})
