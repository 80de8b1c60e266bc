// distill.distill: it is the loop that one would write by hand, to the bit; teachers are left alone; options are checked.
import { crossEntropy, data, distill, manualSeed, nn, noGrad, optim, prune, quant, type Tensor } from 'kerf'
import t from 'tap'
import { asLabels, asTensor, labelsOf, logits } from './oracle'

const [N, IN, C] = [50, 12, 4]
const set = () => new data.TensorDataset(asTensor(logits(1, N, IN)), asLabels(labelsOf(2, N, C)))
const batches = (options: data.LoaderOptions = {}) =>
  data.loader(set(), { batchSize: 16, shuffle: true, seed: 3, ...options })

function net(seed: number, hidden = 8): nn.Module {
  manualSeed(seed)
  return new nn.Sequential(new nn.Linear(IN, hidden), new nn.ReLU(), new nn.Linear(hidden, C))
}

const adam = (model: nn.Module) => new optim.AdamW(model.parameters(), { lr: 1e-2 })
const bits = (model: nn.Module) =>
  Object.entries(model.stateDict()).map(([name, value]) => [name, [...(value.dataSync() as Float32Array)]])

t.test('it is the loop that one would write by hand', async (t) => {
  const teacher = net(1, 16)
  const [student, byHand] = [net(2), net(2)]
  const options = { temperature: 3, alpha: 0.3 }
  const epochs = 3
  const seen: distill.Progress[] = []
  const optimizer = adam(student)
  const history = await distill.distill({
    ...{ teacher, student, data: batches(), optimizer, epochs, ...options },
    schedule: new optim.StepLR(optimizer, 5),
    validate: (model, epoch) => {
      t.equal(model, student)
      t.notOk(model.training, 'validated in evaluation mode')
      return 10 + epoch
    },
    progress: (p) => void seen.push(p),
  })

  const own = adam(byHand)
  const schedule = new optim.StepLR(own, 5)
  const losses: number[] = []
  teacher.eval()
  const loader = batches()
  for (let epoch = 0; epoch < epochs; epoch++) {
    for (const [x, y] of loader) {
      const loss = distill.loss(
        byHand.forward(x),
        noGrad(() => teacher.forward(x)),
        y,
        options,
      )
      own.zeroGrad()
      loss.backward()
      own.step()
      schedule.step()
      losses.push(loss.item())
    }
  }
  t.same(bits(student), bits(byHand))
  t.same(
    seen.map((p) => p.loss),
    losses,
  )
  t.same(
    seen.slice(0, 5).map(({ epoch, step, totalSteps }) => [epoch, step, totalSteps]),
    [
      [0, 1, 1],
      [0, 2, 2],
      [0, 3, 3],
      [0, 4, 4],
      [1, 1, 5],
    ],
  )
  t.equal(history.length, epochs)
  for (const [epoch, line] of history.entries()) {
    t.match(line, { epoch, steps: 4, score: 10 + epoch })
    const mean = losses.slice(4 * epoch, 4 * epoch + 4).reduce((a, b) => a + b, 0) / 4
    t.ok(Math.abs(line.loss - mean) < 1e-6)
    t.ok(Math.abs(0.3 * (line.hard as number) + 0.7 * (line.soft as number) - line.loss) < 1e-6)
    t.ok(line.seconds >= 0)
  }
})

t.test('teachers: functions, asynchronous ones, ensembles', async (t) => {
  const teachers = [net(1, 16).eval(), net(5, 6).eval()] as const
  const train = async (teacher: distill.DistillOptions['teacher'], alpha = 0) => {
    const student = net(2)
    await distill.distill({ teacher, student, data: batches(), alpha, optimizer: adam(student) })
    return bits(student)
  }
  const module = await train(teachers[0])
  t.same(await train((x) => teachers[0].forward(x)), module)
  t.same(await train(async (x) => teachers[0].forward(await Promise.resolve(x))), module)
  t.same(await train([teachers[0]]), module)
  const both = await train(teachers)
  t.not(JSON.stringify(both), JSON.stringify(module))
  const student = net(2)
  const own = adam(student)
  for (const [x] of batches()) {
    const loss = distill.softLoss(
      student.forward(x),
      noGrad(() => teachers.map((m) => m.forward(x))),
    )
    own.zeroGrad()
    loss.backward()
    own.step()
  }
  t.same(bits(student), both)
})

t.test('no teacher: plain training; no labels: the teacher alone', async (t) => {
  const student = net(2)
  const [line] = await distill.distill({ student, data: batches(), alpha: 1, optimizer: adam(student) })
  t.equal(line?.soft, null)
  t.equal(line?.hard, line?.loss)
  const byHand = net(2)
  const own = adam(byHand)
  for (const [x, y] of batches()) {
    const loss = crossEntropy(byHand.forward(x), y)
    own.zeroGrad()
    loss.backward()
    own.step()
  }
  t.same(bits(student), bits(byHand))
  const unlabelled = data.loader(new data.TensorDataset(asTensor(logits(1, N, IN))), { batchSize: 16 })
  const [soft] = await distill.distill({
    teacher: net(1),
    student,
    data: unlabelled,
    alpha: 0,
    optimizer: adam(student),
  })
  t.equal(soft?.hard, null)
})

