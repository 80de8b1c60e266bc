// distill.loss against float64, its limits, its gradient.
import { distill, gradcheck, type Tensor, tensor } from 'kerf'
import t from 'tap'
import { asLabels, asTensor, hard, labelsOf, logits, type Rows, soft, softGrad } from './oracle'

/**
 * How far a value may be off: a logarithm of a softmax is off by a few 2^-24 of its own size, at most |z|/T * 2 + log(c);
 * the sum of p * (log p - log q) over the classes by as much, since the p sum to 1; then T^2. 8 for the few operations.
 */
const allowed = (size: number, c: number, temperature: number) =>
  8 * 2 ** -24 * ((2 * size) / temperature + Math.log(c)) * Math.max(1, temperature ** 2)

const gradOf = (x: Tensor) => [...((x.grad as Tensor).dataSync() as Float32Array)]

t.test('the loss is what the formula says', (t) => {
  for (const [n, c] of [
    [1, 2],
    [5, 10],
    [33, 7],
  ] as const) {
    for (const temperature of [0.5, 1, 2.5, 4, 20]) {
      for (const size of [1, 8, 40]) {
        const student = logits(1, n, c, size)
        const teacher = logits(2, n, c, size)
        const labels = labelsOf(3, n, c)
        for (const alpha of [0, 0.1, 0.5, 1]) {
          const found = distill
            .loss(asTensor(student), asTensor(teacher), asLabels(labels), { temperature, alpha })
            .item()
          const wanted = alpha * hard(student, labels) + (1 - alpha) * soft(student, [teacher], temperature)
          const limit = allowed(size, c, temperature) + 2 ** -22 * wanted
          const what = `[${n}, ${c}] T ${temperature} size ${size} alpha ${alpha}: ${found}, ${wanted}`
          if (!(Math.abs(found - wanted) <= limit)) t.fail(what)
        }
      }
    }
  }
  t.pass('all')
  t.end()
})

t.test('defaults: T = 4, alpha = 0.5', (t) => {
  const [s, z] = [asTensor(logits(1, 4, 5)), asTensor(logits(2, 4, 5))]
  const y = asLabels(labelsOf(3, 4, 5))
  t.equal(distill.loss(s, z, y).item(), distill.loss(s, z, y, { temperature: 4, alpha: 0.5 }).item())
  t.equal(distill.softLoss(s, z).item(), distill.loss(s, z, null, { temperature: 4, alpha: 0 }).item())
  t.equal(distill.loss(s, null, y, { alpha: 1 }).item(), distill.loss(s, z, y, { alpha: 1 }).item())
  t.end()
})

t.test('a label of -100: the teacher alone', (t) => {
  const [student, teacher] = [logits(1, 4, 5), logits(2, 4, 5)]
  const found = distill.loss(asTensor(student), asTensor(teacher), asLabels([1, -100, 0, -100])).item()
  const wanted = 0.5 * hard([student[0], student[2]] as Rows, [1, 0]) + 0.5 * soft(student, [teacher], 4)
  t.ok(Math.abs(found - wanted) <= allowed(3, 5, 4))
  t.end()
})

t.test('more axes: classes on axis 1, the mean over the rest', (t) => {
  const [n, c, d] = [3, 4, 5]
  const [student, teacher] = [logits(1, n * d, c), logits(2, n * d, c)] as [Rows, Rows]
  const shaped = (rows: Rows) => asTensor(rows).reshape([n, d, c]).permute([0, 2, 1])
  const found = distill.softLoss(shaped(student), shaped(teacher), { temperature: 2 }).item()
  t.ok(Math.abs(found - soft(student, [teacher], 2)) <= allowed(3, c, 2))
  t.end()
})

t.test('an ensemble teaches the mean of its softened probabilities', (t) => {
  const student = logits(1, 6, 5)
  const teachers = [logits(2, 6, 5), logits(3, 6, 5, 9), logits(4, 6, 5)]
  for (const temperature of [1, 3, 20]) {
    const found = distill
      .softLoss(
        asTensor(student),
        teachers.map((rows) => asTensor(rows)),
        { temperature },
      )
      .item()
    t.ok(Math.abs(found - soft(student, teachers, temperature)) <= allowed(9, 5, temperature), `T ${temperature}`)
  }
  const one = distill.softLoss(asTensor(student), asTensor(teachers[0] as Rows)).item()
  t.equal(distill.softLoss(asTensor(student), [asTensor(teachers[0] as Rows)]).item(), one, 'of one: that one')
  t.end()
})

t.test('the gradient: T * (q - p) / n, and no teacher gets any', (t) => {
  for (const temperature of [1, 4, 20]) {
    const [student, teacher] = [logits(5, 4, 6), logits(6, 4, 6)]
    const [s, z] = [asTensor(student, true), asTensor(teacher, true)]
    distill.softLoss(s, z, { temperature }).backward()
    t.equal(z.grad, null)
    // Probabilities are off by a few 2^-24, and are multiplied by T.
    const limit = 8 * 2 ** -24 * temperature
    const found = gradOf(s)
    const wanted = softGrad(student, [teacher], temperature)
    t.ok(
      found.every((g, i) => Math.abs(g - (wanted[i] as number)) <= limit),
      `T ${temperature}`,
    )
  }
  t.end()
})

