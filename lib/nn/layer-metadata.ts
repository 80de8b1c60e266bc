/**
 * Layers and tensors in other formats than plain floats, as the string metadata of a safetensors file: what quant and prune
 * share. A file may be hostile: what it says is checked before anything is allocated or replaced.
 */
import { ArgumentError, FormatError, KerfError, show } from '../core/errors'
import type { Tensor } from '../tensor/tensor'
import { Linear } from './linear'
import { checkModel, replaceLayer } from './model'
import type { AnyModule } from './module'

/** What metadata says of one thing, not yet checked. */
export type Fields = Readonly<Record<string, unknown>>

/** One kind of layer that takes the place of a Linear. */
export interface LayerKind<L extends AnyModule, E> {
  /** Of the metadata. */
  key: string
  type: abstract new (...args: never[]) => L
  /** What a file says of a layer beside its shape. */
  describe(layer: L): E
  /**
   * The same of a file, checked.
   *
   * @throws KerfError that says what is wrong; which layer is added to it
   */
  read(op: string, fields: Fields, shape: readonly [number, number]): E
  /** A layer whose tensors have the right shapes, for loadStateDict() to fill. */
  blank(op: string, entry: E, layer: Linear): L
}

function fieldsOf(op: string, metadata: unknown, key: string): [string, unknown][] {
  if (typeof metadata !== 'object' || metadata === null)
    throw new ArgumentError(`${op}: metadata must be an object of strings, got ${show(metadata)}`)
  const text = (metadata as Record<string, unknown>)[key]
  if (typeof text !== 'string') throw new FormatError(`${op}: the metadata has no ${show(key)}`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new FormatError(`${op}: metadata ${show(key)} is not JSON`, { cause })
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new FormatError(`${op}: metadata ${show(key)} must be an object, got ${show(value)}`)
  return Object.entries(value)
}

/** Runs `read`; what it throws becomes a FormatError that begins with the op and `where`. */
function reading<R>(op: string, where: string, read: () => R): R {
  try {
    return read()
  } catch (cause) {
    if (!(cause instanceof KerfError)) throw cause
    const said = cause.message.startsWith(`${op}: `) ? cause.message.slice(op.length + 2) : cause.message
    throw new FormatError(`${op}: ${where}${said}`, { cause })
  }
}

/** All layers of a kind in a model. */
export function layerMetadata<L extends AnyModule, E>(model: AnyModule, kind: LayerKind<L, E>): Record<string, string> {
  checkModel('metadata', model)
  const layers = model.namedModules().flatMap(([path, layer]) => {
    if (!(layer instanceof kind.type)) return []
    const { outFeatures, inFeatures } = layer as unknown as { outFeatures: number; inFeatures: number }
    return [[path, { shape: [outFeatures, inFeatures], ...kind.describe(layer) }] as const]
  })
  return { [kind.key]: JSON.stringify(Object.fromEntries(layers)) }
}

/**
 * Puts blank layers where the metadata has them, in place.
 *
 * @returns the model (a new layer when the model is itself a Linear)
 * @throws FormatError for metadata that is damaged or does not fit the model; nothing has been changed then
 */
export function applyLayerMetadata<M extends AnyModule, L extends AnyModule, E>(
  model: M,
  metadata: Readonly<Record<string, string>>,
  kind: LayerKind<L, E>,
): M {
  const op = 'applyMetadata'
  checkModel(op, model)
  const entries = fieldsOf(op, metadata, kind.key).map(([path, value]) => {
    const where = `layer '${path}'`
    const fields = (value ?? {}) as Fields
    const { shape } = fields
    if (!(Array.isArray(shape) && shape.length === 2 && shape.every((n) => Number.isSafeInteger(n) && n >= 1)))
      throw new FormatError(`${op}: ${where}: shape must be two sizes, got ${show(shape)}`)
    const [out, size] = shape as [number, number]
    const entry = reading(op, `${where}: `, () => kind.read(op, fields, [out, size]))
    const layer = reading(op, '', () => model.getModule(path))
    if (!(layer instanceof Linear) || layer.outFeatures !== out || layer.inFeatures !== size) {
      const found =
        layer instanceof Linear ? `Linear(${layer.inFeatures}, ${layer.outFeatures})` : layer.constructor.name
      throw new FormatError(`${op}: ${where} must be Linear(${size}, ${out}), it is ${found}`)
    }
    return { entry, layer }
  })
  const made = entries.map(({ entry, layer }) => kind.blank(op, entry, layer))
  return entries.reduce((result, { layer }, i) => replaceLayer(result, layer, made[i] as L), model)
}

/** A value that is stored as several plain tensors. */
interface Composite {
  readonly values: Tensor
  checkLive(op: string): void
}

/** One kind of value that is stored as its `values`, under its name, and parts, under `name.part`. */
export interface TensorKind<T extends Composite> {
  /** Of the metadata. */
  key: string
  type: abstract new (...args: never[]) => T
  /** Beside the values. */
  parts: readonly string[]
  part(value: T, name: string): Tensor | null
  /** What a file says of it beside its tensors. */
  describe(value: T): object
  /**
   * @param part a tensor of the file, or null
   * @throws KerfError when they do not fit together; which value it was is added to it
   */
  make(fields: Fields, values: Tensor | null, part: (name: string) => Tensor | null): T
}

/** Values as plain tensors, and the rest as metadata. */
export function toPlainTensors<T extends Composite>(
  given: Readonly<Record<string, T>>,
  kind: TensorKind<T>,
): { tensors: Record<string, Tensor>; metadata: Record<string, string> } {
  const op = 'toTensors'
  const tensors: [string, Tensor][] = []
  const about: [string, object][] = []
  for (const [name, value] of Object.entries(given)) {
    if (!(value instanceof kind.type))
      throw new ArgumentError(`${op}: '${name}' must be a ${kind.type.name}, got ${show(value)}`)
    value.checkLive(op)
    tensors.push([name, value.values])
    for (const part of kind.parts) {
      const full = `${name}.${part}`
      if (Object.hasOwn(given, full)) throw new ArgumentError(`${op}: '${full}' is the name of a part of '${name}'`)
      const t = kind.part(value, part)
      if (t) tensors.push([full, t])
    }
    about.push([name, kind.describe(value)])
  }
  return {
    tensors: Object.fromEntries(tensors),
    metadata: { [kind.key]: JSON.stringify(Object.fromEntries(about)) },
  }
}

/**
 * The values that toPlainTensors took apart.
 *
 * @throws FormatError for metadata that is damaged or does not fit the tensors
 */
export function fromPlainTensors<T extends Composite>(
  tensors: Readonly<Record<string, Tensor>>,
  metadata: Readonly<Record<string, string>>,
  kind: TensorKind<T>,
): Record<string, T> {
  const op = 'fromTensors'
  for (const [name, value] of Object.entries({ tensors, metadata }))
    if (typeof value !== 'object' || value === null)
      throw new ArgumentError(`${op}: ${name} must be an object, got ${show(value)}`)
  const find = (name: string): Tensor | null => (Object.hasOwn(tensors, name) ? (tensors[name] ?? null) : null)
  const found = fieldsOf(op, metadata, kind.key).map(([name, value]): [string, T] => {
    const where = `tensor '${name}': `
    const fields = (value ?? {}) as Fields
    const { shape } = fields
    if (!Array.isArray(shape) || !shape.every((n) => Number.isSafeInteger(n) && n >= 0))
      throw new FormatError(`${op}: ${where}bad shape ${show(shape)}`)
    return [name, reading(op, where, () => kind.make(fields, find(name), (part) => find(`${name}.${part}`)))]
  })
  return Object.fromEntries(found)
}
