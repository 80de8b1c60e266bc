// Every entry point gives ES modules and CommonJS the same things, not copies of them.
import { readFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'

const root = path.resolve(__dirname, '..', '..')
const manifest = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'))
// what Node adds to the namespace of a CommonJS module that it imports
const added = ['default', 'module.exports', '__esModule']
const entries = Object.keys(manifest.exports).filter((entry) => entry !== './package.json')

t.test('import and require share one instance', async (t) => {
  t.ok(entries.length > 0)
  for (const entry of entries) {
    const name = path.posix.join('kerf', entry)
    const required = require(name)
    const imported = await import(name)
    const names = Object.keys(required).sort()
    t.ok(names.length > 0, `${name} exports something`)
    t.same(
      Object.keys(imported)
        .filter((key) => !added.includes(key))
        .sort(),
      names,
      name,
    )
    for (const key of names) t.equal(imported[key], required[key], `${name}: ${key}`)
  }
})
