// What nvcc makes of the kernels, where there is an nvcc: they compile for their architectures without a spill, ptxas
// does not serialise their products, and the machine code holds the instructions that they are written for. Nothing
// runs.
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { histogram, type Kernel, kernelsOf } from './cubin'
import { compile, root, run, scratch } from './programs'

const candidates = ['nvcc', '/usr/local/cuda/bin/nvcc']
const nvcc = candidates.find((file) => spawnSync(file, ['--version']).status === 0)
const skip = nvcc === undefined && 'skipped: no nvcc'

/** The files of native/cuda/ that libkerf_cuda.so has without fused multiply-adds. */
const cmake = readFileSync(path.join(root, 'CMakeLists.txt'), 'utf8')
const [, unfused = ''] = cmake.match(/set_source_files_properties\((.*) PROPERTIES COMPILE_OPTIONS -fmad=false\)/) ?? []

/** Compiles a file of native/cuda/; resolves with its kernels, the registers of each, and all that nvcc said. */
async function build(source: string, architecture: string) {
  const cubin = path.join(scratch, `${path.basename(source)}-${architecture}.cubin`)
  const code = `-gencode=arch=compute_${architecture},code=sm_${architecture}`
  const options = ['-std=c++17', code, '-cubin', '-Xptxas', '-v,-warn-spills,-Werror']
  if (unfused.split(' ').includes(`native/cuda/${source}`)) options.push('-fmad=false')
  const file = path.isAbsolute(source) ? source : path.join(root, 'native', 'cuda', source)
  const result = await run(nvcc ?? '', [...options, file, '-o', cubin])
  const said = `${result.text}${result.errors}`
  const kernels = existsSync(cubin) ? kernelsOf(readFileSync(cubin)) : []
  const entries = said.matchAll(/Compiling entry function '(\w+)'[\s\S]*?Used (\d+) registers/g)
  const compiled = [...entries].map(([, name = '', count]) => ({ name, registers: Number(count) }))
  return { code: result.code, said, kernels, compiled }
}

/** ptxas notes that a kernel does not run as written: wgmma serialised, a wait injected, setmaxnreg ignored. */
const SERIALISED = /C75(08|10|14|17)/

function checkCommon(t: Test, built: Awaited<ReturnType<typeof build>>): void {
  t.equal(built.code, 0, 'compiles without a spill')
  if (built.code !== 0) t.comment(built.said)
  t.notMatch(built.said, SERIALISED)
  t.ok(built.compiled.length > 0 && built.compiled.length === built.kernels.length)
  for (const kernel of built.kernels) {
    const { LDL = 0, STL = 0 } = histogram(kernel)
    t.equal(LDL + STL, 0, 'no local memory')
  }
}

