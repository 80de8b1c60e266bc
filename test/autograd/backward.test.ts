import { backward, grad, matmul, mul, noGrad, ones, type Tensor, tensor, zeros } from 'kerf'
import t from 'tap'
import { record } from '#lib/tensor/tape'

const leaf = (values: number[]) => tensor(values, { requiresGrad: true })
const gradOf = (x: Tensor) => x.grad?.arraySync()

t.test('a tensor used several times gets the sum', (t) => {
  const a = leaf([1, 2, 3])
  a.add(a).mul(a).sum().backward() // 2a^2
  t.same(gradOf(a), [4, 8, 12])
  t.end()
})

t.test('gradients accumulate over calls, in place, in bytes that nobody else sees', (t) => {
  const a = leaf([1, 2])
  const b = leaf([3, 4])
  a.add(b).sum().backward()
  const first = a.grad
  t.ok(a.grad?.ownsStorage && b.grad?.ownsStorage)
  a.mul(b).sum().backward()
  t.equal(a.grad, first)
  t.same(gradOf(a), [4, 5])
  t.same(gradOf(b), [2, 3])
  t.end()
})

t.test('a grad handed to backward() is neither kept nor changed', (t) => {
  const a = leaf([1, 2])
  const start = tensor([10, 20])
  const y = a.add(0)
  backward(y.add(y), start)
  t.same(gradOf(a), [20, 40])
  t.same(start.arraySync(), [10, 20])
  t.not(a.grad, start)
  a.reshape([2]).backward(start)
  t.same(start.arraySync(), [10, 20])
  t.same(gradOf(a), [30, 60])
  t.end()
})

t.test('rules that write over a gradient do so only where nobody else sees it', (t) => {
  const g = tensor([10, 20, 30])
  const x = leaf([-1, 2, 3])
  x.relu().backward(g)
  t.same(g.arraySync(), [10, 20, 30], 'not in what the caller handed over')
  t.same(gradOf(x), [0, 20, 30])
  // one gradient for two inputs, of which the relu changes one
  const [a, b] = [leaf([-1, 2, 3]), leaf([5, 5, 5])]
  a.relu().add(b).backward(g)
  t.same(
    [gradOf(a), gradOf(b)],
    [
      [0, 20, 30],
      [10, 20, 30],
    ],
  )
  t.end()
})

t.test('a diamond: each rule runs once, after all its consumers', (t) => {
  const a = leaf([2])
  let calls = 0
  const doubled = mul(a.detach(), 2)
  record(doubled, 'double', [a], (g) => {
    calls++
    return [mul(g, 2)]
  })
  doubled.mul(doubled).add(doubled).sum().backward() // 4a^2 + 2a -> 8a + 2
  t.equal(calls, 1)
  t.same(gradOf(a), [18])
  t.end()
})

t.test('non-contiguous and broadcast gradients arrive contiguous', (t) => {
  const a = tensor(
    [
      [1, 2, 3],
      [4, 5, 6],
    ],
    { requiresGrad: true },
  )
  a.transpose()
    .mul(
      tensor([
        [1, 2],
        [3, 4],
        [5, 6],
      ]),
    )
    .sum()
    .backward()
  t.ok(a.grad?.contiguous)
  t.same(gradOf(a), [
    [1, 3, 5],
    [2, 4, 6],
  ])
  const b = leaf([1, 2, 3])
  b.sum().backward()
  t.ok(b.grad?.contiguous && b.grad.ownsStorage)
  t.same(gradOf(b), [1, 1, 1])
  t.end()
})

t.test('intermediate gradients are given back as soon as they are used', (t) => {
  const seen: Tensor[] = []
  const spy = (x: Tensor) => {
    const out = mul(x.detach(), 1)
    record(out, 'spy', [x], (g) => {
      seen.push(g)
      return [mul(g, 1)]
    })
    return out
  }
  const a = leaf([1, 2])
  spy(spy(a)).sum().backward()
  t.equal(seen.length, 2)
  t.ok(seen.every((g) => g.disposed))
  t.ok(a.grad && !a.grad.disposed)
  t.end()
})

t.test('noGrad records nothing, and no rule records', (t) => {
  const a = leaf([1, 2])
  t.equal(noGrad(() => a.mul(a)).requiresGrad, false)
  a.mul(a).sum().backward()
  t.equal(a.grad?.requiresGrad, false)
  t.end()
})

