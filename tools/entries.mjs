// The entry points of the package: one line an area. An area counts as soon as lib/<area>/index.ts exists.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const areas = ['nn', 'optim', 'amp', 'quant', 'prune', 'distill', 'train', 'parallel', 'tune', 'io', 'data']

/** The entry points that exist, as paths below dist/ without an extension. */
export function entries() {
  return ['index', ...areas.map((area) => `${area}/index`)].filter((entry) =>
    existsSync(path.join(root, `lib/${entry}.ts`)),
  )
}

/** The package's exports: ESM and CommonJS with their own types, and one instance behind both. */
function packageExports() {
  const exports = {}
  for (const entry of entries()) {
    const name = entry === 'index' ? '.' : `./${path.posix.dirname(entry)}`
    exports[name] = {
      import: { types: `./dist/${entry}.d.mts`, default: `./dist/${entry}.mjs` },
      require: { types: `./dist/${entry}.d.ts`, default: `./dist/${entry}.js` },
    }
  }
  exports['./package.json'] = './package.json'
  return exports
}

/** Puts the exports into package.json, or says whether they are there. */
export function syncExports({ check }) {
  const file = path.join(root, 'package.json')
  const text = readFileSync(file, 'utf8')
  const pkg = JSON.parse(text)
  pkg.exports = packageExports()
  const wanted = `${JSON.stringify(pkg, null, 2)}\n`
  if (wanted === text) return true
  if (!check) writeFileSync(file, wanted)
  return false
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const check = process.argv.includes('--check')
  if (!syncExports({ check }) && check) {
    console.error('package.json does not export what lib/ holds: run npm run build:ts')
    process.exitCode = 1
  }
}
