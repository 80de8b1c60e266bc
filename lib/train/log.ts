/** Metrics as JSON lines. */
import { type FileHandle, open } from 'node:fs/promises'
import { ArgumentError, show } from '../core/errors'
import { checkInteger } from '../core/shape'
import { checkPath, type PathLike } from '../io/source'

/** A file of JSON lines: one at the start of each fit(), one an epoch, and one every `every` steps if given. */
export type LogOption = PathLike | { path: PathLike; every?: number }

/** JSON has no NaN and no infinities: they become strings, so that a diverged run says so. */
const line = (value: object) =>
  `${JSON.stringify(value, (_, x) => (typeof x === 'number' && !Number.isFinite(x) ? String(x) : x))}\n`

export class Log {
  readonly path: PathLike
  /** Steps between lines; 0: none. */
  readonly every: number
  #file: FileHandle | null = null

  constructor(op: string, option: LogOption) {
    const { path, every }: { path: unknown; every?: unknown } =
      typeof option === 'object' && option !== null && !(option instanceof URL) ? option : { path: option }
    if (typeof path !== 'string' && !(path instanceof URL))
      throw new ArgumentError(`${op}: log must be a path or { path, every }, got ${show(option)}`)
    this.path = checkPath(op, path)
    this.every = every === undefined ? 0 : checkInteger(op, 'log.every', every as number, 1)
  }

  /** Appends a line, which is in the file when this is settled; with `sync`, on disk too. */
  async write(value: object, sync = false): Promise<void> {
    this.#file ??= await open(this.path, 'a')
    await this.#file.appendFile(line(value))
    if (sync) await this.#file.datasync()
  }

  async close(): Promise<void> {
    const file = this.#file
    this.#file = null
    await file?.close()
  }
}
