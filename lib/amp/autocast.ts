import { ArgumentError, show } from '../core/errors'
import { type Autocast, context, runWith } from '../tensor/context'
import { precision } from './precision'
import { PrecisionReport } from './report'

export interface AutocastOptions {
  /** Collects what runs in which precision. An inner region without one reports to that of the outer region. */
  report?: PrecisionReport
}

/**
 * Runs `fn` (sync or async) with every op in the precision that suits it: products (matmul, linear, and attention, which is
 * made of them) in `dtype`; exponentials, powers, sums, softmax, norms and losses in float32; everything else in the
 * promoted dtype of its inputs. Inputs are cast as needed, and the casts are on the tape, so gradients arrive in
 * the dtype of the parameters: keep those in float32. Call backward() outside or inside; its own ops are
 * never cast, each runs in the dtype of its forward op. Types stay those of the program without autocast: a `Tensor<'float32'>` from
 * matmul holds `dtype`, as its `dtype` says.
 *
 * A weight (a leaf that requires a gradient) is cast once in a region, until an optimizer, loadStateDict() or an initialiser
 * changes it or its graph is let go. Products with quantized and sparse weights are left alone; those
 * with packed ones run in the dtype that was packed. Regions nest; the innermost counts.
 *
 * @param dtype 'bfloat16', 'float16', or null, which turns autocast off inside `fn`
 * @returns what `fn` returned
 * @throws ArgumentError for another dtype, or a `fn` that is no function
 */
export function autocast<R>(dtype: 'bfloat16' | 'float16' | null, fn: () => R, options: AutocastOptions = {}): R {
  if (dtype !== null && dtype !== 'bfloat16' && dtype !== 'float16')
    throw new ArgumentError(`autocast: dtype must be 'bfloat16', 'float16' or null, got ${show(dtype)}`)
  if (typeof fn !== 'function') throw new ArgumentError(`autocast: fn must be a function, got ${show(fn)}`)
  const { report } = options
  if (report !== undefined && !(report instanceof PrecisionReport))
    throw new ArgumentError(`autocast: report must be a PrecisionReport, got ${show(report)}`)
  if (dtype === null) return runWith({ autocast: null }, fn)
  const outer = context().autocast
  const casts: Autocast['casts'] = new Map()
  const observe = report ? (op: string, result: Parameters<PrecisionReport['add']>[1]) => report.add(op, result) : null
  return runWith({ autocast: { dtype, precision, casts, observe: observe ?? outer?.observe ?? null } }, fn, () => {
    // Those on the tape are backward's.
    for (const { cast } of casts.values()) if (cast.node === null) cast.dispose()
    casts.clear()
  })
}
