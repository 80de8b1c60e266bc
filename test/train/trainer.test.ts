// train.Trainer: it is the loop that one would write by hand, to the bit; batches of a step make one larger batch; it stops, logs
// and reports; options are checked.
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { amp, crossEntropy, data, manualSeed, nn, noGrad, optim, prune, type Tensor, tensor, train } from 'kerf'
import t from 'tap'
import { Curve } from '#lib/train/history'
import { unit } from '../oracle/float'
import { batches, bits, C, everything, folder, IN, N, net, set } from './setup'

const plain = (options: Partial<train.TrainerOptions> = {}, model = net()) => {
  const optimizer = (options.optimizer as optim.Optimizer) ?? new optim.AdamW(model.parameters(), { lr: 1e-2 })
  return { model, trainer: new train.Trainer({ model, optimizer, loss: crossEntropy, progress: false, ...options }) }
}

t.test('it is the loop that one would write by hand', async (t) => {
  const model = net()
  const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-2 })
  const { trainer } = plain(
    {
      ...{ optimizer, schedule: new optim.StepLR(optimizer, 5), clipNorm: 0.5, seed: 4 },
      metrics: { accuracy: train.accuracy, top2: train.topK(2) },
    },
    model,
  )
  const { history, stopped } = await trainer.fit(batches(), { epochs: 3, validation: batches({ shuffle: false }) })
  t.equal(stopped, 'epochs')
  t.ok(model.training, 'the mode is as before')

  const own = net()
  const adam = new optim.AdamW(own.parameters(), { lr: 1e-2 })
  const schedule = new optim.StepLR(adam, 5)
  const loader = batches()
  manualSeed(4)
  for (let epoch = 0; epoch < 3; epoch++) {
    let [loss, samples] = [0, 0]
    own.train()
    for (const [x, y] of loader) {
      const value = crossEntropy(own.forward(x), y)
      adam.zeroGrad()
      value.backward()
      optim.clipGradNorm(own.parameters(), 0.5)
      adam.step()
      schedule.step()
      loss += value.item() * y.size
      samples += y.size
    }
    own.eval()
    const [x, y] = set().tensors
    const scores = noGrad(() => own.forward(x)).arraySync() as number[][]
    const labels = [...y.dataSync()].map(Number)
    const rank = (row: number[], label: number) => row.filter((score) => score > (row[label] as number)).length
    const share = (k: number) => scores.filter((row, i) => rank(row, labels[i] as number) < k).length / N
    const line = history[epoch] as train.EpochResult
    t.match(line, { epoch, step: 7 * (epoch + 1), lr: adam.paramGroups[0]?.lr })
    t.equal(line.training.loss, loss / samples)
    // Shares of whole batches in float32, weighed in float64.
    t.ok(Math.abs((line.validation?.accuracy as number) - share(1)) < 2 * unit('float32'))
    t.ok(Math.abs((line.validation?.top2 as number) - share(2)) < 2 * unit('float32'))
    t.ok((line.validation?.top2 as number) >= (line.validation?.accuracy as number))
    t.ok(line.seconds >= 0)
  }
  t.same(bits(model), bits(own))
  t.same(await trainer.evaluate(batches({ shuffle: false })), history[2]?.validation)
})

t.test('averages are updated after each step that was made, and are what is evaluated', async (t) => {
  const model = net()
  const ema = new train.Ema(model, { decay: 0.9 })
  const { trainer } = plain({ ema, seed: 4 }, model)
  const { history } = await trainer.fit(batches(), { epochs: 2, validation: batches({ shuffle: false }) })
  t.equal(ema.updates, 14)
  const weights = bits(model)
  ema.copyTo()
  t.not(String(bits(model)), String(weights))
  const averaged = plain({}, model).trainer
  t.same(await averaged.evaluate(batches({ shuffle: false })), history[1]?.validation)
  // An infinite factor: every step overflows and is skipped.
  const scaler = new amp.GradScaler({ initScale: 2 ** 127, backoffFactor: 0.999 })
  const still = net()
  const unmoved = new train.Ema(still)
  const skipped = plain({ scaler, ema: unmoved, loss: (output) => output.sum().mul(1e6) }, still)
  const before = bits(still)
  await skipped.trainer.fit(batches())
  t.same(bits(still), before)
  t.same([skipped.trainer.step, unmoved.updates], [7, 0])
})

