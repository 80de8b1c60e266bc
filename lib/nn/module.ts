/** The base of everything with parameters: finding, naming, saving, converting them. */
import type { DType, FloatDType } from '../core/dtype'
import { isFloat } from '../core/dtype'
import { ArgumentError, DTypeError, ShapeError, show } from '../core/errors'
import { sameShape, showShape } from '../core/shape'
import { type Destination, type Device, type DeviceName, destinationOf, type Movable } from '../tensor/device'
import { applyMask } from '../tensor/mask'
import { assignFrom, changed, checkTensor, copyTo, keep, moveTo, Tensor } from '../tensor/tensor'
import { checkMask, Parameter } from './parameter'

/** Any module, whatever forward() takes and returns. */
export type AnyModule = Module<never[], unknown>

export interface BufferOptions {
  /** Saved by stateDict() and wanted by loadStateDict(); default true. */
  persistent?: boolean
  /** Keeps its dtype in to(): scales of quantized weights, say; default false. */
  fixed?: boolean
}

/** Tensors by name, as modules save and load them. */
export type StateDict = Record<string, Tensor>

export interface LoadResult {
  /** Names of the module that the dictionary lacks. */
  missing: string[]
  /** Names of the dictionary that the module lacks. */
  unexpected: string[]
}

/**
 * A layer or a model. A subclass keeps its parameters, buffers and layers in plain properties and computes in
 * forward(); Parameters and Modules among its properties are found by themselves, in the order in which they were
 * assigned. A SparseTensor or QuantizedTensor among them moves with to(device) and is no state: what is to be saved is a buffer.
 * What lies in arrays, Maps or #private fields is not found: use ModuleList or Sequential.
 *
 * @example
 * class Net extends nn.Module {
 *   fc1 = new nn.Linear(784, 300)
 *   fc2 = new nn.Linear(300, 10)
 *   forward(x: Tensor) { return this.fc2.forward(relu(this.fc1.forward(x))) }
 * }
 */
export abstract class Module<In extends readonly unknown[] = [input: Tensor], Out = Tensor> {
  /** True while training: Dropout drops. Set by train() and eval(). */
  training = true
  /** Buffers by property name. */
  readonly #buffers = new Map<string, Required<BufferOptions>>()

  abstract forward(...inputs: In): Out

  /** The modules directly below this one, with their names here. */
  namedChildren(): [name: string, module: AnyModule][] {
    const found: [string, AnyModule][] = []
    for (const [name, value] of Object.entries(this)) if (value instanceof Module) found.push([name, value])
    return found
  }

  /** Puts another module in the place of a direct child: how layers are converted. */
  setChild(name: string, module: AnyModule): void {
    if (!(module instanceof Module))
      throw new ArgumentError(`setChild: '${name}' must be a Module, got ${show(module)}`)
    const fields = this as unknown as Record<string, unknown>
    if (!(fields[name] instanceof Module))
      throw new ArgumentError(`setChild: ${this.constructor.name} has no module '${name}'`)
    fields[name] = module
  }

  /** This module and all below it, each once, with their paths ('' for this one, 'encoder.0' for a layer). */
  namedModules(): [path: string, module: AnyModule][] {
    const seen = new Set<AnyModule>()
    return pathsBelow(this).filter(([, module]) => !seen.has(module) && seen.add(module))
  }

  /** This module and all below it, each once. */
  modules(): AnyModule[] {
    return this.namedModules().map(([, module]) => module)
  }

  /** The module at a path like 'encoder.0'. */
  getModule(path: string): AnyModule {
    let at: AnyModule = this
    for (const name of path === '' ? [] : path.split('.')) {
      const child = at.namedChildren().find(([n]) => n === name)
      if (!child) throw new ArgumentError(`getModule: no module at '${path}': ${at.constructor.name} has no '${name}'`)
      at = child[1]
    }
    return at
  }

  /** Puts another module at a path like 'encoder.0'. */
  setModule(path: string, module: AnyModule): void {
    const dot = path.lastIndexOf('.')
    this.getModule(path.slice(0, Math.max(dot, 0))).setChild(path.slice(dot + 1), module)
  }

  /** All parameters, each once, with names like '0.weight'. */
  namedParameters(): [name: string, parameter: Parameter][] {
    const seen = new Set<Parameter>()
    return this.#entries(ownParameters).filter(([, p]) => !seen.has(p) && seen.add(p))
  }

  /** All parameters, each once: what an optimizer takes. */
  parameters(): Parameter[] {
    return this.namedParameters().map(([, parameter]) => parameter)
  }

  /** All buffers: tensors that belong to the module's state but are not learned. */
  namedBuffers(): [name: string, buffer: Tensor][] {
    return this.#entries((module) => module.#ownBuffers())
  }

  /** Makes the property `name` a buffer with this value, kept alive by every scope(). */
  registerBuffer(name: string, value: Tensor | null, options: BufferOptions = {}): void {
    if (value !== null) keep(checkTensor('registerBuffer', `'${name}'`, value))
    ;(this as unknown as Record<string, unknown>)[name] = value
    this.#buffers.set(name, { persistent: options.persistent ?? true, fixed: options.fixed ?? false })
  }

