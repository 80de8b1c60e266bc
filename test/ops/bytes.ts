// Operands of products of bytes, in every combination of signs.
import { tensor } from '#lib/ops/create'
import { transpose } from '#lib/ops/shape'
import type { Tensor } from '#lib/tensor/tensor'
import { compare, onEveryTarget, random } from '../matrix'
import type { Nd } from '../oracle/array'
import { transposed } from '../oracle/quantize'

export const bytes = ['int8', 'uint8'] as const
export type Byte = (typeof bytes)[number]
export const signs = bytes.flatMap((a) => bytes.map((b): [Byte, Byte] => [a, b]))

export interface Operand {
  tensor: Tensor<Byte>
  values: Nd
}
export const lower = { int8: -128, uint8: 0 }
export const upper = { int8: 127, uint8: 255 }

export function operand(dtype: Byte, values: Nd, turned = false): Operand {
  const stored = turned ? transposed(values) : values
  const made = tensor(stored.data, { shape: stored.shape, dtype }) as Tensor<Byte>
  return { tensor: turned ? transpose(made) : made, values }
}

export type Zeros = 'none' | 'one' | 'many'
/** A zero point: none, one, or one a row or column; as a tensor and as a function. */
export function zeroPoint(
  kind: Zeros,
  dtype: Byte,
  n: number,
  seed: number,
): { tensor: Tensor | null; at: (i: number) => number } {
  if (kind === 'none') return { tensor: null, at: () => 0 }
  const values = random(dtype, kind === 'one' ? [] : [n], seed)
  return {
    tensor: tensor(values.data, { shape: values.shape, dtype }),
    at: (i) => values.data[kind === 'one' ? 0 : i] as number,
  }
}

/** Computed once, compared on every row. */
export interface Case {
  label: string
  run: () => Tensor
  want: Nd
}
export function onEveryCase(name: string, cases: Case[]): void {
  onEveryTarget(name, () => cases.flatMap(({ label, run, want }) => compare(label, run(), want)))
}

export const kinds: Zeros[] = ['none', 'one', 'many']
