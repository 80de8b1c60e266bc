// Brings a checkout up to date: dependencies, the native addon, TypeScript. Needs nothing but Node, so that `npm test`
// and `npm run demo` work on a fresh clone. Each step is skipped when its inputs are unchanged since it last succeeded.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const require = createRequire(import.meta.url)

/** Every file below `folder` (relative to the root), sorted; a missing folder has none. */
export function filesBelow(folder) {
  const absolute = path.join(root, folder)
  if (!existsSync(absolute)) return []
  return readdirSync(absolute, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(root, path.join(entry.parentPath, entry.name)))
    .sort()
}

/** Runs a command in the root with its output passed through; ends this process when it fails. */
export function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options })
  if (result.error) throw result.error
  if (result.status !== 0) process.exit(result.status ?? 1)
}

export const node = (script, ...args) => run(process.execPath, [script, ...args])

export function tsc(...args) {
  node(path.join(path.dirname(require.resolve('typescript/package.json')), 'bin', 'tsc'), ...args)
}

/** Runs `step` unless the content of `inputs` is what it was when the step last succeeded and `output` exists. */
export function whenChanged(stamp, output, inputs, step) {
  const hash = createHash('sha256').update(`${process.version} ${process.arch}\n`)
  for (const file of inputs) hash.update(`${file}\n`).update(readFileSync(path.join(root, file)))
  const digest = hash.digest('hex')
  const stampFile = path.join(root, stamp)
  const upToDate =
    existsSync(path.join(root, output)) && existsSync(stampFile) && readFileSync(stampFile, 'utf8') === digest
  if (upToDate) return
  rmSync(stampFile, { force: true })
  step()
  mkdirSync(path.dirname(stampFile), { recursive: true })
  writeFileSync(stampFile, digest)
}

function installDependencies() {
  const installed = path.join(root, 'node_modules', '.package-lock.json')
  const lock = path.join(root, 'package-lock.json')
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs) return
  // Scripts are off: ours is the next step, and no dependency needs its own (onnxruntime-node's would download CUDA).
  run('npm', ['ci', '--ignore-scripts'], { shell: process.platform === 'win32' })
}

const nativeSources = () => [
  ...['CMakeLists.txt', 'binding.gyp'].filter((file) => existsSync(path.join(root, file))),
  ...filesBelow('native'),
]

export function buildNative() {
  const binary = 'build/Release/kerf.node'
  whenChanged('build/.stamp', binary, nativeSources(), () => node('native/install.js', '--build'))
}

export function buildSanitized() {
  const binary = 'build-asan/Release/kerf.node'
  whenChanged('build-asan/.stamp', binary, nativeSources(), () => node('native/install.js', '--asan'))
}

export function buildTypeScript() {
  const benches = filesBelow('bench').filter((file) => file.endsWith('.ts') || file.endsWith('tsconfig.json'))
  const inputs = ['tsconfig.json', 'tools/build-ts.mjs', 'tools/entries.mjs', ...filesBelow('lib'), ...benches]
  whenChanged('dist/.stamp', 'dist', inputs, () => node('tools/build-ts.mjs'))
}

/** examples/ import the package by its own name, so what they compile against is dist/. */
export function buildExamples() {
  const inputs = [...filesBelow('examples'), 'dist/.stamp']
  whenChanged('build-examples/.stamp', 'build-examples', inputs, () => tsc('-p', 'examples'))
}

export function setup() {
  installDependencies()
  buildNative()
  buildTypeScript()
}

if (process.argv[1] === fileURLToPath(import.meta.url)) setup()