t.test('the teacher evaluates, learns nothing, and all are in their own modes afterwards', async (t) => {
  const modes: boolean[] = []
  class Watched extends nn.Module {
    fc = new nn.Linear(IN, C)
    forward(x: Tensor) {
      modes.push(this.training)
      const out = this.fc.forward(x)
      t.notOk(out.requiresGrad)
      return out
    }
  }
  const learning: boolean[] = []
  class Student extends Watched {
    override forward(x: Tensor) {
      learning.push(this.training)
      return this.fc.forward(x)
    }
  }
  const pupil = new Student()
  await distill.distill({
    ...{ teacher: net(1), student: pupil, data: batches(), optimizer: adam(pupil), epochs: 2 },
    validate: (model) => model.forward(asTensor(logits(1, 1, IN))).size,
  })
  t.same(learning, [true, true, true, true, false, true, true, true, true, false], 'it trains, and is validated')
  const teacher = new Watched()
  const before = bits(teacher)
  const student = net(2)
  ;(student as nn.Sequential).at(1).training = false
  const run = (validate?: () => number) =>
    distill.distill({ teacher, student, data: batches(), optimizer: adam(student), epochs: 2, validate })
  await run()
  t.ok(modes.length === 8 && modes.every((training) => !training))
  t.same(bits(teacher), before)
  const all = () => [teacher, teacher.fc, student, ...student.modules().slice(1)].map((m) => m.training)
  t.same(all(), [true, true, true, true, false, true])
  await t.rejects(
    run(() => {
      throw new Error('no')
    }),
    { message: 'no' },
  )
  t.same(all(), [true, true, true, true, false, true], 'also when it throws')
})

t.test('a masked student keeps its zeros', async (t) => {
  const student = net(2, 16)
  const start = { n: 0 }
  await prune.magnitude(student, { sparsity: 0.5 })
  await distill.distill({
    ...{ teacher: net(1), student, data: batches(), optimizer: adam(student), epochs: 2 },
    // Pruned further in the middle of it.
    progress: async ({ totalSteps }) => {
      if (totalSteps === 4) await prune.magnitude(student, { sparsity: 0.75 })
      start.n = totalSteps
    },
  })
  t.equal(start.n, 8)
  const { total } = prune.report(student)
  t.equal(total.zeros, 0.75 * (IN * 16 + 16 * C))
})

t.test('a student under quantization-aware training', async (t) => {
  const examples = asTensor(logits(9, 20, IN))
  for (const ranges of ['observed', 'learned'] as const) {
    const student = quant.prepareQat(net(2, 16), quant.int8Static(), { ranges })
    const history = await distill.distill({
      ...{ teacher: net(1), student, data: batches(), alpha: 0.2, optimizer: adam(student), epochs: 12 },
    })
    t.ok((history.at(-1)?.loss as number) < (history[0]?.loss as number), `${ranges}: it learns`)
    const trained = student.eval().forward(examples).arraySync()
    t.same(quant.convert(student).forward(examples).arraySync(), trained, `${ranges}: converted, the same bits`)
  }
})

t.test('a pruned student under quantization-aware training', async (t) => {
  const student = net(2, 16)
  await prune.magnitude(student, { sparsity: 0.5 })
  quant.prepareQat(student, quant.int8Dynamic())
  await distill.distill({ teacher: net(1), student, data: batches(), optimizer: adam(student), epochs: 2 })
  const weights = student.parameters().filter((p) => p.mask)
  t.equal(weights.length, 2)
  const zeros = weights.flatMap((weight) => [...(weight.dataSync() as Float32Array)].filter((w) => w === 0))
  t.equal(zeros.length, 0.5 * (IN * 16 + 16 * C))
})

t.test('bad options', async (t) => {
  const student = net(2)
  const good = { teacher: net(1), student, data: batches(), optimizer: adam(student) }
  const before = bits(student)
  const wrong = (options: unknown, message: RegExp) =>
    t.rejects(distill.distill(options as never), { code: 'ERR_ARGUMENT', message })
  await wrong(undefined, /^distill: expected options, got undefined/)
  await wrong({ ...good, student: 3 }, /^distill: expected a Module, got 3/)
  await wrong({ ...good, teacher: undefined }, /^distill: alpha 0.5 needs a teacher/)
  await wrong({ ...good, teacher: [] }, /^distill: teacher is an empty array/)
  await wrong({ ...good, teacher: [net(1), 'x'] }, /^distill: teacher\[1\] must be a Module or a function, got "x"/)
  await wrong({ ...good, teacher: student }, /^distill: teacher 0 shares modules with the student/)
  await wrong({ ...good, data: 5 }, /^distill: data must be an iterable of batches, got 5/)
  await wrong({ ...good, data: [] }, /^distill: data was empty in epoch 0/)
  await wrong({ ...good, data: [3] }, /^distill: a batch of data must be an array of tensors/)
  await wrong({ ...good, epochs: 0 }, /^distill: epochs must be a whole number >= 1, got 0/)
  await wrong({ ...good, temperature: 0 }, /^distill: temperature must be/)
  await wrong({ ...good, alpha: 2 }, /^distill: alpha must be/)
  await wrong({ ...good, optimizer: {} }, /^distill: optimizer must be an optimizer of kerf\/optim/)
  await wrong({ ...good, optimizer: adam(net(3)) }, /^distill: the optimizer holds no parameter of the student/)
  const both = new optim.SGD([...student.parameters(), ...good.teacher.parameters()], { lr: 1 })
  await wrong({ ...good, optimizer: both }, /^distill: the optimizer holds '0.weight' of teacher 0/)
  await wrong({ ...good, schedule: {} }, /^distill: schedule must have step\(\)/)
  await wrong({ ...good, validate: 1 }, /^distill: validate must be a function, got 1/)
  await wrong({ ...good, progress: 1 }, /^distill: progress must be a function, got 1/)
  await wrong({ ...good, teacher: () => 5 }, /^distill: teacher 0 must answer a tensor of logits, got 5/)
  t.same(bits(student), before, 'nothing was trained')
})