/** `matmul_packed<PackedConfig<Codes8<f16>, 128, 8, 32, 8, 4>, Epilogue<f16>>` of a mangled name, `conv_mma<...>` likewise. */
function demangle(names: string[]): string[] {
  const result = spawnSync('c++filt', { input: names.join('\n'), encoding: 'utf8' })
  return result.stdout
    .trim()
    .split('\n')
    .map((line) =>
      (line.match(/((?:matmul|conv)_\w+(?:<.*>)?)\(/)?.[1] ?? line)
        .replace(/(kerf::cuda|cu)::/g, '')
        .replace(/ >/g, '>'),
    )
}

/** `reduce_rows` of a mangled name. */
function templateNames(names: string[]): string[] {
  const { stdout } = spawnSync('c++filt', { input: names.join('\n'), encoding: 'utf8' })
  const lines = stdout.trim().split('\n')
  return lines.map((line) => line.match(/^(?:void )?kerf::cuda::(\w+)/)?.[1] ?? line)
}

/** The name of the table (matmul_config.h) for a kernel's demangled one. */
function configName(kernel: string): string {
  const types: Record<string, string> = { f16: 'f16', bf16: 'bf16', s8: 'i8', float: 'f32', AnyFormat: 'any' }
  const out = types[kernel.match(/Epilogue<(\w+)>/)?.[1] ?? '']
  if (kernel.startsWith('matmul_simt')) return `simt_f32_${out}_128x128`
  const [, config, type, sizes] = kernel.match(/(\w+)<(?:WgmmaConfig<|\w+Config<|\w+<)+(\w+)>?, ([\d, ]+)>/) ?? []
  const [first, second] = (sizes ?? '').split(', ')
  const kinds: Record<string, string> = {
    matmul_mma: 'mma',
    matmul_mma_split: 'split',
    matmul_wgmma: 'wgmma',
    matmul_wgmma_sparse: 'wgmma_sparse',
  }
  const packed = kernel.includes('Codes8') ? 'codes8' : kernel.includes('Codes4') ? 'codes4' : 'kept'
  const kind = kinds[config ?? ''] ?? packed
  const tile = kind === 'wgmma' ? `128x${first}` : kind === 'wgmma_sparse' ? '128x128' : `${first}x${second}`
  return `${kind}_${types[type ?? '']}_${out}_${tile}`
}

/** The name of config_check.cc's list for a kernel of convolutions. */
function convName(kernel: string): string {
  const types: Record<string, string> = { f16: 'f16', bf16: 'bf16', s8: 'i8', float: 'f32' }
  const [, type = 'float', sizes = ''] = kernel.match(/MmaConfig<(\w+), ([\d, ]+)>/) ?? []
  const [features, tokens] = sizes.split(', ')
  const bytes = kernel.includes('ByteImageEpilogue')
  const out = bytes ? 'any' : types[kernel.match(/ImageEpilogue<(\w+)>/)?.[1] ?? 'float']
  const tile = sizes ? `${features}x${tokens}` : '128x128'
  return `${kernel.startsWith('conv_weight_grad') ? 'conv_grad' : 'conv'}_${types[type]}_${out}_${tile}`
}

interface Budget {
  /** By architecture: at most so many registers a thread. */
  registers: Record<string, number>
  /** By architecture: at least so many blocks a multiprocessor at once. */
  blocks: Record<string, number>
  threads: number
  shared: number
  /** Instructions of the whole kernel: products to ldmatrix. */
  products?: number
  ldmatrix?: number
}

/**
 * What kernels may cost. After a change that is meant to cost more, KERF_UPDATE=1 writes it anew; a diff of it is to be
 * looked at as code is.
 */
const MANIFEST = path.join(root, 'test', 'cuda', 'manifest.json')
const manifest: Record<string, Budget> = existsSync(MANIFEST) ? JSON.parse(readFileSync(MANIFEST, 'utf8')) : {}

/** Compares what was built for an architecture with the manifest: of config_check.cc's list, by a kernel's name there. */
async function checkBudget(
  t: Test,
  built: Pick<Awaited<ReturnType<typeof build>>, 'kernels' | 'compiled'>,
  architecture: string,
  list: 'products' | 'convolutions' = 'products',
): Promise<void> {
  const nameOf = list === 'products' ? configName : convName
  const program = await compile('config_check.cc', root, `config-${t.name.replace(/\W/g, '-')}`)
  const configs = new Map(
    spawnSync(program, list === 'products' ? [] : [list], { encoding: 'utf8', input: '' })
      .stdout.trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { config: string; threads: number; shared: number })
      .map((config) => [config.config, config]),
  )
  const names = demangle(built.kernels.map(({ name }) => name)).map(nameOf)
  t.same(
    names.filter((name) => !configs.has(name)),
    [],
    'every kernel stands in the table',
  )
  t.equal(new Set(names).size, names.length, 'once')
  const registers = demangle(built.compiled.map(({ name }) => name)).map(nameOf)
  const of = new Map(registers.map((name, i) => [name, built.compiled[i]?.registers ?? 0]))
  const input = names
    .map((name) => [
      Number.parseInt(architecture, 10),
      configs.get(name)?.threads,
      configs.get(name)?.shared,
      of.get(name),
    ])
    .map((line) => line.join(' '))
    .join('\n')
  const occupancy = spawnSync(program, ['occupancy'], { encoding: 'utf8', input }).stdout.trim().split('\n').map(Number)
  names.forEach((name, i) => {
    const { threads = 0, shared = 0 } = configs.get(name) ?? {}
    const { HMMA = 0, IMMA = 0, LDSM = 0 } = histogram(built.kernels[i] as Kernel)
    const [used = 0, blocks = 0] = [of.get(name), occupancy[i]]
    if (process.env.KERF_UPDATE) {
      const entry = manifest[name] ?? { registers: {}, blocks: {}, threads, shared }
      manifest[name] = entry
      Object.assign(entry, { threads, shared }, HMMA + IMMA > 0 && { products: HMMA + IMMA, ldmatrix: LDSM })
      entry.registers[architecture] = used
      entry.blocks[architecture] = blocks
    }
    const budget = manifest[name]
    if (!t.ok(budget, `${name} stands in the manifest`) || !budget) return
    t.ok(used <= (budget.registers[architecture] ?? 0), `${name}: ${used} registers`)
    t.ok(blocks > 0 && blocks >= (budget.blocks[architecture] ?? 1), `${name}: ${blocks} blocks a multiprocessor`)
    t.same({ threads, shared }, { threads: budget.threads, shared: budget.shared }, `${name}: shared memory`)
    if (budget.products)
      t.same([HMMA + IMMA, LDSM], [budget.products, budget.ldmatrix], `${name}: products to ldmatrix`)
  })
  if (process.env.KERF_UPDATE) writeFileSync(MANIFEST, `${JSON.stringify(manifest, null, 2)}\n`)
}

