// What tests multiply: rows of kernels x dtypes x layouts x sizes; and how results are compared.
//
// The rows are switched inside one process (the addon chooses again while its stream is idle), so that every file runs
// on every row that this CPU has without a process each.
import t from 'tap'
import type { DType } from '#lib/core/dtype'
import { addon, choose, targetName } from '#lib/native/load'
import { syncBlocking } from '#lib/native/stream'
import * as create from '#lib/ops/create'
import { contiguous, expand, flip, permute, reshape, slice } from '#lib/ops/shape'
import type { Tensor } from '#lib/tensor/tensor'
import { type Nd, nd } from './oracle/array'
import { decode, roundTo } from './oracle/float'

export const floats = ['float32', 'float16', 'bfloat16'] as const
export const integers = ['int8', 'uint8', 'int32', 'int64'] as const
export const dtypes: readonly DType[] = [...floats, ...integers, 'bool']
/** Around the vector widths (4, 8, 16), unrolled blocks and task sizes; the rest are primes. */
export const lengths = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 127, 257]

/** The rows of kernels that this CPU has. */
export const targets = addon
  .machine()
  .targets.filter((row) => row.compiled && row.supported)
  .map((row) => row.name)

/**
 * With KERF_TEST_DEVICE=cuda the files of test/ops/ run on the (emulated) GPU instead: tensors are made there, and there is one
 * "row". test/cuda/ops.test.ts starts them so.
 */
export const onGpu = process.env.KERF_TEST_DEVICE === 'cuda'
if (onGpu) {
  targets.splice(0, targets.length, 'cuda')
  const makers = create as unknown as Record<string, (first: unknown, options?: object) => Tensor>
  for (const name of ['tensor', 'zeros', 'ones', 'rand', 'randn']) {
    const make = makers[name] as (first: unknown, options?: object) => Tensor
    makers[name] = (first, options) => make(first, { device: 'cuda', ...options })
  }
  const { arange, full } = create
  const range = (start: number, end: number, step?: number, options?: object) =>
    arange(start, end, step, { device: 'cuda', ...options })
  const filled = (shape: readonly number[], value: number, options?: object) =>
    full(shape, value, { device: 'cuda', ...options })
  Object.assign(create, { arange: range, full: filled })
}

/** Why a test of the CPU's rows of kernels is left out on a GPU, for tap's `skip`; false on the CPU. */
export const cpuRowsOnly = onGpu && 'there are no rows of CPU kernels on a GPU'

/** What has no CUDA kernel yet: tests that must end with the error that says so. */
const NOT_ON_CUDA: readonly string[] = []

/** Runs `body` once on every row. What it returns is what went wrong; each row is one assertion. */
export function onEveryTarget(name: string, body: (target: string) => string[]): void {
  t.test(name, (t) => {
    const chosen = targetName()
    try {
      for (const target of targets) {
        syncBlocking()
        if (!onGpu) choose(target, 0)
        else if (NOT_ON_CUDA.includes(name)) {
          t.throws(() => body(target), { code: 'ERR_DEVICE', message: /no CUDA kernel/ }, `${name}: no CUDA kernel yet`)
          continue
        }
        const failures = body(target)
        t.same(failures.slice(0, 12), [], `${name} on ${target}: ${failures.length} failures`)
      }
    } finally {
      syncBlocking()
      if (!onGpu) choose(chosen, 0)
    }
    t.end()
  })
}

/** So many threads from here on, on the strongest row; on a GPU, whose blocks run in another order each time, nothing changes. */
export function useThreads(count: number): void {
  syncBlocking()
  if (!onGpu) choose('', count)
}

/** A small generator (xorshift32) so that every run sees the same numbers. */
export function generator(seed: number): () => number {
  let x = (seed * 2654435761) >>> 0 || 1
  return () => {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    x >>>= 0
    return x / 2 ** 32
  }
}

const ranges: Record<DType, [number, number]> = {
  float32: [-4, 4],
  float16: [-4, 4],
  bfloat16: [-4, 4],
  int8: [-128, 127],
  uint8: [0, 255],
  int32: [-(2 ** 31), 2 ** 31 - 1],
  int64: [-(2 ** 52), 2 ** 52],
  bool: [0, 1],
}

/** Values of the dtype, rounded to it: over its whole range for integers, [-4, 4] for floats, unless given. */
export function random(
  dtype: DType,
  shape: readonly number[],
  seed: number,
  range: [number, number] = ranges[dtype],
): Nd {
  const next = generator(seed)
  const whole = !(floats as readonly string[]).includes(dtype)
  const [low, high] = range
  return nd(shape, () =>
    whole ? low + Math.floor(next() * (high - low + 1)) : roundTo(dtype, low + next() * (high - low)),
  )
}

