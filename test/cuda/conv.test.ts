// The kernels of convolutions in the emulator, as matmul.test.ts runs products: right in all modes, without a race, at the cost that
// their layouts promise; and broken.
import t from 'tap'
import { checkFaults, checkKernel, type Fault } from './kernel-runs'
import { noEmulator } from './programs'

t.test('kernels', { skip: noEmulator }, (t) => checkKernel(t, 'conv', (r) => r.m % 64 === 0 && r.n % 32 === 0))

const UNORDERED = /uninitialised|not ordered|unordered|before it was waited for/
const HALO = { program: 'conv', file: 'operands.cuh' }

const FAULTS: Fault[] = [
  {
    program: 'conv',
    file: 'matmul_mma.cuh',
    what: 'no barrier in the main loop',
    from: 'cu::sync_threads();              // and for all',
    to: '// and for all',
    wrong: 'always',
    report: UNORDERED,
  },
  {
    ...HALO,
    what: 'the right edge a column too late',
    from: 'static_cast<unsigned>(in_w)',
    to: 'static_cast<unsigned>(in_w + 1)',
    wrong: 'always',
  },
  {
    ...HALO,
    what: 'the lower edge a row too late',
    from: 'static_cast<unsigned>(in_h)',
    to: 'static_cast<unsigned>(in_h + 1)',
    wrong: 'always',
    report: /outside of every buffer/,
  },
  {
    program: 'conv',
    file: 'conv.cuh',
    quick: 2,
    what: 'float32: corners are read before they are there',
    from: '    cu::sync_threads();\n  }\n  template <int COUNT, int STEP>',
    to: '  }\n  template <int COUNT, int STEP>',
    wrong: 'always',
    report: UNORDERED,
  },
  {
    program: 'conv',
    file: 'conv_weight_grad.cuh',
    quick: 3,
    what: 'float32 weight gradient: sums read before they are there',
    from: 'cu::sync_threads();\n  store_split<SimtTile',
    to: 'store_split<SimtTile',
    report: UNORDERED,
  },
  {
    program: 'conv',
    file: 'conv_weight_grad.cuh',
    quick: 5,
    what: 'weight gradient: operands as they lie, not transposed',
    from: 'cu::load_matrix_x4_transposed(a,',
    to: 'cu::load_matrix_x4(a,',
    wrong: 'always',
  },
  {
    program: 'conv',
    file: 'conv_layout.cuh',
    quick: 4,
    what: 'channels last: a tile is written again while it is read',
    from: 'cu::sync_threads();  // the tile is written again',
    to: '',
    report: UNORDERED,
  },
  {
    program: 'conv',
    file: 'conv_layout.cuh',
    quick: 4,
    what: 'channels last: rows without padding',
    from: 'kTurnTile + 4 / sizeof(T);',
    to: 'kTurnTile;',
    cost: 16,
  },
]

t.test('faults', { skip: noEmulator }, (t) => checkFaults(t, FAULTS))
