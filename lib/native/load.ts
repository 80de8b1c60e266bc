/** Finds and loads the addon: the only file that knows where the binary lies. */
import path from 'node:path'
import bindings from 'bindings'
import { env } from '../core/env'
import { ArgumentError, KerfError, NativeError } from '../core/errors'
import { fingerprint, type Ops } from '../core/tables.gen'

export interface TargetState {
  name: string
  /** CPU features that the row needs beyond its parent's, as /proc/cpuinfo spells them. */
  features: string
  compiled: boolean
  supported: boolean
}

export interface Machine {
  /** 'cmake-js' or 'node-gyp': what built the addon. */
  builder: string
  cpu: string
  threads: number
  target: string
  targets: TargetState[]
}

declare const deviceMemory: unique symbol
/** Bytes on a GPU: a value that only the addon can look into. They are freed when nobody reaches it. */
export interface DeviceMemory {
  readonly [deviceMemory]: true
}
/** Where a view's bytes are. */
export type Memory = ArrayBuffer | DeviceMemory

/** What a command reported: native/core/status.h's code, and words. */
export interface Failure {
  code: number
  what: string
}

/** The raw addon: native/binding/addon.cc. Each op takes the buffers of its views; the rest goes through `arguments`. */
export interface Addon {
  ops: Record<keyof Ops<unknown>, (...buffers: Memory[]) => void>
  arguments: Float64Array
  /** {queued, finished, stream failed, status of the last call} */
  state: Float64Array
  tables: string
  setup(target: string, threads: number): string
  machine(): Machine
  /** The byte offset where a tensor of so many bytes begins in the buffer. */
  place(buffer: ArrayBuffer, bytes: number): number
  wait(sequence: number): void
  watch(sequence: number): void
  onFinished(callback: () => void): void
  lastError(): string
  takeError(): Failure | null
  packedBytes(dtype: number, k: number, n: number): number
  matmulName(dtype: number): string | null
  convName(dtype: number): string | null
  qpackedBytes(k: number, n: number): number
  qmatmulName(): string | null
  wpackedBytes(k: number, n: number, bits: number, group: number, signed: number, zeros: number): number
  wmatmulName(): string | null
  /** Up to how many rows of x a form of packed sparse weights is meant for; 0: this row of kernels does not have it. */
  sparseRows(dtype: number, form: number): number
  sparseName(dtype: number, form: number): string | null
  /** What the size of that form depends on, or -1 where the matrix is not of the form. */
  sparseMeasure(dtype: number, form: number, pointers: Int32Array, columns: Int32Array, k: number): number
  sparseBytes(dtype: number, form: number, n: number, k: number, count: number): number
  /** One run of a probe on all threads: what it did (operations, bytes), or -1 (native/binding/probe.h). */
  probe(kind: 'fma' | 'bf16dot' | 'int8dot' | 'read', amount: number, buffer?: ArrayBuffer, offset?: number): number
  debugKernels(on: boolean): void
  /** Loads the CUDA library; null, or why there is no device. */
  cudaOpen(path: string): string | null
  cudaDevices(): { name: string; bytes: number; capability: string }[]
  /** Undefined where there is no memory: the status says why. */
  cudaAllocate(device: number, bytes: number): DeviceMemory | undefined
  /** To the memory from the buffer, and back; offsets and sizes in bytes. */
  cudaUpload(memory: DeviceMemory, at: number, buffer: ArrayBuffer, start: number, bytes: number): void
  cudaDownload(memory: DeviceMemory, at: number, buffer: ArrayBuffer, start: number, bytes: number): void
  cudaWait(device: number): void
  cudaFinish(device: number): Promise<Failure | null>
}

export const root = path.resolve(__dirname, '..', '..')
export const platform = `${process.platform}-${process.arch}`

function find(): Addon {
  if (env.native) return require(path.resolve(env.native)) as Addon
  try {
    return bindings({
      bindings: 'kerf.node',
      module_root: root,
      try: [
        ['module_root', 'build', 'Release', 'bindings'],
        ['module_root', 'prebuilds', platform, 'bindings'],
      ],
    } as never) as Addon
  } catch (cause) {
    const tries = (cause as { tries?: string[] }).tries
    if (!tries)
      throw new NativeError(`kerf: the native addon was found but does not load: ${(cause as Error).message}`, {
        cause,
      })
    throw new NativeError(
      `kerf: the native addon is not built for ${platform} (node ${process.version}). Looked in:\n` +
        `${tries.map((t) => `  ${t}`).join('\n')}\n` +
        'The install script of the package builds it. Where install scripts are blocked, allow it and rebuild:\n' +
        '  npm approve-scripts kerf && npm rebuild kerf    (pnpm: pnpm approve-builds)\n' +
        'Building needs g++ and make (Debian, Ubuntu: apt-get install g++ make); CMake is optional.',
      { cause },
    )
  }
}

let target = ''

/** The row of kernels that runs, without a call of the addon. */
export function targetName(): string {
  return target
}

/**
 * Chooses another row ('' for the strongest one) or number of threads (0 leaves it), for benches and tests. Matrices
 * that were packed before are packed anew.
 *
 * @throws ArgumentError when this machine or this binary has no such row
 */
export function choose(wanted: string, threads: number): void {
  try {
    target = addon.setup(wanted, threads)
  } catch (cause) {
    throw new ArgumentError(`target ${wanted}: ${(cause as Error).message}`, { cause })
  }
}

function load(): Addon {
  const addon = find()
  if (addon.tables !== fingerprint) {
    throw new NativeError('kerf: the native addon was built from other tables than this JavaScript: run npm run build')
  }
  addon.debugKernels(env.debugKernels)
  try {
    target = addon.setup(env.target, env.threads)
  } catch (cause) {
    if (cause instanceof KerfError) throw cause
    throw new ArgumentError(`KERF_TARGET=${env.target}: ${(cause as Error).message}`, { cause })
  }
  return addon
}

export const addon = load()
