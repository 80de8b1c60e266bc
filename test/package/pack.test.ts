// What a user gets: the tarball installed in an empty project, built from source and with a prebuilt binary, used from
// CommonJS, from ES modules and by the type checker; and the one message that a machine without a compiler gives.
import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import t from 'tap'

const root = path.resolve(__dirname, '..', '..')
const work = mkdtempSync(path.join(tmpdir(), 'kerf-pack-'))
t.teardown(() => rmSync(work, { recursive: true, force: true }))

// npm hands its own settings to the scripts that it runs, and tap its loaders to the tests
const inherited = /^(npm_|NODE_OPTIONS|TAP|_TAPJS|KERF_|ONNXRUNTIME)/i
const cleanEnv = Object.fromEntries(Object.entries(process.env).filter(([name]) => !inherited.test(name)))

function run(cwd: string, command: string, args: string[], env: NodeJS.ProcessEnv = {}): string {
  const result = spawnSync(command, args, { cwd, encoding: 'utf8', env: { ...cleanEnv, ...env } })
  if (result.status !== 0)
    throw new Error(`${command} ${args.join(' ')}: ${`${result.stdout}\n${result.stderr}`.slice(-4000)}`)
  return result.stdout
}

const platform = `${process.platform}-${process.arch}`

/** The unpacked tarball, with a prebuilt binary or, whatever the checkout holds, without one. */
function unpack(name: string, prebuilt: boolean): string {
  const folder = path.join(work, name)
  mkdirSync(folder)
  run(root, 'npm', ['pack', '--ignore-scripts', '--pack-destination', folder])
  run(folder, 'tar', ['xzf', 'kerf-0.1.0.tgz'])
  const stage = path.join(folder, 'package')
  rmSync(path.join(stage, 'prebuilds'), { recursive: true, force: true })
  if (prebuilt) {
    mkdirSync(path.join(stage, 'prebuilds', platform), { recursive: true })
    copyFileSync(path.join(root, 'build/Release/kerf.node'), path.join(stage, 'prebuilds', platform, 'kerf.node'))
  }
  return stage
}

/** A project that depends on the package in `stage`, packed again. */
function install(name: string, stage: string, ...options: string[]): string {
  const project = path.join(work, name)
  mkdirSync(project)
  writeFileSync(path.join(project, 'package.json'), JSON.stringify({ name, private: true }))
  run(stage, 'npm', ['pack', '--ignore-scripts', '--pack-destination', project])
  run(project, 'npm', ['install', './kerf-0.1.0.tgz', '--prefer-offline', '--no-audit', '--no-fund', ...options])
  return project
}
const stage = unpack('without-binary', false)

const USED = ['[[1,2],[3,4]]', '[[1,2],[3,4]]', 'true']
const USE = `
const product = matmul(tensor([[1, 2], [3, 4]]), tensor([[1, 0], [0, 1]]))
console.log(JSON.stringify(product.arraySync()))`

/** What CommonJS and ES modules print, and whether they got the same class. */
function consume(project: string): string[] {
  writeFileSync(path.join(project, 'use.cjs'), `const { matmul, tensor } = require('kerf')${USE}`)
  writeFileSync(path.join(project, 'use.mjs'), `import { matmul, tensor } from 'kerf'${USE}`)
  writeFileSync(
    path.join(project, 'same.mjs'),
    `import { createRequire } from 'node:module'
import { Tensor } from 'kerf'
console.log(createRequire(import.meta.url)('kerf').Tensor === Tensor)`,
  )
  return ['use.cjs', 'use.mjs', 'same.mjs'].map((file) => run(project, process.execPath, [file]).trim())
}

t.test('from source, in an empty project', (t) => {
  const project = install('from-source', stage, '--foreground-scripts')
  const installed = path.join(project, 'node_modules', 'kerf')
  t.ok(existsSync(path.join(installed, 'build', 'Release', 'kerf.node')), 'the install script built the addon')
  t.same(consume(project), USED)

  for (const extension of ['cts', 'mts']) {
    const good = `import { matmul, tensor, type Tensor } from 'kerf'
export const product: Tensor<'float32'> = matmul(tensor([[1]]), tensor([[2]]))\n`
    writeFileSync(path.join(project, `good.${extension}`), good)
    writeFileSync(
      path.join(project, `bad.${extension}`),
      `import { tensor } from 'kerf'\ntensor([1], { dtype: 'float31' })\n`,
    )
  }
  const tsc = path.join(path.dirname(require.resolve('typescript/package.json')), 'bin', 'tsc')
  const options = [
    '--noEmit',
    '--strict',
    '--module',
    'Node16',
    '--target',
    'ES2022',
    '--lib',
    'ES2023,ESNext.Disposable',
  ]
  const types = ['--types', 'node', '--typeRoots', path.join(root, 'node_modules', '@types')]
  const check = (...files: string[]) => run(project, process.execPath, [tsc, ...options, ...types, ...files])
  t.doesNotThrow(() => check('good.cts', 'good.mts'))
  t.throws(() => check('bad.cts'), /float31/)
  t.throws(() => check('bad.mts'), /float31/)
  t.end()
})

t.test('with a prebuilt binary and no install script', (t) => {
  const project = install('prebuilt', unpack('with-binary', true), '--ignore-scripts')
  t.notOk(existsSync(path.join(project, 'node_modules', 'kerf', 'build')))
  t.same(consume(project), USED)
  t.end()
})

t.test('without binary and install script, loading says what to do', (t) => {
  const project = install('nothing', stage, '--ignore-scripts')
  writeFileSync(path.join(project, 'use.cjs'), "require('kerf')")
  t.throws(() => run(project, process.execPath, ['use.cjs']), /the native addon is not built.*npm rebuild kerf/s)
  t.end()
})

t.test('a missing tool gives one message that says what to install', (t) => {
  const tools = path.join(work, 'tools')
  mkdirSync(tools)
  symlinkSync(process.execPath, path.join(tools, 'node'))
  const attempt = () => {
    const env = { PATH: tools, HOME: work }
    return spawnSync(process.execPath, ['native/install.js'], { cwd: stage, encoding: 'utf8', env })
  }
  const bare = attempt()
  t.equal(bare.status, 1)
  t.match(bare.stderr, /^kerf: no C\+\+ compiler found\.\n/)
  t.match(bare.stderr, /apt-get install g\+\+ make/)
  t.ok(bare.stderr.split('\n').length < 10, 'one message')
  t.equal(bare.stdout, '')

  symlinkSync(execFileSync('which', ['g++'], { encoding: 'utf8' }).trim(), path.join(tools, 'g++'))
  const compilerOnly = attempt()
  t.equal(compilerOnly.status, 1)
  t.match(compilerOnly.stderr, /^kerf: no make found\.\n/)
  t.end()
})
