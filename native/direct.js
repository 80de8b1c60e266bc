'use strict'
// Builds kerf.node with nothing but Node and a GCC-like compiler, for a machine that has neither CMake nor Python. Reads
// native/sources.json as CMakeLists.txt and binding.gyp do. Objects go to build/direct/; everything is compiled afresh.
const { spawn, spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

const BASE = [
  '-std=c++20',
  '-O3',
  '-DNDEBUG',
  '-fPIC',
  '-fvisibility=hidden',
  '-fvisibility-inlines-hidden',
  '-pthread',
]
const BARE = ['-fno-exceptions', '-fno-rtti']

/** One compiler call per source: the file and its flags. */
function plan(root) {
  const sources = JSON.parse(fs.readFileSync(path.join(root, 'native', 'sources.json'), 'utf8'))
  const targets = sources.targets.filter(
    (t) => t.sources.length > 0 && (t.arch === undefined || t.arch === process.arch),
  )
  const have = targets.map((target) => `-DKERF_HAVE_${target.name.toUpperCase()}`)
  const napi = [
    '-DNAPI_VERSION=8',
    '-DNAPI_CPP_EXCEPTIONS',
    '-DNODE_ADDON_API_CPP_EXCEPTIONS_ALL',
    '-DNODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
    '-DKERF_BUILDER="direct"',
    `-I${require('node-api-headers').include_dir}`,
    `-I${require('node-addon-api').include_dir.replace(/^"|"$/g, '')}`,
  ]
  const unit = (flags) => (source) => ({ source, flags })
  return [
    ...targets.flatMap((t) => t.sources.map(unit([...BARE, ...t.flags, `-DKERF_TARGET=${t.name}`]))),
    ...[...sources.core, ...sources.ops].map(unit([...BARE, '-ffp-contract=off', ...have])),
    ...sources.binding.map(unit([...napi, ...have])),
  ]
}

/** Resolves to whether build/Release/kerf.node was linked. */
async function build(root, compiler, jobs) {
  const folder = path.join(root, 'build', 'direct')
  fs.rmSync(path.join(root, 'build'), { recursive: true, force: true })
  fs.mkdirSync(folder, { recursive: true })
  fs.mkdirSync(path.join(root, 'build', 'Release'))
  const waiting = plan(root).map((unit, i) => ({ ...unit, object: path.join(folder, `${i}.o`) }))
  const objects = waiting.map((unit) => unit.object)
  let failed = false
  const worker = async () => {
    for (let unit = waiting.shift(); unit && !failed; unit = waiting.shift()) {
      console.log(`kerf: compiling ${unit.source}`)
      const args = [...BASE, ...unit.flags, '-c', unit.source, '-o', unit.object]
      const child = spawn(compiler, args, { cwd: root, stdio: 'inherit' })
      if ((await new Promise((resolve) => child.on('close', resolve))) !== 0) failed = true
    }
  }
  await Promise.all(Array.from({ length: jobs }, worker))
  if (failed) return false
  const undefinedLater = process.platform === 'darwin' ? ['-undefined', 'dynamic_lookup'] : []
  const args = [
    '-shared',
    '-pthread',
    ...undefinedLater,
    ...objects,
    '-o',
    path.join(root, 'build', 'Release', 'kerf.node'),
  ]
  return spawnSync(compiler, args, { cwd: root, stdio: 'inherit' }).status === 0
}

module.exports = { build }
