/** The stream: nothing blocks the event loop, reads are snapshots, errors stay until the next barrier. */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import path from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import {
  crossEntropy,
  embedding,
  exp,
  manualSeed,
  matmul,
  mul,
  ones,
  rand,
  scope,
  sum,
  type Tensor,
  tensor,
  zeros,
} from 'kerf'
import t from 'tap'
import { addon } from '#lib/native/load'

const queued = () => addon.state[0] as number
const finished = () => addon.state[1] as number

t.test('the event loop turns while a kernel runs', async (t) => {
  const a = rand([2048, 2048])
  await matmul(a, a).data() // first touch
  const delays = monitorEventLoopDelay({ resolution: 1 })
  let turns = 0
  let turning = true
  const turn = () => {
    turns++
    if (turning) setImmediate(turn)
  }
  delays.enable()
  setImmediate(turn)
  const start = performance.now()
  for (let i = 0; i < 3; i++) await matmul(a, a).data()
  const took = performance.now() - start
  turning = false
  delays.disable()
  t.comment(
    `three 2048^3 in ${took.toFixed(0)} ms: ${turns} turns, delay p99 ${(delays.percentile(99) / 1e6).toFixed(1)} ms`,
  )
  t.ok(turns >= 10, `${turns} turns`)
})

t.test('an op returns before it has run', async (t) => {
  const a = ones([1024, 1024])
  let product = a
  for (let i = 0; i < 4; i++) product = mul(matmul(product, a), 1 / 1024)
  t.ok(finished() < queued(), 'work is in flight')
  t.ok((await product.data()).every((v) => v === 1))
  t.equal(finished(), queued())
})

t.test('data() is a snapshot of the moment of the call', async (t) => {
  const a = ones([256, 256])
  const slow = matmul(rand([1024, 1024]), rand([1024, 1024]))
  const reading = a.data()
  a.dispose()
  const others = Array.from({ length: 4 }, () => zeros([256, 256])) // one of them takes over the bytes
  t.ok(
    (await reading).every((v) => v === 1),
    'disposed and reused in the meantime',
  )
  for (const other of others) t.ok((await other.data()).every((v) => v === 0))
  const copy = await slow.data()
  const before = copy[0]
  copy[0] = -1
  t.equal((await slow.data())[0], before, 'a copy')
  t.same(await Promise.all([tensor([1]).data(), tensor([2]).array(), tensor([3]).data()]), [
    Float32Array.of(1),
    [2],
    Float32Array.of(3),
  ])
})

t.test('values are copied in when a tensor is made', async (t) => {
  const values = Float32Array.of(1, 2, 3)
  const busy = matmul(ones([1024, 1024]), ones([1024, 1024]))
  const made = tensor(values)
  values.fill(9)
  t.same(await made.array(), [1, 2, 3])
  busy.dispose()
})

t.test('errors of queued commands are sticky and reported once', async (t) => {
  const bad = (labels: bigint[]) => crossEntropy(rand([3, 4]), tensor(BigInt64Array.from(labels)))
  const range = { name: /RangeError/, code: 'ERR_RANGE' }
  const loss = bad([0n, 4n, 1n])
  await t.rejects(loss.data(), { ...range, message: /4/ }, 'rejects at the next barrier')
  t.same(await tensor([1, 2]).array(), [1, 2], 'the stream works afterwards')
  bad([0n, -1n, 1n])
  t.throws(() => tensor([1]).dataSync(), range, 'any barrier, also in place')
  t.same(tensor([1]).arraySync(), [1])
  bad([7n, 0n, 0n])
  bad([8n, 0n, 0n])
  await t.rejects(ones([1]).data(), { ...range, message: /7/ }, 'the first error wins')
  t.same(await ones([1]).array(), [1])
  // queued behind real work, not inline
  const a = rand([1024, 1024])
  matmul(a, a)
  const rows = embedding(tensor(BigInt64Array.of(0n, 5n)), rand([5, 3]))
  await t.rejects(rows.data(), range)
  t.equal((await sum(ones([10])).data())[0], 10)
})

t.test('the queue is bounded in commands', async (t) => {
  const a = ones([256, 256])
  let most = 0
  const results: Tensor[] = []
  for (let i = 0; i < 600; i++) {
    const previous = results.at(-1) ?? a
    results.push(exp(mul(previous, 0)))
    most = Math.max(most, queued() - finished())
    if (results.length > 4) results.shift()?.dispose()
  }
  t.ok(most <= 256, `${most} in flight`)
  t.ok((await (results.at(-1) as Tensor).data()).every((v) => v === 1))
})

t.test('a fast producer does not eat the machine', async (t) => {
  const before = process.memoryUsage().rss
  const a = ones([1024, 1024])
  for (let i = 0; i < 3000; i++) scope(() => void mul(a, i))
  await a.data()
  const grown = (process.memoryUsage().rss - before) / 2 ** 20
  t.ok(grown < 1500, `12 GiB were enqueued, resident memory grew by ${grown.toFixed(0)} MiB`)
})

t.test('results are the same for any number of threads, bit for bit', (t) => {
  const digest = (threads: number) => {
    const child = spawnSync(process.execPath, [path.join(__dirname, 'stream-digest.js')], {
      encoding: 'utf8',
      env: { ...process.env, KERF_THREADS: String(threads) },
    })
    t.equal(child.status, 0, child.stderr)
    return child.stdout.trim()
  }
  const one = digest(1)
  t.match(one, /^(\w+ [0-9a-f]{64}\n?){10,}$/)
  for (const threads of [2, 3, 7]) t.equal(digest(threads), one, `${threads} threads`)
  t.end()
})

t.test('the same seed gives the same numbers', async (t) => {
  const draw = async () => {
    manualSeed(9)
    const data = await rand([1000]).data()
    return createHash('sha256').update(data).digest('hex')
  }
  t.equal(await draw(), await draw())
})