  /**
   * Parameters, their masks (`<name>.mask`) and persistent buffers by name. The tensors themselves, not copies: clone()
   * what must not change.
   */
  stateDict(): StateDict {
    const dict: StateDict = {}
    for (const [path, module] of pathsBelow(this)) {
      for (const [name, tensor] of module.#state()) {
        dict[joinPath(path, name)] = tensor
        if (tensor instanceof Parameter && tensor.mask) dict[joinPath(path, name) + MASK] = tensor.mask
      }
    }
    return dict
  }

  /**
   * Copies values into the parameters and persistent buffers, converting their dtype, from any device. The snake_case spelling of a
   * name, as in PyTorch checkpoints ('out_proj.weight' for outProj.weight), is accepted too. Nothing changes when
   * this throws.
   *
   * A `<name>.mask` becomes the parameter's mask, whether it had one or not. A mask that the dictionary lacks is a
   * missing name; when that is allowed it stays, and prunes what was loaded.
   *
   * @param options.strict default true: names that do not match are an error; otherwise they are only reported
   */
  loadStateDict(dict: Readonly<StateDict>, options: { strict?: boolean } = {}): LoadResult {
    if (typeof dict !== 'object' || dict === null) {
      throw new ArgumentError(`loadStateDict: expected an object of tensors by name, got ${show(dict)}`)
    }
    const own = new Map(Object.entries(this.stateDict()))
    const given = new Map<string, Tensor>()
    const masks = new Map<Parameter, Tensor<'bool'>>()
    const masked = (name: string): Parameter | null => {
      const parameter = name.endsWith(MASK) ? own.get(name.slice(0, -MASK.length)) : undefined
      return parameter instanceof Parameter ? parameter : null
    }
    const unexpected: string[] = []
    for (const [name, value] of Object.entries(dict)) {
      const known = own.has(name) || masked(name) ? name : camelCase(name)
      const parameter = masked(known)
      if (parameter && !given.has(known)) {
        checkMask('loadStateDict', `'${name}'`, value, parameter)
        given.set(known, value)
        masks.set(parameter, value as Tensor<'bool'>)
        continue
      }
      const target = own.get(known)
      if (target === undefined || given.has(known)) {
        unexpected.push(name)
        continue
      }
      const tensor = checkTensor('loadStateDict', `'${name}'`, value)
      if (!sameShape(tensor.shape, target.shape)) {
        throw new ShapeError(
          `loadStateDict: '${name}' has shape ${showShape(tensor.shape)}, the module has ${showShape(target.shape)}`,
        )
      }
      given.set(known, tensor)
    }
    const missing = [...own.keys()].filter((name) => !given.has(name))
    if ((options.strict ?? true) && missing.length + unexpected.length > 0) {
      const list = (names: string[]) =>
        `${names.slice(0, 5).join(', ')}${names.length > 5 ? `, ... (${names.length})` : ''}`
      const parts = [
        missing.length ? `missing ${list(missing)}` : '',
        unexpected.length ? `unexpected ${list(unexpected)}` : '',
      ]
      throw new ArgumentError(`loadStateDict: ${parts.filter(Boolean).join('; ')} ({ strict: false } loads the rest)`)
    }
    for (const [path, module] of pathsBelow(this)) module.checkState(path, (name) => given.get(joinPath(path, name)))
    for (const [name, tensor] of given) {
      const target = own.get(name) as Tensor
      if (target === tensor || masked(name)) continue
      assignFrom(target, tensor)
      changed(target)
      if (!masks.has(target as Parameter)) applyMask(target)
    }
    for (const [parameter, mask] of masks)
      parameter.mask =
        mask.device === parameter.device ? mask : (keep(moveTo(mask, parameter.device)) as Tensor<'bool'>)
    for (const module of this.modules()) module.stateLoaded()
    return { missing, unexpected }
  }

  /**
   * Called by loadStateDict() before anything changes, with what it is about to load into this module's own parameters and
   * buffers; shapes fit already. Throws, naming the path, when the values do not fit together.
   */
  protected checkState(_path: string, _given: (name: string) => Tensor | undefined): void {}

  /** Called after loadStateDict() has changed values in place: what was derived from them is out of date. */
  protected stateLoaded(): void {}

  /** Training mode, for this module and all below it; returns the module. */
  train(mode = true): this {
    for (const module of this.modules()) module.training = mode
    return this
  }

  /** Evaluation mode: Dropout passes everything through. */
  eval(): this {
    return this.train(false)
  }

