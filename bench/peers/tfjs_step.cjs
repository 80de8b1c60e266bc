/**
 * The training step of train.bench.ts on TensorFlow.js' wasm backend: milliseconds a step, best and median of short bursts.
 *
 *   npm install --prefix /tmp/tfjs @tensorflow/tfjs@4.22.0 @tensorflow/tfjs-backend-wasm@4.22.0
 *   NODE_PATH=/tmp/tfjs/node_modules node bench/peers/tfjs_step.cjs [threads]
 *
 * Adam, because tfjs has no AdamW: a little less work.
 */
const tf = require('@tensorflow/tfjs')
const wasm = require('@tensorflow/tfjs-backend-wasm')
const path = require('node:path')

async function main() {
  const threads = Number(process.argv[2] ?? 1)
  wasm.setWasmPaths(`${path.dirname(require.resolve('@tensorflow/tfjs-backend-wasm/package.json'))}/wasm-out/`)
  wasm.setThreadsCount(threads)
  await tf.setBackend('wasm')
  await tf.ready()
  const layer = (k, n) => [tf.variable(tf.randomUniform([k, n], -(k ** -0.5), k ** -0.5)), tf.variable(tf.zeros([n]))]
  const layers = [layer(784, 300), layer(300, 100), layer(100, 10)]
  const optimizer = tf.train.adam(1e-3)
  const x = tf.randomUniform([64, 784])
  const labels = tf.oneHot(
    tf.tensor1d(
      Array.from({ length: 64 }, (_, i) => i % 10),
      'int32',
    ),
    10,
  )
  const loss = () => {
    const logits = layers.reduce((h, [w, b], i) => {
      const y = tf.add(tf.matMul(h, w), b)
      return i < 2 ? tf.relu(y) : y
    }, x)
    return tf.losses.softmaxCrossEntropy(labels, logits)
  }
  const step = () => tf.tidy(() => void optimizer.minimize(loss))
  for (let i = 0; i < 20; i++) step()
  const bursts = []
  for (let i = 0; i < 20; i++) {
    const start = performance.now()
    for (let j = 0; j < 5; j++) step()
    bursts.push((performance.now() - start) / 5)
  }
  bursts.sort((a, b) => a - b)
  console.log(
    `tfjs ${tf.version.tfjs}, ${tf.getBackend()}, ${threads} threads asked: best ${bursts[0].toFixed(3)} ms, median ${bursts[10].toFixed(3)} ms a step`,
  )
}

main()
