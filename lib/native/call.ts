/** `native.<op>(...)`: typed calls of the addon's ops, built from the generated table. */
import { DeviceError, NativeError, OutOfMemoryError } from '../core/errors'
import { type Ops, opTable } from '../core/tables.gen'
import { addon, type Memory } from './load'
import { keepInFlight } from './stream'

/** What a native op reads of a tensor. */
export interface View {
  readonly buffer: Memory
  /** The dtype's code. */
  readonly code: number
  readonly shape: readonly number[]
  /** In elements; 0 repeats. */
  readonly strides: readonly number[]
  /** Of element [0, 0, ...], in elements from the buffer's start. */
  readonly offset: number
}

const page = addon.arguments
const state = addon.state
const STATUS = 3

function putView(at: number, view: View): number {
  const { shape, strides } = view
  const rank = shape.length
  page[at] = view.code
  page[at + 1] = rank
  page[at + 2] = view.offset
  at += 3
  for (let i = 0; i < rank; i++) {
    page[at + i] = shape[i] as number
    page[at + rank + i] = strides[i] as number
  }
  return at + 2 * rank
}

/** Throws what the last call of the addon, in the name of an op, answered; nothing if that was fine. */
export function throwFailure(name: string): void {
  if (state[STATUS] !== 0) failed(name)
}

function failed(name: string): never {
  const code = state[STATUS]
  const what = addon.lastError()
  state[STATUS] = 0
  if (code === 5) throw new DeviceError(`${name}: ${what}`)
  if (code === 3) throw new OutOfMemoryError(`${name}: ${what}`)
  throw new NativeError(code === 2 ? `${name}: ${what}` : `${name}: bug in kerf: ${what}`)
}

type Raw = (...buffers: Memory[]) => void

function unary(name: string, raw: Raw) {
  return (out: View, a: View) => {
    putView(putView(0, out), a)
    raw(out.buffer, a.buffer)
    if (state[STATUS] !== 0) failed(name)
    keepInFlight(out.buffer, a.buffer)
  }
}

function binary(name: string, raw: Raw) {
  return (out: View, a: View, b: View) => {
    putView(putView(putView(0, out), a), b)
    raw(out.buffer, a.buffer, b.buffer)
    if (state[STATUS] !== 0) failed(name)
    keepInFlight(out.buffer, a.buffer, b.buffer)
  }
}

function general(name: string, raw: Raw, letters: string) {
  return (...parameters: (View | number | null)[]) => {
    const buffers: Memory[] = []
    let at = 0
    for (let i = 0; i < letters.length; i++) {
      const p = parameters[i]
      if (letters[i] === 'i' || letters[i] === 'f') {
        page[at++] = p as number
      } else if (p === null || p === undefined) {
        page[at++] = -1
      } else {
        at = putView(at, p as View)
        buffers.push((p as View).buffer)
      }
    }
    raw(...buffers)
    if (state[STATUS] !== 0) failed(name)
    keepInFlight(...buffers)
  }
}

/** The ops of native/core/ops.def. Arguments must be validated: what these throw is a bug of kerf's or lack of memory. */
export const native = Object.fromEntries(
  Object.entries(opTable).map(([name, letters]) => {
    const raw = addon.ops[name as keyof Ops<unknown>]
    return [
      name,
      letters === 'vv' ? unary(name, raw) : letters === 'vvv' ? binary(name, raw) : general(name, raw, letters),
    ]
  }),
) as unknown as Ops<View>
