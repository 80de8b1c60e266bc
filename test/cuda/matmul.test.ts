// The products of native/cuda/ in the emulator: right in both asynchronous modes and under three schedules, without a
// race, at the cost that their layouts promise; and each of them broken in the ways that a kernel breaks, which must
// show.
import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { compile, noEmulator, root, run, scratch } from './programs'

interface Site {
  file: string
  line: number
  shared: number
  accesses: number
  cost: number
}

interface Run {
  kernel: string
  m: number
  n: number
  k: number
  plain: number
  late: number
  seed: number
  worst: number
  reports: string[]
  sites: Site[]
}

async function runs(program: string): Promise<Run[]> {
  const { code, text, errors } = await run(program, [])
  if (code !== 0) throw new Error(`${program} ended with ${code}: ${errors}`)
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Run)
}

const name = (r: Run) => `${r.kernel} ${r.m}x${r.n}x${r.k} ${r.late ? 'late' : 'early'} seed ${r.seed}`

/** Accesses of whole tiles that cost more than 1.05 of the least wavefronts or sectors. */
const expensive = (r: Run) =>
  r.sites
    .filter(({ cost }) => cost > 1.05)
    .map((s) => `${s.file}:${s.line} ${s.shared ? 'shared' : 'global'} ${s.cost}`)

async function checkKernel(t: Test, kernel: string, wholeTiles: (r: Run) => boolean): Promise<void> {
  const all = await runs(await compile(`${kernel}_check.cc`, root, kernel))
  t.ok(all.length >= 18 && all.some(wholeTiles))
  t.same(
    all.filter((r) => r.reports.length > 0).map((r) => `${name(r)}: ${r.reports}`),
    [],
    'no report',
  )
  t.same(
    all.filter((r) => !(r.worst <= 1)).map((r) => `${name(r)}: ${r.worst} of its bound`),
    [],
    'right',
  )
  t.same(
    all.filter(wholeTiles).flatMap((r) => expensive(r).map((line) => `${name(r)}: ${line}`)),
    [],
    'costs what it must',
  )
}

const whole = (r: Run) => r.m % 128 === 0 && (r.n % 64 === 0 || r.n === 16)

t.test('kernels', { skip: noEmulator }, async (t) => {
  await Promise.all([
    (async () => {
      await checkKernel(t, 'simt', whole)
      await checkKernel(t, 'mma', whole)
    })(),
    checkKernel(t, 'wgmma', whole),
  ])
})

/** A way to break a kernel, and what must show: `wrong` numbers in some run, a report, or a cost. */
interface Fault {
  what: string
  program: string
  file: string
  from: string
  to: string
  wrong?: 'late' | 'always'
  report?: RegExp
  cost?: number
}

const mma = { program: 'mma', file: 'matmul_mma.cuh' }
const wgmma = { program: 'wgmma', file: 'sm90/matmul_wgmma.cuh' }
const UNORDERED = /uninitialised|not ordered|unordered|before it was waited for/

const FAULTS: Fault[] = [
  {
    ...mma,
    what: 'wait_group off by one',
    from: 'copy_wait<C::STAGES - 2>',
    to: 'copy_wait<C::STAGES - 1>',
    wrong: 'late',
    report: /before it was waited for/,
  },
  {
    ...mma,
    what: 'no barrier in the main loop',
    from: 'cu::sync_threads();              // and for all',
    to: '// and for all',
    wrong: 'always',
    report: UNORDERED,
  },
  {
    ...mma,
    what: 'no swizzle',
    from: '((chunk ^ (row & 7)) << 4)',
    to: '(chunk << 4)',
    cost: 8,
  },
  {
    ...mma,
    what: 'no barrier before the sums overwrite the stages',
    from: 'cu::sync_threads();  // the sums overwrite the stages',
    to: '',
    report: /write not ordered after another warp's read/,
  },
  {
    ...mma,
    what: 'no barrier before the sums are stored',
    from: 'cu::sync_threads();\n  C::Tile::template store',
    to: 'C::Tile::template store',
    report: UNORDERED,
  },
  {
    ...mma,
    what: 'sums without padding',
    file: 'epilogue.h',
    from: 'kPitch = BM + 4',
    to: 'kPitch = BM',
    cost: 4,
  },
  {
    ...wgmma,
    what: 'the producer does not wait for an empty stage',
    from: 'cu::mbarrier_wait(empty + at.stage, at.parity ^ 1);  //',
    to: '//',
    report: /too many arrivals|deadlock/,
  },
  {
    ...wgmma,
    what: 'a stage is released before the tensor core has read it',
    from: 'cu::wgmma_wait<0>();\n      if (thread % 128 == 0) cu::mbarrier_arrive(empty + at.stage);',
    to: 'if (thread % 128 == 0) cu::mbarrier_arrive(empty + at.stage);\n      cu::wgmma_wait<0>();',
    report: /not ordered|before it was waited for/,
  },
  {
    ...wgmma,
    what: 'no named barrier before the sums are overwritten',
    from: "cu::named_barrier(1, C::kConsumers);  // the last tile's sums have been stored",
    to: '',
    report: /not ordered|unordered/,
  },
  {
    ...wgmma,
    what: 'sums read while a group is under way',
    from: 'cu::wgmma_wait<0>();',
    to: 'cu::wgmma_wait<1>();',
    wrong: 'late',
  },
  {
    ...wgmma,
    what: 'the consumer does not wait for a full stage',
    from: 'cu::mbarrier_wait(full + at.stage, at.parity);',
    to: '',
    report: UNORDERED,
  },
  {
    program: 'simt',
    file: 'matmul_simt.cuh',
    what: 'one buffer instead of two',
    from: 'shared + tile % 2 * kSimtStage + copy_k',
    to: 'shared + tile % 1 * kSimtStage + copy_k',
    wrong: 'always',
    report: /not ordered|uninitialised/,
  },
]

