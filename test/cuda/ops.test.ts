/**
 * test/ops/, quantized tensors and ONNX's node cases on the emulated device: the same oracles, bounds and layouts as on the CPU (test/matrix.ts's onGpu).
 * Products run on an sm_80 too, and what ran is looked at: the kernels for large and few rows, and those of sm_90 where they exist.
 */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { noDevice, root } from './emulated'
import { run, scratch } from './programs'

const files = ['elementwise', 'fake-quantize', 'index', 'loss', 'matmul', 'quantize', 'reduce', 'rows', 'views']
const bytes = ['qmatmul', 'qlinear-matmul', 'quantized-linear', 'quantized-input', 'packed-once', 'quantized-backward', 'qconv']
const sparse = ['sparse', 'spmatmul', 'sparse-conv']
const images = ['batch-norm', 'conv', 'pooling', 'resize', 'recurrent']

/** Kernels of products in the emulator's log: kind, operands, result. */
const PRODUCTS = /matmul_(\w+)<\w+Config<(\w+),.*Epilogue<(\w+)>/

const names = [...[...files, ...images, ...bytes, ...sparse].map((file) => `ops/${file}`), 'quant/quantize', 'onnx/node-cases']
const runs = names.map((name) => ({ name, sm: '90' }))
for (const { name, sm } of [...runs, { name: 'ops/matmul', sm: '80' }]) {
  t.test(`${name}, sm_${sm}`, { skip: noDevice }, async (t) => {
    const file = path.join(root, '.test-build', `${name}.test.js`)
    const log = path.join(scratch, `${name.replace('/', '-')}-${sm}.log`)
    const environment = { KERF_TEST_DEVICE: 'cuda', KERF_EMULATOR_SM: sm, KERF_EMULATOR_LOG: log }
    const { code, text, errors } = await run(process.execPath, [file], root, environment)
    const failed = text.split('\n').filter((line) => /^\s*not ok/.test(line))
    t.same({ code, failed, errors }, { code: 0, failed: [], errors: '' })
    const skipped = name.startsWith('onnx') && /# SKIP .*not installed/.test(text)
    t.ok(skipped || (text.match(/^ *ok /gm)?.length ?? 0) > 5, 'it tested something')
    if (name !== 'ops/matmul') return

    const ran = new Set(
      readFileSync(log, 'utf8')
        .split('\n')
        .map((line) => line.replaceAll(/\w+::/g, '').match(PRODUCTS))
        .filter((match) => match !== null)
        .map(([, kind, type, out]) => `${kind} ${type} ${out}`),
    )
    const formats = ['f16 f16', 'f16 float', 'bf16 bf16', 'bf16 float']
    const kinds = sm === '90' ? ['mma_split', 'wgmma'] : ['mma', 'mma_split']
    for (const kind of kinds) for (const format of formats) t.ok(ran.has(`${kind} ${format}`), `${kind} ${format} ran`)
    if (sm === '80') t.notOk([...ran].some((kernel) => kernel.startsWith('wgmma')))
  })
}

t.test('ops/spqmatmul', { skip: noDevice || 'no CUDA kernel for sparse int8 weights by bytes yet' }, async () => {})
