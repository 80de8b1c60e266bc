/** Prints a hash of the result of each op that splits its work (stream.test.ts runs it with several thread counts). */
import { createHash } from 'node:crypto'
import * as kerf from 'kerf'

kerf.manualSeed(7)
const a = kerf.randn([257, 513])
const b = kerf.randn([513, 129])
const wide = kerf.randn([64, 4096])
const labels = kerf.tensor(BigInt64Array.from({ length: 257 }, (_, i) => BigInt((i * 31) % 513)))
const half = a.to('float16')
const brain = a.to('bfloat16')

const results: Record<string, kerf.Tensor> = {
  randn: a,
  matmul: kerf.matmul(a, b),
  matmulThin: kerf.matmul(a.slice([[0, 1]]), b),
  matmulHalf: kerf.matmul(half, b.to('float16')),
  matmulBrain: kerf.matmul(brain, b.to('bfloat16')),
  transposed: kerf.matmul(b.transpose(), a.transpose()),
  sum: kerf.sum(wide),
  sumRows: kerf.sum(wide, 0),
  sumColumns: kerf.sum(wide, 1),
  mean: kerf.mean(a),
  variance: wide.variance(),
  softmax: a.softmax(1),
  logSoftmax: wide.logSoftmax(0),
  exp: kerf.exp(a),
  gelu: kerf.gelu(wide),
  crossEntropy: kerf.crossEntropy(a, labels),
  cumsum: wide.cumsum(1),
}

const weight = kerf.randn([129, 513], { requiresGrad: true })
const bias = kerf.zeros([129], { requiresGrad: true })
kerf.linear(a, weight, bias).gelu().sum().backward()
results.weightGradient = weight.grad as kerf.Tensor
results.biasGradient = bias.grad as kerf.Tensor
const table = kerf.randn([513, 64], { requiresGrad: true })
kerf.embedding(labels, table).sum().backward()
results.tableGradient = table.grad as kerf.Tensor

const images = kerf.randn([4, 20, 33, 35], { requiresGrad: true })
const pooled = kerf.maxPool2d(kerf.batchNorm(images, { training: true }), { kernelSize: 3, stride: 2, padding: 1 })
const averaged = kerf.avgPool2d(kerf.resize(pooled, { scale: 2, mode: 'bilinear' }), { kernelSize: 3 })
kerf.adaptiveAvgPool2d(averaged, [5, 4]).pow(2).sum().backward()
results.images = averaged
results.imagesGradient = images.grad as kerf.Tensor
const rows = kerf.randn([600, 300], { requiresGrad: true })
results.batchNorm = kerf.batchNorm(rows, { training: true })
results.batchNorm.pow(3).sum().backward()
results.rowsGradient = rows.grad as kerf.Tensor

for (const [name, result] of Object.entries(results)) {
  console.log(
    name,
    createHash('sha256')
      .update(result.dataSync() as Uint8Array)
      .digest('hex'),
  )
}
