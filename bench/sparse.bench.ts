/** Layers of sparse weights against the dense layer of the same weights: the suite sparse. */
import type { BenchOptions, BenchRow } from '#lib/cli/report'
import { perChannel } from '#lib/core/quantization'
import { targetName } from '#lib/native/load'
import { syncBlocking } from '#lib/native/stream'
import { tensor } from '#lib/ops/create'
import { linear, type PackedMatrix, pack } from '#lib/ops/matmul'
import { csrArrays, sparsify } from '#lib/ops/sparse'
import { sparseKernel } from '#lib/ops/sparse-kernels'
import { QuantizedTensor } from '#lib/tensor/quantized'
import { type SparseTensor, showFormat } from '#lib/tensor/sparse'
import type { Tensor } from '#lib/tensor/tensor'
import { agree, whole } from './data'
import { type Case, calls, measureRow, threadCounts, withThreads } from './row'
import { name, type SparseShape, sparseLabel } from './shapes'
import { wantedSparseShapes } from './wanted'

/** A small generator (xorshift32): where the non-zeros lie must not follow their values. */
function generator(): () => number {
  let x = 2463534242
  return () => {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    return (x >>> 0) / 2 ** 32
  }
}

/** Whole numbers -8 ... 7, so that every sum is exact, with zeros where the format has them. */
function weightsOf({ n, k, zeros, format }: SparseShape): Float32Array {
  const w = whole(new Float32Array(n * k), -8)
  const next = generator()
  if (format === '2:4') {
    for (let at = 0; at < w.length; at += 4) {
      const first = Math.floor(next() * 4)
      const second = (first + 1 + Math.floor(next() * 3)) % 4
      for (let i = 0; i < 4; i++) if (i !== first && i !== second) w[at + i] = 0
    }
    return w
  }
  const [r, c] = format === 'csr' ? [1, 1] : format.block
  for (let i = 0; i < n; i += r) {
    for (let j = 0; j < k; j += c) {
      if (next() >= zeros) continue
      for (let y = i; y < Math.min(i + r, n); y++) w.fill(0, y * k + j, y * k + Math.min(j + c, k))
    }
  }
  return w
}

/** Weights in both forms, and the layer that each makes of an input. */
interface Layers {
  sparse: SparseTensor
  run(x: Tensor<'float32'>, w: SparseTensor | PackedMatrix | QuantizedTensor): Tensor<'float32'>
  dense: PackedMatrix | QuantizedTensor
}

function layersOf(shape: SparseShape): Layers {
  const { n, k, format, dtype } = shape
  const values = tensor(weightsOf(shape), { shape: [n, k] })
  if (dtype === 'float32')
    return { sparse: sparsify(values, format), dense: pack(values), run: (x, w) => linear(x, w as SparseTensor) }
  const scale = tensor(Float32Array.from({ length: n }, () => 0.5))
  const dense = new QuantizedTensor({
    ...{ shape: [n, k], dtype: 'int8', granularity: perChannel(0), scale },
    values: values.to('int8'),
  })
  const quantizeInput = 'token'
  return {
    sparse: sparsify(dense, format),
    dense,
    run: (x, w) => linear(x, w as SparseTensor, null, { quantizeInput }),
  }
}

async function row(shape: SparseShape, threads: number, options: BenchOptions): Promise<BenchRow> {
  const { m, n, k, dtype } = shape
  const x = tensor(whole(new Float32Array(m * k), -8), { shape: [m, k] })
  const { sparse, dense, run } = layersOf(shape)
  const nonZeros = csrArrays(sparse).values.length
  const label = sparseLabel(shape)
  try {
    agree(label, run(x, sparse).dataSync(), run(x, dense).dataSync())
    return await measureRow(
      {
        suite: 'sparse',
        name: label,
        why: shape.why,
        dtype,
        shape: [m, n, k],
        threads,
        kernel: sparseKernel(dtype === 'int8' ? 'bytes' : 'float', sparse, m),
        contender: calls(() => run(x, sparse)),
        work: [{ unit: dtype === 'int8' ? 'GOP/s' : 'GFLOP/s', amount: 2 * m * nonZeros }],
        baseline: { name: dtype, contender: calls(() => run(x, dense)) },
      },
      options,
    )
  } finally {
    syncBlocking()
    for (const t of [x, sparse, dense]) t.dispose()
  }
}

export function sparseCases(options: BenchOptions): Case[] {
  return wantedSparseShapes(options).flatMap((shape) =>
    threadCounts(options).map((threads) => ({
      name: `${name(shape)} ${showFormat(shape.format)} ${shape.dtype}, ${threads} threads`,
      run: () => withThreads(threads, targetName(), () => row(shape, threads, options)),
    })),
  )
}
