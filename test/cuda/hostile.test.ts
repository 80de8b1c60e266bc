/** Calls of a GPU's ops that are nearly right read nothing outside of their buffers: the emulator would end the device. */
import path from 'node:path'
import t from 'tap'
import { noDevice, root } from './emulated'
import { run } from './programs'

t.test('nearly right calls of quantized and sparse ops', { skip: noDevice }, async (t) => {
  const program = path.join(__dirname, 'hostile-device.js')
  const { code, text, errors } = await run(process.execPath, [program], root, { KERF_CUDA: 'emulate' })
  const lines = text.trim().split('\n')
  const survived = Number(/^survived (\d+)$/.exec(lines.pop() ?? '')?.[1])
  t.same({ code, lines, errors }, { code: 0, lines: [], errors: '' }, 'every right call works after them')
  t.ok(survived > 10_000, `${survived} calls`)
})
