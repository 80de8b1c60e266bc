// Inner layers: capturing them, matching them, and terms of the loss in distill.distill.
import { data, distill, gradcheck, manualSeed, mseLoss, nn, noGrad, optim, type Tensor, tensor } from 'kerf'
import t from 'tap'
import { asLabels, asTensor, labelsOf, logits, type Rows } from './oracle'

const [N, IN, C] = [24, 6, 3]

function net(seed: number, hidden = 4): nn.Sequential {
  manualSeed(seed)
  return new nn.Sequential(new nn.Linear(IN, hidden), new nn.ReLU(), new nn.Linear(hidden, C))
}

const flat = (x: Tensor) => [...(x.dataSync() as Float32Array)]
const x = asTensor(logits(1, 5, IN))
const loader = () =>
  data.loader(new data.TensorDataset(asTensor(logits(1, N, IN)), asLabels(labelsOf(2, N, C))), { batchSize: 8 })

t.test('capture: outputs of inner modules, on the tape, until release', (t) => {
  const model = net(1)
  const wanted = flat((model.at(0) as nn.Linear).forward(x))
  const answer = flat(model.forward(x))
  const first = distill.capture(model, ['0', '', '1'])
  const second = distill.capture(model, ['0'])
  t.throws(() => first.output('0'), { code: 'ERR_ARGUMENT', message: /'?"0"'? is not captured or has not run/ })
  t.same(flat(model.forward(x)), answer, 'the model answers as before')
  t.same(flat(first.output('0')), wanted)
  t.same(flat(first.output('')), answer)
  t.same(flat(second.output('0')), wanted)
  t.throws(() => second.output('1'), { message: /is not captured/ })
  t.ok(first.output('0').requiresGrad, 'it has its place on the tape')
  first.output('1').sum().backward()
  t.ok((model.at(0) as nn.Linear).weight.grad)
  first.release() // not the last that came
  model.forward(asTensor(logits(9, 5, IN)))
  t.not(String(flat(second.output('0'))), String(wanted), 'the other one still listens')
  second.release()
  second.release()
  for (const module of model.modules()) t.notOk(Object.hasOwn(module, 'forward'), 'nothing is left behind')
  t.throws(() => second.output('0'), { message: /is not captured/ })
  t.end()
})

t.test('capture: a forward of its own comes back, and one put over the hook stays', (t) => {
  const model = net(1)
  const layer = model.at(0)
  const own = (input: Tensor) => nn.Linear.prototype.forward.call(layer as nn.Linear, input)
  layer.forward = own
  distill.capture(model, ['0']).release()
  t.equal(layer.forward, own)
  const watched = distill.capture(model, ['0'])
  const below = layer.forward
  const above = (input: Tensor) => below.call(layer, input)
  layer.forward = above
  watched.release()
  t.equal(layer.forward, above)
  t.equal(model.forward(x).shape[1], C)
  {
    using again = distill.capture(model, ['0'])
    model.forward(x)
    t.equal(again.output('0').shape[1], 4, 'it is found again below')
  }
  t.throws(() => distill.capture(model, ['7']), { code: 'ERR_ARGUMENT', message: /no module at '7'/ })
  t.throws(() => distill.capture(model, '0' as never), { message: /^capture: paths must be an array of strings/ })
  t.throws(() => distill.capture(3 as never, []), { message: /^capture: expected a Module/ })
  t.end()
})