  /**
   * Converts every float parameter and buffer to a dtype, or moves all of them (and masks, and sparse and quantized weights) to
   * a device, in place in the module; returns the module. Parameters become new tensors without gradients: make the optimizer
   * afterwards.
   */
  to(destination: FloatDType | Device): this {
    const wanted = destinationOf('to', destination)
    if ('dtype' in wanted && !isFloat(wanted.dtype))
      throw new DTypeError(`to: a module's parameters must be floats, got ${wanted.dtype}`)
    const stays = (tensor: Tensor, fixed: boolean) =>
      'device' in wanted
        ? tensor.device === wanted.device
        : fixed || !isFloat(tensor.dtype) || tensor.dtype === wanted.dtype
    const converted = new Map<Tensor, Tensor>()
    for (const module of this.modules()) {
      const fields = module as unknown as Record<string, Tensor>
      for (const [name, tensor] of [...ownParameters(module), ...module.#ownBuffers()]) {
        if (stays(tensor, module.#buffers.get(name)?.fixed ?? false)) continue
        const known = converted.get(tensor) ?? convert(tensor, wanted)
        converted.set(tensor, known)
        fields[name] = known
      }
    }
    if ('device' in wanted) moveWeights(this.modules(), wanted.device)
    for (const old of converted.keys()) old.dispose()
    return this
  }

  /** Forgets every gradient and gives its memory back: clone() one that you want to keep. */
  zeroGrad(): void {
    for (const parameter of this.parameters()) {
      parameter.grad?.dispose()
      parameter.grad = null
    }
  }

  /** Calls `fn` on every module, deepest first; returns the module. */
  apply(fn: (module: AnyModule) => void): this {
    for (const module of this.modules().reverse()) fn(module)
    return this
  }

  /** What toString() and summary() show between the parentheses: the options of a layer. */
  describe(): string {
    return ''
  }

  toString(): string {
    const lines = this.namedChildren().map(
      ([name, child]) => `  (${name}): ${child.toString().replaceAll('\n', '\n  ')}`,
    )
    const name = this.constructor.name
    return lines.length === 0 ? `${name}(${this.describe()})` : `${name}(\n${lines.join('\n')}\n)`
  }

  #entries<T>(of: (module: AnyModule) => [string, T][]): [string, T][] {
    return this.namedModules().flatMap(([path, module]) =>
      of(module).map(([name, t]): [string, T] => [joinPath(path, name), t]),
    )
  }

  #ownBuffers(): [string, Tensor][] {
    const fields = this as unknown as Record<string, unknown>
    const found: [string, Tensor][] = []
    for (const name of this.#buffers.keys()) if (fields[name] instanceof Tensor) found.push([name, fields[name]])
    return found
  }

  #state(): [string, Tensor][] {
    return [...ownParameters(this), ...this.#ownBuffers().filter(([name]) => this.#buffers.get(name)?.persistent)]
  }
}

/** What the name of a parameter's mask ends with. No other state ends so: a Parameter has no state below it. */
export const MASK = '.mask'

function ownParameters(module: AnyModule): [string, Parameter][] {
  const found: [string, Parameter][] = []
  for (const [name, value] of Object.entries(module)) if (value instanceof Parameter) found.push([name, value])
  return found
}

/** Every path to every module, a shared one under each of its names. */
function pathsBelow(module: AnyModule, path = '', above: readonly AnyModule[] = []): [string, AnyModule][] {
  if (above.includes(module)) throw new ArgumentError(`${module.constructor.name} at '${path}' contains itself`)
  const line = [...above, module]
  const below = module.namedChildren().flatMap(([name, child]) => pathsBelow(child, joinPath(path, name), line))
  return [[path, module], ...below]
}

/** The path of what has this name in the module at a path. */
export function joinPath(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`
}

function camelCase(name: string): string {
  return name.replace(/(?<=[^._])_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
}

const isMovable = (value: unknown): value is Movable =>
  typeof value === 'object' &&
  value !== null &&
  !(value instanceof Tensor || value instanceof Module) &&
  typeof (value as Movable).to === 'function' &&
  typeof (value as Movable).device === 'string'

/** Moves the properties of modules that are weights without being tensors; what several modules share stays shared. */
function moveWeights(modules: readonly AnyModule[], device: DeviceName): void {
  const moved = new Map<Movable, Movable>()
  for (const module of modules) {
    const fields = module as unknown as Record<string, Movable>
    for (const [name, weights] of Object.entries(fields)) {
      if (!isMovable(weights) || weights.device === device) continue
      const known = moved.get(weights) ?? weights.to(device)
      moved.set(weights, known)
      fields[name] = known
    }
  }
  for (const old of moved.keys()) old.dispose()
}

function convert(tensor: Tensor, wanted: Destination): Tensor {
  const to = (t: Tensor, dtype: DType) => ('device' in wanted ? moveTo(t, wanted.device) : copyTo(t, dtype))
  const copy = to(tensor, 'dtype' in wanted ? wanted.dtype : tensor.dtype)
  if (!(tensor instanceof Parameter)) return keep(copy)
  const parameter = new Parameter(copy, { requiresGrad: tensor.requiresGrad })
  if (tensor.mask) parameter.mask = to(tensor.mask, 'bool') as Tensor<'bool'>
  copy.dispose()
  return parameter
}
