/** Products with packed weights: the suites matmul, rows and edge. */
import type { BenchOptions, BenchRow } from '#lib/cli/report'
import { type DType, dtypeCode } from '#lib/core/dtype'
import { addon, targetName } from '#lib/native/load'
import { syncBlocking } from '#lib/native/stream'
import { tensor } from '#lib/ops/create'
import { matmul, pack } from '#lib/ops/matmul'
import type { Contender } from './measure'
import { matmulModel, type OnnxFloat } from './onnx'
import { type PeerRun, peerRun } from './peer'
import { type Ceiling, measureRow, threadCounts, type Work, withThreads } from './row'
import { name, type Shape, shapes } from './shapes'

/** Small whole numbers: exact in every dtype, so that every contender must give the same result. */
function values(size: number): Float32Array {
  const x = new Float32Array(size)
  for (let i = 0, state = 1; i < size; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0
    x[i] = (state >>> 28) - 8
  }
  return x
}

/** Up to this many rows a product is bound by reading its weights. */
const FEW_ROWS = 8

/** A few rows are bound by reading their weights, or by arithmetic where the weights are narrow: both are shown. */
const ceilingsOf = (
  shape: Shape,
  dtype: DType,
  packed: { buffer: ArrayBuffer; offset: number; size: number },
): Ceiling[] => {
  const arithmetic: Ceiling = { kind: dtype === 'bfloat16' && addon.probe('bf16dot', 1) > 0 ? 'bf16dot' : 'fma' }
  const read: Ceiling = { kind: 'read', buffer: packed.buffer, byteOffset: packed.offset, bytes: packed.size }
  return shape.m <= FEW_ROWS ? [read, arithmetic] : [arithmetic]
}

interface Case {
  shape: Shape
  dtype: DType
  threads: number
}

async function row({ shape, dtype, threads }: Case, options: BenchOptions): Promise<BenchRow> {
  const { m, n, k } = shape
  const a = values(m * k)
  const b = values(k * n)
  const x = tensor(a, { shape: [m, k], dtype })
  const w = tensor(b, { shape: [k, n], dtype })
  const p = pack(w)
  const contender: Contender = {
    run(times) {
      for (let i = 0; i < times; i++) matmul(x, p).dispose()
      syncBlocking()
    },
  }
  const notes: string[] = []
  let peer: PeerRun | null = null
  if (options.peer && !shape.target) {
    const size = dtype === 'float32' ? 4 : 2
    const out = size === 4 ? new Float32Array(m * n) : new Uint16Array(m * n)
    const type = dtype as OnnxFloat
    const raw = w.dataSync() as Float32Array | Uint16Array
    const model = matmulModel(type, m, n, k, new Uint8Array(raw.buffer, raw.byteOffset, raw.byteLength))
    try {
      const input = { type, data: x.dataSync() as Float32Array | Uint16Array, shape: [m, k] }
      peer = await peerRun(model, { X: input }, { type, data: out, shape: [m, n] }, threads)
      if (dtype === 'float32') compare(matmul(x, p).dataSync() as Float32Array, await peer.result())
    } catch (error) {
      notes.push(`${options.peer}: ${(error as Error).message.split('\n')[0]?.slice(0, 120)}`)
    }
  }
  const packed = p.bytes(false)
  const read: Work = { unit: 'GB/s', amount: packed.size }
  try {
    return await measureRow(
      {
        suite: shape.suite,
        name: `${dtype} ${name(shape)}${shape.target ? ` on ${shape.target}` : ''}`,
        why: shape.why,
        dtype,
        shape: [m, n, k],
        threads,
        kernel: addon.matmulName(dtypeCode[dtype]),
        contender,
        work: [...(m <= FEW_ROWS ? [read] : []), { unit: 'GFLOP/s', amount: 2 * m * n * k }],
        ceilings: ceilingsOf(shape, dtype, packed),
        peer,
        notes,
      },
      options,
    )
  } finally {
    await peer?.release()
    syncBlocking()
    for (const t of [x, w, p]) t.dispose()
  }
}

function compare(ours: ArrayLike<number>, theirs: ArrayLike<number>): void {
  for (let i = 0; i < ours.length; i++) {
    if (ours[i] !== theirs[i]) throw new Error(`results differ at ${i}: ${ours[i]} and ${theirs[i]}`)
  }
}

export function matmulCases(options: BenchOptions): { name: string; run(): Promise<BenchRow> }[] {
  const wanted: Shape[] =
    options.shapes.length > 0
      ? options.shapes.map(([m, n, k]) => ({
          suite: m <= FEW_ROWS ? 'rows' : 'matmul',
          m,
          n,
          k,
          dtypes: (options.dtypes.length > 0 ? options.dtypes : ['float32']) as DType[],
          why: 'asked for',
        }))
      : shapes.filter((s) => options.suites.includes(s.suite))
  const runnable = new Set(
    addon
      .machine()
      .targets.filter((t) => t.compiled && t.supported)
      .map((t) => t.name),
  )
  const cases = []
  for (const shape of wanted) {
    if (shape.target && !runnable.has(shape.target)) continue
    const dtypes = shape.dtypes.filter((d) => options.dtypes.length === 0 || options.dtypes.includes(d))
    for (const dtype of dtypes) {
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
