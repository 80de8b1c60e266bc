/**
 * Checkpoints: any nesting of tensors, numbers, strings and lists in one safetensors file. Tensors are the file's tensors,
 * named by their place; the rest is JSON in the file's metadata.
 */
import { ArgumentError, FormatError, show } from '../core/errors'
import { loadSafetensors, readSafetensorsInfo, saveSafetensors } from '../io/safetensors'
import { checkPath, type PathLike } from '../io/source'
import { Tensor } from '../tensor/tensor'

const FORMAT = 'kerf checkpoint 1'
/** Keys of the objects that stand for what JSON has not: `{ "$tensor": name }`, `{ "$number": "Infinity" }`. */
const TENSOR = '$tensor'
const NUMBER = '$number'

function pack(
  op: string,
  value: unknown,
  place: string,
  tensors: Map<string, Tensor>,
  above: readonly unknown[],
): unknown {
  if (value instanceof Tensor) {
    let name = place
    while (tensors.has(name)) name += "'" // { 'a.b': x, a: { b: y } }
    tensors.set(name, value)
    return { [TENSOR]: name }
  }
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value
  if (typeof value === 'number')
    return Number.isFinite(value) && !Object.is(value, -0) ? value : { [NUMBER]: text(value) }
  if (above.includes(value)) throw new ArgumentError(`${op}: ${place} contains itself`)
  const line = [...above, value]
  const inside = (key: string | number) => (place === '' ? `${key}` : `${place}.${key}`)
  if (Array.isArray(value)) return value.map((item, i) => pack(op, item ?? null, inside(i), tensors, line))
  const plain =
    typeof value === 'object' &&
    [Object.prototype, null].includes(Object.getPrototypeOf(value) as typeof Object.prototype)
  if (!plain)
    throw new ArgumentError(
      `${op}: ${place || 'state'} must be a tensor, a number, a string, a boolean, null, or a plain object or array of these, got ${show(value)}`,
    )
  const entries = Object.entries(value as object).filter(([, item]) => item !== undefined)
  for (const [key] of entries)
    if (key === TENSOR || key === NUMBER)
      throw new ArgumentError(`${op}: ${inside(key)}: this name is the format's own`)
  // fromEntries defines own properties: __proto__ is a key like others.
  return Object.fromEntries(entries.map(([key, item]) => [key, pack(op, item, inside(key), tensors, line)]))
}

const text = (value: number) => (Object.is(value, -0) ? '-0' : String(value))
const numbers = new Map([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0].map((x) => [text(x), x]))

function unpack(value: unknown, tensors: Readonly<Record<string, Tensor>>, fail: (why: string) => never): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map((item) => unpack(item, tensors, fail))
  const entries = Object.entries(value)
  const [key, content] = entries[0] ?? []
  if (key === TENSOR) {
    if (typeof content === 'string' && Object.hasOwn(tensors, content)) return tensors[content]
    fail(`there is no tensor ${show(content)}`)
  }
  if (key === NUMBER) return numbers.get(content as string) ?? fail(`${show(content)} is no number`)
  return Object.fromEntries(entries.map(([key, item]) => [key, unpack(item, tensors, fail)]))
}

/**
 * Writes a state to one safetensors file: `{ model: model.stateDict(), optimizer: optimizer.stateDict(), random: randomState() }`,
 * say. Values are those of the moment of the call. The file appears under its name only when it is whole and on disk: after a
 * crash there is the old checkpoint or the new one.
 *
 * @param state plain objects and arrays of tensors, numbers (also infinite ones and NaN), strings, booleans, null
 * @throws ArgumentError for anything else in it; DisposedError; errors of the file system are Node's
 */
export async function saveCheckpoint(path: PathLike, state: { readonly [key: string]: unknown }): Promise<void> {
  const op = 'saveCheckpoint'
  const target = checkPath(op, path)
  if (typeof state !== 'object' || state === null)
    throw new ArgumentError(`${op}: state must be an object, got ${show(state)}`)
  const tensors = new Map<string, Tensor>()
  const json = JSON.stringify(pack(op, state, '', tensors, []))
  await saveSafetensors(target, Object.fromEntries(tensors), { metadata: { format: FORMAT, state: json } })
}

/**
 * Reads what saveCheckpoint wrote.
 *
 * @throws FormatError for a file that is damaged or no checkpoint; errors of the file system are Node's
 */
export async function loadCheckpoint(path: PathLike): Promise<Record<string, unknown>> {
  const op = 'loadCheckpoint'
  const fail = (why: string, cause?: unknown): never => {
    throw new FormatError(`${op}: ${path}: ${why}`, { cause })
  }
  const { format, state } = (await readSafetensorsInfo(checkPath(op, path))).metadata
  if (format !== FORMAT || state === undefined) return fail('this is no checkpoint')
  const tensors = await loadSafetensors(path)
  let parsed: unknown
  try {
    parsed = JSON.parse(state)
  } catch (cause) {
    fail('the state is not JSON', cause)
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) fail('the state is not an object')
  return unpack(parsed, tensors, fail) as Record<string, unknown>
}
