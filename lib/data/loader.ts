/** Batches of a dataset, one epoch an iteration. */
import { ArgumentError, show } from '../core/errors'
import { checkInteger } from '../core/shape'
import { type Batch, checkDataset, type Dataset, permutation, seedOr } from './dataset'

export interface LoaderOptions {
  /** Samples a batch; 1 unless given. */
  batchSize?: number
  /** A new random order every epoch. */
  shuffle?: boolean
  /** Makes the orders reproducible: epoch e of two loaders with the same seed is the same. Else they follow manualSeed. */
  seed?: number
  /** Leaves out the last batch when it is smaller than the others. */
  dropLast?: boolean
  /**
   * Disposes every batch as soon as the next one is asked for: its memory is reused at once and does not wait for the
   * garbage collector. Batches must not be used after their turn of the loop then.
   */
  recycle?: boolean
}

/** The longest the loop runs without a turn of the event loop: timers and I/O wait no longer than this. */
const TURN_MS = 10

export class Loader<B extends Batch = Batch> implements AsyncIterable<B>, Iterable<B> {
  readonly dataset: Dataset<B>
  readonly batchSize: number
  /** Iterations begun so far; with `shuffle` it chooses the next order. Set it to go on where another run stopped. */
  epoch = 0
  readonly #shuffle: boolean
  readonly #seed: number
  readonly #dropLast: boolean
  readonly #recycle: boolean

  constructor(dataset: Dataset<B>, options: LoaderOptions = {}) {
    checkDataset('loader', dataset)
    for (const name of ['shuffle', 'dropLast', 'recycle'] as const) {
      const value: unknown = options[name]
      if (value !== undefined && typeof value !== 'boolean')
        throw new ArgumentError(`loader: ${name} must be true or false, got ${show(value)}`)
    }
    this.dataset = dataset
    this.batchSize = checkInteger('loader', 'batchSize', options.batchSize ?? 1, 1)
    this.#shuffle = options.shuffle ?? false
    this.#dropLast = options.dropLast ?? false
    this.#recycle = options.recycle ?? false
    this.#seed = this.#shuffle ? seedOr('loader', options.seed) : 0
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
    })
    other.epoch = this.epoch
    return other
  }

  /** Number of batches. */
  get length(): number {
    const batches = this.dataset.length / this.batchSize
    return this.#dropLast ? Math.floor(batches) : Math.ceil(batches)
  }

  /** One epoch; the event loop turns at least every 10 ms, even when nothing in the loop's body waits. */
  async *[Symbol.asyncIterator](): AsyncGenerator<B, void, undefined> {
    let lastTurn = performance.now()
    for (const indices of this.#indices()) {
      const batch = await this.dataset.batch(indices)
      if (performance.now() - lastTurn > TURN_MS) {
        await new Promise<void>((resolve) => setImmediate(resolve))
        lastTurn = performance.now()
      }
      try {
        yield batch
      } finally {
        if (this.#recycle) for (const tensor of batch) tensor.dispose()
      }
    }
  }

  /**
   * One epoch in place: nothing waits, so the event loop stands still until the loop ends.
   *
   * @throws ArgumentError when the dataset makes its batches asynchronously
   */
  *[Symbol.iterator](): Generator<B, void, undefined> {
    for (const indices of this.#indices()) {
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

  *#indices(): Generator<Int32Array, void, undefined> {
    const n = this.dataset.length
    const epoch = this.epoch++
    const order = this.#shuffle
      ? permutation(n, (this.#seed + epoch * 0x9e3779b1) % 2 ** 53)
      : Int32Array.from({ length: n }, (_, i) => i)
    for (let i = 0; i < this.length; i++)
      yield order.subarray(i * this.batchSize, Math.min(n, (i + 1) * this.batchSize))
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
