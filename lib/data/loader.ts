/** Batches of a dataset, one epoch an iteration. */
import { ArgumentError, show } from '../core/errors'
import { checkInteger } from '../core/shape'
import { type Batch, checkDataset, type Dataset, permutation, seedOr } from './dataset'

export interface LoaderOptions {
  /** Samples a batch; 1 unless given. */
  batchSize?: number
  /** A new random order every epoch. */
  shuffle?: boolean
  /** Makes orders and transforms reproducible: epoch e of two loaders with the same seed is the same. Else they follow manualSeed. */
  seed?: number
  /** Leaves out the last batch when it is smaller than the others. */
  dropLast?: boolean
  /**
   * Disposes every batch as soon as the next one is asked for: its memory is reused at once and does not wait for the
   * garbage collector. Batches must not be used after their turn of the loop then.
   */
  recycle?: boolean
  /** Changes every batch on its way: `augment`, say. Batches then come by `for await` only. */
  transform?: Transform
}

/** Which samples a batch has, for a transform that must give each the same each time it is asked. */
export interface TransformContext {
  /** Numbers of the samples in the dataset, in the order of the batch. */
  readonly indices: Int32Array
  /** Counted from 0. */
  readonly epoch: number
  /** The loader's: of `seed`, or of manualSeed's stream. */
  readonly seed: number
}

/** Makes a batch of another one, whose tensors it leaves as they are. */
export type Transform = (batch: Batch, context: TransformContext) => Batch | Promise<Batch>

/** Where a loader is: what it gives next follows from it, and from the dataset and the options. */
export interface LoaderState {
  /** The epoch that has begun, or the next one. */
  epoch: number
  /** Its batches that have been handed out. */
  batch: number
  /** Of the orders and the transform. */
  seed: number
}

/** The longest the loop runs without a turn of the event loop: timers and I/O wait no longer than this. */
const TURN_MS = 10

export class Loader<B extends Batch = Batch> implements AsyncIterable<B>, Iterable<B> {
  readonly dataset: Dataset<B>
  readonly batchSize: number
  readonly transform: Transform | null
  readonly #shuffle: boolean
  #seed: number
  #begun = 0
  readonly #dropLast: boolean
  readonly #recycle: boolean
  /** Batches of the running epoch that were handed out; of none when it has ended. */
  #batch = 0
  /** Batches that the next iteration leaves out: where a loaded state stopped. */
  #skip = 0

  constructor(dataset: Dataset<B>, options: LoaderOptions = {}) {
    checkDataset('loader', dataset)
    for (const name of ['shuffle', 'dropLast', 'recycle'] as const) {
      const value: unknown = options[name]
      if (value !== undefined && typeof value !== 'boolean')
        throw new ArgumentError(`loader: ${name} must be true or false, got ${show(value)}`)
    }
    const transform: unknown = options.transform
    if (transform !== undefined && typeof transform !== 'function')
      throw new ArgumentError(`loader: transform must be a function, got ${show(transform)}`)
    this.transform = options.transform ?? null
    this.dataset = dataset
    this.batchSize = checkInteger('loader', 'batchSize', options.batchSize ?? 1, 1)
    this.#shuffle = options.shuffle ?? false
    this.#dropLast = options.dropLast ?? false
    this.#recycle = options.recycle ?? false
    this.#seed = this.#shuffle || this.transform ? seedOr('loader', options.seed) : 0
  }

  /**
   * The same batches of another dataset with as many samples: the same indices in the same order, from the next epoch on.
   *
   * @throws ArgumentError when the number of samples differs
   */
  over<C extends Batch>(dataset: Dataset<C>): Loader<C> {
    checkDataset('over', dataset)
    if (dataset.length !== this.dataset.length)
      throw new ArgumentError(`over: the dataset must have ${this.dataset.length} samples, it has ${dataset.length}`)
    const other = new Loader(dataset, {
      batchSize: this.batchSize,
      shuffle: this.#shuffle,
      seed: this.#seed,
      dropLast: this.#dropLast,
      recycle: this.#recycle,
      transform: this.transform ?? undefined,
    })
    other.epoch = this.epoch
    return other
  }

  /** Iterations begun so far; with `shuffle` it chooses the next order. Set it to go on where another run stopped. */
  get epoch(): number {
    return this.#begun
  }

