/** The forms that kernels read sparse weights in: which one a product takes, and packing it once. */
import { DTypeError } from '../core/errors'
import { showShape } from '../core/shape'
import { native } from '../native/call'
import { addon, targetName } from '../native/load'
import { isBlocks, type SparsePacked, type SparseTensor } from '../tensor/sparse'
import { keep } from '../tensor/tensor'
import { tensor } from './create'
import { empty } from './op'
import { type CsrArrays, csrArrays } from './sparse'

/** native/core/kernels.h: SparseForm, SparseByteForm. */
const forms = {
  float: { panels: 0, tables: 1, pairs: 2, blocks: 3 },
  bytes: { panels: 0, tables: 1 },
} as const

/** What the kernels multiply: floats, or bytes by bytes. */
export type SparseKind = keyof typeof forms
type Form = keyof typeof forms.float

/** Inputs that the kernel for blocks takes at a time. */
const RUN = 8
/** Rows that a vector of the panels' kernel holds. */
const LANES = 16

const limits = { target: '', rows: new Map<string, number>() }

/** Whether the chosen row of kernels has the form, and means it for so many rows of x. No call of the addon once known. */
function fits(kind: SparseKind, form: Form, rows: number): boolean {
  const target = targetName()
  if (limits.target !== target) {
    limits.target = target
    limits.rows.clear()
    for (const [kind, named] of Object.entries(forms))
      for (const [form, code] of Object.entries(named))
        limits.rows.set(kind + form, addon.sparseRows(kind === 'bytes' ? 1 : 0, code))
  }
  const most = limits.rows.get(kind + form) ?? 0
  return most > 0 && rows <= most
}

/** What is known of `w` for the chosen row of kernels; of another row it is forgotten. */
function madeOf(w: SparseTensor): SparseTensor['made'] {
  const { made } = w
  const target = targetName()
  if (made.target !== target) {
    for (const { packed } of made.packed.values()) packed.dispose()
    made.packed.clear()
    made.byteForm = undefined
    made.target = target
  }
  return made
}

/** The form that `rows` rows by these weights take. */
function formOf(kind: SparseKind, w: SparseTensor, rows: number): Form {
  if (kind === 'bytes') {
    if (!fits('bytes', 'tables', rows)) return 'panels'
    const made = madeOf(w)
    made.byteForm ??= costsOfBytes(csrArrays(w), w.shape[1] as number)
    return made.byteForm.tables * rows < made.byteForm.panels * Math.ceil(rows / LANES) ? 'tables' : 'panels'
  }
  if (w.format === '2:4' && fits('float', 'pairs', rows)) return 'pairs'
  if (fits('float', 'tables', rows)) return 'tables'
  if (isBlocks(w.format) && w.format.block[1] % RUN === 0 && fits('float', 'blocks', rows)) return 'blocks'
  return 'panels'
}

/**
 * Cycles that a row (tables) or 16 rows (panels) take, measured on Zen 5: a step of tables is a shuffle and a dot product, a
 * unit of panels a dot product and a load.
 */
function costsOfBytes(w: CsrArrays, k: number): { tables: number; panels: number } {
  const count = (form: 'tables' | 'panels') => addon.sparseMeasure(1, forms.bytes[form], w.pointers, w.columns, k)
  return { tables: 0.75 * count('tables'), panels: 0.75 * count('panels') }
}

/** @internal The kernels of the chosen row, by the form of weights that they read; forms that it does not have are left out. */
export function sparseKernels(kind: SparseKind): Record<string, string> {
  const named = Object.entries(forms[kind]).map(([form, code]) => [
    form,
    addon.sparseName(kind === 'bytes' ? 1 : 0, code),
  ])
  return Object.fromEntries(named.filter(([, name]) => name !== null))
}

/** @internal The kernel that multiplies `rows` rows by these weights. */
export function sparseKernel(kind: SparseKind, w: SparseTensor, rows: number): string {
  const form = formOf(kind, w, rows)
  return addon.sparseName(kind === 'bytes' ? 1 : 0, forms[kind][form as 'panels']) ?? ''
}

export interface PackedSparse extends SparsePacked {
  /** The form's number in the addon. */
  form: number
}

/**
 * @internal The form for `rows` rows, packed once.
 *
 * @param read the non-zeros; default as they are stored
 */
export function packedFor(
  op: string,
  kind: SparseKind,
  w: SparseTensor,
  rows: number,
  read: () => CsrArrays = () => csrArrays(w),
): PackedSparse {
  const chosen = formOf(kind, w, rows)
  const form = forms[kind][chosen as 'panels']
  const made = madeOf(w)
  const name = `${kind} ${chosen}`
  const known = made.packed.get(name)
  if (known) return { ...known, form }
  const bytes = kind === 'bytes' ? 1 : 0
  const [n, k] = w.shape as [number, number]
  const { pointers, columns, values } = read()
  const count = addon.sparseMeasure(bytes, form, pointers, columns, k)
  const size = count < 0 ? -1 : addon.sparseBytes(bytes, form, n, k, count)
  if (size < 0)
    throw new DTypeError(`${op}: no kernel on ${made.target} for a sparse tensor of shape ${showShape(w.shape)}`)
  const packed = keep(empty('uint8', [size]))
  const dtype = bytes ? 'int8' : 'float32'
  const parts = [
    tensor(values as Float32Array, { dtype }),
    tensor(pointers, { dtype: 'int32' }),
    tensor(columns, { dtype: 'int32' }),
  ] as const
  native.sppack(packed, ...parts, k, form, count)
  for (const part of parts) part.dispose()
  made.packed.set(name, { packed, count })
  return { packed, count, form }
}
