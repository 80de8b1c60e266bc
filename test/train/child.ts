// Jobs of another process: `bar <is it a terminal>` trains an epoch with whatever bar there is; `train <checkpoint> <epochs>` goes on from a checkpoint and prints digests of what came
// out; `die <checkpoint>` is killed in the middle of writing one.
import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { ones, train } from 'kerf'
import { averages, batches, bits, everything } from './setup'

export const digest = (value: unknown) => createHash('sha256').update(JSON.stringify(value)).digest('hex')

async function goOn(path: string, epochs: number): Promise<void> {
  const { model, ema, trainer } = everything({ checkpoint: { path } })
  // Without a seed of its own, and in a process whose stream of random numbers is elsewhere: all of it is in the checkpoint.
  await trainer.fit(batches({ seed: undefined }), { epochs, resume: true, validation: batches({ shuffle: false }) })
  console.log(digest([bits(model), averages(ema), trainer.step, trainer.history.map(({ seconds, ...line }) => line)]))
}

async function die(path: string): Promise<void> {
  const handle = await open(__filename)
  const prototype = Object.getPrototypeOf(handle)
  const { write } = prototype
  await handle.close()
  let calls = 0
  prototype.write = async function (this: unknown, bytes: Uint8Array, ...rest: unknown[]) {
    // The header went through; of the tensors, the first half.
    if (++calls === 2) {
      await write.call(this, bytes.subarray(0, bytes.length / 2), 0, bytes.length / 2)
      process.kill(process.pid, 'SIGKILL')
    }
    return write.call(this, bytes, ...rest)
  }
  await train.saveCheckpoint(path, { values: ones([1000]) })
}

async function bar(terminal: boolean | undefined): Promise<void> {
  process.stderr.isTTY = terminal as boolean
  await everything({ progress: 'auto', accumulate: 1 }).trainer.fit(batches())
}

if (require.main === module) {
  const [job, path = '', epochs] = process.argv.slice(2)
  if (job === 'bar') void bar(path === 'true' || undefined)
  else void (job === 'die' ? die(path) : goOn(path, Number(epochs)))
}
