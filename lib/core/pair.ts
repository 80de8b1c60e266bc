/** Options that are one number for both axes of an image, or one for each. */
import { ArgumentError, show } from './errors'
import { checkInteger } from './shape'

/** One number for height and width, or [height, width]. */
export type Pair = number | readonly [number, number]

/** What a window may span and hold: its elements are counted in float32. */
export const MAX_WINDOW = 2 ** 24

/** [height, width] of what a user passed, each a whole number from `low` on. */
export function checkPair(op: string, name: string, value: unknown, low: number): [number, number] {
  const [h, w] = typeof value === 'number' ? [value, value] : Array.isArray(value) ? value : []
  if ((Array.isArray(value) && value.length !== 2) || typeof h !== 'number' || typeof w !== 'number')
    throw new ArgumentError(`${op}: ${name} must be a number or [height, width], got ${show(value)}`)
  return [checkInteger(op, name, h, low, MAX_WINDOW), checkInteger(op, name, w, low, MAX_WINDOW)]
}