t.test('fit() counts all epochs, those of an earlier fit() too', async (t) => {
  const [once, twice] = [plain({ seed: 1 }), plain({ seed: 1 })]
  await once.trainer.fit(batches(), { epochs: 3 })
  const loader = batches()
  await twice.trainer.fit(loader, { epochs: 2 })
  t.equal(twice.trainer.epoch, 2)
  const { history } = await twice.trainer.fit(loader, { epochs: 3 })
  t.same([history.length, twice.trainer.step], [3, 21])
  t.same(bits(twice.model), bits(once.model))
})

/** Without dropout, whose draws follow the batches. */
function smooth(): nn.Module {
  manualSeed(1)
  return new nn.Sequential(new nn.Linear(IN, 16), new nn.Tanh(), new nn.Linear(16, C))
}

t.test('batches of a step make one larger batch', async (t) => {
  // One step of SGD with lr 1: the weights move by the gradient. 50 samples are 6 batches of 8 and one of 2; steps of 3 batches: two whole
  // ones and one with the small batch alone; steps of 4: one whole and one uneven.
  const grads = async (options: Partial<train.TrainerOptions>, batchSize: number, samples = N) => {
    const model = smooth()
    const some = new data.Subset(
      set(),
      Int32Array.from({ length: samples }, (_, i) => i),
    )
    const optimizer = new optim.SGD(model.parameters(), { lr: 1 })
    const before = bits(model)
    const { trainer } = plain({ optimizer, ...options }, model)
    const { history } = await trainer.fit(data.loader(some, { batchSize }))
    return { moved: flat(bits(model)).map((x, i) => (x - (flat(before)[i] as number)) as number), history }
  }
  const flat = (of: ReturnType<typeof bits>) => of.flatMap(([, values]) => values as number[])
  for (const [what, options] of [
    ['plain', {}],
    ['clipped', { clipNorm: 0.05 }],
    ['scaled', { scaler: () => new amp.GradScaler({ initScale: 1024 }) }],
    ['scaled and clipped', { scaler: () => new amp.GradScaler({ initScale: 1024 }), clipNorm: 0.05 }],
  ] as const)
    for (const [accumulate, samples] of [
      [7, N],
      [9, N],
      [2, 16],
      [4, 26],
    ] as const) {
      const made = () => ({ ...options, scaler: 'scaler' in options ? options.scaler() : undefined })
      const whole = await grads(made(), samples, samples)
      const parts = await grads({ ...made(), accumulate }, 8, samples)
      t.equal(parts.history[0]?.step, 1)
      // |x| <= 3 and |dlogits| <= 1: the elements of a gradient are means over the samples of at most 3 each. Their sums in
      // float32 in two orders (samples + 16 additions), and the weight 1 (at most, plus the gradient) that they are added to.
      const tolerance = (2 * (samples + 16) * 3 + 4) * unit('float32')
      const worst = Math.max(...parts.moved.map((x, i) => Math.abs(x - (whole.moved[i] as number))))
      t.ok(worst <= tolerance, `${what}, ${accumulate} of ${samples}: ${worst} <= ${tolerance}`)
      t.ok(Math.hypot(...whole.moved) > 100 * tolerance, 'and that is small')
      if ('clipNorm' in options) t.ok(Math.hypot(...parts.moved) < 0.05 * 1.01, 'clipped after unscaling')
    }
})

