/** What kerf found on this machine: info(), device(), and the text behind `kerf doctor`. */
import { readFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { env } from './core/env'
import { ArgumentError, show } from './core/errors'
import { type DType, dtypes, type TargetName } from './core/tables.gen'
import { type CudaDevice, cudaDevices, whyNoCuda } from './native/cuda'
import { addon, type TargetState, targetName } from './native/load'
import { sparseKernels } from './ops/sparse-kernels'
import { cudaIndex, deviceName } from './tensor/device'
import { recycledBytes } from './tensor/storage'

export interface Info {
  /** Of the package. */
  version: string
  node: string
  /** Such as 'linux-x64'. */
  platform: string
  cpu: string
  /** CPUs that this process may use. */
  cores: number
  /** Threads that a kernel may use, and where the number comes from. */
  threads: number
  threadsFrom: string
  /** The row of kernels that runs, and why. */
  target: TargetName
  targetFrom: string
  /** Every row, weakest first. */
  targets: TargetState[]
  /** The matmul kernel of each dtype that has one, as name@target. */
  matmul: Partial<Record<DType, string>>
  /** The kernels of quantized products: bytes by bytes, and float by 4- or 8-bit weights; null without. */
  qmatmul: string | null
  wmatmul: string | null
  /** The kernels of products with sparse weights, of floats and of bytes, by the form that weights are packed in. */
  spmatmul: Record<string, string>
  spqmatmul: Record<string, string>
  /** What built the addon: 'cmake-js', 'node-gyp' or 'direct'. */
  builder: string
  /** Bytes of disposed tensors that wait for reuse in this thread. */
  recycledBytes: number
  /** Whether there is a GPU to use, and why not; the GPUs as 'cuda:0', 'cuda:1', ... */
  cuda: { available: boolean; reason: string; devices: CudaDevice[] }
}

/** The version in package.json. */
export function version(): string {
  return JSON.parse(readFileSync(path.resolve(__dirname, '..', 'package.json'), 'utf8')).version as string
}

/**
 * What kerf runs on: CPU, chosen kernels and why, threads, CUDA.
 *
 * @example info().target // 'avx512_bf16'
 */
export function info(): Info {
  const machine = addon.machine()
  const target = targetName() as TargetName
  const strongest = machine.targets.filter((t) => t.compiled && t.supported).at(-1)?.name
  const matmul: Partial<Record<DType, string>> = {}
  for (const dtype of dtypes) {
    const name = addon.matmulName(dtype.code)
    if (name !== null) matmul[dtype.name] = name
  }
  return {
    version: version(),
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    cpu: machine.cpu.trim(),
    cores: os.availableParallelism(),
    threads: machine.threads,
    threadsFrom: env.threads ? 'KERF_THREADS' : 'the CPUs of this process',
    target,
    targetFrom: env.target
      ? 'KERF_TARGET'
      : target === strongest
        ? 'the strongest row that this CPU runs'
        : 'chosen by the program',
    targets: machine.targets,
    matmul,
    qmatmul: addon.qmatmulName(),
    wmatmul: addon.wmatmulName(),
    spmatmul: sparseKernels('float'),
    spqmatmul: sparseKernels('bytes'),
    builder: machine.builder,
    recycledBytes: recycledBytes(),
    cuda: cudaInfo(),
  }
}

function cudaInfo(): Info['cuda'] {
  const why = whyNoCuda()
  const devices = [...cudaDevices()]
  const found = devices.map(({ name, capability }) => `${name}, compute capability ${capability}`).join('; ')
  return { available: why === null, reason: why ?? found, devices }
}

/** A place where tensors live and ops run. */
export interface DeviceInfo {
  readonly type: 'cpu' | 'cuda'
  /** Such as 'cpu' or 'cuda:0'. */
  readonly name: string
  /** What it is called in a machine's papers. */
  readonly description: string
}

/**
 * A device by name.
 *
 * @param name 'cpu' (default), 'cuda' (the first GPU) or 'cuda:1' and so on
 * @throws DeviceError when the device is not there, ArgumentError for a name that is no device
 */
export function device(name = 'cpu'): DeviceInfo {
  const found = deviceName('device', name)
  if (found === null) throw new ArgumentError(`device: expected 'cpu' or 'cuda', got ${show(name)}`)
  if (found === 'cpu') return { type: 'cpu', name: found, description: addon.machine().cpu.trim() }
  return { type: 'cuda', name: found, description: (cudaDevices()[cudaIndex(found)] as CudaDevice).name }
}
