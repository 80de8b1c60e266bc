/** The suites behind `kerf bench`. */
import type { BenchModule, BenchOptions, BenchReport, BenchRow, LoopRow, Progress } from '#lib/cli/report'
import { info } from '#lib/info'
import { convCases } from './conv.bench'
import { int8Cases } from './int8.bench'
import { loopCases } from './loop.bench'
import { matmulCases } from './matmul.bench'
import { opsCases } from './ops.bench'
import { PEER, peerVersion } from './peer'
import type { Case } from './row'
import { sparseCases } from './sparse.bench'
import { trainCases } from './train.bench'
import { weightCases } from './weights.bench'

export const suites: BenchModule['suites'] = {
  matmul: 'large products with packed weights, in percent of the arithmetic peak',
  rows: 'few rows, in percent of the read bandwidth',
  edge: 'small and odd products',
  conv: 'convolutions, against the product of matrices that they are',
  int8: 'products of bytes, and layers of 8- and 4-bit weights, against float32',
  sparse: 'layers of sparse weights, against dense float32',
  ops: 'what one call costs',
  loop: 'how late the event loop runs',
  train: 'training steps of LeNet-300-100, LeNet-5 and a wide MLP',
}

export async function run(options: BenchOptions, progress: Progress): Promise<BenchReport> {
  const i = info()
  const report: BenchReport = {
    kerf: i.version,
    date: new Date().toISOString(),
    machine: { cpu: i.cpu, cores: i.cores, platform: i.platform, node: i.node, target: i.target, builder: i.builder },
    peers: options.peer ? { [PEER]: peerVersion() } : {},
    rows: [],
    loop: [],
  }
  const cases: Case<BenchRow | LoopRow>[] = [
    ...matmulCases(options),
    ...convCases(options),
    ...int8Cases(options),
    ...weightCases(options),
    ...sparseCases(options),
    ...opsCases(options),
    ...trainCases(options),
    ...loopCases(options),
  ]
  for (const [done, one] of cases.entries()) {
    progress(done, cases.length, one.name)
    const row = await one.run()
    if (row.suite === 'loop') report.loop.push(row as LoopRow)
    else report.rows.push(row as BenchRow)
  }
  return report
}
