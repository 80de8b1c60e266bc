/** Runs calibration data through a model and sees the inputs of its layers. */
import { isIterable } from '../core/checks'
import { ArgumentError, KerfError, show } from '../core/errors'
import { native } from '../native/call'
import { abs, mul } from '../ops/arithmetic'
import { matmul } from '../ops/matmul'
import { converted } from '../ops/op'
import { max, sum } from '../ops/reduce'
import { reshape, transpose } from '../ops/shape'
import { noGrad, scope } from '../tensor/context'
import { keep, Tensor } from '../tensor/tensor'
import { listen } from './listen'
import { besideModel, keepingModes } from './model'
import type { AnyModule, Module } from './module'

/** Batches of inputs: a tensor each, or an array whose first element is the input, as data.loader() gives. */
export type CalibrationData = Iterable<unknown> | AsyncIterable<unknown>

/** How a batch is run, when `model.forward(input)` is not it. */
export type RunBatch = (batch: never) => unknown

/** What decides a range from the values that it is shown. */
interface RangeObserver {
  observe(values: Float32Array): void
  range(): { min: number; max: number }
}

/** What was asked about a layer's inputs. */
export interface Seen {
  rows: number
  range: { min: number; max: number } | null
  /** max|x_j| and mean|x_j| of every input channel. */
  channelMax: Float32Array | null
  channelMean: Float32Array | null
  /** Sum of x_j^2 over all rows, of every input channel. */
  channelSquares: Float64Array | null
  /** Sum of x x^T over all rows, [in, in]. */
  gram: Float64Array | null
}

/** Channels are those of the last axis; a range takes inputs of any form, images too. */
export interface Wanted {
  observer?: RangeObserver | null
  channels?: boolean
  squares?: boolean
  gram?: boolean
  /** Inputs are multiplied by it before they are looked at. */
  multiplier?: Tensor | null
}

/** Looks at what goes into a layer. */
class Watcher {
  rows = 0
  channelMax: Float32Array | null = null
  channelSum: Float64Array | null = null
  channelSquares: Float64Array | null = null
  gram: Tensor | null = null
  readonly pending: Promise<void>[] = []
  /** The layer is as before. */
  readonly stop: () => void

  /** Begins at once. */
  constructor(
    layer: AnyModule,
    readonly path: string,
    readonly wanted: Wanted,
  ) {
    this.stop = listen(layer, (_, input) => this.#look(input as Tensor))
  }

  #look(input: Tensor): void {
    const { observer, channels, squares, gram, multiplier } = this.wanted
    const inputs = input.shape[input.rank - 1] as number
    const rows = inputs === 0 ? 0 : input.size / inputs
    this.rows += rows
    if (rows === 0) return
    const flat = reshape(converted(input, 'float32'), [rows, inputs])
    const x = multiplier ? mul(flat, multiplier) : flat
    if (observer) this.#read(x, (values) => observer.observe(values))
    if (channels) {
      const size = abs(x)
      this.#read(max(size, 0), (values) => this.#addMax(values))
      this.#read(sum(size, 0), (values) => {
        this.channelSum = added(this.channelSum, values)
      })
    }
    if (squares) {
      this.#read(sum(mul(x, x), 0), (values) => {
        this.channelSquares = added(this.channelSquares, values)
      })
    }
    if (gram) {
      const g = matmul(transpose(x), x)
      if (this.gram === null) this.gram = keep(g)
      else native.add(this.gram, this.gram, g)
    }
  }

  #read(x: Tensor, take: (values: Float32Array) => void): void {
    const taken = x.data().then((values) => take(values as Float32Array))
    taken.catch(() => {}) // It is awaited when the batch is over: until then a failure is not an unhandled one.
    this.pending.push(taken)
  }

  #addMax(values: Float32Array): void {
    this.channelMax ??= new Float32Array(values.length)
    const most = this.channelMax
    for (let i = 0; i < values.length; i++) most[i] = Math.max(most[i] as number, values[i] as number)
  }

  async seen(): Promise<Seen> {
    const gram = this.gram && new Float64Array((await this.gram.data()) as Float32Array)
    this.gram?.dispose()
    return {
      rows: this.rows,
      range: this.wanted.observer ? this.wanted.observer.range() : null,
      channelMax: this.channelMax,
      channelSquares: this.channelSquares,
      channelMean: this.channelSum && Float32Array.from(this.channelSum, (x) => x / this.rows),
      gram,
    }
  }
}

/** total + values, in place; a null total is zeros. */
function added(total: Float64Array | null, values: Float32Array): Float64Array {
  const sums = total ?? new Float64Array(values.length)
  for (let i = 0; i < values.length; i++) sums[i] = (sums[i] as number) + (values[i] as number)
  return sums
}

/** The input of a batch. */
export function inputOf(op: string, batch: unknown): Tensor {
  const input = Array.isArray(batch) ? batch[0] : batch
  if (input instanceof Tensor) return input
  throw new ArgumentError(
    `${op}: a batch of calibrationData must be a tensor, or an array that begins with one, got ${show(batch)} (give \`run\` for other batches)`,
  )
}

/** An error about a layer says which. */
export async function atLayer<R>(op: string, path: string, fn: () => R | Promise<R>): Promise<R> {
  try {
    return await fn()
  } catch (error) {
    if (error instanceof KerfError) error.message = `${op}: layer '${path}': ${error.message}`
    throw error
  }
}

/** Runs all batches, one after the other, and waits for what the watchers read of each. */
async function feed(
  op: string,
  watchers: readonly Watcher[],
  data: CalibrationData,
  forward: (batch: unknown) => unknown,
): Promise<void> {
  let batches = 0
  for await (const batch of data) {
    batches++
    await scope(() => noGrad(async () => void (await forward(batch))))
    for (const { path, pending } of watchers)
      await atLayer(op, path, async () => void (await Promise.all(pending.splice(0))))
  }
  if (batches === 0) {
    throw new ArgumentError(
      `${op}: calibrationData was empty (it may be iterated more than once: an array or a loader, not a generator)`,
    )
  }
}

/**
 * Runs all batches through the model, in evaluation mode and without gradients, and answers what the layers at `wanted`'s
 * paths saw. The model is as before afterwards, also when this throws.
 *
 * @throws ArgumentError when there is no batch, when a layer saw none, and for values that are not finite
 */
export async function observe(
  op: string,
  model: AnyModule,
  wanted: ReadonlyMap<string, Wanted>,
  data: CalibrationData | undefined,
  run?: RunBatch,
): Promise<Map<string, Seen>> {
  if (!isIterable(data))
    throw new ArgumentError(`${op}: calibrationData must be an iterable of batches, got ${show(data)}`)
  const forward =
    run ?? ((batch: unknown) => (model as unknown as Module).forward(...besideModel(model, inputOf(op, batch))))
  const watchers = [...wanted].map(([path, how]) => new Watcher(model.getModule(path), path, how))
  try {
    await keepingModes([model], () => {
      model.eval()
      return feed(op, watchers, data, (batch) => forward(batch as never))
    })
  } finally {
    for (const watcher of watchers) watcher.stop()
  }
  const found = new Map<string, Seen>()
  for (const watcher of watchers) {
    if (watcher.rows === 0)
      throw new ArgumentError(`${op}: layer '${watcher.path}' saw no input in calibrationData: name it in skip`)
    found.set(watcher.path, await atLayer(op, watcher.path, () => watcher.seen()))
  }
  return found
}
