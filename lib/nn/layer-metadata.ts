/**
 * Layers and tensors in other formats than plain floats, as the string metadata of a safetensors file: what quant and prune
 * share. A file may be hostile: what it says is checked before anything is allocated or replaced.
 */
import { ArgumentError, FormatError, KerfError, show } from '../core/errors'
import { sameShape, showShape } from '../core/shape'
import type { Tensor } from '../tensor/tensor'
import { Conv2d } from './conv'
import { Linear } from './linear'
import { checkModel, replaceLayer } from './model'
import type { AnyModule } from './module'

/** What metadata says of one thing, not yet checked. */
export type Fields = Readonly<Record<string, unknown>>

/** One kind of layer that takes the place of a float one, whose weight says its shape. */
export interface LayerKind<L extends AnyModule, E, F extends FloatLayer = Linear> {
  type: abstract new (...args: never[]) => L
  /** What it takes the place of. */
  float: FloatKind<F>
  /** As that of the float layer's weight. */
  shape(layer: L): readonly number[]
  /** What a file says of a layer beside its shape. */
  describe(layer: L): E
  /**
   * The same of a file, checked.
   *
   * @throws KerfError that says what is wrong; which layer is added to it
   */
  read(op: string, fields: Fields, shape: readonly number[]): E
  /**
   * A layer whose tensors have the right shapes, for loadStateDict() to fill.
   *
   * @throws KerfError when the entry does not fit the float layer; which layer is added to it
   */
  blank(op: string, entry: E, layer: F): L
}

type FloatLayer = AnyModule & { readonly weight: Tensor }

/** One kind of float layer; they are told apart by how many sizes their weights have. */
export interface FloatKind<F extends FloatLayer> {
  type: abstract new (...args: never[]) => F
  /** How many sizes: in words too. */
  rank: number
  word: string
  /** A layer with such a weight, for errors. */
  show(shape: readonly number[]): string
}

export const linearKind: FloatKind<Linear> = {
  type: Linear,
  rank: 2,
  word: 'two',
  show: ([out, size]) => `Linear(${size}, ${out})`,
}

export const conv2dKind: FloatKind<Conv2d> = {
  type: Conv2d,
  rank: 4,
  word: 'four',
  show: (shape) => `Conv2d of weight ${showShape(shape)}`,
}

/** All kinds of layers that one key of the metadata tells of. */
export interface LayerKinds {
  key: string
  kinds: readonly LayerKind<AnyModule, object, FloatLayer>[]
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

/** All layers of some kinds in a model. */
export function layerMetadata(model: AnyModule, { key, kinds }: LayerKinds): Record<string, string> {
  checkModel('metadata', model)
  const layers = model.namedModules().flatMap(([path, layer]) => {
    const kind = kinds.find(({ type }) => layer instanceof type)
    return kind ? [[path, { shape: kind.shape(layer), ...kind.describe(layer) }] as const] : []
  })
  return { [key]: JSON.stringify(Object.fromEntries(layers)) }
}

/**
 * Puts blank layers where the metadata has them, in place.
 *
 * @returns the model (a new layer when the model is itself the float layer)
 * @throws FormatError for metadata that is damaged or does not fit the model; nothing has been changed then
 */
export function applyLayerMetadata<M extends AnyModule>(
  model: M,
  metadata: Readonly<Record<string, string>>,
  { key, kinds }: LayerKinds,
): M {
  const op = 'applyMetadata'
  checkModel(op, model)
  const entries = fieldsOf(op, metadata, key).map(([path, value]) => {
    const where = `layer '${path}'`
    const fields = (value ?? {}) as Fields
    const { shape } = fields
    const sizes: unknown[] = Array.isArray(shape) ? shape : []
    const kind = kinds.find(({ float }) => float.rank === sizes.length)
    if (!kind || !sizes.every((n) => Number.isSafeInteger(n) && (n as number) >= 1)) {
      const ranks = kinds.map(({ float }) => float.word).join(' or ')
      throw new FormatError(`${op}: ${where}: shape must be ${ranks} sizes, got ${show(shape)}`)
    }
    const wanted = sizes as number[]
    const entry = reading(op, `${where}: `, () => kind.read(op, fields, wanted))
    const layer = reading(op, '', () => model.getModule(path))
    const float = kinds.find(({ float }) => layer instanceof float.type)?.float
    const found = float ? (layer as FloatLayer).weight.shape : null
    if (float !== kind.float || !found || !sameShape(found, wanted)) {
      const is = float && found ? float.show(found) : layer.constructor.name
      throw new FormatError(`${op}: ${where} must be ${kind.float.show(wanted)}, it is ${is}`)
    }
    return { where, kind, entry, layer: layer as FloatLayer }
  })
  const made = entries.map(({ where, kind, entry, layer }) =>
    reading(op, `${where}: `, () => kind.blank(op, entry, layer)),
  )
  return entries.reduce((result, { layer }, i) => replaceLayer(result, layer, made[i] as AnyModule), model)
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