/** Compares registers of kernels of 256 threads with the manifest. */
async function checkElements(t: Test, most: Map<string, number>, architecture: string): Promise<void> {
  const program = await compile('config_check.cc', root, `config-${t.name.replace(/\W/g, '-')}`)
  const threads = 256
  const [shared] = spawnSync(program, ['fold'], { encoding: 'utf8', input: '' }).stdout.trim().split('\n').map(Number)
  const input = [...most.values()].map((registers) => `${architecture} ${threads} ${shared} ${registers}`).join('\n')
  const occupancy = spawnSync(program, ['occupancy'], { encoding: 'utf8', input }).stdout.trim().split('\n').map(Number)
  ;[...most].forEach(([name, registers], i) => {
    const blocks = occupancy[i] ?? 0
    if (process.env.KERF_UPDATE) {
      manifest[name] ??= { registers: {}, blocks: {}, threads, shared: shared ?? 0 }
      manifest[name].registers[architecture] = registers
      manifest[name].blocks[architecture] = blocks
    }
    const budget = manifest[name]
    if (!t.ok(budget, `${name} stands in the manifest`) || !budget) return
    t.ok(registers <= (budget.registers[architecture] ?? 0), `${name}: ${registers} registers`)
    t.ok(blocks > 0 && blocks >= (budget.blocks[architecture] ?? 9), `${name}: ${blocks} blocks a multiprocessor`)
  })
  if (process.env.KERF_UPDATE) writeFileSync(MANIFEST, `${JSON.stringify(manifest, null, 2)}\n`)
}

const pick = (kernels: Kernel[], text: string) => kernels.filter((kernel) => kernel.name.includes(text)).map(histogram)

