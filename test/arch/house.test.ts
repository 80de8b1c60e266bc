// The rules of the house that a machine can check: floors, one list of sources, generated files, the line budget, and
// that nothing compiled for one target can be linked into another's code.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { targets } from '#lib/core/tables.gen'
import { libViolations, nativeViolations } from './floors'

const root = path.resolve(__dirname, '..', '..')
const targetNames = targets.map((target) => target.name)

function filesBelow(folder: string, suffix: RegExp): Map<string, string> {
  const found = new Map<string, string>()
  if (!existsSync(path.join(root, folder))) return found
  for (const entry of readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })) {
    const file = path.posix.join(folder, entry.split(path.sep).join('/'))
    if (suffix.test(file)) found.set(file, readFileSync(path.join(root, file), 'utf8'))
  }
  return found
}

t.test('lib/ imports only downward', (t) => {
  const files = filesBelow('lib', /\.ts$/)
  t.ok(files.size > 0)
  t.same(libViolations(files), [])
  t.end()
})

t.test('native/ includes only downward, and intrinsics stay in native/cpu/', (t) => {
  const files = filesBelow('native', /\.(cc|h|cu|cuh|def)$/)
  t.ok(files.size > 0)
  t.same(nativeViolations(files, targets), [])
  t.end()
})

t.test('the floors test sees what it is for', (t) => {
  const lib = new Map([
    ['lib/core/a.ts', "import { b } from '../tensor/b'"],
    ['lib/nn/index.ts', "export * from '../optim'"],
    ['lib/optim/index.ts', "import type { T } from '../tensor/b'"],
    ['lib/tensor/b.ts', "import { c } from './c'\nimport * as kerf from 'kerf'"],
    ['lib/misc/d.ts', ''],
  ])
  t.same(libViolations(lib), [
    'lib/core/a.ts (floor 1) imports lib/tensor/b (3)',
    'lib/nn/index.ts (floor 6) imports lib/optim (6)',
    'lib/tensor/b.ts: imports kerf, its own package',
    'lib/misc/d.ts: lib/misc/ has no floor',
  ])
  const native = new Map([
    ['native/core/view.h', '#include "../cpu/map_loops.h"\n#include <napi.h>'],
    ['native/cpu/map_loops.h', '// _mm_add_ps in a comment'],
    ['native/cpu/avx2/map.cc', '#include "../avx512/simd.h"\n#include "../map_loops.h"\n__m256 x;'],
    ['native/cpu/avx512/simd.h', '#include "../avx2/map.cc"'],
    ['native/ops/add.cc', '  _mm_pause();\n  _mm256_add_ps(a, b);'],
  ])
  t.same(nativeViolations(native, targets), [
    'native/core/view.h (floor 0) includes native/cpu/map_loops.h (1)',
    'native/core/view.h: includes napi.h; only binding/ may',
    'native/cpu/avx2/map.cc: includes native/cpu/avx512/simd.h, which belongs to target avx512',
    'native/ops/add.cc: _mm256_add_ps; intrinsics belong into native/cpu/',
  ])
  t.end()
})

t.test('generated files are what their sources say', (t) => {
  for (const script of ['native/tables.mjs', 'tools/entries.mjs']) {
    const check = spawnSync(process.execPath, [script, '--check'], { cwd: root, encoding: 'utf8' })
    t.equal(check.status, 0, `${script} --check: ${check.stderr}`)
  }
  t.end()
})

t.test('native/sources.json lists every source once, below a target that exists', (t) => {
  const sources = JSON.parse(readFileSync(path.join(root, 'native/sources.json'), 'utf8'))
  const listed: string[] = [
    sources.core,
    sources.ops,
    sources.binding,
    sources.targets.map((x: Row) => x.sources),
  ].flat(2)
  t.same([...listed].sort(), [...filesBelow('native', /\.cc$/).keys()].sort())
  t.same(sources.targets.map((x: Row) => x.name).sort(), [...targetNames].sort())
  for (const { name, sources: own } of sources.targets as Row[]) {
    t.ok(own.every((file) => file.startsWith(`native/cpu/${name}/`)))
  }
  t.end()
})

interface Row {
  name: string
  sources: string[]
}

t.test('files stay short', (t) => {
  const BUDGET = 400
  const LIMIT = 500
  const files = ['lib', 'native', 'test', 'tools', 'examples', 'bench'].flatMap((folder) => [
    ...filesBelow(folder, /\.(ts|mjs|js|cc|h|cu|cuh)$/),
  ])
  const counted = files
    .filter(([file]) => !file.includes('.gen.'))
    .map(([file, text]) => ({ file, lines: text.split('\n').length - 1 }))
  for (const { file, lines } of counted)
    if (lines > BUDGET) t.comment(`${file}: ${lines} lines, the budget is ${BUDGET}`)
  t.same(
    counted.filter(({ lines }) => lines > LIMIT),
    [],
  )
  t.end()
})

/** The object files of a target, where either builder puts them; none after a build by the compiler alone. */
function objectsOf(target: string): string[] {
  const folders = [`build/CMakeFiles/kerf_${target}.dir`, `build/Release/obj.target/kerf_${target}`]
  return folders.flatMap((folder) => {
    if (!existsSync(path.join(root, folder))) return []
    const entries = readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })
    const objects = entries.filter((entry) => /\.o$/.test(entry)).map((entry) => path.join(folder, entry))
    // an object whose source has been renamed or removed stays in the build folder
    return objects.filter((object) => existsSync(path.join(root, sourceOf(folder, object))))
  })
}

const sourceOf = (folder: string, object: string) => path.relative(folder, object).replace(/(\.cc)?\.o$/, '.cc')

function nm(...args: string[]): string[] {
  const result = spawnSync('nm', args, { cwd: root, encoding: 'utf8' })
  if (result.status !== 0) throw new Error(`nm: ${result.stderr}`)
  return result.stdout.split('\n').filter((line) => line !== '')
}

const haveNm = spawnSync('nm', ['--version']).status === 0
const built = targetNames.some((target) => objectsOf(target).length > 0)
const noObjects = !haveNm ? 'no nm' : !built && 'no object files of CMake or node-gyp'

t.test('a target defines symbols only in its own namespace', { skip: noObjects }, (t) => {
  for (const target of targetNames) {
    const own = new RegExp(`^_Z[A-Z]*4kerf${target.length}${target}`)
    const foreign = objectsOf(target).flatMap((object) =>
      nm('--defined-only', '--extern-only', '-P', object)
        .map((line) => line.split(' ')[0] ?? '')
        .filter((symbol) => !own.test(symbol))
        .map((symbol) => `${object}: ${symbol}`),
    )
    t.same(foreign, [])
  }
  t.end()
})

t.test('the addon has no unresolved symbol of its own', { skip: !haveNm && 'no nm' }, (t) => {
  const unresolved = nm('-u', '-C', 'build/Release/kerf.node').filter((line) => line.includes('kerf::'))
  t.same(unresolved, [])
  t.end()
})