  set epoch(value: number) {
    this.#begun = checkInteger('loader', 'epoch', value, 0)
    this.#batch = 0
    this.#skip = 0
  }

  /** Number of batches. */
  get length(): number {
    const batches = this.dataset.length / this.batchSize
    return this.#dropLast ? Math.floor(batches) : Math.ceil(batches)
  }

  /**
   * Where it is, for a run that goes on later. Inside the loop's body, the batch in hand counts as handed out; an epoch that
   * was broken off stays where it was.
   */
  stateDict(): LoaderState {
    if (this.#skip > 0) return { epoch: this.epoch, batch: this.#skip, seed: this.#seed }
    return { epoch: this.#batch > 0 ? this.epoch - 1 : this.epoch, batch: this.#batch, seed: this.#seed }
  }

  /**
   * Goes on where stateDict() was asked: the next iteration gives what was left of that epoch, which may be nothing.
   *
   * @throws ArgumentError for anything else, or for more batches than there are; nothing has changed then
   */
  loadStateDict(state: LoaderState): void {
    const op = 'loader: loadStateDict'
    if (typeof state !== 'object' || state === null)
      throw new ArgumentError(`${op}: expected what stateDict() returns, got ${show(state)}`)
    const epoch = checkInteger(op, 'epoch', state.epoch, 0)
    const batch = checkInteger(op, 'batch', state.batch, 0, this.length)
    this.#seed = checkInteger(op, 'seed', state.seed, 0)
    this.epoch = epoch
    this.#skip = batch
  }

  /** One epoch; the event loop turns at least every 10 ms, even when nothing in the loop's body waits. */
  async *[Symbol.asyncIterator](): AsyncGenerator<B, void, undefined> {
    let lastTurn = performance.now()
    for (const context of this.#walk()) {
      const given = await this.dataset.batch(context.indices)
      const batch = this.transform ? ((await this.transform(given, context)) as B) : given
      if (performance.now() - lastTurn > TURN_MS) {
        await new Promise<void>((resolve) => setImmediate(resolve))
        lastTurn = performance.now()
      }
      try {
        yield batch
      } finally {
        if (this.#recycle) for (const tensor of new Set([...given, ...batch])) tensor.dispose()
      }
    }
  }

  /**
   * One epoch in place: nothing waits, so the event loop stands still until the loop ends.
   *
   * @throws ArgumentError when the dataset makes its batches asynchronously, or when there is a transform
   */
  *[Symbol.iterator](): Generator<B, void, undefined> {
    if (this.transform) throw new ArgumentError('loader: transform works asynchronously: use for await')
    for (const { indices } of this.#walk()) {
      const batch = this.dataset.batch(indices)
      if (batch instanceof Promise)
        throw new ArgumentError('loader: this dataset makes its batches asynchronously: use for await')
      try {
        yield batch
      } finally {
        if (this.#recycle) for (const tensor of batch) tensor.dispose()
      }
    }
  }

  *#walk(): Generator<TransformContext, void, undefined> {
    const n = this.dataset.length
    const first = this.#skip
    const epoch = this.#begun++
    this.#skip = 0
    const order = this.#shuffle
      ? permutation(n, (this.#seed + epoch * 0x9e3779b1) % 2 ** 53)
      : Int32Array.from({ length: n }, (_, i) => i)
    for (let i = first; i < this.length; i++) {
      this.#batch = i + 1
      const indices = order.subarray(i * this.batchSize, Math.min(n, (i + 1) * this.batchSize))
      yield { indices, epoch, seed: this.#seed }
    }
    this.#batch = 0
  }
}

/**
 * Batches of a dataset: iterate it with `for await` (or `for`, which never lets the event loop turn); every iteration
 * is one epoch, in a new order if `shuffle` is set.
 *
 * @returns an iterable of batches, `[x, y]` for a TensorDataset of two tensors
 * @throws ArgumentError
 * @example for await (const [x, y] of loader(train, { batchSize: 64, shuffle: true, seed: 1 })) { ... }
 */
export function loader<B extends Batch>(dataset: Dataset<B>, options: LoaderOptions = {}): Loader<B> {
  return new Loader(dataset, options)
}
