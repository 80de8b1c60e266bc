/** Products with packed weights: the suites matmul, rows and edge. */
import type { BenchOptions, BenchRow } from '#lib/cli/report'
import { type DType, dtypeCode } from '#lib/core/dtype'
import { addon, targetName } from '#lib/native/load'
import { syncBlocking } from '#lib/native/stream'
import { tensor } from '#lib/ops/create'
import { matmul, pack } from '#lib/ops/matmul'
import type { Tensor } from '#lib/tensor/tensor'
import { agree, whole } from './data'
import { matmulModel, type OnnxType } from './onnx'
import { peerOrNote, peerRun } from './peer'
import { type Case, type Ceiling, calls, measureRow, runnable, threadCounts, type Work, withThreads } from './row'
import { FEW_ROWS, name, type Shape } from './shapes'
import { wantedShapes } from './wanted'

/** A few rows are bound by reading their weights, or by arithmetic where the weights are narrow: both are shown. */
const ceilingsOf = (shape: Shape, dtype: DType, packed: Tensor<'uint8'>): Ceiling[] => {
  const arithmetic: Ceiling = { kind: dtype === 'bfloat16' && addon.probe('bf16dot', 1) > 0 ? 'bf16dot' : 'fma' }
  const read: Ceiling = {
    kind: 'read',
    buffer: packed.buffer as ArrayBuffer,
    byteOffset: packed.offset,
    bytes: packed.size,
  }
  return shape.m <= FEW_ROWS ? [read, arithmetic] : [arithmetic]
}

interface Product {
  shape: Shape
  dtype: DType
  threads: number
}

/** The peer's MatMul, if it has one for this dtype. */
async function peerOf(threads: number, x: Tensor, w: Tensor, notes: string[]) {
  const type = x.dtype as OnnxType
  const [m, k] = x.shape as [number, number]
  const n = w.shape[1] as number
  const out = x.dtype === 'float32' ? new Float32Array(m * n) : new Uint16Array(m * n)
  const input = { type, data: x.dataSync() as Float32Array | Uint16Array, shape: [m, k] }
  const model = matmulModel(type, { m, n, k }, w.dataSync() as Float32Array | Uint16Array)
  return peerOrNote(notes, '', () => peerRun(model, { X: input }, { type, data: out, shape: [m, n] }, threads))
}

async function row({ shape, dtype, threads }: Product, options: BenchOptions): Promise<BenchRow> {
  const { m, n, k } = shape
  const x = tensor(whole(new Float32Array(m * k), -8), { shape: [m, k], dtype })
  const w = tensor(whole(new Float32Array(k * n), -8), { shape: [k, n], dtype })
  const p = pack(w)
  const label = `${dtype} ${name(shape)}${shape.target ? ` on ${shape.target}` : ''}`
  const notes: string[] = []
  const found = options.peer && !shape.target ? await peerOf(threads, x, w, notes) : null
  try {
    if (found && dtype === 'float32') agree(label, matmul(x, p).dataSync() as Float32Array, found.result)
    const packed = p.bytes(false)
    const read: Work = { unit: 'GB/s', amount: packed.size }
    return await measureRow(
      {
        suite: shape.suite,
        name: label,
        why: shape.why,
        dtype,
        shape: [m, n, k],
        threads,
        kernel: addon.matmulName(dtypeCode[dtype]),
        contender: calls(() => matmul(x, p)),
        work: [...(m <= FEW_ROWS ? [read] : []), { unit: 'GFLOP/s', amount: 2 * m * n * k }],
        ceilings: ceilingsOf(shape, dtype, packed),
        peers: found ? [found.peer] : [],
        notes,
      },
      options,
    )
  } finally {
    await found?.peer.release()
    syncBlocking()
    for (const t of [x, w, p]) t.dispose()
  }
}

export function matmulCases(options: BenchOptions): Case[] {
  const cases: Case[] = []
  for (const shape of wantedShapes(options)) {
    if (shape.target && !runnable(shape.target)) continue
    for (const dtype of shape.dtypes) {
      for (const threads of threadCounts(options)) {
        cases.push({
          name: `${dtype} ${name(shape)}, ${threads} threads`,
          run: () => withThreads(threads, shape.target ?? targetName(), () => row({ shape, dtype, threads }, options)),
        })
      }
    }
  }
  return cases
}