// a 64 x 64 warp tile over 128 bytes of K: 4 x 8 products and 4 + 4 ldmatrix for each of 4 steps
for (const architecture of ['80', '120']) {
  t.test(`sm_${architecture}`, { skip }, async (t) => {
    const built = await build('sm80/matmul.cu', architecture)
    checkCommon(t, built)
    await checkBudget(t, built, architecture)
    const large = pick(built.kernels, 'Li128ELi128ELi64ELi64ELi3E')
    t.equal(large.length, 5)
    for (const { HMMA = 0, IMMA = 0, LDSM, LDGSTS } of large)
      t.same({ products: HMMA + IMMA, LDSM, LDGSTS }, { products: 128, LDSM: 32, LDGSTS: 48 })
    const narrow = pick(built.kernels, 'Li128ELi16ELi32ELi16ELi4E')
    t.equal(narrow.length, 5)
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

const isProduct = ({ name }: { name: string }) => /conv_(?:mma|simt|weight_grad_(?:mma|simt))/.test(name)
for (const architecture of ['80', '120']) {
  t.test(`convolutions, sm_${architecture}`, { skip }, async (t) => {
    const built = await build('drivers/conv.cu', architecture)
    checkCommon(t, built)
    const [kernels, compiled] = [built.kernels.filter(isProduct), built.compiled.filter(isProduct)]
    t.equal(kernels.length, 8 + 1 + 2 + 1, 'and layouts and direct ones, which only must not spill')
    await checkBudget(t, { kernels, compiled }, architecture, 'convolutions')
    // as a product's, and the weight gradient's too: 64 x 32 a warp, 4 x 4 products and 4 + 2 ldmatrix for each of 4 steps
    const large = pick(kernels, 'Li128ELi64ELi64ELi32ELi3E')
    t.equal(large.length, 6)
    for (const { HMMA, LDSM, LDGSTS } of large) t.same({ HMMA, LDSM, LDGSTS }, { HMMA: 64, LDSM: 24, LDGSTS: 36 })

    const bytes = await build('drivers/qconv.cu', architecture)
    checkCommon(t, bytes)
    const products = [bytes.kernels.filter(isProduct), bytes.compiled.filter(isProduct)] as const
    t.equal(products[0].length, 2)
    await checkBudget(t, { kernels: products[0], compiled: products[1] }, architecture, 'convolutions')
    for (const { IMMA, LDSM } of pick(products[0], 'Li128ELi64ELi64ELi32ELi3E'))
      t.same({ IMMA, LDSM }, { IMMA: 64, LDSM: 24 })
  })
}

for (const architecture of ['80', '120']) {
  t.test(`few tokens, sm_${architecture}`, { skip }, async (t) => {
    const built = await build('sm80/matmul_few.cu', architecture)
    checkCommon(t, built)
    await checkBudget(t, built, architecture)
    // 32 rows by 8 tokens a warp over 64 of K: 2 x 4 products, and 64 bytes of K of the tokens by one ldmatrix
    const one = pick(built.kernels, 'matmul_packedINS0_12PackedConfigINS0_6Codes8IN2cu3f16EEELi128ELi8E')
    t.equal(one.length, 1)
    for (const { HMMA, LDSM } of one) t.same({ HMMA, LDSM }, { HMMA: 8, LDSM: 2 })
  })
}

// the whole list of architectures for one family, with mma.sp: a product takes 64 bytes of K
for (const architecture of ['80', '86', '89', '90', '100', '120']) {
  t.test(`2:4, sm_${architecture}`, { skip }, async (t) => {
    const built = await build('sm80/matmul_sparse.cu', architecture)
    checkCommon(t, built)
    await checkBudget(t, built, architecture)
    const large = pick(built.kernels, 'Li128ELi128ELi64ELi64ELi3E')
    t.equal(large.length, 3)
    for (const { HMMA = 0, IMMA = 0, LDSM } of large)
      t.same({ products: HMMA + IMMA, LDSM }, { products: 64, LDSM: 16 })
  })
}

t.test('sm_90a', { skip }, async (t) => {
  const built = await build('sm90/matmul.cu', '90a')
  // the manifest's 168 registers are 65536 / 384 threads, rounded down to 8; setmaxnreg moves them at run time
  checkCommon(t, built)
  await checkBudget(t, built, '90a')
  t.equal(built.kernels.length, 10 + 3, 'dense and 2:4')
  for (const kernel of built.kernels) {
    const { HGMMA = 0, IGMMA = 0, UTMALDG = 0, USETMAXREG } = histogram(kernel)
    t.ok(HGMMA + IGMMA >= 4 && UTMALDG >= 2, 'products and copies')
    t.equal(kernel.name.includes('s8') ? HGMMA : IGMMA, 0, 'of the right type')
    t.equal(USETMAXREG, 2)
  }
})

/**
 * The kernels that drivers launch on elements, rows and columns: of a template's instances, the one with the most registers, by
 * blocks of 256 threads.
 */
const drivers = [
  'batch_norm',
  'bytes',
  'create',
  'elementwise',
  'index',
  'optim',
  'pairs',
  'pooling',
  'qconv',
  'quantize',
  'recurrent',
  'reduce',
  'resize',
  'rows',
  'sparse',
  'weights',
]
for (const file of drivers) {
  t.test(`drivers/${file}.cu`, { skip }, async (t) => {
    for (const architecture of ['80', '120']) {
      const built = await build(`drivers/${file}.cu`, architecture)
      checkCommon(t, built)
      t.notMatch(built.said, /[1-9]\d* bytes stack frame/, 'no local memory')
      const most = new Map<string, number>()
      const compiled = built.compiled.filter((kernel) => !isProduct(kernel))
      const names = templateNames(compiled.map(({ name }) => name))
      compiled.forEach(({ registers }, i) => {
        const name = `${file}: ${names[i]}`
        most.set(name, Math.max(registers, most.get(name) ?? 0))
      })
      await checkElements(t, most, architecture)
    }
  })
}

t.test(
  'quantized numbers have the bits of the CPU: nothing is fused, flushed to 0 or approximate',
  { skip },
  async (t) => {
    t.same(
      unfused
        .split(' ')
        .map((file) => path.basename(file))
        .sort(),
      ['create.cu', 'quantize.cu'],
    )
    const file = path.join(scratch, 'quantize.ptx')
    // fused multiply-adds allowed: the code gives no occasion for one
    await run(nvcc ?? '', [
      '-std=c++17',
      '-arch=compute_80',
      '-ptx',
      path.join(root, 'native', 'cuda', 'drivers', 'quantize.cu'),
      '-o',
      file,
    ])
    const text = readFileSync(file, 'utf8')
    t.match(text, /\bdiv\.rn\.f32\b/)
    t.notMatch(text, /\bfma\.|\.approx\b|\.ftz\b|\bdiv\.full/)
  },
)

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
