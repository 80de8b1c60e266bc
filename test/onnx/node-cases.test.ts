// The node cases of ONNX as an oracle that nobody of kerf wrote: single ops with inputs and the results of ONNX's own
// reference. Debian and Ubuntu have them as libonnx-testdata; KERF_ONNX_TESTDATA names another folder with data/node/.
import { existsSync, readdirSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { onGpu } from '../matrix'
import { adapters, areas } from './adapters'
import { unsupported } from './adapters/unsupported'
import { runCase } from './run-case'

/** Fewer cases than of version 1.12 mean that adapters or data got lost; on a GPU products of integers are left out. */
const MINIMUM = onGpu ? 570 : 576

const root = process.env.KERF_ONNX_TESTDATA || '/usr/share/libonnx-testdata'
const folder = path.join(root, 'data', 'node')
// A folder that was asked for has to be there.
const missing = !process.env.KERF_ONNX_TESTDATA && !existsSync(folder)
const skip = missing && 'libonnx-testdata is not installed (apt-get install libonnx-testdata)'

t.test('the node cases of ONNX', { skip }, (t) => {
  const skipped = new Map<string, string[]>()
  const seen = new Set<string>()
  let run = 0
  for (const name of readdirSync(folder).sort()) {
    const outcome = runCase(path.join(folder, name))
    seen.add(outcome.opType)
    if (outcome.skipped === undefined) {
      run++
      t.same(outcome.failures, [], name)
      continue
    }
    const reason = `${outcome.opType || 'models'}: ${outcome.skipped}`
    skipped.set(reason, [...(skipped.get(reason) ?? []), name])
  }
  let left = 0
  for (const [reason, names] of [...skipped].sort()) {
    left += names.length
    t.comment(`skipped ${names.length}, ${reason}: ${names.join(' ')}`)
  }
  t.comment(`${run} cases run, ${left} skipped`)
  t.ok(run >= MINIMUM, `${run} cases run, at least ${MINIMUM}`)

  const names = areas.flatMap((area) => Object.keys(area))
  t.same(
    names.filter((name, i) => names.indexOf(name) !== i || unsupported.has(name)),
    [],
    'an op has one adapter, or a reason why not',
  )
  t.same(
    [...adapters.keys(), ...unsupported.keys()].filter((name) => !seen.has(name)),
    [],
    'every op in the tables has a case',
  )
  t.end()
})
