// GB/s of batch norm, pooling and resizing: bytes that must move (inputs once, outputs once) over the best time of many.
//
//   npm run build && node bench/lab/images.mjs [threads]
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)
const k = require('../../dist/index.js')
const { choose, targetName } = require('../../dist/native/load.js')

choose(targetName(), Number(process.argv[2] ?? 1))

const shapes = [
  [32, 64, 56, 56],
  [32, 256, 14, 14],
  [32, 512, 7, 7],
]

/** Best milliseconds of a call. */
function best(run) {
  const times = []
  for (let i = 0; i < 40; i++) {
    const start = process.hrtime.bigint()
    k.scope(() => {
      run().slice([0, 0, 0, 0]).item()
    })
    times.push(Number(process.hrtime.bigint() - start) / 1e6)
  }
  return Math.min(...times)
}

for (const dtype of ['float32', 'bfloat16']) {
  for (const shape of shapes) {
    const x = k.randn(shape, { dtype })
    const channels = [shape[1]]
    const statistics = { runningMean: k.zeros(channels), runningVar: k.ones(channels) }
    const ops = {
      'batchNorm eval': (a) => k.batchNorm(a, statistics),
      'batchNorm train': (a) => k.batchNorm(a, { training: true }),
      'maxPool2d 2/2': (a) => k.maxPool2d(a, { kernelSize: 2 }),
      'maxPool2d 3/2': (a) => k.maxPool2d(a, { kernelSize: 3, stride: 2, padding: 1 }),
      'avgPool2d 2/2': (a) => k.avgPool2d(a, { kernelSize: 2 }),
      'avgPool2d 3/2': (a) => k.avgPool2d(a, { kernelSize: 3, stride: 2, padding: 1 }),
      'adaptiveAvgPool2d 1': (a) => k.adaptiveAvgPool2d(a, 1),
      'resize nearest x2': (a) => k.resize(a, { scale: 2 }),
      'resize bilinear x2': (a) => k.resize(a, { scale: 2, mode: 'bilinear' }),
    }
    for (const [name, op] of Object.entries(ops)) {
      const out = op(x)
      const bytes = x.bytes + out.bytes
      const forward = best(() => op(x))
      // The gradient alone: backward through a recorded call, less that call.
      const a = k.randn(shape, { dtype, requiresGrad: true })
      const grad = k.ones(out.shape, { dtype })
      const both = best(() => k.grad(op(a), [a], grad)[0])
      const recorded = best(() => op(a))
      const rate = (ms, n) => `${(n / ms / 1e6).toFixed(1).padStart(6)} GB/s`
      console.log(
        `${dtype.padEnd(9)} ${`[${shape}]`.padEnd(15)} ${name.padEnd(20)} ${rate(forward, bytes)}  recorded ${rate(recorded, bytes)}  gradient ${rate(both - recorded, bytes)}`,
      )
      out.dispose()
    }
  }
}
