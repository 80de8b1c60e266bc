// The emulator that runs CUDA kernels without a GPU: its primitives, and that it reports every kind of mistake.
import t from 'tap'
import { compile, noEmulator, run } from './programs'

t.test('primitives and mistakes', { skip: noEmulator }, async (t) => {
  const { code, text } = await run(await compile('emulator_check.cc'), [])
  t.equal(code, 0)
  for (const line of text.trim().split('\n')) if (code !== 0) t.comment(line)
  t.match(text, /^\d\d+ expectations, 0 failed$/m)
})
