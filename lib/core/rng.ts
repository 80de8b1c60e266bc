/** The seeded random state behind randn, rand, dropout and shuffling. */
import { ArgumentError, show } from './errors'
import { checkInteger } from './shape'

let seed = 0
let offset = 0
let seeded = false

/** Makes everything random that follows reproducible. `value` is a whole number from 0 to 2^53 - 1. */
export function manualSeed(value: number): void {
  seed = checkInteger('manualSeed', 'seed', value, 0)
  offset = 0
  seeded = true
}

export interface RandomState {
  readonly seed: number
  readonly offset: number
}

function seedByClock(): void {
  if (!seeded) manualSeed((Date.now() * 1000 + Math.floor(performance.now() * 1000)) % 2 ** 48)
}

/** Where the stream of randn, rand, dropout and shuffling is, so that setRandomState() can give the numbers that follow once more. */
export function randomState(): RandomState {
  seedByClock()
  return { seed, offset }
}

/** Goes on from where randomState() was asked. @throws ArgumentError for anything else */
export function setRandomState(state: RandomState): void {
  const op = 'setRandomState'
  if (typeof state !== 'object' || state === null)
    throw new ArgumentError(`${op}: expected what randomState() returns, got ${show(state)}`)
  const checked = {
    seed: checkInteger(op, 'seed', state.seed, 0),
    offset: checkInteger(op, 'offset', state.offset, 0),
  }
  seed = checked.seed
  offset = checked.offset
  seeded = true
}

/**
 * Takes `n` numbers of the counter-based stream: their seed and the offset of the first. Unseeded, the seed comes from
 * the clock.
 */
export function takeRandom(n: number): { seed: number; offset: number } {
  seedByClock()
  const taken = { seed, offset }
  offset += n
  return taken
}

/** A small seeded generator for JavaScript-side choices (shuffles): mulberry32, [0, 1). */
export function uniformGenerator(seedValue: number): () => number {
  let state = seedValue >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
