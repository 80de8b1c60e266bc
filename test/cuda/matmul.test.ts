// The products of native/cuda/ in the emulator: right in both asynchronous modes and under three schedules, without a
// race, at the cost that their layouts promise; and each of them broken in the ways that a kernel breaks, which must
// show.
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { checkFaults, checkKernel, type Fault, type Run } from './kernel-runs'
import { noEmulator, root } from './programs'

const whole = (r: Run) => r.m % 128 === 0 && (r.n % 64 === 0 || r.n === 16 || r.n === 8 || r.n === 32)

t.test('kernels', { skip: noEmulator }, async (t) => {
  await Promise.all([
    (async () => {
      await checkKernel(t, 'simt', whole)
      await checkKernel(t, 'mma', whole)
    })(),
    (async () => {
      await checkKernel(t, 'wgmma', whole)
      await checkKernel(t, 'packed', whole)
    })(),
  ])
})

const mma = { program: 'mma', file: 'matmul_mma.cuh' }
const wgmma = { program: 'wgmma', file: 'sm90/matmul_wgmma.cuh' }
const wgmmaSparse = { program: 'wgmma', file: 'sm90/matmul_wgmma_sparse.cuh', quick: 2 as const }
const packed = { program: 'packed', file: 'matmul_packed.cuh' }
const split = { program: 'packed', file: 'split.h' }
const BLOCKS = /a block reads what another wrote/
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
    from: 'cu::sync_threads();  // and are complete',
    to: '',
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
    from: 'cu::named_barrier(1, C::kConsumers);  // what was there before has been stored',
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
    ...wgmmaSparse,
    what: 'wgmma.sp: a stage is released before the tensor core has read it',
    from: 'cu::wgmma_wait<0>();\n      if (thread % 128 == 0) cu::mbarrier_arrive(empty + at.stage);',
    to: 'if (thread % 128 == 0) cu::mbarrier_arrive(empty + at.stage);\n      cu::wgmma_wait<0>();',
    report: /not ordered|before it was waited for/,
  },
  {
    ...wgmmaSparse,
    what: 'wgmma.sp: the metadata of the step before',
    from: 'next.load(from, lane, k + 1, units)',
    to: 'next.load(from, lane, k, units)',
    wrong: 'always',
  },
  {
    ...wgmmaSparse,
    what: 'wgmma.sp: metadata beyond the end of K',
    from: 'step * 2 + i < units ? step * 2 + i : units - 1',
    to: 'step * 2 + i',
    report: /outside of every buffer/,
  },
  {
    ...packed,
    what: 'packed: wait_group off by one',
    from: 'copy_wait<C::STAGES - 2>',
    to: 'copy_wait<C::STAGES - 1>',
    wrong: 'late',
    report: /before it was waited for/,
  },
  {
    ...packed,
    what: 'packed: no barrier in the main loop',
    from: 'cu::sync_threads();              // and for all',
    to: '// and for all',
    wrong: 'always',
    report: UNORDERED,
  },
  {
    ...packed,
    what: 'packed: no barrier before the sums overwrite the stages',
    from: 'cu::sync_threads();  // the sums overwrite the stages',
    to: '',
    report: /write not ordered after another warp's read/,
  },
  {
    ...packed,
    what: 'packed: units beyond the end are zeros, which are no metadata',
    quick: 2,
    from: 'from, true);',
    to: 'from, unit < units_here);',
    report: /metadata out of order/,
  },
  {
    ...split,
    what: 'split-K: no barrier before a block says that its part is complete',
    from: "cu::sync_threads();  // the block's part",
    to: '//',
    report: BLOCKS,
  },
  {
    ...split,
    what: 'split-K: no fence before a block says so',
    from: 'cu::fence_global();\n    const unsigned earlier',
    to: 'const unsigned earlier',
    report: BLOCKS,
  },
  {
    ...split,
    what: 'split-K: no fence after the last block has heard it',
    from: 'cu::fence_global();\n    if (earlier',
    to: 'if (earlier',
    report: BLOCKS,
  },
  {
    ...split,
    what: 'split-K: the block of the last part adds up, whoever ends when',
    from: 'cu::atomic_add(split.arrived + number, 1)',
    to: 'blockIdx.z',
    report: /a block (?:reads|writes) what another/,
  },
  {
    ...split,
    what: 'split-K: parts read through the read-only cache',
    from: 'cu::load_written(',
    to: 'cu::load_global(',
    report: /read-only cache/,
  },
  {
    ...split,
    what: 'split-K: counters stay as they are for the next launch',
    from: 'if (earlier == gridDim.z - 1) cu::store_global(split.arrived + number, 0u);',
    to: '',
    report: /counter is not 0/,
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

t.test('faults', { skip: noEmulator }, (t) => checkFaults(t, FAULTS))

t.test('kernels touch memory only through cu::', (t) => {
  const kernels = readdirSync(path.join(root, 'native', 'cuda'), { recursive: true, encoding: 'utf8' })
  for (const file of kernels.filter((name) =>
    /\.cuh$|^(?:any_epilogue|epilogue|finish|split|packed_weights)\.h$/.test(name),
  )) {
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
