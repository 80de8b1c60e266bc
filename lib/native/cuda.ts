/**
 * GPUs: finding the library that drives them, their memory, and waiting for them. Ops need nothing of this: a call whose views
 * lie on a GPU runs there (native/binding/bind.h).
 */
import { existsSync } from 'node:fs'
import path from 'node:path'
import { env } from '../core/env'
import { DeviceError } from '../core/errors'
import { throwFailure } from './call'
import { addon, type DeviceMemory, platform, root } from './load'
import { failure } from './stream'

export interface CudaDevice {
  /** As the driver calls it. */
  name: string
  /** Of memory. */
  bytes: number
  /** Compute capability, such as '9.0'. */
  capability: string
}

let opened: string | null | undefined
let devices: CudaDevice[] = []

function open(): string | null {
  if (env.cuda === 'off') return 'KERF_CUDA=0'
  const emulated = env.cuda === 'emulate'
  const folders = emulated ? ['build-emulated'] : ['build-cuda', path.join('prebuilds', platform)]
  const file = folders.map((folder) => path.join(root, folder, 'libkerf_cuda.so')).find(existsSync)
  if (file === undefined)
    return emulated
      ? 'KERF_CUDA=emulate: the emulated device is not built (it is part of the tests)'
      : 'this installation has no libkerf_cuda.so'
  const why = addon.cudaOpen(file)
  if (why === null) devices = addon.cudaDevices()
  return why
}

/** The GPUs that can be used; looked for once. */
export function cudaDevices(): readonly CudaDevice[] {
  whyNoCuda()
  return devices
}

/** Why there is no GPU to use; null when there is one. */
export function whyNoCuda(): string | null {
  if (opened === undefined) opened = open()
  return opened
}

/** Throws unless the GPU is there. */
export function checkCuda(op: string, device: number): void {
  const why = whyNoCuda()
  if (why !== null) throw new DeviceError(`${op}: no CUDA device: ${why}`)
  if (device >= devices.length)
    throw new DeviceError(
      `${op}: no cuda:${device}: there ${devices.length === 1 ? 'is one device' : `are ${devices.length} devices`}`,
    )
}

/** Uninitialised bytes of a GPU. */
export function allocateCuda(device: number, bytes: number): DeviceMemory {
  const memory = addon.cudaAllocate(device, bytes)
  throwFailure('allocate')
  return memory as DeviceMemory
}

/** Bytes of what pack() makes of a [k, n] matrix on a GPU: rows of whole 16 bytes (native/cuda/drivers/products.cu). */
export function packedBytesCuda(elementBytes: number, k: number, n: number): number {
  return n * Math.ceil((k * elementBytes) / 16) * 16
}

/** Bytes of what qpack() makes there of a [k, n] matrix of bytes: such rows, and a sum of each (native/cuda/drivers/bytes.cu). */
export function qpackedBytesCuda(k: number, n: number): number {
  return packedBytesCuda(1, Math.max(k, 1), n) + 4 * n
}

/** Bytes of what wpack() makes there of codes [n, k]: in steps of 64 along each group (native/cuda/drivers/weights.cu). */
export function wpackedBytesCuda(k: number, n: number, bits: number, group: number, hasZeros: boolean): number {
  if (k === 0) return 0
  const groups = Math.ceil(k / group)
  const steps = groups * Math.ceil(group / 64)
  const rows = Math.ceil(n / 16) * 16
  return rows * (steps * 8 * bits + groups * (hasZeros ? 5 : 4))
}

/**
 * Bytes of sparse weights of n rows as sppack() makes them on a GPU: pointers, columns and values, each of whole 16 bytes
 * (native/cuda/sparse.cuh).
 */
export function sparseBytesCuda(valueBytes: number, n: number, count: number): number {
  const padded = (bytes: number) => Math.ceil(bytes / 16) * 16
  return padded((n + 1) * 4) + padded(count * 4) + padded(count * valueBytes)
}

/**
 * Bytes of 2:4 weights [n, k] as sppack() makes them for the sparse tensor cores (native/cuda/drivers/pairs.cu): in units for mma.sp,
 * or in rows for wgmma.sp; int8 ones with a sum for each row.
 */
export function pairBytesCuda(valueBytes: number, n: number, k: number, inRows: boolean): number {
  const steps = Math.ceil((k * valueBytes) / 128)
  const metadata = Math.ceil(n / 16) * steps * (valueBytes === 1 ? 256 : 128)
  const values = (inRows ? n * 64 : Math.ceil(n / 16) * 1024) * steps
  return values + metadata + (valueBytes === 1 ? 4 * n : 0)
}

/** Copies to a GPU; the buffer may change after the call. */
export function upload(memory: DeviceMemory, at: number, buffer: ArrayBuffer, start: number, bytes: number): void {
  addon.cudaUpload(memory, at, buffer, start, bytes)
  throwFailure('to')
}

/** Copies from a GPU; the buffer is complete, and must be kept, until the next finish(). */
export function download(memory: DeviceMemory, at: number, buffer: ArrayBuffer, start: number, bytes: number): void {
  addon.cudaDownload(memory, at, buffer, start, bytes)
  throwFailure('data')
}

/** Waits, without blocking the event loop, for everything enqueued on a GPU; rejects with what failed. */
export async function finishCuda(device: number): Promise<void> {
  const failed = await addon.cudaFinish(device)
  if (failed !== null) throw failure(failed)
}

/** finishCuda(), waiting in place. */
export function finishCudaBlocking(device: number): void {
  addon.cudaWait(device)
  throwFinished()
}

function throwFinished(): void {
  const code = addon.state[3] as number
  if (code === 0) return
  addon.state[3] = 0
  throw failure({ code, what: addon.lastError() })
}