t.test('a leaf is its own gradient', (t) => {
  const a = leaf([5])
  a.backward()
  t.same(gradOf(a), [1])
  t.end()
})

t.test('integer and unneeded inputs get none', (t) => {
  const a = leaf([1, 2])
  const b = tensor([3, 4])
  a.mul(b).sum().backward()
  t.equal(b.grad, null)
  t.end()
})

t.test('a second backward: an error that names the op, or retainGraph', (t) => {
  const a = leaf([1, 2])
  const loss = a.mul(a).sum()
  loss.backward(null, { retainGraph: true })
  loss.backward()
  t.same(gradOf(a), [4, 8])
  t.throws(() => loss.backward(), { code: 'ERR_ARGUMENT', message: /'sum'.*retainGraph/ })
  const shared = a.mul(a)
  shared.sum().backward()
  t.throws(() => shared.mean().backward(), { message: /'mul'/ })
  t.end()
})

t.test('errors say what to do and change nothing', (t) => {
  const a = leaf([1, 2])
  t.throws(() => a.mul(a).backward(), { code: 'ERR_ARGUMENT', message: /shape \[2\] needs a gradient/ })
  t.throws(() => backward(tensor([1])), { code: 'ERR_ARGUMENT', message: /requiresGrad/ })
  t.throws(() => a.mul(a).backward(zeros([3])), { code: 'ERR_SHAPE' })
  t.throws(() => a.mul(a).backward(zeros([2], { dtype: 'float16' })), { code: 'ERR_DTYPE' })
  const h = a.mul(a)
  const loss = h.exp().sum()
  h.dispose()
  t.throws(() => loss.backward(), { code: 'ERR_DISPOSED', message: /'exp'/ })
  const bad = mul(a.detach(), 1)
  record(bad, 'bad', [a], () => [ones([3])])
  t.throws(() => bad.sum().backward(), { code: 'ERR_NATIVE', message: /'bad' for input 0/ })
  t.equal(a.grad, null)
  t.throws(() => backward(1 as never), { code: 'ERR_ARGUMENT' })
  t.end()
})

t.test('grad(): gradients without touching anybody', (t) => {
  const a = leaf([1, 2])
  const b = leaf([3, 4])
  const c = leaf([5])
  const [da, dc] = grad(a.mul(b).sum(), [a, c])
  t.same(da?.arraySync(), [3, 4])
  t.same(dc?.arraySync(), [0])
  t.equal(a.grad, null)
  t.equal(b.grad, null)
  t.throws(() => grad(a.sum(), [a.mul(1)]), { code: 'ERR_ARGUMENT' })
  t.end()
})

t.test('a deep graph does not overflow the stack', (t) => {
  const a = leaf([1])
  let x: Tensor = a
  for (let i = 0; i < 20000; i++) x = x.add(1)
  x.sum().backward()
  t.same(gradOf(a), [1])
  t.end()
})

t.test('float16: gradients have the dtype of their leaf', (t) => {
  const w = tensor(
    [
      [1, 2],
      [3, 4],
    ],
    { dtype: 'float16', requiresGrad: true },
  )
  const x = tensor([[1, 1]], { dtype: 'float32' })
  ;(matmul(x, w) as Tensor).sum().backward()
  t.equal(w.grad?.dtype, 'float16')
  t.same(gradOf(w), [
    [1, 1],
    [1, 1],
  ])
  t.end()
})

t.test('methods are the functions', (t) => {
  const a = tensor([
    [1, -2],
    [3, 4],
  ])
  t.equal(a.to('cpu'), a)
  t.equal(a.to('float32'), a)
  t.equal(a.to('int8').dtype, 'int8')
  t.throws(() => a.to('cuda' as never), { code: 'ERR_DEVICE', message: /no CUDA device/ })
  t.throws(() => a.to('float64' as never), { code: 'ERR_ARGUMENT' })
  t.same(a.where(a.gt(0), 0).arraySync(), [
    [1, 0],
    [3, 4],
  ])
  t.same(a.matmul(a).arraySync(), (matmul(a, a) as Tensor).arraySync())
  const copy = a.clone()
  t.ok(copy.ownsStorage)
  a.dispose()
  t.throws(() => a.exp(), { code: 'ERR_DISPOSED' })
  t.throws(() => a.to('cpu'), { code: 'ERR_DISPOSED' })
  t.end()
})
