/** Which rows the command line asks for. */
import type { BenchOptions } from '#lib/cli/report'
import {
  type ByteShape,
  byteShapes,
  FEW_ROWS,
  floats,
  GROUP,
  type Shape,
  type SparseShape,
  shapes,
  sparseShapes,
  type WeightShape,
  weightShapes,
} from './shapes'

/** Whether the suite's own rows of this dtype are wanted. */
export const asked = (options: BenchOptions, suite: string, dtype: string): boolean =>
  options.suites.includes(suite) && (options.dtypes.length === 0 || options.dtypes.includes(dtype))

const wantsFloats = (options: BenchOptions): boolean =>
  (['matmul', 'rows', 'edge'] satisfies Shape['suite'][]).some((suite) => options.suites.includes(suite))

/** The dtypes of the products that --shapes names: float32, or int8 where only that suite is wanted. */
function dtypesOfAsked(options: BenchOptions): string[] {
  if (options.dtypes.length > 0) return options.dtypes
  return wantsFloats(options) ? ['float32'] : ['int8']
}

export function wantedShapes(options: BenchOptions): Shape[] {
  if (options.shapes.length === 0) {
    return shapes.map((s) => ({ ...s, dtypes: s.dtypes.filter((dtype) => asked(options, s.suite, dtype)) }))
  }
  if (!wantsFloats(options)) return []
  const dtypes = floats.filter((dtype) => dtypesOfAsked(options).includes(dtype))
  return options.shapes.map(([m, n, k]) => ({
    suite: m <= FEW_ROWS ? 'rows' : 'matmul',
    ...{ m, n, k, dtypes, why: 'asked for' },
  }))
}

function wantsInt8(options: BenchOptions, dtype: 'int8' | 'int4'): boolean {
  if (options.shapes.length === 0) return asked(options, 'int8', dtype)
  return options.suites.includes('int8') && dtypesOfAsked(options).includes(dtype)
}

export function wantedByteShapes(options: BenchOptions): ByteShape[] {
  if (!wantsInt8(options, 'int8')) return []
  if (options.shapes.length === 0) return byteShapes
  return options.shapes.flatMap(([m, n, k]) =>
    (['int32', 'uint8'] as const).map((result) => ({ m, n, k, result, why: 'asked for' })),
  )
}

/** --shapes means products of bytes for int8, and for int4, which has none, weights in groups. */
export function wantedWeightShapes(options: BenchOptions): WeightShape[] {
  if (options.shapes.length === 0) return weightShapes.filter((s) => wantsInt8(options, s.bits === 8 ? 'int8' : 'int4'))
  if (!wantsInt8(options, 'int4')) return []
  return options.shapes.map(([m, n, k]) => ({ m, n, k, bits: 4, group: GROUP, why: 'asked for' }))
}

/** --shapes means CSR with nine of ten weights zero, where dense products are not asked for. */
export function wantedSparseShapes(options: BenchOptions): SparseShape[] {
  if (options.shapes.length === 0) return sparseShapes.filter(({ dtype }) => asked(options, 'sparse', dtype))
  if (!asked(options, 'sparse', 'float32') || wantsFloats(options)) return []
  return options.shapes.map(([m, n, k]) => ({
    ...{ m, n, k, zeros: 0.9, format: 'csr', dtype: 'float32', why: 'asked for' },
  }))
}
