// `npm run gpu` as far as it goes without a GPU: its program runs on the emulator, its report finds what is wrong.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { noEmulator, root, run, scratch } from './programs'

/** The registers that a function left, by the name of its dump. */
interface Dump {
  conformance?: string
  words?: number[]
}

const report = (folder: string) =>
  spawnSync(process.execPath, ['bench/gpu/report.mjs', '--dry', folder], { cwd: root, encoding: 'utf8' })

t.test('the program and its report', { skip: noEmulator }, async (t) => {
  const folder = path.join(scratch, 'gpu')
  mkdirSync(folder)
  const program = path.join(folder, 'emulated')
  const includes = ['.', 'test/cuda', 'test/cuda/emulator'].flatMap((include) => ['-I', include])
  const source = ['-x', 'c++', 'bench/gpu/gpu.cu']
  const built = await run('g++', [
    '-std=c++20',
    '-O1',
    '-DKERF_HOPPER',
    '-Wno-unknown-pragmas',
    ...includes,
    ...source,
    '-o',
    program,
  ])
  t.equal(built.code, 0, built.errors)
  for (const part of ['conformance', 'check']) {
    const { code, text } = await run(program, [part])
    t.equal(code, 0, part)
    writeFileSync(path.join(folder, part === 'check' ? 'check.jsonl' : 'conformance-emulated.jsonl'), text)
  }
  t.equal((await run(program, ['time', '128', '128', '128'])).code, 2, 'the emulator measures no time')

  const { status, stdout } = report(folder)
  t.equal(status, 0)
  t.match(stdout, /^\d\d dumps of cu:: functions, 0 unlike the emulator\n1\d\d products, 0 wrong, 0 reports\n$/)

  // what GPUs answered, once a run has been committed
  const dumps = (text: string) =>
    text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Dump)
  const emulated = dumps(readFileSync(path.join(folder, 'conformance-emulated.jsonl'), 'utf8'))
  const results = path.join(root, 'bench', 'results')
  for (const file of readdirSync(results).filter((name) => name.endsWith('-conformance.json')))
    for (const { conformance, words } of JSON.parse(readFileSync(path.join(results, file), 'utf8')) as Dump[])
      t.same(emulated.find((dump) => dump.conformance === conformance)?.words, words, `${conformance}, as in ${file}`)

  const check = path.join(folder, 'check.jsonl')
  writeFileSync(check, readFileSync(check, 'utf8').replace('"right":true', '"right":false'))
  const wrong = report(folder)
  t.equal(wrong.status, 1)
  t.match(wrong.stdout, /1 wrong, 0 reports\n {2}simt_f32_f32_128x128 256x128x512/)
})
