/** worker_threads: every one has its own stream, all share the pool, and any of them may end at any moment. */
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { matmul, ones, type Tensor } from 'kerf'
import t from 'tap'

const file = path.join(__dirname, 'workers-body.js')

function exitOf(worker: Worker): Promise<number> {
  return new Promise((resolve, reject) => {
    worker.once('exit', resolve)
    worker.once('error', reject)
  })
}

t.test('eight workers compute at once and exit by themselves', async (t) => {
  const run = async (id: number) => {
    const worker = new Worker(file, { workerData: { id, task: 'compute' } })
    const messages: { id: number; wrong: number; products: number }[] = []
    worker.on('message', (message) => messages.push(message))
    t.equal(await exitOf(worker), 0)
    t.same(messages, [{ id, wrong: 0, products: 12 }])
  }
  const here = (async () => {
    for (let i = 0; i < 20; i++) {
      const n = 64 + i
      const product: Tensor = matmul(ones([n, n]), ones([n, n]))
      t.ok((await product.data()).every((v) => v === n))
    }
  })()
  await Promise.all([here, ...Array.from({ length: 8 }, (_, id) => run(id))])
})

t.test('errors stay in the worker that made them', async (t) => {
  const worker = new Worker(file, { workerData: { id: 0, task: 'fail' } })
  const message = new Promise((resolve) => worker.once('message', resolve))
  t.same(await message, { code: 'ERR_RANGE', after: [1, 2] })
  t.equal(await exitOf(worker), 0)
  t.same(await ones([2]).array(), [1, 1])
})

t.test('workers terminated with work in flight', async (t) => {
  for (let round = 0; round < 6; round++) {
    const workers = Array.from({ length: 4 }, (_, id) => new Worker(file, { workerData: { id, task: 'endless' } }))
    await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('message', resolve))))
    await delay(5 * round)
    t.same(await Promise.all(workers.map((worker) => worker.terminate())), [1, 1, 1, 1])
    t.ok(
      (await matmul(ones([128, 128]), ones([128, 128])).data()).every((v) => v === 128),
      'the main thread goes on',
    )
  }
})

t.test('process.exit() in a worker with work in flight', async (t) => {
  const worker = new Worker(file, { workerData: { id: 0, task: 'exit' } })
  t.equal(await exitOf(worker), 3)
  t.same(await ones([2]).array(), [1, 1])
})
