// Memory of training loops in which nobody disposes anything: each runs 10,000 steps in a process of its own.
import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'

async function train(how: string): Promise<{ sizes: number[]; loss: number }> {
  const { stdout } = await promisify(execFile)(process.execPath, [path.join(__dirname, 'memory-child.js'), how])
  return JSON.parse(stdout)
}

const most = (list: number[]) => Math.max(...list)

// What a step needs at once (parameters, states, gradients, activations) is 5 MiB; the garbage collector lets some tens
// of MiB pile up before it runs. A leak of one activation a step, [16, 300], would be 190 MiB after 10,000.
const FLAT_MIB = 32
const BOUND_MIB = 256

for (const [how, what] of [
  ['awaiting', 'a loop that awaits'],
  ['scoped', 'a synchronous loop inside scope()'],
] as const) {
  t.test(`${what}: resident memory is flat`, async (t) => {
    const { sizes, loss } = await train(how)
    const quarter = sizes.length / 4
    const [early, late] = [most(sizes.slice(0, quarter)), most(sizes.slice(-quarter))]
    t.comment(`${early} MiB in the first quarter, ${late} MiB in the last`)
    t.ok(late - early < FLAT_MIB, `grew by ${late - early} MiB`)
    t.ok(loss < 0.1, `it learned: loss ${loss}`)
  })
}

t.test('a synchronous loop with neither: resident memory is bounded', async (t) => {
  const { sizes, loss } = await train('plain')
  t.comment(`at most ${most(sizes)} MiB`)
  t.ok(most(sizes) < BOUND_MIB, `${most(sizes)} MiB`)
  t.ok(loss < 0.1, `it learned: loss ${loss}`)
})
