/** Products of bytes, and a layer that quantizes its input: the suite int8 with bench/weights.bench.ts. */
import type { BenchOptions, BenchRow } from '#lib/cli/report'
import { perChannel, perTensor, roundHalfEven } from '#lib/core/quantization'
import { addon, targetName } from '#lib/native/load'
import { syncBlocking } from '#lib/native/stream'
import { tensor } from '#lib/ops/create'
import { linear, matmul, pack } from '#lib/ops/matmul'
import { matmulInteger, qlinearMatmul } from '#lib/ops/qmatmul'
import { dequantize } from '#lib/ops/quantize'
import { QuantizedTensor } from '#lib/tensor/quantized'
import { agree, transposed, whole } from './data'
import { dynamicLinearModel, matmulIntegerModel, qlinearMatmulModel } from './onnx'
import { peerOrNote, peerRun } from './peer'
import { type Case, calls, dotCeiling, measureRow, runnable, threadCounts, withThreads } from './row'
import { type ByteShape, name } from './shapes'
import { asked, wantedByteShapes } from './wanted'

/** What every contender takes for a product of bytes: a is (0 ... 15 - zero), b -8 ... 7, and y what QLinearMatMul makes. */
function product(shape: ByteShape) {
  const { m, n, k } = shape
  const a = whole(new Uint8Array(m * k), 0)
  const b = whole(new Int8Array(k * n), -8)
  const requantizes = shape.result === 'uint8'
  // Sums grow with the root of k: most results stay within a byte, and few are clipped. A power of two leaves all exact;
  // the zero point is even, since runtimes round before they add it and kerf after.
  const by = { aScale: 1, aZero: 8, bScale: 1, yScale: 2 ** Math.round(Math.log2(Math.sqrt(k) / 2)), yZero: 128 }
  const clip = (sum: number) => Math.min(255, Math.max(0, roundHalfEven(sum / by.yScale) + by.yZero))
  return {
    ...{ a, b, requantizes, by },
    /** What the float product must become. */
    expected: (sums: Float32Array) => (requantizes ? sums.map(clip) : sums),
    model: requantizes ? qlinearMatmulModel(shape, b, by) : matmulIntegerModel(shape, b),
    out: requantizes
      ? { type: 'uint8' as const, data: new Uint8Array(m * n), shape: [m, n] }
      : { type: 'int32' as const, data: new Int32Array(m * n), shape: [m, n] },
  }
}

async function productRow(shape: ByteShape, threads: number, options: BenchOptions): Promise<BenchRow> {
  const { m, n, k, target } = shape
  const { a, b, requantizes, by, expected, model, out } = product(shape)
  const label = labelOf(shape)
  const notes: string[] = []
  const x = tensor(a, { shape: [m, k], dtype: 'uint8' })
  const w = new QuantizedTensor({
    ...{ shape: [k, n], dtype: 'int8' as const, granularity: perTensor },
    values: tensor(b, { shape: [k, n], dtype: 'int8' }),
    scale: tensor(by.bScale, { dtype: 'float32' }),
  })
  const aScale = tensor(by.aScale)
  const yScale = tensor(by.yScale)
  const aZero = tensor([by.aZero], { shape: [], dtype: 'uint8' })
  const yZero = tensor([by.yZero], { shape: [], dtype: 'uint8' })
  const call = requantizes
    ? () => qlinearMatmul(x, aScale, aZero, w, null, null, yScale, yZero)
    : () => matmulInteger(x, w)
  const floats = tensor(whole(new Float32Array(m * k), requantizes ? -by.aZero : 0), { shape: [m, k] })
  const dense = dequantize(w)
  const packed = pack(dense)
  const variant = requantizes ? 'QLinearMatMul' : 'MatMulInteger'
  const input = { type: 'uint8' as const, data: a, shape: [m, k] }
  const found =
    options.peer && !target ? await peerOrNote(notes, variant, () => peerRun(model, { X: input }, out, threads)) : null
  try {
    const ours = call().dataSync()
    agree(`${label}, float32`, ours, expected(matmul(floats, packed).dataSync() as Float32Array))
    if (found) agree(`${label}, ${variant}`, ours, found.result)
    return await measureRow(
      {
        suite: 'int8',
        name: label,
        why: shape.why,
        dtype: 'int8',
        shape: [m, n, k],
        threads,
        kernel: addon.qmatmulName(),
        contender: calls(call),
        work: [{ unit: 'GOP/s', amount: 2 * m * n * k }],
        ceilings: dotCeiling(notes),
        baseline: { name: 'float32', contender: calls(() => matmul(floats, packed)) },
        peers: found ? [found.peer] : [],
        notes,
      },
      options,
    )
  } finally {
    await found?.peer.release()
    syncBlocking()
    for (const t of [x, w, aScale, yScale, aZero, yZero, floats, dense, packed]) t.dispose()
  }
}

