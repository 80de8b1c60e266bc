// The kernels of sparse products in the emulator, as matmul.test.ts runs dense ones: right in all modes, without a race, at the cost
// that their layouts promise; and broken.
import t from 'tap'
import { checkFaults, checkKernel, type Fault } from './kernel-runs'
import { noEmulator } from './programs'

// Where lanes are non-zeros they gather, at whatever it costs; where they are pixels, those of 1 x 1 kernels lie together.
const together = (kernel: string, k: number) => kernel.startsWith('tiles') || (kernel === 'conv f32' && k === 6)

t.test('kernels', { skip: noEmulator }, (t) =>
  checkKernel(t, 'sparse', (r) => together(r.kernel, r.k) && r.m % 32 === 0 && r.n % 32 === 0),
)

const UNORDERED = /uninitialised|not ordered|unordered/
const SPARSE = { program: 'sparse', file: 'sparse.cuh' }

const FAULTS: Fault[] = [
  {
    ...SPARSE,
    what: 'sums are read before they are there',
    from: '    cu::sync_threads();\n    const uint32_t feature',
    to: '    const uint32_t feature',
    wrong: 'always',
    report: UNORDERED,
  },
  {
    ...SPARSE,
    what: 'a tile is written again while it is read',
    from: 'cu::sync_threads();  // the tile is written again',
    to: '',
    report: UNORDERED,
  },
  { ...SPARSE, what: 'rows of the tile without padding', from: 'kSparseTile + 1;', to: 'kSparseTile;', cost: 32 },
  {
    ...SPARSE,
    quick: 2,
    what: 'few tokens: half of the lanes are added up',
    from: 'int mask = 16',
    to: 'int mask = 8',
    wrong: 'always',
  },
  {
    ...SPARSE,
    quick: 3,
    what: 'convolution: the lower edge a row too late',
    from: 'static_cast<unsigned>(in_h) ||',
    to: 'static_cast<unsigned>(in_h + 1) ||',
    wrong: 'always',
    report: /outside of every buffer/,
  },
  {
    ...SPARSE,
    quick: 3,
    what: 'convolution: the right edge a column too late',
    from: 'static_cast<unsigned>(in_w)) return',
    to: 'static_cast<unsigned>(in_w + 1)) return',
    wrong: 'always',
  },
]

t.test('faults', { skip: noEmulator }, (t) => checkFaults(t, FAULTS))
