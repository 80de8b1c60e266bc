/** What one call costs: small ops, whose arithmetic is nothing. */
import type { BenchOptions, BenchRow } from '#lib/cli/report'
import { addon } from '#lib/native/load'
import { syncBlocking } from '#lib/native/stream'
import { add } from '#lib/ops/arithmetic'
import { ones } from '#lib/ops/create'
import { matmul } from '#lib/ops/matmul'
import type { Tensor } from '#lib/tensor/tensor'
import type { Contender } from './measure'
import { binaryModel } from './onnx'
import { type PeerRun, peerRun } from './peer'
import { type Case, measureRow, withThreads } from './row'
import { asked } from './wanted'

const input = (shape: number[]) => {
  const data = new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(1)
  return { type: 'float32' as const, data, shape }
}

async function chain(options: BenchOptions, dispose: boolean): Promise<BenchRow> {
  const x = ones([64])
  const contender: Contender = {
    run(times) {
      let y: Tensor = add(x, x)
      for (let i = 1; i < times; i++) {
        const next = add(y, x)
        if (dispose) y.dispose()
        y = next
      }
      y.dispose()
      syncBlocking()
    },
  }
  const peer = await peerOf(options, binaryModel('Add', [64], [64], [64]), [64], [64])
  const row = await measureRow(
    {
      suite: 'ops',
      name: `add of 64 elements, in a chain${dispose ? ', disposed' : ''}`,
      why: dispose
        ? 'the same with dispose(): bytes are recycled at once'
        : 'the cost of a call, from JavaScript to the kernel and back',
      dtype: 'float32',
      shape: [64],
      threads: 1,
      kernel: null,
      contender,
      peers: peer ? [peer] : [],
    },
    options,
  )
  await peer?.release()
  x.dispose()
  return row
}

async function product(options: BenchOptions): Promise<BenchRow> {
  const a = ones([16, 16])
  const contender: Contender = {
    run(times) {
      for (let i = 0; i < times; i++) {
        const y = matmul(a, a)
        y.dataSync()
        y.dispose()
      }
    },
  }
  const side = [16, 16]
  const peer = await peerOf(options, binaryModel('MatMul', side, side, side), side, side)
  const row = await measureRow(
    {
      suite: 'ops',
      name: 'matmul 16x16x16, then dataSync()',
      why: 'a result back in JavaScript',
      dtype: 'float32',
      shape: [16, 16, 16],
      threads: 1,
      kernel: addon.matmulName(0),
      contender,
      peers: peer ? [peer] : [],
    },
    options,
  )
  await peer?.release()
  a.dispose()
  return row
}

async function peerOf(
  options: BenchOptions,
  model: Uint8Array,
  side: number[],
  out: number[],
): Promise<PeerRun | null> {
  return options.peer ? await peerRun(model, { X: input(side), W: input(side) }, input(out), 1) : null
}

export function opsCases(options: BenchOptions): Case[] {
  if (!asked(options, 'ops', 'float32') || options.shapes.length > 0) return []
  const all = addon.machine().threads
  const target = () => addon.machine().target
  return [
    { name: 'add of 64 elements', run: () => withThreads(all, target(), () => chain(options, false)) },
    { name: 'add of 64 elements, disposed', run: () => withThreads(all, target(), () => chain(options, true)) },
    { name: 'matmul 16x16x16', run: () => withThreads(all, target(), () => product(options)) },
  ]
}