function make(dtype: DType, values: Nd): Tensor {
  return create.tensor(values.data, { shape: values.shape, dtype })
}

const junk = 99 // beside the elements of a view: in range of every dtype, and noticed when it is read

/** A tensor with the given values in memory of some layout. `broadcast` repeats the first slice of axis 0 instead. */
export interface Laid {
  tensor: Tensor
  values: Nd
}

export const layouts: Record<string, (dtype: DType, values: Nd) => Laid> = {
  contiguous: (dtype, values) => ({ tensor: make(dtype, values), values }),
  offset: (dtype, values) => {
    const n = values.data.length
    const padded = nd([n + 5], (_, flat) => (flat < 3 || flat >= n + 3 ? junk : (values.data[flat - 3] as number)))
    return { tensor: reshape(slice(make(dtype, padded), [[3, n + 3]]), values.shape), values }
  },
  strided: (dtype, values) => {
    const last = values.shape.length - 1
    if (last < 0) return lay('offset', dtype, values)
    const wide = values.shape.map((n, i) => (i === last ? 2 * n : n))
    const padded = nd(wide, (index, flat) => ((index[last] as number) % 2 ? junk : (values.data[flat / 2] as number)))
    const view = slice(make(dtype, padded), [
      ...wide.slice(0, -1).map(() => null),
      [0, 2 * (values.shape[last] as number), 2] as const,
    ])
    return { tensor: view, values }
  },
  permuted: (dtype, values) => {
    const axes = values.shape.map((_, i) => values.shape.length - 1 - i)
    const stored = contiguous(permute(make(dtype, values), axes))
    return { tensor: permute(stored, axes), values }
  },
  reversed: (dtype, values) => {
    if (values.shape.length === 0) return lay('contiguous', dtype, values)
    const axes = values.shape.map((_, i) => i)
    return { tensor: flip(contiguous(flip(make(dtype, values), axes)), axes), values }
  },
  broadcast: (dtype, values) => {
    if (values.shape.length === 0 || values.shape[0] === 0) return lay('contiguous', dtype, values)
    const slab = values.data.length / (values.shape[0] as number)
    const first = { shape: [1, ...values.shape.slice(1)], data: values.data.slice(0, slab) }
    return {
      tensor: expand(make(dtype, first), values.shape),
      values: nd(values.shape, (_, flat) => values.data[flat % slab] as number),
    }
  },
}
export const layoutNames = Object.keys(layouts)

export function lay(layout: string, dtype: DType, values: Nd): Laid {
  return (layouts[layout] as (dtype: DType, values: Nd) => Laid)(dtype, values)
}

/** The values of a tensor, decoded by the oracle. */
export function read(a: Tensor): Nd {
  const raw = a.dataSync() as ArrayLike<number | bigint>
  const half = a.dtype === 'float16' || a.dtype === 'bfloat16' ? a.dtype : null
  return { shape: a.shape, data: Float64Array.from(raw, (x) => (half ? decode(half, x as number) : Number(x))) }
}

/** The differences between a tensor and what it should be. `tolerance` is absolute, an element at a time; 0 is exact. */
export function compare(
  label: string,
  got: Tensor,
  want: Nd,
  tolerance: (flat: number, want: number) => number = () => 0,
): string[] {
  if (got.shape.join() !== want.shape.join()) return [`${label}: shape is [${got.shape}], should be [${want.shape}]`]
  const { data } = read(got)
  for (let i = 0; i < data.length; i++) {
    const x = data[i] as number
    const y = want.data[i] as number
    if (Number.isNaN(x) && Number.isNaN(y)) continue
    if (x === y) continue
    if (Math.abs(x - y) <= tolerance(i, y)) continue
    return [`${label} [${want.shape}]: element ${i} is ${x}, should be ${y} +- ${tolerance(i, y)}`]
  }
  return []
}

/** Shapes of one to four axes with edges of every kind. */
export const shapes: readonly (readonly number[])[] = [
  [],
  [0],
  [1],
  [5],
  [17],
  [129],
  [3, 0, 2],
  [4, 5],
  [1, 33],
  [33, 1],
  [16, 17],
  [2, 3, 5],
  [7, 1, 9],
  [2, 3, 4, 5],
  [257, 3],
  [3, 257],
]

export function subsets(rank: number): number[][] {
  return Array.from({ length: 2 ** rank }, (_, bits) =>
    Array.from({ length: rank }, (_, i) => i).filter((i) => (bits >> i) & 1),
  )
}

/** What an op's own gradient rule answers for the gradient of its result. */
export function gradients(out: Tensor, grad: Tensor): readonly (Tensor | null)[] {
  if (!out.node) throw new Error('the op was not recorded')
  return out.node.vjp(grad)
}
