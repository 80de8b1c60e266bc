// `npm run prebuilds`: prebuilds/<platform>-<arch>/kerf.node, stripped and with libstdc++ linked in, so that it loads on
// machines older than this one's compiler. A tarball that holds it needs no compiler and no install script.
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, statSync } from 'node:fs'
import path from 'node:path'
import { node, root, run } from './setup.mjs'

node('native/tables.mjs', '--check')
node('native/install.js', '--release')

const folder = path.join(root, 'prebuilds', `${process.platform}-${process.arch}`)
const binary = path.join(folder, 'kerf.node')
mkdirSync(folder, { recursive: true })
copyFileSync(path.join(root, 'build-release', 'Release', 'kerf.node'), binary)
run('strip', process.platform === 'darwin' ? ['-x', binary] : ['--strip-unneeded', binary])

// A binary that does not load here is not one to publish.
const load = spawnSync(process.execPath, ['-e', `require(${JSON.stringify(binary)})`], { stdio: 'inherit' })
if (load.status !== 0) process.exit(1)
console.log(`${path.relative(root, binary)}: ${(statSync(binary).size / 1024).toFixed(0)} KiB`)
