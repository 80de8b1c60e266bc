/** test/ops/ and ONNX's node cases on the emulated device: the same oracles, bounds and layouts as on the CPU (test/matrix.ts's onGpu). */
import path from 'node:path'
import t from 'tap'
import { noDevice, root } from './emulated'
import { run } from './programs'

const files = ['elementwise', 'index', 'loss', 'matmul', 'reduce', 'rows', 'views']
const images = ['batch-norm', 'conv', 'pooling', 'resize', 'recurrent']
for (const name of [...files, ...images].map((file) => `ops/${file}`).concat('onnx/node-cases')) {
  t.test(name, { skip: noDevice }, async (t) => {
    const file = path.join(root, '.test-build', `${name}.test.js`)
    const { code, text, errors } = await run(process.execPath, [file], root, { KERF_TEST_DEVICE: 'cuda' })
    const failed = text.split('\n').filter((line) => /^\s*not ok/.test(line))
    t.same({ code, failed, errors }, { code: 0, failed: [], errors: '' })
    const skipped = name.startsWith('onnx') && /# SKIP .*not installed/.test(text)
    t.ok(skipped || (text.match(/^ *ok /gm)?.length ?? 0) > 5, 'it tested something')
  })
}