t.test('label smoothing is the loss that one passes', async (t) => {
  const smoothed = (output: Tensor, target: Tensor) => crossEntropy(output, target, { labelSmoothing: 0.2 })
  const { trainer, model } = plain({ loss: smoothed }, smooth())
  const { loss } = await trainer.evaluate(batches({ shuffle: false }))
  const [x, y] = set().tensors
  // (1 - s) * -log p[label] + s / classes * sum of -log p (Szegedy et al. 2016), in float64 from the logits.
  const logits = noGrad(() => model.forward(x)).arraySync() as number[][]
  const labels = [...y.dataSync()].map(Number)
  let want = 0
  for (const [i, row] of logits.entries()) {
    const most = Math.max(...row)
    const log = row.map((z) => z - most - Math.log(row.reduce((sum, w) => sum + Math.exp(w - most), 0)))
    want -= 0.8 * (log[labels[i] as number] as number) + (0.2 / C) * log.reduce((a, b) => a + b)
  }
  want /= N
  // A handful of roundings of numbers up to 8, and batches of 8.
  t.ok(Math.abs(loss - want) < 16 * 8 * unit('float32'), `${loss} ${want}`)
})

t.test('early stopping', async (t) => {
  // Scores by epoch; the third is the best, and two worse ones are tolerated once.
  for (const [mode, sign] of [
    ['max', 1],
    ['min', -1],
  ] as const) {
    const scores = [1, 2, 3, 2, 2.9, Number.NaN, 5].map((x) => sign * x)
    const { trainer } = plain({
      metrics: { score: () => tensor(scores[trainer.epoch] as number) },
      earlyStopping: { metric: 'score', patience: 3, mode },
    })
    const { history, stopped } = await trainer.fit(batches(), { epochs: 20 })
    t.same([history.length, stopped], [6, 'early'])
    t.same((await trainer.fit(batches(), { epochs: 20 })).history.length, 6, 'it stays over')
  }
  const delta = plain({
    metrics: { score: () => tensor(delta.trainer.epoch * 0.1) },
    earlyStopping: { metric: 'score', patience: 2, minDelta: 0.15 },
  })
  t.equal((await delta.trainer.fit(batches(), { epochs: 20 })).history.length, 20, 'every other epoch is better')
})

t.test('a schedule of exactly so many steps', async (t) => {
  const model = net()
  const optimizer = new optim.SGD(model.parameters(), { lr: 1, momentum: 0.9 })
  const schedule = new optim.OneCycleLR(optimizer, { maxLr: 0.1, totalSteps: 14 })
  await plain({ optimizer, schedule }, model).trainer.fit(batches(), { epochs: 2 })
  t.equal(schedule.stepCount, 14)
  const slow = plain({ optimizer, schedule: new optim.StepLR(optimizer, 1, 0.5), scheduleEvery: 'epoch' }, model)
  const { history } = await slow.trainer.fit(batches(), { epochs: 2 })
  t.equal((history[0]?.lr as number) / (history[1]?.lr as number), 2)
})

t.test('a plateau lowers the rate after an epoch', async (t) => {
  const model = net()
  const optimizer = new optim.SGD(model.parameters(), { lr: 1 })
  const schedule = new optim.ReduceLROnPlateau(optimizer, { patience: 0 })
  const { trainer } = plain({ optimizer, schedule, loss: (output) => output.sum().mul(0) }, model)
  const { history } = await trainer.fit(batches(), { epochs: 3 })
  t.same(
    history.map(({ lr }) => Math.round(Math.log10(lr))),
    [0, -1, -2],
  )
})

t.test('the log keeps the past', async (t) => {
  const file = path.join(folder(t), 'metrics.jsonl')
  writeFileSync(file, '{"before":1}\n')
  const { trainer } = plain({ log: { path: file, every: 3 }, metrics: { accuracy: train.accuracy } })
  const seen: number[] = []
  const loader = batches()
  await trainer.fit(loader, { epochs: 1 })
  seen.push(readFileSync(file, 'utf8').split('\n').length)
  const stop = new Error('stop')
  const failing = async function* () {
    yield* loader
    throw stop
  }
  await t.rejects(trainer.fit(failing(), { epochs: 2 }), stop)
  const lines = readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.same(
    lines.map(({ event, step, epoch }) => [event, step, epoch]),
    [
      [undefined, undefined, undefined],
      ['start', 0, 0],
      ['step', 3, 0],
      ['step', 6, 0],
      ['epoch', 7, 0],
      ['start', 7, 1],
      ['step', 9, 1],
      ['step', 12, 1],
    ],
  )
  t.ok(lines[2].loss > 0 && lines[2].accuracy >= 0)
  t.same(lines[4].training, trainer.history[0]?.training)
  const diverged = plain({ log: file, loss: (output) => output.sum().mul(Number.NaN) })
  await diverged.trainer.fit(batches())
  t.match(JSON.parse(readFileSync(file, 'utf8').trim().split('\n').at(-1) as string), { training: { loss: 'NaN' } })
})

