// Builds the emulated CUDA device, build-emulated/libkerf_cuda.so: the kernels and the driver code of native/cuda/ compiled by
// g++ against test/cuda/emulator/. Only the tests use it (KERF_CUDA=emulate). Does nothing where it is up to date, and compiles only
// what includes a file that is newer.
//
// Exits with 3 and a reason where it cannot be built: no g++, or not an x64 CPU (the emulator switches stacks in its assembly).
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { filesBelow, root } from './setup.mjs'

const folder = path.join(root, 'build-emulated')
const library = path.join(folder, 'libkerf_cuda.so')

function unable(reason) {
  console.log(`skipped: ${reason}`)
  process.exit(3)
}

const inputs = ['native/core', 'native/cuda', 'test/cuda/emulator'].flatMap((below) => filesBelow(below)).sort()
const sources = inputs
  .filter((file) => /^native\/cuda\/(drivers\/\w+|sm90\/products|\w+)\.cu$/.test(file))
  .concat('native/core/status.cc')
const flags = ['-std=c++20', '-O1', '-fPIC', '-fvisibility=hidden', '-fno-exceptions', '-ffp-contract=off', '-DNDEBUG']
const warnings = ['-Wall', '-Wextra', '-Wno-unknown-pragmas', '-Wno-maybe-uninitialized']
const includes = ['-I.', '-Itest/cuda/emulator', '-include', 'test/cuda/emulator/cuda_emulated.h']

function digest() {
  const hash = createHash('sha256').update([...flags, ...includes].join(' '))
  for (const file of inputs) hash.update(file).update(readFileSync(path.join(root, file)))
  return hash.digest('hex')
}

/** Where g++ lists what it read for an object. */
const listingOf = (object) => object.replace(/o$/, 'd')

/** Whether an object is newer than all of that. */
function isCurrent(object) {
  const listing = listingOf(object)
  if (!existsSync(object) || !existsSync(listing)) return false
  const made = statSync(object).mtimeMs
  const read = readFileSync(listing, 'utf8').replaceAll('\\\n', ' ').split(/\s+/).slice(1).filter(Boolean)
  return read.every((file) => statSync(path.resolve(root, file), { throwIfNoEntry: false })?.mtimeMs < made)
}

function run(args) {
  return new Promise((resolve, reject) => {
    const child = spawn('g++', args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
    child.on('close', (code) => (code === 0 ? resolve() : reject(new Error(`g++ ${args.join(' ')} failed`))))
  })
}

if (process.arch !== 'x64') unable('not an x64 CPU')
if (spawnSync('g++', ['--version']).status !== 0) unable('no g++')
const stamp = path.join(folder, 'stamp')
const current = digest()
if (!existsSync(library) || !existsSync(stamp) || readFileSync(stamp, 'utf8') !== current) {
  const how = [...flags, ...warnings, ...includes].join(' ')
  const known = path.join(folder, 'flags')
  if (!existsSync(known) || readFileSync(known, 'utf8') !== how) rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  writeFileSync(known, how)
  const queue = [...sources]
  const objectOf = (source) => path.join(folder, `${path.relative('native', source).replaceAll(path.sep, '-')}.o`)
  const objects = sources.map(objectOf)
  const worker = async () => {
    for (let source = queue.shift(); source !== undefined; source = queue.shift()) {
      const object = objectOf(source)
      if (isCurrent(object)) continue
      const listed = ['-MMD', '-MF', listingOf(object)]
      await run([...flags, ...warnings, ...includes, ...listed, '-x', 'c++', '-c', source, '-o', `${object}.new`])
      renameSync(`${object}.new`, object) // whole, or not there
    }
  }
  await Promise.all([worker(), worker()])
  // Renamed into place: a process that has the old one open keeps it.
  await run(['-shared', '-Wl,-z,defs', ...objects, '-o', `${library}.new`, '-lpthread'])
  renameSync(`${library}.new`, library)
  writeFileSync(stamp, current)
}
