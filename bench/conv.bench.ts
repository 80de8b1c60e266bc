/** Convolutions: against the product of matrices of the same m, n and k, and the peer. */
import type { BenchOptions, BenchRow } from '#lib/cli/report'
import { dtypeCode } from '#lib/core/dtype'
import { addon, targetName } from '#lib/native/load'
import { syncBlocking } from '#lib/native/stream'
import { conv2d } from '#lib/ops/conv'
import { tensor } from '#lib/ops/create'
import { linear, pack } from '#lib/ops/matmul'
import { agree, whole } from './data'
import { convModel, convOutput } from './onnx'
import { peerOrNote, peerRun } from './peer'
import { type Case, calls, measureRow, threadCounts, withThreads } from './row'
import { type ConvShape, convLabel, convShapes, floats } from './shapes'
import { asked } from './wanted'

type Float = (typeof floats)[number]

async function convRow(shape: ConvShape, dtype: Float, threads: number, options: BenchOptions): Promise<BenchRow> {
  const { x: size, out, kernel, stride, groups } = shape
  const [images, channels] = size
  const output = convOutput(shape)
  const label = convLabel(shape)
  const pixels = images * output[2] * output[3]
  const taps = (channels / groups) * kernel * kernel
  const input = whole(new Float32Array(size.reduce((n, m) => n * m, 1)), -8)
  const weights = whole(new Float32Array(out * taps), -4, 8)
  const x = tensor(input, { shape: size, dtype })
  const w = tensor(weights, { shape: [out, channels / groups, kernel, kernel], dtype })
  const call = () => conv2d(x, w, null, { stride, groups, padding: kernel >> 1 })
  // what a convolution would be with its patches at hand and its weights packed: the better of matmul's two layouts
  const product = groups === 1
  const patches = tensor(whole(new Float32Array(product ? pixels * taps : 1), -8), { dtype }).reshape(
    product ? [pixels, taps] : [1, 1],
  )
  const packed = pack(
    tensor(product ? weights : new Float32Array(1), { dtype }).reshape(product ? [out, taps] : [1, 1]),
  )
  const notes: string[] = []
  const found =
    options.peer && dtype === 'float32'
      ? await peerOrNote(notes, 'Conv', () =>
          peerRun(
            convModel(shape, weights),
            { X: { type: 'float32', data: input, shape: size } },
            { type: 'float32', data: new Float32Array(output.reduce((n, m) => n * m, 1)), shape: output },
            threads,
          ),
        )
      : null
  try {
    if (found) agree(label, call().dataSync() as Float32Array, found.result)
    return await measureRow(
      {
        suite: 'conv',
        name: label,
        why: shape.why,
        dtype,
        shape: [out, pixels, taps],
        threads,
        kernel: addon.convName(dtypeCode[dtype]),
        contender: calls(call),
        work: [{ unit: 'GFLOP/s', amount: 2 * out * pixels * taps }],
        ceilings: [{ kind: 'fma' }],
        ...(product ? { baseline: { name: 'linear', contender: calls(() => linear(patches, packed)) } } : {}),
        peers: found ? [found.peer] : [],
        notes,
      },
      options,
    )
  } finally {
    await found?.peer.release()
    syncBlocking()
    for (const t of [x, w, patches, packed]) t.dispose()
  }
}

export function convCases(options: BenchOptions): Case[] {
  if (options.shapes.length > 0) return []
  return floats
    .filter((dtype) => asked(options, 'conv', dtype))
    .flatMap((dtype) =>
      convShapes.flatMap((shape) =>
        threadCounts(options).map((threads) => ({
          name: `${convLabel(shape)} ${dtype}, ${threads} threads`,
          run: () => withThreads(threads, targetName(), () => convRow(shape, dtype, threads, options)),
        })),
      ),
    )
}