t.test('the event loop turns while it trains on an array', async (t) => {
  // Small enough for every op to run in place: the stream is idle, and nothing has to be waited for.
  const list = [tensor([[1, 2]]), tensor([1], { dtype: 'int64' })] as [Tensor, Tensor]
  const { trainer } = plain({}, new nn.Linear(2, 2))
  let turns = 0
  const timer = setInterval(() => turns++, 1)
  await trainer.fit(new Array(300).fill(list), { epochs: 1 })
  t.ok(turns > 0)
  turns = 0
  await trainer.evaluate(new Array(300).fill(list))
  t.ok(turns > 0, 'and while it evaluates')
  clearInterval(timer)
})

t.test('the report says what ran', async (t) => {
  const file = path.join(folder(t), 'report.html')
  const { trainer } = everything({ report: file })
  await trainer.fit(batches(), { epochs: 2, validation: batches() })
  const html = readFileSync(file, 'utf8')
  for (const text of [
    '<td>AdamW {',
    'uPlot',
    'validation accuracy',
    'patience 100',
    '<td>CosineAnnealingLR, every step',
  ])
    t.ok(html.includes(text), text)
})

t.test('onStep and onEpoch are waited for', async (t) => {
  const seen: string[] = []
  const later = () => new Promise((resolve) => setTimeout(resolve, 1))
  const { trainer, model } = plain({
    metrics: { accuracy: train.accuracy },
    async onStep({ epoch, step, lr, scores }) {
      await later()
      seen.push(`${epoch} ${step} ${lr} ${Object.keys(scores)}`)
      if (step === 4) await prune.magnitude(model, { sparsity: 0.5 })
    },
    async onEpoch(result) {
      await later()
      t.equal(result, trainer.history.at(-1))
      seen.push(`epoch ${result.epoch}`)
    },
  })
  await trainer.fit(batches(), { epochs: 2 })
  const steps = (epoch: number) => [1, 2, 3, 4, 5, 6, 7].map((i) => `${epoch} ${7 * epoch + i} 0.01 loss,accuracy`)
  t.same(seen, [...steps(0), 'epoch 0', ...steps(1), 'epoch 1'])
  const weight = (bits(model)[0] as [string, number[]])[1]
  t.ok(weight.filter((x) => x === 0).length >= 1, 'the mask holds')
})

t.test('a bar on a terminal, nothing elsewhere', (t) => {
  for (const [terminal, seen] of [
    ['true', /epoch 1 .*7\/7 .*loss \d/s],
    ['undefined', /^$/],
  ] as const) {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [path.join(__dirname, 'child.js'), 'bar', terminal],
      {
        encoding: 'utf8',
      },
    )
    t.equal(status, 0, stderr)
    t.match(stderr, seen)
    t.equal(stdout, '')
  }
  t.end()
})

t.test('a curve of many steps keeps every so many', (t) => {
  const curve = new Curve()
  for (let step = 1; step <= 9000; step++) curve.add(step, -step)
  const copy = new Curve()
  copy.loadStateDict(JSON.parse(JSON.stringify(curve.stateDict())))
  for (const each of [curve, copy]) {
    each.add(9000, 0)
    each.add(9001, 0)
    t.ok(each.steps.length <= 2001 && each.steps.length > 1000)
    t.same(
      new Set(each.steps.slice(0, -1).map((step, i) => step - (each.steps[i - 1] ?? 0))).size,
      1,
      'at even distances',
    )
  }
  t.same(copy.stateDict(), curve.stateDict())
  t.ok(curve.steps.slice(0, -1).every((step, i) => curve.losses[i] === -step))
  t.end()
})