t.test('hint: half the squared distance after the projection, summed over features, the mean of the batch', (t) => {
  const [s, y] = [logits(3, 5, 4), logits(4, 5, 7)]
  manualSeed(1)
  const projection = new nn.Linear(4, 7)
  const hint = new distill.Hint(projection)
  t.same(
    hint.namedParameters().map(([name]) => name),
    ['projection.weight', 'projection.bias'],
  )
  const [w, b] = [projection.weight.arraySync() as Rows, flat(projection.bias as Tensor)]
  let wanted = 0
  for (const [i, row] of s.entries()) {
    for (const [j, target] of (y[i] as number[]).entries()) {
      const value = row.reduce((sum, v, k) => sum + v * ((w[j] as number[])[k] as number), b[j] as number)
      wanted += (value - target) ** 2 / 2 / s.length
    }
  }
  const found = hint.forward(asTensor(s), asTensor(y)).item()
  // 35 squares of differences of sums of 5 products: a few 2^-24 of each.
  t.ok(Math.abs(found - wanted) <= 64 * 2 ** -24 * wanted, `${found}, ${wanted}`)
  const target = asTensor(y, true)
  hint.forward(asTensor(s), target).backward()
  t.equal(target.grad, null, 'the teacher gets no gradient')
  t.ok(projection.weight.grad, 'the projection learns')
  t.ok(gradcheck((a) => hint.forward(a, asTensor(y)), [asTensor(s, true)]))
  t.equal(new distill.Hint(null).forward(asTensor(s), asTensor(s)).item(), 0)
  t.throws(() => new distill.Hint(null).forward(asTensor(s), asTensor(y)), { code: 'ERR_SHAPE' })
  t.throws(() => new distill.Hint(4 as never), { message: /^Hint: projection must be a Module or null, got 4/ })
  t.end()
})

/** Maps in float64: features on axis 1 of [n][c][positions]. */
function attention(own: number[][][], other: number[][][], form: 'paper' | 'code'): number {
  const map = (sample: number[][]) => {
    const sums = (sample[0] as number[]).map((_, p) => sample.reduce((sum, row) => sum + (row[p] as number) ** 2, 0))
    const norm = Math.hypot(...sums)
    return sums.map((v) => v / Math.max(norm, 1e-12))
  }
  let total = 0
  for (const [i, sample] of own.entries()) {
    const [a, b] = [map(sample), map(other[i] as number[][])]
    const squares = a.reduce((sum, v, p) => sum + (v - (b[p] as number)) ** 2, 0)
    total += form === 'paper' ? Math.sqrt(squares) : squares / a.length / own.length
  }
  return total
}

const leaf = (x: Tensor): Tensor => tensor(flat(x), { shape: x.shape as number[], requiresGrad: true })

const volume = (seed: number, n: number, c: number, p: number) =>
  Array.from({ length: n }, (_, i) => logits(seed + 100 * i, c, p))

