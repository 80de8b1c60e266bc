/**
 * The forms that kernels read sparse weights in: which one a product takes, and packing it once.
 */
import { type DType, dtypeCode } from '../core/dtype'
import { DTypeError } from '../core/errors'
import { showShape } from '../core/shape'
import { native } from '../native/call'
import { cudaDevices, pairBytesCuda, sparseBytesCuda } from '../native/cuda'
import { addon, targetName } from '../native/load'
import { cudaIndex } from '../tensor/device'
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

/** Those of GPUs (native/cuda/drivers/pairs.h: CudaSparseForm): any matrix; 2:4 for mma.sp, and for wgmma.sp. */
const cudaForms = { csr: 0, pairs: 1, pairRows: 2 } as const

/** What the kernels multiply: floats, or bytes by bytes. */
export type SparseKind = keyof typeof forms
type CpuForm = keyof typeof forms.float
type CudaForm = keyof typeof cudaForms
type Form = CpuForm | CudaForm

/** Which weights' kernels to ask for: float ones have the same forms whatever their dtype. */
const codeOf = (kind: SparseKind): number => dtypeCode[kind === 'bytes' ? 'int8' : 'float32']

/** Inputs that the kernel for blocks takes at a time. */
const RUN = 8
/** Rows that a vector of the panels' kernel holds. */
const LANES = 16

// Nanoseconds on Zen 5 at 4.3 GHz, 4096 x 4096: a step of tables is 128 bytes to read, then a shuffle and a dot product a
// row; a unit of panels is a dot product and a load for each LANES rows. What counts is their proportion.
const STEP_NS = 2.5
const STEP_ROW_NS = 0.22
const UNIT_NS = 0.25

const limits = { target: '', rows: new Map<string, number>() }

/** Whether the chosen row of kernels has the form, and means it for so many rows of x. No call of the addon once known. */
function fits(kind: SparseKind, form: CpuForm, rows: number): boolean {
  const target = targetName()
  if (limits.target !== target) {
    limits.target = target
    limits.rows.clear()
    for (const [kind, named] of Object.entries(forms) as [SparseKind, Record<string, number>][])
      for (const [form, code] of Object.entries(named))
        limits.rows.set(kind + form, addon.sparseRows(codeOf(kind), code))
  }
  const most = limits.rows.get(kind + form) ?? 0
  return most > 0 && rows <= most
}

/** What is known of `w` for the chosen row of kernels, or its GPU; of another row it is forgotten. */
function madeOf(w: SparseTensor): SparseTensor['made'] {
  const { made } = w
  const target = w.device === 'cpu' ? targetName() : w.device
  if (made.target !== target) {
    for (const { packed } of made.packed.values()) packed.dispose()
    made.packed.clear()
    made.byteCounts = undefined
    made.target = target
  }
  return made
}

/** Up to so many rows mma.sp is as good on GPUs that have wgmma.sp: reading the weights takes the time. */
const FEW_ROWS = 64

/** The form on w's GPU; x: the dtype that the kernel multiplies by. */
function cudaFormOf(w: SparseTensor, rows: number, x: DType): CudaForm {
  // Tensor cores multiply two of a kind; float32 ones would round.
  if (w.format !== '2:4' || w.dtype !== x || x === 'float32' || w.shape[1] === 0) return 'csr'
  const hopper = cudaDevices()[cudaIndex(w.device)]?.capability === '9.0'
  return hopper && rows > FEW_ROWS ? 'pairRows' : 'pairs'
}

/** The form that `rows` rows by these weights take; `read` gives the non-zeros, if they are asked for. */
function formOf(kind: SparseKind, w: SparseTensor, rows: number, read: () => CsrArrays): CpuForm {
  if (kind === 'bytes') {
    if (!fits('bytes', 'tables', rows)) return 'panels'
    const made = madeOf(w)
    made.byteCounts ??= countsOfBytes(read(), w.shape[1] as number)
    const { tables: steps, panels: units } = made.byteCounts
    const tables = steps * (STEP_NS + STEP_ROW_NS * rows)
    return tables < units * UNIT_NS * Math.ceil(rows / LANES) ? 'tables' : 'panels'
  }
  if (w.format === '2:4' && fits('float', 'pairs', rows)) return 'pairs'
  if (isBlocks(w.format) && w.format.block[1] % RUN === 0 && fits('float', 'blocks', rows)) return 'blocks'
  if (fits('float', 'tables', rows)) return 'tables'
  return 'panels'
}

