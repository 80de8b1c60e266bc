// The emulated device as kerf sees it: tests that import this file first have KERF_CUDA=emulate and the library built.
import { spawnSync } from 'node:child_process'
import path from 'node:path'

export const root = path.resolve(__dirname, '..', '..')
const built = spawnSync(process.execPath, [path.join(root, 'tools', 'emulated-cuda.mjs')], {
  cwd: root,
  encoding: 'utf8',
})
if (built.status !== 0 && built.status !== 3) throw new Error(`tools/emulated-cuda.mjs: ${built.stdout}${built.stderr}`)

process.env.KERF_CUDA = 'emulate'

/** Why there is no emulated device here; false where there is. */
export const noDevice = built.status === 3 && built.stdout.trim()