t.test('at T = 1000 the gradient is (z_s - z_t) / N, as eq. 4 of Hinton et al. has it', (t) => {
  const [n, c, temperature, size] = [3, 10, 1000, 2]
  // The equation is for logits of mean 0 in each row.
  const centred = (rows: Rows) =>
    rows.map((row) => row.map((z) => Math.fround(z - row.reduce((sum, x) => sum + x, 0) / c)))
  const [student, teacher] = [centred(logits(7, n, c, size)), centred(logits(8, n, c, size))]
  const s = asTensor(student, true)
  distill.softLoss(s, asTensor(teacher), { temperature }).backward()
  const found = gradOf(s)
  // The next term of the series is below z^2 / T / N; rounding adds a few 2^-24 * T / N, as probabilities are near 1 / N.
  const limit = ((2 * (2 * size) ** 2) / temperature + 8 * 2 ** -24 * temperature) / c / n
  for (const [i, row] of student.entries()) {
    for (const [j, z] of row.entries()) {
      const wanted = (z - ((teacher[i] as number[])[j] as number)) / c / n
      const g = found[i * c + j] as number
      if (!(Math.abs(g - wanted) <= limit)) t.fail(`${i}, ${j}: ${g} for ${wanted}`)
    }
  }
  t.ok(Math.max(...found.map(Math.abs)) > 10 * limit, 'the limit is small against the gradients')
  t.end()
})

t.test('gradients against differences', (t) => {
  const z = [asTensor(logits(2, 3, 4, 2)), asTensor(logits(3, 3, 4, 2))]
  const y = asLabels(labelsOf(4, 3, 4))
  for (const options of [{}, { temperature: 1, alpha: 0 }, { temperature: 8, alpha: 0.9 }])
    t.ok(gradcheck((s) => distill.loss(s, z, y, options), [asTensor(logits(1, 3, 4, 1), true)]))
  t.end()
})

t.test('extreme logits: nothing overflows', (t) => {
  const s = asTensor(
    [
      [1e4, -1e4, 0],
      [3e38, -3e38, 0],
    ],
    true,
  )
  const z = asTensor([
    [-1e4, 1e4, 0],
    [3e38, -3e38, 0],
  ])
  const loss = distill.softLoss(s, z, { temperature: 1 })
  loss.backward()
  t.equal(loss.item(), 1e4, 'one row of 20000, one of 0')
  t.same(gradOf(s), [0.5, -0.5, 0, 0, 0, 0])
  // A class that the teacher rules out altogether.
  const masked = distill.softLoss(asTensor([[1, 2, 3]]), tensor([[0, 0, Number.NEGATIVE_INFINITY]]), { temperature: 1 })
  const q = [1, 2].map((x) => Math.log(0.5) - (x - Math.log(Math.exp(1) + Math.exp(2) + Math.exp(3))))
  t.ok(Math.abs(masked.item() - ((q[0] as number) + (q[1] as number)) / 2) < 1e-6)
  const both = [Number.NEGATIVE_INFINITY, 0, 0]
  const ruledOut = tensor([both], { requiresGrad: true })
  const none = distill.softLoss(ruledOut, tensor([both]))
  none.backward()
  t.equal(none.item(), 0, 'a class that both rule out')
  t.same(gradOf(ruledOut), [0, 0, 0])
  t.end()
})

t.test('half precision is computed in float32', (t) => {
  const [s, z] = [asTensor(logits(1, 4, 5)).to('bfloat16'), asTensor(logits(2, 4, 5)).to('bfloat16')]
  const loss = distill.softLoss(s, z)
  t.equal(loss.dtype, 'float32')
  t.equal(loss.item(), distill.softLoss(s.to('float32'), z.to('float32')).item())
  t.end()
})

t.test('bad arguments', (t) => {
  const s = asTensor(logits(1, 2, 3))
  const y = asLabels([0, 1])
  const wrong = (args: unknown[], code: string, message: RegExp) =>
    t.throws(() => (distill.loss as (...a: unknown[]) => unknown)(...args), { code, message })
  for (const temperature of [0, -1, Number.NaN, Number.POSITIVE_INFINITY, '4'])
    wrong([s, s, y, { temperature }], 'ERR_ARGUMENT', /^loss: temperature must be/)
  for (const alpha of [-0.1, 1.1, Number.NaN, '1']) wrong([s, s, y, { alpha }], 'ERR_ARGUMENT', /^loss: alpha must be/)
  wrong([s, s, y, null], 'ERR_ARGUMENT', /^loss: expected options, got null/)
  wrong([s, null, y], 'ERR_ARGUMENT', /^loss: alpha 0.5 needs teacherLogits/)
  wrong([s, s, null], 'ERR_ARGUMENT', /^loss: alpha 0.5 needs labels/)
  wrong([s, [], y], 'ERR_ARGUMENT', /^loss: teacherLogits is an empty array/)
  wrong([s, [s, 3], y], 'ERR_ARGUMENT', /^loss: teacherLogits\[1\] must be a tensor/)
  wrong(
    [s, asTensor(logits(1, 1, 3)), y],
    'ERR_SHAPE',
    /studentLogits \[2, 3\] and teacherLogits \[1, 3\] must have one/,
  )
  wrong([tensor([1, 2]), tensor([1, 2]), y], 'ERR_SHAPE', /^loss: studentLogits must have a batch axis/)
  wrong([asLabels([1]), s, y], 'ERR_DTYPE', /^loss: studentLogits must be a float tensor, it is int64/)
  t.end()
})
