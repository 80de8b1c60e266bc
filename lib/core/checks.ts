/** What functions on plain typed arrays check about them. */
import { ArgumentError, show } from './errors'
import type { Pauses } from './pauses'

/** An array of the right type and length, or an error that names it. */
export function checkArray<T extends { readonly length: number }>(
  op: string,
  name: string,
  value: unknown,
  type: { new (length: number): T; readonly name: string },
  length: number,
): void {
  if (!(value instanceof type) || value.length !== length)
    throw new ArgumentError(`${op}: ${name} must be a ${type.name}(${length}), got ${show(value)}`)
}

/** Whether `for await` takes it; a string is not what anybody means. */
export function isIterable(value: unknown): value is Iterable<unknown> | AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && (Symbol.iterator in value || Symbol.asyncIterator in value)
}

/** A row of finite numbers, or an error that names the first other one. */
export function checkFiniteRow(
  op: string,
  name: string,
  values: Float32Array | Float64Array,
  row: number,
  columns: number,
): void {
  for (let i = row * columns; i < (row + 1) * columns; i++) {
    if (!Number.isFinite(values[i]))
      throw new ArgumentError(
        `${op}: ${name} must be finite, got ${show(values[i])} in row ${row}, column ${i - row * columns}`,
      )
  }
}

/** checkFiniteRow for every row, with pauses for the event loop. */
export async function checkFinite(
  op: string,
  name: string,
  values: Float32Array | Float64Array,
  rows: number,
  columns: number,
  pauses: Pauses,
): Promise<void> {
  for (let row = 0; row < rows; row++) {
    checkFiniteRow(op, name, values, row, columns)
    if (pauses.due()) await pauses.take()
  }
}

/** Statistics of magnitudes, one an input channel, or an error that names the first that cannot be one. */
export function checkActivations(op: string, name: string, values: Float32Array, inputs: number): void {
  checkArray(op, name, values, Float32Array, inputs)
  const bad = values.findIndex((x) => !(x >= 0 && x < Number.POSITIVE_INFINITY))
  if (bad >= 0) throw new ArgumentError(`${op}: ${name} must be finite and >= 0, got ${show(values[bad])} at ${bad}`)
}
