// Every op that leaves a rule on the tape is checked against differences, and an op without a case is a failure.
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { gradcheck, mul, scope, type Tensor, tensor } from 'kerf'
import t from 'tap'
import { record } from '#lib/tensor/tape'
import { cases, inputsOf } from './cases'

for (const example of cases) {
  t.test(`${example.op}${example.what ? ` (${example.what})` : ''}`, (t) => {
    scope(() => t.ok(gradcheck(example.run, inputsOf(example))))
    t.end()
  })
}

// Names that reach the tape through a variable of the file, or that have no gradient to check.
const exempt = new Set([
  'detach', // passes none
  'dropout', // random: test/ops checks it against its mask
  'to', // between devices: test/cuda/device.test.ts
])

t.test('every op that calls taped() with a name has a case', (t) => {
  const folder = path.resolve(__dirname, '..', '..', 'lib', 'ops')
  const names = new Set<string>()
  for (const file of readdirSync(folder)) {
    const text = readFileSync(path.join(folder, file), 'utf8')
    for (const [, name] of text.matchAll(/\b(?:taped|real|binary|reduce|same)\(\s*'(\w+)'/g)) names.add(name as string)
  }
  t.ok(names.size > 30, `${names.size} names found`)
  const covered = new Set(cases.map((c) => c.op))
  t.same(
    [...names].filter((name) => !covered.has(name) && !exempt.has(name)),
    [],
  )
  t.end()
})

t.test('a wrong rule is found', (t) => {
  const wrong = (x: Tensor): Tensor => {
    const out = mul(x.detach(), x.detach())
    record(out, 'wrong', [x], (g) => [mul(g, x)]) // should be 2x
    return out
  }
  t.throws(() => gradcheck(wrong, [tensor([0.5, 1, 2], { requiresGrad: true })]), { code: 'ERR_GRADCHECK' })
  t.end()
})

t.test('gradcheck refuses what it cannot check', (t) => {
  t.throws(() => gradcheck((x) => x, [tensor([1])]), { code: 'ERR_ARGUMENT' })
  t.throws(() => gradcheck((x) => x, [tensor([1], { dtype: 'float16', requiresGrad: true })]), { code: 'ERR_ARGUMENT' })
  t.end()
})
