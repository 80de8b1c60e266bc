// Teachers' logits kept by index: training is the same to the bit, files come back, others' files are refused.
import { mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { data, distill, io, manualSeed, nn, optim, type Tensor } from 'kerf'
import t from 'tap'
import { asLabels, asTensor, labelsOf, logits } from './oracle'

const [N, IN, C] = [50, 12, 4]
const set = (seed = 1) => new data.TensorDataset(asTensor(logits(seed, N, IN)), asLabels(labelsOf(2, N, C)))
const batches = (dataset: data.Dataset = set()) =>
  data.loader(dataset, { batchSize: 16, shuffle: true, seed: 3, recycle: true, dropLast: true })
const folder = mkdtempSync(path.join(tmpdir(), 'kerf-distill-'))
let files = 0
const newPath = () => path.join(folder, `cache-${files++}.safetensors`)

function net(seed: number, hidden = 8): nn.Module {
  manualSeed(seed)
  return new nn.Sequential(new nn.Linear(IN, hidden), new nn.ReLU(), new nn.Dropout(0.5), new nn.Linear(hidden, C))
}

const bits = (model: nn.Module) => Object.values(model.stateDict()).map((x) => [...(x.dataSync() as Float32Array)])

/** A module that counts how often it is asked. */
class Counted extends nn.Module {
  calls = 0
  constructor(readonly inner: nn.Module) {
    super()
  }
  forward(x: Tensor) {
    this.calls++
    return this.inner.forward(x)
  }
}

async function train(options: Partial<distill.DistillOptions>, loader = batches()) {
  const student = net(2)
  const optimizer = new optim.AdamW(student.parameters(), { lr: 1e-2 })
  manualSeed(7)
  await distill.distill({ student, optimizer, data: loader, epochs: 3, temperature: 2, ...options })
  return bits(student)
}

t.test('cached or not, in memory or on disk: the same bits', async (t) => {
  const teacher = () => [new Counted(net(1, 16)), new Counted(net(4, 5))]
  const asked = teacher()
  const wanted = await train({ teacher: asked })
  t.same(
    asked.map((m) => m.calls),
    [9, 9],
  )
  const cached = teacher()
  const loader = batches()
  t.same(await train({ teacher: cached, cache: 'memory' }, loader), wanted)
  t.same(
    cached.map((m) => m.calls),
    [4, 4],
    'each sample once',
  )
  t.equal(loader.epoch, 3, 'the loader goes on where it would be')
  const file = newPath()
  t.same(await train({ teacher: teacher(), cache: { path: file } }), wanted)
  t.ok(statSync(file).size > 2 * N * C * 4)
  const again = teacher()
  t.same(await train({ teacher: again, cache: { path: file } }), wanted)
  t.same(
    again.map((m) => m.calls),
    [0, 0],
    'the file answers',
  )
  t.same(
    readdirSync(folder).filter((name) => name.endsWith('.tmp')),
    [],
    'nothing half written is left',
  )
  const relabelled = batches(new data.TensorDataset(asTensor(logits(1, N, IN)), asLabels(labelsOf(5, N, C))))
  await train({ teacher: teacher(), cache: { path: file } }, relabelled)
  t.pass('labels are nothing to a teacher')
})

t.test('a subset, and a function with a name', async (t) => {
  const [, part] = data.split(set(), [20, 30], { seed: 1 })
  const teacher = net(1, 16).eval()
  const answer = (x: Tensor) => teacher.forward(x)
  const wanted = await train({ teacher: answer }, batches(part as data.Dataset))
  t.same(await train({ teacher: answer, cache: 'memory' }, batches(part as data.Dataset)), wanted)
  const file = newPath()
  for (let i = 0; i < 2; i++)
    t.same(await train({ teacher: answer, cache: { path: file, key: 'first' } }, batches(part as data.Dataset)), wanted)
  await t.rejects(train({ teacher: answer, cache: { path: file, key: 'second' } }, batches(part as data.Dataset)), {
    code: 'ERR_ARGUMENT',
    message: /made by other teachers/,
  })
})

t.test(
  'a dataset that holds its batches, and a teacher that answers the input itself: nothing of theirs is disposed',
  async (t) => {
    const held = Array.from({ length: N }, (_, i) => asTensor([logits(1, N, C)[i] as number[]]))
    const small: data.Dataset = { length: N, batch: ([i]) => [held[i as number] as Tensor] }
    const single = () => data.loader(small, { batchSize: 1, shuffle: true, seed: 1 })
    const run = async (cache?: 'memory') => {
      manualSeed(1)
      const student = new nn.Linear(C, C)
      const optimizer = new optim.SGD(student.parameters(), { lr: 0.1 })
      await distill.distill({
        teacher: (x) => x,
        student,
        data: single(),
        alpha: 0,
        optimizer,
        cache,
      })
      return bits(student)
    }
    t.same(await run('memory'), await run())
    t.ok(held.every((tensor) => !tensor.disposed))
  },
)

t.test('foreign and damaged caches are refused, and stay as they are', async (t) => {
  const file = newPath()
  await train({ teacher: net(1, 16), cache: { path: file } })
  const good = readFileSync(file)
  const refused = async (message: RegExp, code: string, options = {}, loader = batches()) => {
    const before = readFileSync(file)
    await t.rejects(train({ teacher: net(1, 16), cache: { path: file }, ...options }, loader), { code, message })
    t.ok(readFileSync(file).equals(before))
  }
  await refused(/made by other teachers/, 'ERR_ARGUMENT', { teacher: net(2, 16) })
  await refused(/made by other teachers/, 'ERR_ARGUMENT', { teacher: [net(1, 16), net(1, 16)] })
  await refused(/made by other teachers/, 'ERR_ARGUMENT', { cache: { path: file, key: 'x' } })
  await refused(/made of other data/, 'ERR_ARGUMENT', {}, batches(set(6)))
  const order = Int32Array.from({ length: N }, (_, i) => N - 1 - i)
  await refused(/made of other data/, 'ERR_ARGUMENT', {}, batches(new data.Subset(set(), order)))
  for (const at of [good.length - 1, good.length - N * C * 4, good.length - 400]) {
    const bad = Buffer.from(good)
    bad[at] = (bad[at] as number) ^ 1
    writeFileSync(file, bad)
    await refused(/is damaged: delete it/, 'ERR_FORMAT')
  }
  writeFileSync(file, good.subarray(0, good.length - 10))
  await refused(/safetensors|covered|bytes|beyond/, 'ERR_FORMAT')
  await io.saveSafetensors(file, { x: asTensor([[1]]) })
  await refused(/holds no teacher's logits/, 'ERR_FORMAT')
  writeFileSync(file, good)
  await train({ teacher: net(1, 16), cache: { path: file } })
})

t.test('samples that change cannot be cached', async (t) => {
  let asked = 0
  const noisy: data.Dataset = {
    length: N,
    batch: (indices) => [asTensor(logits(asked++, indices.length, IN)), asLabels([...indices].map(() => 0))],
  }
  const changing = data.loader(set(), { batchSize: 16, transform: (batch) => batch })
  await t.rejects(train({ teacher: net(1), cache: 'memory' }, changing), {
    code: 'ERR_ARGUMENT',
    message: /cache needs the same sample for the same index each time: data has a transform/,
  })
  await t.rejects(train({ teacher: net(1), cache: 'memory' }, batches(noisy)), {
    code: 'ERR_ARGUMENT',
    message: /gives other samples for the same indices/,
  })
})

t.test('bad options', async (t) => {
  const wrong = (options: object, message: RegExp, loader?: unknown) =>
    t.rejects(train({ teacher: net(1), ...options }, loader as never), { code: 'ERR_ARGUMENT', message })
  await wrong({ cache: 3 }, /^distill: cache must be 'memory' or \{ path \}, got 3/)
  await wrong({ cache: null }, /^distill: cache must be/)
  await wrong({ cache: {} }, /^distill: path must be a non-empty string/)
  await wrong({ cache: { path: newPath(), key: 3 } }, /^distill: cache.key must be a string, got 3/)
  await wrong({ cache: 'memory' }, /^distill: cache needs data to be a Loader/, [[asTensor([[1]])]])
  await wrong({ teacher: (x: Tensor) => x, cache: { path: newPath() } }, /^distill: cache.key must name the teachers/)
  await wrong({ teacher: () => asTensor([[1, 2, 3, 4]]), cache: 'memory' }, /teacher 0 answered .* for 16 samples/)
  await wrong({ alpha: 1, cache: 3 }, /^distill: cache must be/)
})
