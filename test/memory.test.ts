// Memory of training loops in which nobody disposes anything: each runs in a process of its own, 10,000 steps, or 500
// where they quantize as well.
import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'

async function train(child: string, ...how: string[]): Promise<{ sizes: number[]; loss: number }> {
  const { stdout } = await promisify(execFile)(process.execPath, [path.join(__dirname, child), ...how])
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
    const { sizes, loss } = await train('memory-child.js', how)
    const quarter = sizes.length / 4
    const [early, late] = [most(sizes.slice(0, quarter)), most(sizes.slice(-quarter))]
    t.comment(`${early} MiB in the first quarter, ${late} MiB in the last`)
    t.ok(late - early < FLAT_MIB, `grew by ${late - early} MiB`)
    t.ok(loss < 0.1, `it learned: loss ${loss}`)
  })
}

t.test('a synchronous loop with neither: resident memory is bounded', async (t) => {
  const { sizes, loss } = await train('memory-child.js', 'plain')
  t.comment(`at most ${most(sizes)} MiB`)
  t.ok(most(sizes) < BOUND_MIB, `${most(sizes)} MiB`)
  t.ok(loss < 0.1, `it learned: loss ${loss}`)
})

// Measured: up to 25, the garbage collector being in no hurry; 3,000 steps stay there. A leak of the first layer's packed
// weights, the smallest of what a step makes of them, would be 80 MiB on top with int8 and 40 with int4.
const FLAT_QAT_MIB = 40

for (const format of ['static', 'int4'])
  for (const how of ['awaiting', 'scoped']) {
    t.test(`quantization-aware, ${format}, ${how}: resident memory is flat`, async (t) => {
      const { sizes, loss } = await train('memory-qat-child.js', format, how)
      const quarter = Math.ceil(sizes.length / 4)
      const [early, late] = [most(sizes.slice(0, quarter)), most(sizes.slice(-quarter))]
      t.comment(`${early} MiB in the first quarter, ${late} MiB in the last`)
      t.ok(late - early < FLAT_QAT_MIB, `grew by ${late - early} MiB`)
      t.ok(loss < 0.1, `it learned: loss ${loss}`)
    })
  }