t.test('options are checked', async (t) => {
  const model = net()
  const optimizer = new optim.SGD(model.parameters())
  const good = { model, optimizer, loss: crossEntropy }
  for (const [options, message] of [
    [null, /^Trainer: options must be an object/],
    [{ ...good, model: 1 }, /^Trainer: expected a Module/],
    [{ ...good, optimizer: {} }, /^Trainer: optimizer must be an optimizer of kerf\/optim/],
    [{ ...good, optimizer: new optim.SGD(net().parameters()) }, /the optimizer holds no parameter of the model/],
    [{ ...good, loss: 'x' }, /^Trainer: loss must be a function, got "x"/],
    [{ ...good, accumulate: 0 }, /^Trainer: accumulate must be/],
    [{ ...good, clipNorm: 0 }, /^Trainer: clipNorm must be > 0, got 0/],
    [{ ...good, autocast: 'int8' }, /^Trainer: autocast must be "bfloat16", "float16", null, got "int8"/],
    [{ ...good, ema: new train.Ema(net()) }, /^Trainer: ema averages another model/],
    [{ ...good, ema: {} }, /^Trainer: ema must be a Ema/],
    [{ ...good, scaler: 1 }, /^Trainer: scaler must be a GradScaler/],
    [{ ...good, schedule: { step() {} } }, /^Trainer: schedule must be a schedule/],
    [{ ...good, scheduleEvery: 'day' }, /^Trainer: scheduleEvery must be "step", "epoch", got "day"/],
    [{ ...good, metrics: { a: 1 } }, /^Trainer: metrics\.a must be a function/],
    [{ ...good, metrics: { loss: train.accuracy } }, /metrics\.loss: this name/],
    [{ ...good, earlyStopping: { patience: 0 } }, /earlyStopping\.patience must be/],
    [{ ...good, earlyStopping: { patience: 1, metric: 'a' } }, /earlyStopping\.metric must be "loss", got "a"/],
    [{ ...good, earlyStopping: { patience: 1, mode: 'up' } }, /earlyStopping\.mode must be 'min' or 'max', got "up"/],
    [{ ...good, checkpoint: { path: '' } }, /checkpoint: path must be a non-empty string/],
    [{ ...good, checkpoint: { path: 'x', every: 0 } }, /checkpoint\.every must be/],
    [{ ...good, log: 3 }, /log must be a path or/],
    [{ ...good, report: 3 }, /report: path must be/],
    [{ ...good, progress: 'always' }, /progress must be "auto", false, got "always"/],
    [{ ...good, seed: -1 }, /seed must be/],
    [{ ...good, onStep: 1 }, /^Trainer: onStep must be a function, got 1/],
    [{ ...good, onEpoch: 1 }, /^Trainer: onEpoch must be a function, got 1/],
  ] as const)
    t.throws(() => new train.Trainer(options as never), { code: 'ERR_ARGUMENT', message })
  const trainer = new train.Trainer(good)
  for (const [args, message] of [
    [[1], /^fit: data must be an iterable/],
    [[batches(), { epochs: 0 }], /^fit: epochs must be/],
    [[batches(), { validation: 1 }], /^fit: validation must be/],
    [[batches(), { signal: 1 }], /^fit: signal must be an AbortSignal/],
    [[batches(), { resume: true }], /^fit: resume needs the trainer's checkpoint/],
    [[[]], /^fit: data was empty in epoch 0/],
    [[[[1]]], /^fit: a batch of data must be an array of tensors/],
  ] as const)
    await t.rejects(trainer.fit(...(args as unknown as [never])), { code: 'ERR_ARGUMENT', message })
  await t.rejects(trainer.fit([[tensor([[1]])]] as never), { code: 'ERR_SHAPE', message: /must be \[input, target\]/ })
  await t.rejects(trainer.evaluate([]), { code: 'ERR_ARGUMENT', message: /^evaluate: data was empty/ })
  const vector = new train.Trainer({ ...good, loss: (output) => output })
  await t.rejects(vector.fit(batches()), { code: 'ERR_SHAPE', message: /^fit: loss must have one element/ })
  const running = trainer.fit(batches())
  await t.rejects(trainer.fit(batches()), { code: 'ERR_ARGUMENT', message: /at work already/ })
  await running
})
