/** Layers of sparse weights against the dense float32 layer: the suite sparse. */
import type { BenchOptions, BenchRow } from '#lib/cli/report'
import { targetName } from '#lib/native/load'
import { syncBlocking } from '#lib/native/stream'
import { tensor } from '#lib/ops/create'
import { linear, pack } from '#lib/ops/matmul'
import { csrArrays, densify, sparsify } from '#lib/ops/sparse'
import { sparseKernel } from '#lib/ops/sparse-kernels'
import { showFormat } from '#lib/tensor/sparse'
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

async function row(shape: SparseShape, threads: number, options: BenchOptions): Promise<BenchRow> {
  const { m, n, k, format } = shape
  const x = tensor(whole(new Float32Array(m * k), -8), { shape: [m, k] })
  const w = sparsify(tensor(weightsOf(shape), { shape: [n, k] }), format)
  const dense = densify(w)
  const nonZeros = csrArrays(w).values.length
  const packed = pack(dense)
  const label = sparseLabel(shape)
  try {
    agree(label, linear(x, w).dataSync(), linear(x, packed).dataSync())
    return await measureRow(
      {
        suite: 'sparse',
        name: label,
        why: shape.why,
        dtype: 'float32',
        shape: [m, n, k],
        threads,
        kernel: sparseKernel('float', w, m),
        contender: calls(() => linear(x, w)),
        work: [{ unit: 'GFLOP/s', amount: 2 * m * nonZeros }],
        baseline: { name: 'float32', contender: calls(() => linear(x, packed)) },
      },
      options,
    )
  } finally {
    syncBlocking()
    for (const t of [x, w, dense, packed]) t.dispose()
  }
}

export function sparseCases(options: BenchOptions): Case[] {
  return wantedSparseShapes(options).flatMap((shape) =>
    threadCounts(options).map((threads) => ({
      name: `${name(shape)} ${showFormat(shape.format)}, ${threads} threads`,
      run: () => withThreads(threads, targetName(), () => row(shape, threads, options)),
    })),
  )
}
