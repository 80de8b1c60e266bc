// Checkpoints: what goes in comes out; a run that was interrupted ends with the bits of one that was not; half a file never
// shows.
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { rename } from 'node:fs/promises'
import path from 'node:path'
import { io, manualSeed, ones, rand, randomState, setRandomState, tensor, train } from 'kerf'
import t, { type Test } from 'tap'
import { digest } from './child'
import { averages, batches, bits, everything, folder, net } from './setup'

const child = (...args: string[]) =>
  spawnSync(process.execPath, [path.join(__dirname, 'child.js'), ...args], { encoding: 'utf8' })

const outcome = ({ model, ema, trainer }: ReturnType<typeof everything>) =>
  digest([bits(model), averages(ema), trainer.step, trainer.history.map(({ seconds, ...line }) => line)])

/** As the child's loader: without a seed, so that it depends on the stream of random numbers too. */
const unseeded = () => batches({ seed: undefined })
const validation = () => batches({ shuffle: false })

t.test('4 epochs are 2, another process, and 2 more', async (t) => {
  const whole = everything()
  manualSeed(5)
  await whole.trainer.fit(unseeded(), { epochs: 4, validation: validation() })
  const file = path.join(folder(t), 'c.safetensors')
  const half = everything({ checkpoint: { path: file } })
  manualSeed(5)
  await half.trainer.fit(unseeded(), { epochs: 2, validation: validation() })
  t.not(outcome(half), outcome(whole))
  const { status, stdout, stderr } = child('train', file, '4')
  t.equal(status, 0, stderr)
  t.equal(stdout.trim(), outcome(whole))
  const { tensors } = await io.readSafetensorsInfo(file)
  t.ok('model.0.weight' in tensors && 'optimizer.state.0.expAvg' in tensors, 'one file, which other tools read too')
})

/** Stops after so many steps in all, with a checkpoint. */
async function stopAfter(t: Test, steps: number, file: string) {
  const stop = new AbortController()
  const some = everything({
    checkpoint: { path: file },
    metrics: {
      accuracy: (output, target) => {
        if (some.trainer.step === steps - 1) stop.abort()
        return train.accuracy(output, target)
      },
    },
  })
  manualSeed(5)
  const loader = unseeded()
  const { stopped } = await some.trainer.fit(loader, { epochs: 4, validation: validation(), signal: stop.signal })
  t.equal(stopped, 'signal')
  return { some, loader }
}

t.test('an epoch that was interrupted goes on with the next batch', async (t) => {
  const whole = everything()
  manualSeed(5)
  await whole.trainer.fit(unseeded(), { epochs: 3, validation: validation() })
  // 7 batches an epoch make 4 steps: in the middle of one, and between the last step and the validation.
  for (const steps of [6, 8]) {
    const file = path.join(folder(t), 'c.safetensors')
    const { some, loader } = await stopAfter(t, steps, file)
    t.equal(some.trainer.step, steps)
    const { status, stdout, stderr } = child('train', file, '3')
    t.equal(status, 0, stderr)
    t.equal(stdout.trim(), outcome(whole), `another process, after step ${steps}`)
    await some.trainer.fit(loader, { epochs: 3, validation: validation() })
    t.equal(outcome(some), outcome(whole), `the same trainer, after step ${steps}`)
  }
})

t.test('data that is no loader is resumed by leaving out what was seen', async (t) => {
  const list: (readonly [never, never])[] = []
  for (const batch of batches()) list.push(batch as never)
  const run = async (epochs: number, steps: number, file: string, resume = false) => {
    const stop = new AbortController()
    const some = everything({
      checkpoint: { path: file, steps: 3 },
      metrics: {
        accuracy: (output, target) => {
          if (some.trainer.step === steps - 1) stop.abort()
          return train.accuracy(output, target)
        },
      },
    })
    await some.trainer.fit(list, { epochs, resume, signal: stop.signal })
    return some
  }
  const whole = await run(2, -1, path.join(folder(t), 'a'))
  const file = path.join(folder(t), 'b')
  await run(2, 3, file)
  t.equal(outcome(await run(2, -1, file, true)), outcome(whole))
})

t.test('a process that dies in the middle of writing leaves the old checkpoint', async (t) => {
  const place = folder(t)
  const file = path.join(place, 'c.safetensors')
  await train.saveCheckpoint(file, { values: tensor([1, 2, 3]) })
  const before = readFileSync(file)
  const { signal, stderr } = child('die', file)
  t.equal(signal, 'SIGKILL', stderr)
  t.equal(readdirSync(place).length, 2, 'half a file is there, under another name')
  t.same(readFileSync(file), before)
  const { values } = await train.loadCheckpoint(file)
  t.same((values as ReturnType<typeof ones>).arraySync(), [1, 2, 3])
})

t.test('a write that fails leaves the old checkpoint and nothing beside it', async (t) => {
  const place = folder(t)
  const file = path.join(place, 'c.safetensors')
  await train.saveCheckpoint(file, { a: 1 })
  await rename(file, path.join(place, 'kept'))
  await t.rejects(train.saveCheckpoint(path.join(place, 'nowhere', 'c'), { a: 2 }), { code: 'ENOENT' })
  t.same(readdirSync(place), ['kept'])
  t.same(await train.loadCheckpoint(path.join(place, 'kept')), { a: 1 })
})

