/** Calls that recur become graphs: what they compute, when they are made, and that a capture that fails leaves nothing behind. */
import { existsSync, readFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { noDevice, root } from './emulated'
import { run, scratch } from './programs'

const skip = noDevice
const BATCHES = 5
const TIMES = 7

// Prints the sums of products of the same tensors, whose numbers change from time to time, and what the CPU makes of them.
const PROGRAM = `
const kerf = require('kerf')
const on = (device, shape, seed) => (kerf.manualSeed(seed), kerf.randn(shape).to(device))
const products = (device) => {
  const sums = []
  const a = on(device, [${BATCHES}, 3, 7], 1)
  const b = on(device, [${BATCHES}, 7, 9], 2)
  const optimizer = new kerf.optim.SGD([a], { lr: 0.5 }) // writes where a is
  for (let i = 0; i < ${TIMES}; i++) {
    const c = kerf.matmul(a, b)
    sums.push([...c.dataSync()])
    c.dispose()
    a.grad = kerf.ones([${BATCHES}, 3, 7], { device })
    optimizer.step()
  }
  return sums
}
console.log(JSON.stringify({ cpu: products('cpu'), cuda: products('cuda') }))`

async function products(environment: Record<string, string>, program = PROGRAM) {
  const log = path.join(scratch, 'graphs.log')
  rmSync(log, { force: true })
  const settings = { KERF_EMULATOR_LOG: log, ...environment }
  const { code, text, errors } = await run(process.execPath, ['-e', program], root, settings)
  const graphs = existsSync(log) ? readFileSync(log, 'utf8').match(/^graph of \d+ nodes$/gm) : null
  return { code, text, errors, graphs: graphs ?? [] }
}

function check(t: Test, text: string): void {
  const { cpu, cuda } = JSON.parse(text) as Record<'cpu' | 'cuda', number[][]>
  t.equal(cuda.length, TIMES)
  // a sum of 7 products has an error below 7 * 2^-24 of its magnitude (Higham 2002, (3.5)): below 7 * 8 * 5 for these numbers
  const most = 2 * 7 * 2 ** -24 * (7 * 8 * 5)
  for (const [i, row] of cpu.entries())
    for (const [j, value] of row.entries()) {
      const off = Math.abs(value - (cuda[i]?.[j] as number))
      if (!(off <= most)) t.fail(`time ${i}: ${cuda[i]?.[j]}, not ${value}`)
    }
}

t.test('the third of the same calls is captured, and those after it launch what it captured', { skip }, async (t) => {
  const { code, text, errors, graphs } = await products({})
  t.equal(code, 0, errors)
  check(t, text)
  t.equal(graphs.length, TIMES - 2)
  t.ok(graphs.every((graph) => graph === graphs[0]))
})

t.test('where a capture fails the calls run as ever', { skip }, async (t) => {
  const { code, text, errors, graphs } = await products({ KERF_EMULATOR_CAPTURE: 'fail' })
  t.equal(code, 0, errors)
  check(t, text)
  t.same(graphs, [])
})

t.test('a few launches are no graph, nor are other arguments', { skip }, async (t) => {
  const few = await products({}, PROGRAM.replaceAll(`[${BATCHES}, `, '[1, '))
  t.equal(few.code, 0, few.errors)
  check(t, few.text)
  t.same(few.graphs, [])
  const kept = await products(
    {},
    PROGRAM.replace('c.dispose()', '')
      .replace('const sums = []', 'const sums = []; globalThis.kept = []')
      .replace('sums.push(', 'kept.push(c); sums.push('),
  )
  t.equal(kept.code, 0, kept.errors)
  check(t, kept.text)
  t.same(kept.graphs, [], 'each result has a place of its own')
})

t.test(
  'more sequences than are kept: the graphs of those used last go on, the others are made again',
  { skip },
  async (t) => {
    const program = `
const kerf = require('kerf')
const pairs = Array.from({ length: 40 }, (_, i) => [kerf.randn([5, 3, 4 * i + 4]), kerf.randn([5, 4 * i + 4, 4])])
const there = pairs.map((pair) => pair.map((x) => x.to('cuda')))
for (let round = 0; round < 2; round++)
  for (const [i, [a, b]] of there.entries()) {
    const want = kerf.matmul(...pairs[i]).dataSync()
    for (let time = 0; time < 4; time++) {
      const c = kerf.matmul(a, b)
      const off = c.dataSync().findIndex((value, j) => Math.abs(value - want[j]) > 1e-3)
      if (off >= 0) console.log(i, time, off)
      c.dispose()
    }
  }`
    const { code, text, errors, graphs } = await products({}, program)
    t.same({ code, text, errors }, { code: 0, text: '', errors: '' })
    t.equal(graphs.length, 2 * 40 * 2, 'each is made in both rounds')
  },
)

t.test('a fault within a graph is a DeviceError, and the process lives', { skip }, async (t) => {
  const program = PROGRAM.replace('console.log(', 'try { console.log(').concat(
    '} catch (e) { console.log(e.code, e.message) }; console.log(String(kerf.add(kerf.ones([2]), 1).dataSync()))',
  )
  const { code, text, errors, graphs } = await products({ KERF_EMULATOR_FAULT: '100' }, program)
  t.equal(code, 0, errors)
  t.match(text, /^ERR_DEVICE .*a fault that was asked for/)
  t.match(text, /\n2,2\n$/)
  t.ok(graphs.length > 0 && graphs.length < TIMES - 2, 'in a graph')
})
