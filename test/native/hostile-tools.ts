// What the programs of hostile calls share: how a call may end, and arguments that no sane program passes.
import * as kerf from 'kerf'

let calls = 0
export const callsMade = () => calls
/** Objects that native work may still look at. */
export const keep: unknown[] = []

/** The call must throw one of kerf's errors; with `code`, that one. Returning a tensor is a failure. */
export function refused(what: string, call: () => unknown, code?: string): void {
  calls++
  try {
    call()
  } catch (error) {
    const found = error instanceof kerf.KerfError ? error.code : `${error}`
    if (found === 'ERR_NATIVE' || !(error instanceof kerf.KerfError) || (code && found !== code)) {
      console.log(`${what}: expected ${code ?? 'an error of kerf'}, got ${found}: ${(error as Error).message}`)
    }
    return
  }
  console.log(`${what}: was not refused`)
}

/** The call may succeed or throw whatever it likes, but the process goes on. */
export function survives(call: () => unknown): void {
  calls++
  try {
    keep.push(call())
  } catch {}
}

export const throwing = new Proxy(
  {},
  {
    get: () => {
      throw new Error('trap')
    },
    has: () => {
      throw new Error('trap')
    },
    ownKeys: () => {
      throw new Error('trap')
    },
  },
)
export const notTensors: [string, unknown][] = [
  ['undefined', undefined],
  ['null', null],
  ['NaN', Number.NaN],
  ['a string', '3'],
  ['a symbol', Symbol('x')],
  ['a bigint', 3n],
  ['an object', {}],
  ['an array', [1, 2]],
  ['a function', () => 1],
  ['a typed array', new Float32Array(4)],
  ['an ArrayBuffer', new ArrayBuffer(16)],
  ['a date', new Date()],
  ['an object without prototype', Object.create(null)],
]

let state = 2463534242
export function random(n: number): number {
  state ^= state << 13
  state ^= state >>> 17
  state ^= state << 5
  return (state >>> 0) % n
}
export const pick = <T>(list: readonly T[]): T => list[random(list.length)] as T

export const oddNumbers = [
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  -1,
  1.5,
  2 ** 31,
  2 ** 40,
  2 ** 53,
  2 ** 62,
  2 ** 63,
  1e300,
  -(2 ** 63),
  -0,
  255,
  256,
]
