/** What a worker of workers.test.ts does. */
import { parentPort, workerData } from 'node:worker_threads'
import { crossEntropy, matmul, ones, rand, tensor, zeros } from 'kerf'

const { id, task } = workerData as { id: number; task: 'compute' | 'fail' | 'endless' | 'exit' }
const post = (message: unknown) => parentPort?.postMessage(message)

/** Whole numbers small enough for float32 to be exact; checked against a plain loop nest. */
async function compute(): Promise<void> {
  let wrong = 0
  let products = 0
  for (let round = 0; round < 12; round++) {
    const [m, k, n] = [17 + id, 40 + 3 * round, 33]
    const left = Float32Array.from({ length: m * k }, (_, i) => ((i * 7 + id) % 11) - 5)
    const right = Float32Array.from({ length: k * n }, (_, i) => ((i * 5 + round) % 13) - 6)
    const product = await matmul(tensor(left, { shape: [m, k] }), tensor(right, { shape: [k, n] })).data()
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0
        for (let p = 0; p < k; p++) sum += (left[i * k + p] as number) * (right[p * n + j] as number)
        if (product[i * n + j] !== sum) wrong++
      }
    }
    products++
  }
  post({ id, wrong, products })
}

async function fail(): Promise<void> {
  const bad = crossEntropy(zeros([1, 2]), tensor([9n]))
  const code = await bad.data().then(
    () => 'no error',
    (error: { code: string }) => error.code,
  )
  post({ code, after: await tensor([1, 2]).array() })
}

async function endless(): Promise<void> {
  const a = rand([512, 512])
  for (let i = 0; ; i++) {
    const product = matmul(a, a)
    const reading = product.data()
    if (i === 3) post('busy')
    if (i % 5 === 0) await reading
    else reading.catch(() => {})
  }
}

function exit(): void {
  const a = ones([1024, 1024])
  for (let i = 0; i < 8; i++) matmul(a, a)
  process.exit(3)
}

void { compute, fail, endless, exit }[task]()