async function checkFault(t: Test, fault: Fault, number: number): Promise<void> {
  const tree = path.join(scratch, `fault${number}`)
  for (const folder of ['core', 'cuda'])
    cpSync(path.join(root, 'native', folder), path.join(tree, 'native', folder), { recursive: true })
  const file = path.join(tree, 'native', 'cuda', fault.file)
  const parts = readFileSync(file, 'utf8').split(fault.from)
  if (!t.equal(parts.length, 2, `${fault.what}: the text to change stands in ${fault.file} once`)) return
  writeFileSync(file, parts.join(fault.to))

  const all = await runs(await compile(`${fault.program}_check.cc`, tree, `broken${number}`, '-DKERF_QUICK'))
  const wrong = (r: Run) => !(r.worst <= 1)
  if (fault.wrong === 'always') t.ok(all.every(wrong), `${fault.what}: wrong numbers`)
  if (fault.wrong === 'late') t.ok(all.filter((r) => r.late).every(wrong), `${fault.what}: wrong numbers in late mode`)
  if (fault.report)
    t.ok(
      all.every((r) => r.reports.some((line) => fault.report?.test(line))),
      `${fault.what}: reported`,
    )
  if (fault.cost) {
    const most = Math.max(...all.flatMap((r) => r.sites.map(({ cost }) => cost)))
    t.equal(most, fault.cost, `${fault.what}: ${fault.cost} times the cost`)
    t.notOk(all.some(wrong), `${fault.what}: the numbers stay right`)
  }
  const reports = [...new Set(all.flatMap((r) => r.reports))].join('; ')
  t.comment(`${fault.what}: wrong in ${all.filter(wrong).length} of ${all.length} runs; ${reports || 'no report'}`)
}

t.test('faults', { skip: noEmulator }, async (t) => {
  const queue = FAULTS.map((fault, number) => ({ fault, number }))
  const worker = async () => {
    for (let next = queue.shift(); next; next = queue.shift()) await checkFault(t, next.fault, next.number)
  }
  await Promise.all([worker(), worker()])
})

t.test('kernels touch memory only through cu::', (t) => {
  const kernels = readdirSync(path.join(root, 'native', 'cuda'), { recursive: true, encoding: 'utf8' })
  for (const file of kernels.filter((name) => /\.cuh$|^epilogue\.h$/.test(name))) {
    const code = readFileSync(path.join(root, 'native', 'cuda', file), 'utf8').replace(/\/\/.*$/gm, '')
    t.same(rawAccesses(code), [], file)
  }
  t.same(
    rawAccesses(
      'x = *p; __shared__ int s[4]; __syncthreads(); (*q)++; asm("x"); *reinterpret_cast<int*>(p) = 1; W[3] = 1;',
    ),
    ['= *p', '__shared__', '__syncthreads', '(*q', 'asm', '; *reinterpret_cast', 'W['],
    'what it finds',
  )
  t.end()
})

/** Dereferences, own PTX, intrinsics and subscripts of what kernels are given: the emulator would not see them. */
function rawAccesses(code: string): string[] {
  const pattern =
    /[=(,;{]\s*\*+\s*\w+|\b__shared__|\b__(?:ldg|syncthreads|syncwarp|shfl\w*|ballot\w*|cvta\w*)|\basm\b|\b(?:W|X|shared|tile|[wx]_tile|[wx]_from|copy_to|out|epilogue\.\w+)\[/g
  return [...code.matchAll(pattern)].map(([found]) => found.replace(/\s+/g, ' '))
}
