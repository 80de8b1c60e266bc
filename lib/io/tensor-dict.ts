/** What the formats of tensors by name share: the dictionaries users pass, and the JSON headers of hostile files. */
import { ArgumentError, show } from '../core/errors'
import type { Tensor } from '../tensor/tensor'
import { checkEntry } from './file-tensor'
import { parseStrictJson } from './strict-json'

/** Names to tensors, as stateDict() gives them. */
export type TensorDict = Readonly<Record<string, Tensor>> | ReadonlyMap<string, Tensor>
export type Metadata = Readonly<Record<string, string>>

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A user's tensors by name, or an error that names the entry; `reserved` is a name that the format uses itself. */
export function checkDict(op: string, dict: unknown, reserved?: string): { name: string; tensor: Tensor }[] {
  if (!isObject(dict))
    throw new ArgumentError(`${op}: tensors must be an object or a Map of names to tensors, got ${show(dict)}`)
  return (dict instanceof Map ? [...dict] : Object.entries(dict)).map(([name, tensor]: [unknown, unknown]) => {
    if (typeof name !== 'string' || name === reserved)
      throw new ArgumentError(`${op}: ${show(name)} cannot be a tensor's name`)
    return { name, tensor: checkEntry(op, `tensors[${show(name)}]`, tensor) }
  })
}

/** A user's metadata as entries, or an error that names the key. */
export function checkMetadata(op: string, metadata: unknown): [string, string][] {
  if (metadata === undefined) return []
  if (!isObject(metadata))
    throw new ArgumentError(`${op}: metadata must be an object of strings, got ${show(metadata)}`)
  return Object.entries(metadata).map(([key, value]) => {
    if (typeof value !== 'string')
      throw new ArgumentError(`${op}: metadata[${show(key)}] must be a string, got ${show(value)}`)
    return [key, value]
  })
}

/** A header's JSON object. */
export function parseHeader(bytes: Uint8Array, fail: (why: string, cause?: unknown) => never): Record<string, unknown> {
  let text = ''
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    fail('the header is not UTF-8', cause)
  }
  if (text[0] !== '{') fail(`the header must start with '{', got ${show(text.slice(0, 1))}`)
  return parseStrictJson(text, fail) as Record<string, unknown>
}

/** The metadata of a file, at the key `where` of its header. */
export function readMetadata(where: string, value: unknown, fail: (why: string) => never): Record<string, string> {
  if (!isObject(value)) return fail(`${where} must be an object, got ${show(value)}`)
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') fail(`${where}: ${JSON.stringify(key)} must be a string, got ${show(text)}`)
  }
  return value as Record<string, string>
}

/** Where a tensor's bytes lie in a file. */
export interface Place {
  /** For messages: "tensor 'a.weight'". */
  readonly what: string
  /** Of its first byte in the source. */
  readonly position: number
  readonly bytes: number
}

/** The tensors, in the order of their bytes, must cover all of the data, each byte once. */
export function checkCoverage(
  extents: readonly Place[],
  dataStart: number,
  size: number,
  fail: (why: string) => never,
): void {
  let next = dataStart
  for (const { what, position, bytes } of extents) {
    const begin = position - dataStart
    if (position < next)
      fail(`${what}: data_offsets [${begin}, ${begin + bytes}] overlap another tensor's or are negative`)
    if (position > next) fail(`${what}: data_offsets [${begin}, ${begin + bytes}] leave a gap from ${next - dataStart}`)
    next = position + bytes
    if (next > size)
      fail(`${what}: data_offsets [${begin}, ${begin + bytes}] reach beyond the ${size - dataStart} bytes of data`)
  }
  if (next !== size) fail(`${size - next} bytes after the last tensor belong to none`)
}