t.test('attention transfer: both published forms', (t) => {
  const [own, other] = [volume(1, 3, 2, 8), volume(2, 3, 5, 8)]
  const image = (v: number[][][]) => tensor(v).reshape([3, -1, 2, 4])
  for (const form of ['paper', 'code'] as const) {
    const wanted = attention(own, other, form)
    const found = distill.attentionTransfer(image(own), image(other), { form }).item()
    t.ok(Math.abs(found - wanted) <= 64 * 2 ** -24 * (form === 'paper' ? 3 : 1), `${form}: ${found}, ${wanted}`)
    const tokens = (v: number[][][]) => tensor(v).permute([0, 2, 1])
    const last = distill.attentionTransfer(tokens(own), tokens(other), { form, axis: -1 }).item()
    t.ok(Math.abs(last - wanted) <= 64 * 2 ** -24 * (form === 'paper' ? 3 : 1), `${form}, features last`)
    t.ok(gradcheck((a) => distill.attentionTransfer(a, image(other), { form }), [leaf(image(own))]))
    const same = leaf(image(own))
    distill.attentionTransfer(same, image(own), { form }).backward()
    t.ok(
      flat(same.grad as Tensor).every((g) => g === 0),
      `${form}: equal maps, no gradient and no NaN`,
    )
    const dead = leaf(tensor(volume(1, 3, 2, 8)).mul(0) as Tensor)
    const loss = distill.attentionTransfer(dead, image(other).reshape([3, 5, 8]), { form })
    loss.backward()
    t.ok(Number.isFinite(loss.item()) && flat(dead.grad as Tensor).every(Number.isFinite), `${form}: a map of zeros`)
  }
  t.equal(
    distill.attentionTransfer(image(own), image(other)).item(),
    distill.attentionTransfer(image(own), image(other), { form: 'paper' }).item(),
    "'paper' unless said",
  )
  const wrong = (args: unknown[], code: string, message: RegExp) =>
    t.throws(() => (distill.attentionTransfer as (...a: unknown[]) => unknown)(...args), { code, message })
  wrong([image(own), image(other), { form: 'book' }], 'ERR_ARGUMENT', /form must be 'paper' or 'code', got "book"/)
  wrong([image(own), image(other), { axis: 0 }], 'ERR_ARGUMENT', /axis must not be the batch's/)
  wrong([image(own), tensor(volume(1, 3, 2, 7))], 'ERR_SHAPE', /the student is \[3, 2, 4\], the teacher \[3, 7\]/)
  wrong([x, x], 'ERR_SHAPE', /must have axes of batch, features and positions/)
  t.end()
})

t.test('distill with features: the loop that one would write by hand', async (t) => {
  const teacher = net(1, 7)
  const [student, byHand] = [net(2), net(2)]
  manualSeed(5)
  const hint = new distill.Hint(new nn.Linear(4, 7))
  manualSeed(5)
  const own = new distill.Hint(new nn.Linear(4, 7))
  const make = (m: nn.Module, h: distill.Hint) => new optim.SGD([...m.parameters(), ...h.parameters()], { lr: 0.1 })
  const options = { temperature: 2, alpha: 0.5 }
  const [line] = await distill.distill({
    ...{ teacher, student, data: loader(), optimizer: make(student, hint), ...options },
    features: [
      { student: '1', teacher: '1', loss: hint, weight: 0.25 },
      { student: '2', teacher: '2', loss: (a, b) => mseLoss(a, b) },
    ],
  })
  const optimizer = make(byHand, own)
  let inner = 0
  let steps = 0
  for (const [x, y] of loader()) {
    const parts = noGrad(() => [teacher.at(0), teacher.at(1)].reduce((h, layer) => layer.forward(h), x as Tensor))
    const target = noGrad(() => teacher.forward(x))
    const hidden = byHand.at(1).forward(byHand.at(0).forward(x))
    const out = byHand.at(2).forward(hidden)
    // In the order of the loop: gradients add up in that of the tape.
    const outer = distill.loss(out, target, y, options)
    const extra = own.forward(hidden, parts).mul(0.25).add(mseLoss(out, target))
    const loss = outer.add(extra)
    optimizer.zeroGrad()
    loss.backward()
    optimizer.step()
    inner += extra.item()
    steps++
  }
  for (const [name, value] of Object.entries(student.stateDict()))
    t.same(flat(value), flat(byHand.stateDict()[name] as Tensor), name)
  t.same(flat((hint.projection as nn.Linear).weight), flat((own.projection as nn.Linear).weight), 'the projection')
  t.ok(Math.abs((line?.features as number) - inner / steps) < 1e-6)
  const { loss, hard, soft, features } = line as Record<'loss' | 'hard' | 'soft' | 'features', number>
  t.ok(Math.abs(0.5 * hard + 0.5 * soft + features - loss) < 1e-5)
  for (const module of [...student.modules(), ...teacher.modules()]) t.notOk(Object.hasOwn(module, 'forward'))
})

t.test('features with an ensemble, with the labels alone, and bad ones', async (t) => {
  const teachers = [net(1, 7), net(3, 4)]
  const student = net(2)
  const run = (options: Partial<distill.DistillOptions>) =>
    distill.distill({
      ...{ teacher: teachers, student, data: loader() },
      optimizer: new optim.SGD(student.parameters(), { lr: 0.1 }),
      ...options,
    })
  const term = { student: '1', teacher: '1', of: 1, loss: new distill.Hint(null) }
  const [line] = await run({ alpha: 1, features: [term] })
  t.equal(line?.soft, null)
  t.ok((line?.features as number) > 0)
  const wrong = (features: unknown, message: RegExp, options = {}) =>
    t.rejects(run({ features: features as never, ...options }), { code: 'ERR_ARGUMENT', message })
  await wrong(3, /^distill: features must be an array, got 3/)
  await wrong([null], /^distill: features\[0\] must be an object, got null/)
  await wrong([{ ...term, student: 1 }], /^distill: features\[0\].student must be a path, got 1/)
  await wrong([{ ...term, teacher: '9' }], /no module at '9'/)
  await wrong([{ ...term, loss: 1 }], /^distill: features\[0\].loss must be a Module or a function, got 1/)
  await wrong([{ ...term, weight: Number.NaN }], /^distill: features\[0\].weight must be a number/)
  await wrong([{ ...term, of: 2 }], /^distill: features\[0\] needs teacher 2 to be a Module, got undefined/)
  await wrong([{ ...term, loss: (a: Tensor) => a }], /^distill: features\[0\].loss must answer a tensor of shape \[\]/)
  await wrong([term], /^distill: features need the teachers' layers/, { cache: 'memory' })
  const hint = new distill.Hint(new nn.Linear(4, 7))
  await wrong(
    [{ ...term, of: 0, loss: hint }],
    /^distill: the optimizer lacks 'projection.weight' of features\[0\].loss/,
  )
  for (const module of student.modules()) t.notOk(Object.hasOwn(module, 'forward'), 'hooks go when it throws')
})

t.test('born again: each generation is taught by the one before', async (t) => {
  const create = (generation: number) => net(10 + generation)
  const optimizer = (student: nn.Module) => new optim.SGD(student.parameters(), { lr: 0.1 })
  const options = { data: loader(), epochs: 2, temperature: 1, alpha: 0.25 }
  const made = await distill.bornAgain({ create, optimizer, generations: 2, ...options })
  t.same(
    made.map(({ generation, history }) => [generation, history.length, history[0]?.soft !== null]),
    [
      [0, 2, false],
      [1, 2, true],
      [2, 2, true],
    ],
  )
  const byHand: nn.Module[] = []
  for (let generation = 0; generation <= 2; generation++) {
    const student = create(generation)
    const before = byHand.at(-1)
    await distill.distill({
      ...{ ...options, data: loader(), student, optimizer: optimizer(student) },
      ...(before ? { teacher: before } : { alpha: 1 }),
    })
    byHand.push(student)
  }
  const all = (m: nn.Module) => Object.values(m.stateDict()).map(flat)
  t.same(
    made.map(({ student }) => all(student)),
    byHand.map(all),
  )
  const later = await distill.bornAgain({
    ...{ create, optimizer, generations: 2, ...options, data: loader(), cache: 'memory' },
    ...{ teacher: byHand[0] as nn.Module, byAll: true, schedule: (o: optim.SGD) => new optim.StepLR(o, 2) },
  })
  t.same(
    later.map(({ generation }) => generation),
    [1, 2],
  )
  const unscheduled = await distill.bornAgain({
    ...{ create, optimizer, generations: 2, ...options, data: loader() },
    ...{ teacher: byHand[0] as nn.Module, byAll: true },
  })
  const [, third] = unscheduled
  const own = create(2)
  await distill.distill({
    ...{ ...options, data: loader(), student: own, optimizer: optimizer(own) },
    teacher: [byHand[0] as nn.Module, unscheduled[0]?.student as nn.Module],
  })
  t.same(all(third?.student as nn.Module), all(own), 'taught by all before it')
  const wrong = (bad: object, message: RegExp) =>
    t.rejects(distill.bornAgain({ create, optimizer, ...options, ...bad } as never), {
      code: 'ERR_ARGUMENT',
      message,
    })
  await wrong({ generations: 0 }, /^bornAgain: generations must be a whole number >= 1, got 0/)
  await wrong({ create: 1 }, /^bornAgain: create must be a function, got 1/)
  await wrong({ optimizer: 1 }, /^bornAgain: optimizer must be a function, got 1/)
  await wrong({ teacher: 1 }, /^bornAgain: teacher must be a Module, got 1/)
  await wrong({ cache: { path: 'x' } }, /^bornAgain: cache must be 'memory', got an object/)
})
