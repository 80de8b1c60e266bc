// What nvcc makes of the kernels, where there is an nvcc: they compile for their architectures without a spill, ptxas
// does not serialise their products, and the machine code holds the instructions that they are written for. Nothing
// runs.
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { histogram, type Kernel, kernelsOf } from './cubin'
import { root, run, scratch } from './programs'

const candidates = ['nvcc', '/usr/local/cuda/bin/nvcc']
const nvcc = candidates.find((file) => spawnSync(file, ['--version']).status === 0)
const skip = nvcc === undefined && 'skipped: no nvcc'

/** Compiles a file of native/cuda/; resolves with its kernels, registers used by each, and all that nvcc said. */
async function build(source: string, architecture: string) {
  const cubin = path.join(scratch, `${path.basename(source)}-${architecture}.cubin`)
  const code = `-gencode=arch=compute_${architecture},code=sm_${architecture}`
  const options = ['-std=c++17', code, '-cubin', '-Xptxas', '-v,-warn-spills,-Werror']
  const file = path.isAbsolute(source) ? source : path.join(root, 'native', 'cuda', source)
  const result = await run(nvcc ?? '', [...options, file, '-o', cubin])
  const said = `${result.text}${result.errors}`
  const kernels = existsSync(cubin) ? kernelsOf(readFileSync(cubin)) : []
  const registers = [...said.matchAll(/Used (\d+) registers/g)].map(([, count]) => Number(count))
  return { code: result.code, said, kernels, registers }
}

/** ptxas notes that a kernel does not run as written: wgmma serialised, a wait injected, setmaxnreg ignored. */
const SERIALISED = /C75(08|10|14|17)/

function checkCommon(t: Test, built: Awaited<ReturnType<typeof build>>, most: number): void {
  t.equal(built.code, 0, 'compiles without a spill')
  if (built.code !== 0) t.comment(built.said)
  t.notMatch(built.said, SERIALISED)
  t.ok(built.registers.length > 0 && built.registers.every((count) => count <= most), `at most ${most} registers`)
  for (const kernel of built.kernels) {
    const { LDL = 0, STL = 0 } = histogram(kernel)
    t.equal(LDL + STL, 0, 'no local memory')
  }
}

const pick = (kernels: Kernel[], text: string) => kernels.filter((kernel) => kernel.name.includes(text)).map(histogram)

// a 64 x 64 warp tile over 128 bytes of K: 4 x 8 products and 4 + 4 ldmatrix for each of 4 steps
for (const architecture of ['80', '120']) {
  t.test(`sm_${architecture}`, { skip }, async (t) => {
    const built = await build('sm80/matmul.cu', architecture)
    checkCommon(t, built, 248)
    const large = pick(built.kernels, 'Li128ELi128ELi64ELi64ELi3E')
    t.equal(large.length, 4)
    for (const { HMMA = 0, IMMA = 0, LDSM, LDGSTS } of large)
      t.same({ products: HMMA + IMMA, LDSM, LDGSTS }, { products: 128, LDSM: 32, LDGSTS: 48 })
    const narrow = pick(built.kernels, 'Li128ELi16ELi32ELi16ELi4E')
    t.equal(narrow.length, 4)
    for (const { HMMA = 0, IMMA = 0, LDSM } of narrow)
      t.same({ products: HMMA + IMMA, LDSM }, { products: 16, LDSM: 12 })
    const simt = pick(built.kernels, 'matmul_simt')
    t.equal(simt.length, 1)
    // 8 x 8 sums x 16 of K, the rest is the activation of 64 sums; 4 vectors of 4 floats for each k
    for (const { FFMA = 0, LDS } of simt) {
      t.ok(FFMA >= 1024 && FFMA < 1600, `${FFMA} FFMA`)
      t.equal(LDS, 64)
    }
  })
}

t.test('sm_90a', { skip }, async (t) => {
  const built = await build('sm90/matmul.cu', '90a')
  // ptxas counts 65536 / 384 threads, rounded down to 8; setmaxnreg moves them at run time
  checkCommon(t, built, 168)
  t.equal(built.kernels.length, 3)
  for (const kernel of built.kernels) {
    const { HGMMA = 0, IGMMA = 0, UTMALDG = 0, USETMAXREG } = histogram(kernel)
    t.ok(HGMMA + IGMMA >= 4 && UTMALDG >= 2, 'products and copies')
    t.equal(kernel.name.includes('s8') ? HGMMA : IGMMA, 0, 'of the right type')
    t.equal(USETMAXREG, 2)
  }
})

/** 128 values that live across a barrier, in the 64 registers that 1024 threads leave each. */
const SPILLS = `extern "C" __global__ void __launch_bounds__(1024) spills(float* p) {
  float v[128];
#pragma unroll
  for (int i = 0; i < 128; i++) v[i] = p[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 128; i++) p[(127 - i) * 1024 + threadIdx.x] = v[i] * v[i * 7 % 128];
}`

t.test('the gates notice a spill', { skip }, async (t) => {
  const source = path.join(scratch, 'spills.cu')
  writeFileSync(source, SPILLS)
  const gated = await build(source, '80')
  t.not(gated.code, 0)
  t.match(gated.said, /spill/i)
  const cubin = path.join(scratch, 'spills.cubin')
  await run(nvcc ?? '', ['-arch=sm_80', '-cubin', source, '-o', cubin])
  const [kernel] = kernelsOf(readFileSync(cubin)).map(histogram)
  t.ok(kernel?.LDL && kernel.STL)
})

t.test('the gates notice a serialised product', { skip }, async (t) => {
  for (const folder of ['core', 'cuda'])
    cpSync(path.join(root, 'native', folder), path.join(scratch, 'native', folder), { recursive: true })
  const kernel = path.join(scratch, 'native', 'cuda', 'sm90', 'matmul_wgmma.cuh')
  writeFileSync(kernel, readFileSync(kernel, 'utf8').replace('wgmma_wait<0>', 'wgmma_wait<1>'))
  const built = await build(path.join(scratch, 'native', 'cuda', 'sm90', 'matmul.cu'), '90a')
  t.match(built.said, SERIALISED)
})

t.test('a file that is no cubin', (t) => {
  t.throws(() => kernelsOf(Buffer.alloc(64)), /not a 64-bit little-endian ELF file/)
  t.end()
})
