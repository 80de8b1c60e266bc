/** The one list of products that are measured: m x n x k, a name, and why it is there. */

import type { DType } from '#lib/core/tables.gen'
import { type SparseFormat, showFormat } from '#lib/tensor/sparse'
import type { ConvSize } from './onnx'

/** Products of floats. */
export interface Shape {
  suite: 'matmul' | 'rows' | 'edge'
  m: number
  n: number
  k: number
  why: string
  dtypes: DType[]
  /** A row of kernels to force; the strongest one otherwise. */
  target?: string
}

export const floats: DType[] = ['float32', 'bfloat16', 'float16']

export const shapes: Shape[] = [
  { suite: 'matmul', m: 1024, n: 1024, k: 1024, dtypes: floats, why: 'fits the caches in blocks: the kernel itself' },
  { suite: 'matmul', m: 2048, n: 2048, k: 2048, dtypes: floats, why: 'streams from memory: blocking and prefetch' },
  {
    suite: 'matmul',
    m: 1024,
    n: 1024,
    k: 1024,
    dtypes: ['float32'],
    target: 'avx2',
    why: 'the row for CPUs without AVX-512',
  },
  { suite: 'rows', m: 1, n: 4096, k: 4096, dtypes: floats, why: 'one token: every weight is read once' },
  { suite: 'rows', m: 8, n: 4096, k: 4096, dtypes: floats, why: 'eight rows for the price of one' },
  { suite: 'edge', m: 64, n: 784, k: 300, dtypes: ['float32'], why: 'LeNet-300-100: the gradient of its input' },
  { suite: 'edge', m: 64, n: 300, k: 784, dtypes: ['float32'], why: 'LeNet-300-100: its first layer' },
  { suite: 'edge', m: 100, n: 300, k: 100, dtypes: ['float32'], why: 'no size is a multiple of the tile' },
  { suite: 'edge', m: 37, n: 53, k: 71, dtypes: ['float32'], why: 'primes; the call itself weighs as much' },
]

/** uint8 by int8: the sums, or all of it requantized to uint8. */
export interface ByteShape {
  m: number
  n: number
  k: number
  result: 'int32' | 'uint8'
  why: string
  target?: string
}

const bytes = (size: number, result: ByteShape['result'], why: string, target?: string): ByteShape => ({
  ...{ m: size, n: size, k: size, result, why },
  ...(target ? { target } : {}),
})

export const byteShapes: ByteShape[] = [
  bytes(1024, 'int32', 'bytes by bytes: the kernel itself'),
  bytes(2048, 'int32', 'streams from memory: blocking and prefetch'),
  bytes(1024, 'uint8', 'between two quantized layers: sums become bytes again'),
  bytes(2048, 'uint8', 'the same from memory'),
  bytes(1024, 'int32', 'the row for CPUs without dot products of bytes: pairs of int16', 'avx2'),
  bytes(1024, 'int32', 'dot products of bytes in 256-bit registers', 'avx_vnni'),
  bytes(1024, 'int32', 'AVX-512 without dot products of bytes: pairs of int16', 'avx512'),
]

/** Float activations, quantized weights. */
export interface WeightShape {
  m: number
  n: number
  k: number
  bits: 4 | 8
  /** Inputs that share a scale; null: all of a channel. */
  group: number | null
  /** Activations rounded to bytes on the way in, by a scale a token: linear({ quantizeInput: 'token' }). */
  bytes?: true
  why: string
}

export const GROUP = 128
const rowsOfWeights: [number, string][] = [
  [1, 'one token: every weight is read once'],
  [8, 'eight rows: the weights are read for all of them'],
  [32, 'a batch: arithmetic'],
]

export const weightShapes: WeightShape[] = rowsOfWeights.flatMap(([m, why]) => [
  { m, n: 4096, k: 4096, bits: 8, group: GROUP, why },
  { m, n: 4096, k: 4096, bits: 8, group: null, why },
  { m, n: 4096, k: 4096, bits: 8, group: null, bytes: true, why },
  { m, n: 4096, k: 4096, bits: 4, group: GROUP, why },
])

/** A layer of sparse weights: float32, or int8 with activations that become bytes a token. */
export interface SparseShape {
  m: number
  n: number
  k: number
  /** Of the weights, or of the blocks; 2:4 is half zeros. */
  zeros: number
  format: SparseFormat
  dtype: 'float32' | 'int8'
  why: string
}

const csrShapes: SparseShape[] = [1024, 4096].flatMap((n) =>
  [1, 32, 512].flatMap((m) =>
    [0.65, 0.9, 0.95].map((zeros) => ({
      ...{ m, n, k: n, zeros, format: 'csr' as const, dtype: 'float32' as const },
      why: zeros < 0.9 ? 'about where sparse begins to pay' : 'unstructured pruning',
    })),
  ),
)

const wide = { n: 4096, k: 4096 }
const pairs = { ...wide, zeros: 0.5, format: '2:4', why: 'two of every four' } as const
const blocks = { ...wide, zeros: 0.8, format: { block: [1, 16] }, why: 'blocks' } as const
const scattered = { ...wide, zeros: 0.9, format: 'csr', why: 'unstructured pruning' } as const

export const sparseShapes: SparseShape[] = [
  ...csrShapes,
  ...[1, 512].map((m) => ({ ...pairs, m, dtype: 'float32' as const })),
  { ...blocks, m: 512, dtype: 'float32' },
  ...[scattered, pairs, blocks].map((s) => ({ ...s, m: 512, dtype: 'int8' as const })),
]

export const sparseLabel = (s: SparseShape): string =>
  `${showFormat(s.format)}${s.dtype === 'int8' ? ' int8' : ''} ${name(s)}, ${Math.round(100 * s.zeros)} % zeros`

export interface ConvShape extends ConvSize {
  why: string
}

const conv = (
  why: string,
  channels: number,
  size: number,
  kernel: number,
  rest: Partial<ConvSize> = {},
): ConvShape => ({
  ...{ x: [8, channels, size, size], out: channels, kernel, stride: 1, groups: 1, why },
  ...rest,
})

export const convShapes: ConvShape[] = [
  conv('the body of a ResNet', 64, 56, 3),
  conv('the same with fewer pixels and more channels', 128, 28, 3),
  conv('the end of one', 512, 7, 3),
  conv('halves the image', 64, 56, 3, { out: 128, stride: 2 }),
  conv('a product of matrices', 64, 56, 1),
  conv('the same', 128, 28, 1),
  conv('depthwise', 64, 56, 3, { groups: 64 }),
  conv('depthwise', 128, 28, 3, { groups: 128 }),
  conv('the first layer of LeNet-5', 1, 28, 5, { x: [64, 1, 28, 28], out: 6 }),
  conv('the second', 6, 14, 5, { x: [64, 6, 14, 14], out: 16 }),
]

export const convLabel = ({ x, out, kernel, stride, groups }: ConvSize): string =>
  `conv ${kernel}x${kernel} ${x.join('x')} to ${out}${stride > 1 ? `, stride ${stride}` : ''}${groups > 1 ? `, ${groups} groups` : ''}`

/** Up to this many rows a product is bound by reading its weights. */
export const FEW_ROWS = 8

export const name = (s: { m: number; n: number; k: number }): string => `${s.m}x${s.n}x${s.k}`
