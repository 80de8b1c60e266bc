// Drivers and kernels from C++, below the binding: programs that compare them with float64 loops between guard bytes, on
// every row that this CPU has, and the errors of the elementary functions over all float32 numbers (every 997th).
import { execFile, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import t, { type Test } from 'tap'
import { targets } from '../matrix'

const root = path.resolve(__dirname, '..', '..')
const objectsFolder = path.join(root, 'build', 'CMakeFiles')
const out = mkdtempSync(path.join(tmpdir(), 'kerf-checks-'))
t.teardown(() => rmSync(out, { recursive: true, force: true }))

const noCompiler = spawnSync('g++', ['--version']).status !== 0 && 'no g++'
const noObjects = !existsSync(path.join(objectsFolder, 'kerf_core.dir')) && 'no object files of CMake'

/** The build's objects: everything but the binding. */
function objects(): string[] {
  return readdirSync(objectsFolder, { recursive: true, encoding: 'utf8' })
    .filter((file) => /^kerf_\w+\.dir.*\.cc\.o$/.test(file))
    .filter((file) => existsSync(path.join(root, file.replace(/^kerf_\w+\.dir./, '').replace(/\.o$/, ''))))
    .map((file) => path.join(objectsFolder, file))
}

/** Resolves with the exit code and all output. */
function run(command: string, args: string[]): Promise<{ code: number; text: string }> {
  return new Promise((resolve) => {
    execFile(command, args, { cwd: root, maxBuffer: 1 << 24 }, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code ?? 1) || 1 : 0, text: `${stdout}${stderr}` })
    })
  })
}

async function check(t: Test, name: string, sources: string[], flags: string[]): Promise<void> {
  const program = path.join(out, name)
  const files = sources.map((file) => (path.isAbsolute(file) ? file : path.join('test', 'native', file)))
  const built = await run('g++', ['-std=c++20', '-O1', ...flags, ...files, '-o', program, '-lpthread'])
  if (!t.equal(built.code, 0, `${name} compiles`)) return t.comment(built.text)
  const result = await run(program, [])
  t.equal(result.code, 0, name)
  for (const line of result.text.trim().split('\n')) if (result.code !== 0 || /^not ok/.test(line)) t.comment(line)
  t.match(result.text, /\d/, 'it says what it compared')
}

t.test('drivers', { skip: noCompiler || noObjects }, async (t) => {
  const rows = ['rows', 'reduce', 'norm', 'loss', 'index'].map((name) => `${name}_check.cc`)
  await Promise.all([
    check(t, 'rows', [...rows, ...objects()], []),
    (async () => {
      await check(t, 'elementwise', ['elementwise_check.cc', ...objects()], [])
      await check(t, 'create', ['create_check.cc', ...objects()], [])
    })(),
  ])
})

t.test('elementary functions', { skip: noCompiler }, async (t) => {
  interface Row {
    name: string
    flags: string[]
    sources: string[]
  }
  const listed = (JSON.parse(readFileSync(path.join(root, 'native', 'sources.json'), 'utf8')) as { targets: Row[] })
    .targets
  for (const { name, flags } of listed) {
    if (!targets.includes(name) || !existsSync(path.join(root, 'native', 'cpu', name, 'simd.h'))) continue
    const include = ['-I', `native/cpu/${name}`, `-DKERF_TARGET=${name}`]
    await check(t, `math_${name}`, ['simd_math_check.cc'], [...flags, ...include])
  }
})