t.test('what goes in comes out', async (t) => {
  const file = path.join(folder(t), 'c.safetensors')
  const state = {
    numbers: [1, -0, 0.1, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 2 ** 53],
    ...{ text: 'a "b" \u2028 <c>', yes: true, nothing: null, nested: [[{ deep: [] }], {}] },
    ...{ 'a.b': ones([2]), a: { b: tensor([7], { dtype: 'int64' }) }, gone: undefined },
    ['__proto__']: { x: 1 },
  }
  await train.saveCheckpoint(file, state)
  const back = await train.loadCheckpoint(file)
  const { gone, 'a.b': dotted, a, ...rest } = state
  const { 'a.b': dottedBack, a: aBack, ...restBack } = back
  t.strictSame(restBack, rest)
  t.ok(Object.is((back.numbers as number[])[1], -0))
  t.same((dottedBack as typeof dotted).arraySync(), [1, 1])
  t.same((aBack as typeof a).b.arraySync(), [7n])
  t.notOk('gone' in back)

  const loop: Record<string, unknown> = {}
  loop.self = loop
  for (const [bad, message] of [
    [{ f: () => 1 }, /f must be a tensor, a number/],
    [{ at: { d: new Date() } }, /at\.d must be .* got a Date/],
    [loop, /self contains itself/],
    [{ $tensor: 1 }, /\$tensor: this name is the format's own/],
    [null, /state must be an object, got null/],
  ] as const)
    await t.rejects(train.saveCheckpoint(file, bad as never), { code: 'ERR_ARGUMENT', message })
})

t.test('files that are no checkpoints, and those of other parts', async (t) => {
  const place = folder(t)
  const file = path.join(place, 'c.safetensors')
  await io.saveSafetensors(file, net().stateDict())
  await t.rejects(train.loadCheckpoint(file), { code: 'ERR_FORMAT', message: /c\.safetensors: this is no checkpoint/ })
  for (const [state, message] of [
    ['{', /the state is not JSON/],
    ['[]', /the state is not an object/],
    ['{"a":{"$tensor":"b"}}', /there is no tensor "b"/],
    ['{"a":{"$number":"7"}}', /"7" is no number/],
  ] as const) {
    await io.saveSafetensors(file, {}, { metadata: { format: 'kerf checkpoint 1', state } })
    await t.rejects(train.loadCheckpoint(file), { code: 'ERR_FORMAT', message })
  }
  writeFileSync(file, 'nonsense')
  await t.rejects(train.loadCheckpoint(file), { code: 'ERR_FORMAT' })
  const { trainer } = everything()
  await train.saveCheckpoint(file, { a: 1 })
  await t.rejects(trainer.load(file), { code: 'ERR_FORMAT', message: /no trainer's checkpoint/ })
  await everything({ ema: undefined }).trainer.save(file)
  await t.rejects(trainer.load(file), { code: 'ERR_ARGUMENT', message: /lacks ema/ })
  await trainer.save(file)
  await t.rejects(everything({ scaler: undefined }).trainer.load(file), {
    code: 'ERR_ARGUMENT',
    message: /has a state of scaler, the trainer has none/,
  })
})

t.test('checkpoints of a trainer that were changed', async (t) => {
  const file = path.join(folder(t), 'c.safetensors')
  const some = await stopAfter(t, 6, file)
  const state = await train.loadCheckpoint(file)
  const { running, curve, history } = state as { running: object; curve: object; history: object[] }
  for (const [name, values] of Object.entries({
    model: [null, 1],
    early: [1],
    random: [null],
    history: [{}, [1], [{ ...history[0], training: { loss: 'x' } }], [{ ...history[0], lr: null }]],
    curve: [null, { ...curve, every: 0 }, { ...curve, losses: [] }],
    step: [-1, 'x', 0.5],
    metrics: [[1]],
    running: [1, { ...running, batches: -1 }, { ...running, means: { rows: 1, weight: 1, sums: null } }],
    loader: [7],
  }))
    for (const value of values) {
      await train.saveCheckpoint(file, { ...state, [name]: value })
      await t.rejects(some.some.trainer.load(file), {
        code: 'ERR_FORMAT',
        message: new RegExp(`c\\.safetensors: this is no trainer's checkpoint: ${name} is `),
      })
    }
  await train.saveCheckpoint(file, state)
  await t.rejects(everything({ metrics: {} }).trainer.load(file), {
    code: 'ERR_ARGUMENT',
    message: /the epoch that it is in measures \["accuracy"\], the trainer \[\]/,
  })
  await everything().trainer.load(file)
})

t.test('the stream of random numbers can be taken up again', (t) => {
  manualSeed(3)
  rand([5])
  const state = randomState()
  const next = rand([4]).arraySync()
  manualSeed(99)
  setRandomState(state)
  t.same(rand([4]).arraySync(), next)
  for (const bad of [null, {}, { seed: 1, offset: -1 }, { seed: 0.5, offset: 0 }])
    t.throws(() => setRandomState(bad as never), { code: 'ERR_ARGUMENT', message: /^setRandomState: / })
  t.end()
})
