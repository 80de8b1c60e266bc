/**
 * test/ops/, quantized tensors and ONNX's node cases on the emulated device: the same oracles, bounds and layouts as on the CPU
 * (test/matrix.ts's onGpu).
 * Products run on an sm_80 too, and what ran is looked at: the kernels for large and few rows, and those of sm_90 where they exist.
 */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { noDevice, root } from './emulated'
import { run, scratch } from './programs'

const files = ['elementwise', 'fake-quantize', 'index', 'loss', 'matmul', 'quantize', 'reduce', 'rows', 'views']
const bytes = [
  'qmatmul',
  'qlinear-matmul',
  'quantized-linear',
  'quantized-input',
  'packed-once',
  'quantized-backward',
  'qconv',
]
const sparse = ['sparse', 'spmatmul', 'spqmatmul', 'sparse-conv']
const images = ['batch-norm', 'conv', 'pooling', 'resize', 'recurrent']

/** Kernels of products in the emulator's log: kind, weights, operands, result. */
const PRODUCTS = /matmul_(\w+)<\w+Config<(?:(\w+)<)?(\w+)>?, .*Epilogue<(\w+)>/

/** Kernels that have to run in a file's tests, by the GPU; no others of wgmma. */
const halves = (kinds: string[], outs = ['f16 f16', 'f16 float', 'bf16 bf16', 'bf16 float']) =>
  kinds.flatMap((kind) => outs.map((out) => `${kind} ${out}`))
const any = (kinds: string[], types = ['s8']) =>
  halves(
    kinds,
    types.map((type) => `${type} AnyFormat`),
  )
const expected: Record<string, Record<string, string[]>> = {
  'ops/matmul': { 80: halves(['mma', 'mma_split']), 90: halves(['mma_split', 'wgmma']) },
  'ops/qmatmul': { 80: any(['mma', 'mma_split']), 90: any(['mma_split', 'wgmma']) },
  'ops/quantized-linear': { 90: any(['packed Codes8', 'packed Codes4'], ['f16', 'bf16']) },
  'ops/spmatmul': {
    80: any(['packed Kept2of4'], ['f16', 'bf16']),
    90: any(['packed Kept2of4', 'wgmma_sparse'], ['f16', 'bf16']),
  },
  'ops/spqmatmul': { 80: any(['packed Kept2of4']), 90: any(['packed Kept2of4', 'wgmma_sparse']) },
}

const names = [
  ...[...files, ...images, ...bytes, ...sparse].map((file) => `ops/${file}`),
  'quant/quantize',
  'onnx/node-cases',
]
const older = Object.keys(expected).filter((name) => expected[name]?.[80])
const runs = [...names.map((name) => ({ name, sm: '90' })), ...older.map((name) => ({ name, sm: '80' }))]
for (const { name, sm } of runs) {
  t.test(`${name}, sm_${sm}`, { skip: noDevice }, async (t) => {
    const file = path.join(root, '.test-build', `${name}.test.js`)
    const log = path.join(scratch, `${name.replace('/', '-')}-${sm}.log`)
    const environment = { KERF_TEST_DEVICE: 'cuda', KERF_EMULATOR_SM: sm, KERF_EMULATOR_LOG: log }
    const { code, text, errors } = await run(process.execPath, [file], root, environment)
    const failed = text.split('\n').filter((line) => /^\s*not ok/.test(line))
    t.same({ code, failed, errors }, { code: 0, failed: [], errors: '' })
    const skipped = name.startsWith('onnx') && /# SKIP .*not installed/.test(text)
    t.ok(skipped || (text.match(/^ *ok /gm)?.length ?? 0) > 5, 'it tested something')
    const kernels = expected[name]?.[sm]
    if (!kernels) return

    const ran = new Set(
      readFileSync(log, 'utf8')
        .split('\n')
        .map((line) => line.replaceAll(/\w+::/g, '').match(PRODUCTS))
        .filter((match) => match !== null)
        .map(([, kind, weights, type, out]) => `${kind} ${weights ? `${weights} ` : ''}${type} ${out}`),
    )
    for (const kernel of kernels) t.ok(ran.has(kernel), `${kernel} ran`)
    if (sm === '80') t.notOk([...ran].some((kernel) => kernel.startsWith('wgmma')))
  })
}
