// lib/ -> dist/ and bench/ -> dist/bench/: CommonJS by tsc, and for every entry point an ES module that re-exports it, so
// that `import` and `require` share one instance (and one loaded addon).
import { existsSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { entries, syncExports } from './entries.mjs'
import { filesBelow, root, tsc } from './setup.mjs'

// tsc leaves behind what it made of a file that is gone; a test could go on importing it.
for (const file of filesBelow('dist')) {
  const source = file
    .replace(/^dist[\\/](bench[\\/])?/, (_, bench) => bench ?? 'lib/')
    .replace(/\.(js|mjs|d\.ts|d\.mts)(\.map)?$/, '.ts')
  if (source.endsWith('.ts') && !existsSync(path.join(root, source))) rmSync(path.join(root, file))
}

tsc('-p', '.')
tsc('-p', 'bench') // after lib/, whose types it reads

for (const entry of entries()) {
  const text = `export * from './index.js'\n`
  writeFileSync(path.join(root, 'dist', `${entry}.mjs`), text)
  writeFileSync(path.join(root, 'dist', `${entry}.d.mts`), text)
}

if (!syncExports({ check: false })) console.log('package.json: exports updated')
