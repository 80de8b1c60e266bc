/** The one list of products that are measured: m x n x k, a name, and why it is there. */
import type { DType } from '#lib/core/tables.gen'

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

const floats: DType[] = ['float32', 'bfloat16', 'float16']

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

export const name = (s: { m: number; n: number; k: number }): string => `${s.m}x${s.n}x${s.k}`
