/** Float activations times weights of 8 and of 4 bits: the rest of the suite int8. */
import type { BenchOptions, BenchRow } from '#lib/cli/report'
import { perChannel, perGroup } from '#lib/core/quantization'
import { addon, targetName } from '#lib/native/load'
import { syncBlocking } from '#lib/native/stream'
import { tensor } from '#lib/ops/create'
import { linear, pack } from '#lib/ops/matmul'
import { packedOnce } from '#lib/ops/qmatmul'
import { dequantize, packInt4 } from '#lib/ops/quantize'
import { QuantizedTensor } from '#lib/tensor/quantized'
import { agree, whole } from './data'
import { matmulNBitsModel } from './onnx'
import { type PeerRun, peerOrNote, peerRun } from './peer'
import { type Case, type Ceiling, calls, dotCeiling, measureRow, threadCounts, type Work, withThreads } from './row'
import { FEW_ROWS, name, type WeightShape } from './shapes'
import { wantedWeightShapes } from './wanted'

const LEAST_SCALE = 2 ** -6

/** Neighbouring groups and channels differ, so that a mistaken one shows. */
const scaleAt = (channel: number, group: number): number => LEAST_SCALE * (1 + ((channel + group) % 2))

/** Codes -8 ... 7 and what they are as weights [n, k]. */
function weightsOf({ n, k, bits, group }: WeightShape): { codes: Int8Array; q: QuantizedTensor } {
  const codes = whole(new Int8Array(n * k), -8)
  const bytes = tensor(codes, { shape: [n, k], dtype: 'int8' })
  const q = new QuantizedTensor({
    shape: [n, k],
    dtype: bits === 4 ? 'int4' : 'int8',
    granularity: group === null ? perChannel(0) : perGroup(group),
    values: bits === 4 ? packInt4(bytes) : bytes,
    scale: tensor(scalesOf(n, k, group ?? k, group !== null), {
      shape: group === null ? [n] : [n, Math.ceil(k / group)],
    }),
  })
  if (bits === 4) bytes.dispose()
  return { codes, q }
}

/** [n, ceil(k / block)]: of groups, or a channel's own over and over. */
function scalesOf(n: number, k: number, block: number, grouped: boolean): Float32Array {
  const blocks = Math.ceil(k / block)
  return Float32Array.from({ length: n * blocks }, (_, i) => {
    const channel = Math.floor(i / blocks)
    return scaleAt(channel, grouped ? i % blocks : 0)
  })
}

/** The longest block that the peer's MatMulNBits takes. */
const LONGEST_BLOCK = 256

interface Peer {
  peer: PeerRun
  result: ArrayLike<number>
}

/**
 * MatMulNBits with activations as they are (accuracy_level 0) and as int8 (4). For 8 bits the runtime has a kernel of the
 * second kind only; asked for the first it unpacks all weights on every call, which would be no comparison. It has no scale
 * a channel either: that is repeated for its longest blocks.
 */
async function peersOf(shape: WeightShape, codes: Int8Array, x: Float32Array, threads: number, notes: string[]) {
  const { m, n, k, bits, group } = shape
  const block = group ?? LONGEST_BLOCK
  const scales = scalesOf(n, k, block, group !== null)
  const found: Peer[] = []
  for (const accuracy of bits === 4 ? [0, 4] : [4]) {
    const variant = `MatMulNBits, ${group === null ? `blocks of ${block}, ` : ''}accuracy_level ${accuracy}`
    const peer = await peerOrNote(notes, variant, () =>
      peerRun(
        matmulNBitsModel(shape, codes, scales, { bits, block, accuracy }),
        { X: { type: 'float32', data: x, shape: [m, k] } },
        { type: 'float32', data: new Float32Array(m * n), shape: [m, n] },
        threads,
      ),
    )
    if (peer) found.push(peer)
  }
  return found
}

/**
 * Activations are -1, 0 and 1: whole multiples of a step in 16 bits, and in the 8 that the peer may make of them. What is
 * left are the float32 roundings of one term a chunk of at least 128 inputs, and of its scale.
 */
function boundOf({ k }: WeightShape): number {
  const terms = Math.ceil(k / 128) + 4
  return terms * 2 ** -24 * largestOf(k)
}

/** The largest sum of |activation| |weight|. */
const largestOf = (k: number): number => k * 8 * 2 * LEAST_SCALE

/** From -1 to 1 a byte's step is 2 / 255, and no activation is further than half of it from its byte. */
const boundOfBytes = (shape: WeightShape): number => boundOf(shape) + largestOf(shape.k) / 255

const labelOf = (s: WeightShape): string =>
  `int${s.bits} weights ${name(s)}, ${s.group === null ? 'per channel' : `groups of ${s.group}`}${s.bytes ? ', int8 input per token' : ''}`

async function row(shape: WeightShape, threads: number, options: BenchOptions): Promise<BenchRow> {
  const { m, n, k } = shape
  const label = labelOf(shape)
  const notes: string[] = []
  const { codes, q } = weightsOf(shape)
  const input = whole(new Float32Array(m * k), -1, 3)
  const x = tensor(input, { shape: [m, k] })
  const dense = dequantize(q)
  const packed = pack(dense)
  const call = shape.bytes ? () => linear(x, q, null, { quantizeInput: 'token' }) : () => linear(x, q)
  const peers = options.peer ? await peersOf(shape, codes, input, threads, notes) : []
  try {
    const exact = linear(x, packed).dataSync() as Float32Array // float32 holds every sum of these
    agree(label, call().dataSync(), exact, shape.bytes ? boundOfBytes(shape) : boundOf(shape))
    for (const { peer, result } of peers) agree(`${label}, ${peer.variant}`, exact, result, boundOf(shape))
    const { packed: bytes } = packedOnce(q, shape.bytes ? 'bytes' : 'weights', () => {
      throw new Error(`${label}: not packed by the product before`)
    })
    const few = m <= FEW_ROWS
    const read: Ceiling = {
      kind: 'read',
      buffer: bytes.buffer as ArrayBuffer,
      byteOffset: bytes.offset,
      bytes: bytes.size,
    }
    const arithmetic: Work = { unit: 'GOP/s', amount: 2 * m * n * k }
    return await measureRow(
      {
        suite: 'int8',
        name: label,
        why: `${shape.why}; ${shape.bytes ? 'activations become bytes, as in the peer' : 'a 16-bit activation takes two dot products of bytes'}`,
        dtype: `int${shape.bits}`,
        shape: [m, n, k],
        threads,
        kernel: shape.bytes ? addon.qmatmulName() : addon.wmatmulName(),
        contender: calls(call),
        work: few ? [{ unit: 'GB/s', amount: bytes.size }, arithmetic] : [arithmetic],
        ceilings: [...(few ? [read] : []), ...dotCeiling(notes, (shape.bytes ? 1 : 2) * arithmetic.amount)],
        baseline: { name: 'float32', contender: calls(() => linear(x, packed)) },
        peers: peers.map(({ peer }) => peer),
        notes,
      },
      options,
    )
  } finally {
    for (const { peer } of peers) await peer.release()
    syncBlocking()
    for (const t of [x, q, dense, packed]) t.dispose()
  }
}

export function weightCases(options: BenchOptions): Case[] {
  return wantedWeightShapes(options).flatMap((shape) =>
    threadCounts(options).map((threads) => ({
      name: `${labelOf(shape)}, ${threads} threads`,
      run: () => withThreads(threads, targetName(), () => row(shape, threads, options)),
    })),
  )
}
