// `npm run demo`, `node tools/run-example.mjs <name> [arguments]`: brings the checkout up to date, compiles examples/ and
// runs one of them.
import { existsSync } from 'node:fs'
import path from 'node:path'
import { buildExamples, filesBelow, node, root, setup } from './setup.mjs'

const [name, ...rest] = process.argv.slice(2)
if (!name || !existsSync(path.join(root, 'examples', `${name}.ts`))) {
  const names = filesBelow('examples').flatMap(
    (file) => /^examples[\\/]((?:papers[\\/])?\w[\w-]*)\.ts$/.exec(file)?.[1] ?? [],
  )
  console.error(`no example ${name ?? ''}; there is: ${names.join(', ') || 'none'}`)
  process.exit(1)
}
setup()
buildExamples()
node(`build-examples/${name}.js`, ...rest)
