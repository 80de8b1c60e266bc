/**
 * Bytes that training steps need for tensors, against PyTorch's:
 *
 *   python3 bench/peers/torch_memory.py > torch.json
 *   node dist/bench/step-memory.js torch.json
 *
 * Here: all storages that model, optimizer, input and ten steps obtained, with what size classes and recycling waste; a process
 * for each network. There: what lasts and the most that a step holds, without the input (which is added). Scratch memory of
 * kernels is in neither.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { info } from '#lib/info'
import { obtainedBytes } from '#lib/tensor/storage'
import { type Net, nets, steps } from './train.bench'

interface Peer {
  net: string
  batch: number
  bytes: number
}

const [, script, file, index] = process.argv as [string, string, string, string?]

function compare(net: Net, i: number, peers: Peer[]) {
  const bytes = Number(execFileSync(process.execPath, [script, file, String(i)], { encoding: 'utf8' }))
  const peer = peers.find((one) => one.net === net.name && one.batch === net.batch)
  if (!peer) throw new Error(`no ${net.name}, batch ${net.batch}, in ${file}`)
  const input = net.batch * (4 * net.shape.reduce((n, m) => n * m, 1) + 8)
  const peerBytes = peer.bytes + input
  return { net: net.name, batch: net.batch, bytes, peerBytes, ratio: Number((bytes / peerBytes).toFixed(3)) }
}

if (index === undefined) {
  const peers: Peer[] = JSON.parse(readFileSync(file, 'utf8'))
  const { version } = info()
  const rows = nets.map((net, i) => compare(net, i, peers))
  const report = { kerf: version, date: new Date().toISOString(), node: process.version, peer: 'torch 1.13', rows }
  console.log(JSON.stringify(report, null, 2))
} else {
  steps(nets[Number(index)] as Net, 'float32').run(10)
  console.log(obtainedBytes())
}