const labelOf = (s: ByteShape): string =>
  `uint8 x int8 ${name(s)}${s.result === 'uint8' ? ' to uint8' : ''}${s.target ? ` on ${s.target}` : ''}`

const LAYER = { m: 256, n: 1024, k: 1024 }
const LAYER_NAME = `int8 linear ${name(LAYER)}: float32 input per token, bias, relu`

async function layerRow(threads: number, options: BenchOptions): Promise<BenchRow> {
  const { m, n, k } = LAYER
  // Each row reaches from -128 to 127, so that its scale is 1, and that of the whole tensor, which the peer takes, too.
  const input = whole(new Float32Array(m * k), -8)
  for (let i = 0; i < m; i++) input.set([-128, 127], i * k)
  const codes = whole(new Int8Array(n * k), -8)
  const scales = Float32Array.from({ length: n }, (_, j) => 2 ** -(3 + (j % 3)))
  const biases = whole(new Float32Array(n), -8)
  const x = tensor(input, { shape: [m, k] })
  const bias = tensor(biases)
  const w = new QuantizedTensor({
    ...{ shape: [n, k], dtype: 'int8' as const, granularity: perChannel(0) },
    values: tensor(codes, { shape: [n, k], dtype: 'int8' }),
    scale: tensor(scales),
  })
  const dense = dequantize(w)
  const packed = pack(dense)
  const call = () => linear(x, w, bias, { activation: 'relu', quantizeInput: 'token' })
  const float = () => linear(x, packed, bias, { activation: 'relu' })
  const notes: string[] = []
  const variant = 'DynamicQuantizeMatMul, Relu'
  const found = options.peer
    ? await peerOrNote(notes, variant, () =>
        peerRun(
          dynamicLinearModel(LAYER, transposed(codes, n, k), scales, biases),
          { X: { type: 'float32', data: input, shape: [m, k] } },
          { type: 'float32', data: new Float32Array(m * n), shape: [m, n] },
          threads,
        ),
      )
    : null
  try {
    const ours = call().dataSync()
    agree(`${LAYER_NAME}, float32`, ours, float().dataSync() as Float32Array)
    if (found) agree(`${LAYER_NAME}, ${variant}`, ours, found.result)
    return await measureRow(
      {
        suite: 'int8',
        name: LAYER_NAME,
        why: "all of a quantized layer; the peer's fused operator quantizes by the range of the whole tensor, it has no per token",
        dtype: 'int8',
        shape: [m, n, k],
        threads,
        kernel: addon.qmatmulName(),
        contender: calls(call),
        work: [{ unit: 'GOP/s', amount: 2 * m * n * k }],
        ceilings: dotCeiling(notes),
        baseline: { name: 'float32', contender: calls(float) },
        peers: found ? [found.peer] : [],
        notes,
      },
      options,
    )
  } finally {
    await found?.peer.release()
    syncBlocking()
    for (const t of [x, bias, w, dense, packed]) t.dispose()
  }
}

export function int8Cases(options: BenchOptions): Case[] {
  const cases: Case[] = []
  for (const shape of wantedByteShapes(options)) {
    if (shape.target && !runnable(shape.target)) continue
    for (const threads of threadCounts(options)) {
      const run = () => withThreads(threads, shape.target ?? targetName(), () => productRow(shape, threads, options))
      cases.push({ name: `${labelOf(shape)}, ${threads} threads`, run })
    }
  }
  if (asked(options, 'int8', 'int8') && options.shapes.length === 0) {
    for (const threads of threadCounts(options)) {
      const run = () => withThreads(threads, targetName(), () => layerRow(threads, options))
      cases.push({ name: `${LAYER_NAME}, ${threads} threads`, run })
    }
  }
  return cases
}
