/** onnxruntime-node as a contender. Only its run() is timed: inputs, and where asked for the output, exist before. */
import type { Contender } from './measure'
import type { OnnxType } from './onnx'

type Data = Float32Array | Uint16Array | Uint8Array | Int8Array | Int32Array

interface OrtTensor {
  readonly data: ArrayLike<number>
}
interface OrtSession {
  run(feeds: Record<string, OrtTensor>, fetches?: Record<string, OrtTensor | null>): Promise<Record<string, OrtTensor>>
  release(): Promise<void>
}
interface Ort {
  Tensor: new (type: string, data: Data, dims: readonly number[]) => OrtTensor
  InferenceSession: { create(model: Uint8Array, options: object): Promise<OrtSession> }
}

export interface Operand {
  type: OnnxType
  data: Data
  shape: readonly number[]
}

export const PEER = 'onnxruntime-node'

let loaded: Ort | null = null
function ort(): Ort {
  if (loaded) return loaded
  try {
    loaded = require(PEER) as Ort
  } catch (cause) {
    throw new Error(`${PEER} is not installed (npm install --no-save --ignore-scripts ${PEER}@1.30.0)`, { cause })
  }
  return loaded
}

export function peerVersion(): string {
  ort()
  return (require(`${PEER}/package.json`) as { version: string }).version
}

export interface PeerRun {
  /** What runs, where there are several ways. */
  variant?: string
  fresh: Contender
  preallocated: Contender
  /** The result, for comparing with kerf's. */
  result(): Promise<ArrayLike<number>>
  release(): Promise<void>
}

/** A session with one output Y on so many threads, with its default spinning. */
export async function peerRun(
  model: Uint8Array,
  inputs: Record<string, Operand>,
  out: Operand,
  threads: number,
): Promise<PeerRun> {
  const { Tensor, InferenceSession } = ort()
  const session = await InferenceSession.create(model, {
    executionProviders: ['cpu'],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    graphOptimizationLevel: 'all',
    logSeverityLevel: 4, // what it cannot do is a note of the row
  })
  const feeds = Object.fromEntries(
    Object.entries(inputs).map(([name, x]) => [name, new Tensor(x.type, x.data, x.shape)]),
  )
  const fetches = { Y: new Tensor(out.type, out.data, out.shape) }
  const contender = (target?: typeof fetches): Contender => ({
    async run(times) {
      for (let i = 0; i < times; i++) await session.run(feeds, target)
    },
  })
  return {
    fresh: contender(),
    preallocated: contender(fetches),
    result: async () => (await session.run(feeds)).Y?.data as ArrayLike<number>,
    release: () => session.release(),
  }
}

/**
 * The peer with its result, or null and the reason among the row's notes where the runtime has no such kernel. What it
 * computes is for the caller to compare: a wrong result is an error, not a note.
 */
export async function peerOrNote(
  notes: string[],
  variant: string,
  make: () => Promise<PeerRun>,
): Promise<{ peer: PeerRun; result: ArrayLike<number> } | null> {
  let peer: PeerRun | null = null
  try {
    peer = { ...(await make()), ...(variant ? { variant } : {}) }
    return { peer, result: await peer.result() }
  } catch (error) {
    await peer?.release()
    const reason = (error as Error).message.split('\n')[0]?.slice(0, 120)
    notes.push(`${PEER}${variant ? ` ${variant}` : ''}: ${reason}`)
    return null
  }
}

/** The outputs of one run, by name. */
export async function peerResults(
  model: Uint8Array,
  inputs: Record<string, Operand>,
): Promise<Record<string, ArrayLike<number>>> {
  const { Tensor, InferenceSession } = ort()
  const session = await InferenceSession.create(model, { intraOpNumThreads: 1, logSeverityLevel: 3 })
  const feeds = Object.entries(inputs).map(([name, x]) => [name, new Tensor(x.type, x.data, x.shape)])
  const results = await session.run(Object.fromEntries(feeds))
  await session.release()
  return Object.fromEntries(Object.entries(results).map(([name, result]) => [name, result.data]))
}
