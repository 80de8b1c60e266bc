/** libkerf_cuda.so as nvcc builds it, for one architecture: small, self-contained, and no harm where there is no driver. */
import { spawnSync } from 'node:child_process'
import { existsSync, statSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { addon } from '#lib/native/load'
import { root, run } from './programs'

const has = (command: string) => spawnSync(command, ['--version']).status === 0
const skip =
  (!has('cmake') && 'skipped: no cmake') ||
  (!['nvcc', '/usr/local/cuda/bin/nvcc'].some(has) && 'skipped: no nvcc') ||
  (!has('readelf') && 'skipped: no readelf')

const MOST_BYTES = 1e7
/**
 * What `npm run build:cuda` makes is so many times as large: 4.92 MB, when sm_90's was 2.41. Far from six times: the runtimes (1 MB)
 * and the kernels for wgmma are in both, and machine code of one kernel for several architectures is compressed together.
 */
const WHOLE = 4.92 / 2.41

const whole = path.join(root, 'build-cuda', 'libkerf_cuda.so')
const notBuilt = !existsSync(whole) && 'skipped: no build-cuda/ (npm run build:cuda)'
t.test('all architectures', { skip: notBuilt }, (t) => {
  const { size } = statSync(whole)
  t.ok(size < MOST_BYTES, `${size} bytes`)
  t.end()
})

t.test('built, alone', { skip }, async (t) => {
  const folder = path.join(root, 'build-cuda-test') // kept: what has not changed is not compiled again
  const options = ['-DKERF_CUDA=ON', '-DKERF_CUDA_ARCHITECTURES=90-real']
  const configured = await run('cmake', ['-S', root, '-B', folder, ...options])
  t.equal(configured.code, 0, configured.errors)
  const built = await run('cmake', ['--build', folder, '--target', 'kerf_cuda', '-j', '2'])
  t.equal(built.code, 0, built.text + built.errors)
  t.notMatch(built.text + built.errors, /warning/)

  const library = path.join(folder, 'libkerf_cuda.so')
  const bytes = statSync(library).size
  t.ok(bytes * WHOLE < MOST_BYTES, `${bytes} bytes`)
  const { text } = await run('readelf', ['-d', library])
  const needed = [...text.matchAll(/NEEDED.*\[(.*)\]/g)].map(([, name]) => name as string)
  t.same(
    needed.filter((name) => !/^(libc|libm|librt|libdl|libpthread|ld-linux-x86-64)\.so/.test(name)),
    [],
  )
  const symbols = await run('nm', ['-D', '--defined-only', library])
  t.same(
    symbols.text
      .trim()
      .split('\n')
      .map((line) => line.split(' ').at(-1)),
    ['kerf_cuda_library'],
  )

  // With a GPU it finds one; without, it says what is missing and the process lives.
  const why = addon.cudaOpen(library)
  t.ok(why === null || /no NVIDIA driver|driver is too old|finds no GPU/.test(why), String(why))
})
