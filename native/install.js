'use strict'
// Runs at `npm install` and as `npm run build:native`: finds or builds kerf.node. Plain CommonJS that needs no package
// before it has found a compiler, and no network.
//
//   node native/install.js            a prebuilt binary that loads is enough, else build
//   node native/install.js --build    build, whatever prebuilds/ holds
//   node native/install.js --asan     build the AddressSanitizer + UBSan addon into build-asan/ (needs CMake)
//   node native/install.js --cuda     build libkerf_cuda.so into build-cuda/ (needs CMake and nvcc; minutes)
//   node native/install.js --release  build the binary for prebuilds/: libstdc++ linked in, into build-release/
//
// KERF_BUILD=cmake|gyp|direct picks the builder; without it the first one whose tools are here (CMake; Python for node-gyp)
// and that succeeds is used. `direct` calls the compiler itself.
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

const root = path.resolve(__dirname, '..')
const jobs = Math.min(os.availableParallelism(), 8)
const flags = new Set(process.argv.slice(2))
const say = (message) => console.error(`kerf: ${message}`)

const CURE =
  'kerf needs a C++20 compiler and make to build its native addon.\n' +
  '  Debian, Ubuntu:  apt-get install g++ make      (cmake as well builds faster)\n' +
  '  Fedora:          dnf install gcc-c++ make\n' +
  '  macOS:           xcode-select --install\n' +
  'Then run: npm rebuild kerf'

const runs = (command, args) => spawnSync(command, args, { stdio: 'ignore' }).status === 0
const has = (command) => runs(command, ['--version'])

function loads(binary) {
  return fs.existsSync(binary) && runs(process.execPath, ['-e', `require(${JSON.stringify(binary)})`])
}

function node(script, args) {
  return spawnSync(process.execPath, [script, ...args], { cwd: root, stdio: 'inherit' }).status === 0
}

const tool = (name, script) => require.resolve(`${name}/bin/${script}`, { paths: [root] })

function cmake(folder, options, target = 'all') {
  const args = ['build', '-l', 'warn', '-O', folder, '-p', String(jobs), ...(target === 'all' ? [] : ['-T', target])]
  return node(tool('cmake-js', 'cmake-js'), [...args, ...options.map((option) => `--CD${option}`)])
}

function gyp() {
  const prefix = path.resolve(process.execPath, '..', '..')
  const local = fs.existsSync(path.join(prefix, 'include', 'node', 'common.gypi'))
  const args = ['rebuild', '--loglevel=warn', `--jobs=${jobs}`]
  return node(tool('node-gyp', 'node-gyp.js'), local ? [...args, `--nodedir=${prefix}`] : args)
}

// What each builder leaves behind confuses the others.
function clear(folder) {
  fs.rmSync(path.join(root, folder), { recursive: true, force: true })
}
const left = (mark) => fs.existsSync(path.join(root, 'build', mark))

const BUILDERS = {
  cmake() {
    if (!left('CMakeCache.txt')) clear('build')
    if (cmake('build', [])) return true
    clear('build') // a cache from another place or compiler
    return cmake('build', [])
  },
  gyp() {
    if (!left('config.gypi')) clear('build')
    return gyp()
  },
  direct: (compiler) => require('./direct').build(root, compiler, jobs),
}

function choose() {
  if (process.env.KERF_BUILD) return [process.env.KERF_BUILD]
  return [has('cmake') && 'cmake', has('python3') && 'gyp', process.platform !== 'win32' && 'direct'].filter(Boolean)
}

async function build() {
  const compiler = [process.env.CXX, 'g++', 'clang++', 'c++'].find((command) => command && has(command))
  const make = has('make') || has('ninja')
  if (process.platform !== 'win32' && (!compiler || !make)) {
    say(`no ${compiler ? 'make' : 'C++ compiler'} found.\n${CURE}`)
    return false
  }
  for (const builder of choose()) {
    if (!BUILDERS[builder]) {
      say(`KERF_BUILD=${builder}: the builders are ${Object.keys(BUILDERS).join(', ')}`)
      return false
    }
    if ((await BUILDERS[builder](compiler)) && loads(path.join(root, 'build', 'Release', 'kerf.node'))) return true
    say(`the build with ${builder} failed`)
  }
  say(CURE)
  return false
}

async function main() {
  if (flags.has('--asan')) return cmake('build-asan', ['KERF_SANITIZE=address,undefined'])
  if (flags.has('--cuda')) return cmake('build-cuda', ['KERF_CUDA=ON'], 'kerf_cuda')
  if (flags.has('--release')) return cmake('build-release', ['KERF_STATIC_CXX=ON'])
  const prebuilt = path.join(root, 'prebuilds', `${process.platform}-${process.arch}`, 'kerf.node')
  const fromSource = flags.has('--build') || process.env.npm_config_build_from_source !== undefined
  if (!fromSource && loads(prebuilt)) {
    say(`using the prebuilt binary for ${process.platform}-${process.arch}`)
    return true
  }
  return build()
}

main().then((ok) => {
  process.exitCode = ok ? 0 : 1
})
