// `npm test [-- test/foo.test.ts ...]`: brings the checkout up to date, type-checks and compiles the tests, runs them with
// tap and closes with one plain line, "N passed, N failed[, N skipped]". A passing file is one line of output; a failing
// one is shown whole. With --asan the tests load the addon built with AddressSanitizer and UBSan.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { buildSanitized, filesBelow, node, root, setup, tsc } from './setup.mjs'

const TIMEOUT_S = 1500 // a file; installing the package from source compiles every row, minutes on two busy cores
const asan = process.argv.includes('--asan')
const wanted = process.argv.slice(2).filter((argument) => argument !== '--asan')

let closed = false
function close(passed, failed, skipped) {
  closed = true
  console.log(`${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ''}`)
  process.exitCode = failed ? 1 : 0
}
process.on('exit', () => closed || console.log('0 passed, 1 failed')) // a build step ended the run

/**
 * What to run: the files named, or all. Under a sanitizer not those that need no addon but a compiler, and not the one
 * that watches resident memory, since the sanitizer's quarantine of freed bytes is what it would measure.
 */
function chooseTests() {
  const all = filesBelow('test').filter((file) => file.endsWith('.test.ts'))
  if (wanted.length === 0)
    return asan
      ? all.filter((file) => !/^test[\\/](arch[\\/]|cuda[\\/]|package[\\/]|memory\.test|native[\\/]checks)/.test(file))
      : all
  for (const file of wanted) {
    if (all.includes(path.normalize(file))) continue
    console.error(`no such test: ${file}`)
    process.exit(1)
  }
  return wanted.map((file) => path.normalize(file))
}

/** Node itself is not instrumented: the sanitizer's runtime must come first, and Node's own leaks are not ours. */
function sanitizerEnvironment() {
  const library = (name) => spawnSync('g++', [`-print-file-name=${name}`], { encoding: 'utf8' }).stdout.trim()
  return {
    KERF_NATIVE: path.join(root, 'build-asan', 'Release', 'kerf.node'),
    LD_PRELOAD: `${library('libasan.so')} ${library('libstdc++.so')}`,
    ASAN_OPTIONS: 'detect_leaks=0:detect_stack_use_after_return=0',
    UBSAN_OPTIONS: 'print_stacktrace=1',
  }
}

function runTap(files, environment) {
  const require = createRequire(import.meta.url)
  const tap = path.join(path.dirname(require.resolve('tap/package.json')), 'dist', 'esm', 'run.mjs')
  const compiled = files.map((file) => file.replace(/^test/, '.test-build').replace(/\.ts$/, '.js'))
  const options = ['--reporter=tap', '--disable-coverage', '--jobs=2', `--timeout=${TIMEOUT_S}`]
  const child = spawn(process.execPath, [tap, ...options, ...compiled], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...environment },
  })

  const count = { pass: 0, fail: 0, skip: 0, todo: 0 }
  let crashed = 0 // files that failed without a failed assertion: a signal, an early exit, no test at all
  let block = []
  let diagnostics = false // the lines after a failed file's "not ok" belong to it
  createInterface({ input: child.stdout }).on('line', (line) => {
    const totals = /^# \{ total: \d+.*\}$/.test(line)
    if (totals) for (const [, key, value] of line.matchAll(/(pass|fail|skip|todo): (\d+)/g)) count[key] = Number(value)
    const result = /^(not )?ok \d+/.exec(line)
    if (result) {
      const empty = line.endsWith('# SKIP no tests found')
      const bad = empty || (result[1] !== undefined && !/# (SKIP|TODO)/i.test(line))
      if (bad && !block.some((inner) => /^\s+not ok /.test(inner))) crashed++
      if (bad) for (const shown of block) console.log(shown)
      console.log(line)
      block = []
      diagnostics = bad
    } else if (/^ /.test(line) && diagnostics) console.log(line)
    else if (/^( |# Subtest)/.test(line)) {
      block.push(line)
      diagnostics = false
    }
  })
  child.on('close', (code, signal) => {
    let failed = count.fail + crashed // tap's own count knows nothing of the crashed ones
    if (failed === 0 && (count.pass === 0 || code !== 0 || signal)) failed = 1
    close(count.pass, failed, count.skip + count.todo)
  })
}

node('native/tables.mjs', '--check')
node('tools/entries.mjs', '--check')
setup()
if (asan) buildSanitized()
tsc('-p', 'test')
const files = chooseTests()
if (files.length === 0 || !existsSync(path.join(root, '.test-build'))) {
  console.error('no tests found')
  process.exit(1)
}
// Once, before two files at a time would each build it; where it cannot be built they say why.
if (files.some((file) => readFileSync(path.join(root, file), 'utf8').includes("from './emulated'")))
  spawnSync(process.execPath, [path.join(root, 'tools', 'emulated-cuda.mjs')], { stdio: 'inherit' })
runTap(files, asan ? sanitizerEnvironment() : {})