/** What the two forms of int8 weights consist of. */
function countsOfBytes({ pointers, columns }: CsrArrays, k: number): { tables: number; panels: number } {
  const count = (form: number) => addon.sparseMeasure(dtypeCode.int8, form, pointers, columns, k)
  return { tables: count(forms.bytes.tables), panels: count(forms.bytes.panels) }
}

/** @internal The kernels of the chosen row, by the form of weights that they read; forms that it does not have are left out. */
export function sparseKernels(kind: SparseKind): Record<string, string> {
  const named = Object.entries(forms[kind]).map(([form, code]) => [form, addon.sparseName(codeOf(kind), code)])
  return Object.fromEntries(named.filter(([, name]) => name !== null))
}

/** @internal The kernel that multiplies `rows` rows by these weights on the CPU. */
export function sparseKernel(kind: SparseKind, w: SparseTensor, rows: number): string {
  const form = formOf(kind, w, rows, () => csrArrays(w))
  return addon.sparseName(codeOf(kind), forms[kind][form as 'panels']) ?? ''
}

export interface PackedSparse extends SparsePacked {
  /** The form's number in the addon, and the code of the dtype that is packed. */
  form: number
  weights: number
}

/**
 * @internal The form for `rows` rows, packed once.
 *
 * @param x the dtype of what they are multiplied by: int8 for bytes
 * @param read the non-zeros; default as they are stored
 */
export function packedFor(
  op: string,
  kind: SparseKind,
  w: SparseTensor,
  rows: number,
  x: DType,
  read: () => CsrArrays = () => csrArrays(w),
): PackedSparse {
  let arrays: CsrArrays | undefined
  const once = () => {
    arrays ??= read()
    return arrays
  }
  const form = w.device === 'cpu' ? formOf(kind, w, rows, once) : cudaFormOf(w, rows, x)
  return packedAs(op, kind, w, form, once)
}

/** @internal The form of blocks (on a GPU CSR), packed once: sparse convolutions read it, whatever the format. */
export const packedInBlocks = (op: string, w: SparseTensor, read: () => CsrArrays): PackedSparse =>
  packedAs(op, 'float', w, w.device === 'cpu' ? 'blocks' : 'csr', read)

/** What the packed form's size depends on, and the size in bytes; below 0 where no kernel takes such a matrix. */
function sizesOf(
  kind: SparseKind,
  w: SparseTensor,
  chosen: Form,
  weights: number,
  { pointers, columns, values }: CsrArrays,
): { count: number; size: number } {
  const [n, k] = w.shape as [number, number]
  if (w.device !== 'cpu') {
    const count = values.length
    const bytes = kind === 'bytes'
    // As CSR floats of any dtype become float32.
    if (chosen === 'csr') return { count, size: sparseBytesCuda(bytes ? 1 : 4, n, count) }
    return { count, size: pairBytesCuda(bytes ? 1 : 2, n, k, chosen === 'pairRows') }
  }
  const form = forms[kind][chosen as 'panels']
  const counted = kind === 'bytes' ? w.made.byteCounts?.[chosen as 'panels'] : undefined
  const count = counted ?? addon.sparseMeasure(weights, form, pointers, columns, k)
  return { count, size: count < 0 ? -1 : addon.sparseBytes(weights, form, n, k, count) }
}

function packedAs(op: string, kind: SparseKind, w: SparseTensor, chosen: Form, read: () => CsrArrays): PackedSparse {
  const form = w.device === 'cpu' ? forms[kind][chosen as 'panels'] : cudaForms[chosen as CudaForm]
  const made = madeOf(w)
  const name = `${kind} ${chosen}`
  // int8 weights count as float32 where x is float.
  const dtype = kind === 'float' && w.dtype === 'int8' ? 'float32' : w.dtype
  const weights = dtypeCode[dtype]
  const known = made.packed.get(name)
  if (known) return { ...known, form, weights }
  const arrays = read()
  const { pointers, columns, values } = arrays
  const { count, size } = sizesOf(kind, w, chosen, weights, arrays)
  if (size < 0)
    throw new DTypeError(`${op}: no kernel on ${made.target} for a sparse tensor of shape ${showShape(w.shape)}`)
  const { device } = w
  const packed = keep(empty('uint8', [size], device))
  const parts = [
    tensor(values as Float32Array, { dtype, device }),
    tensor(pointers, { dtype: 'int32', device }),
    tensor(columns, { dtype: 'int32', device }),
  ] as const
  native.sppack(packed, ...parts, w.shape[1] as number, form, count)
  for (const part of parts) part.dispose()
  made.packed.set(name, { packed, count })
  return { packed, count, form, weights }
}
