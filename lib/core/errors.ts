/** Everything kerf throws. `code` is stable; the message says op, what is wrong and the values. */
export class KerfError extends Error {
  readonly code: string
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = new.target.name
    this.code = code
  }
}

/** Shapes that do not go together, a bad axis, a size that does not match. */
export class ShapeError extends KerfError {
  constructor(message: string) {
    super('ERR_SHAPE', message)
  }
}

/** An element type that the op does not take. */
export class DTypeError extends KerfError {
  constructor(message: string) {
    super('ERR_DTYPE', message)
  }
}

/** Any other argument of the wrong type or out of range. */
export class ArgumentError extends KerfError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_ARGUMENT', message, options)
  }
}

/** A device that is not there, or that failed. */
export class DeviceError extends KerfError {
  constructor(message: string) {
    super('ERR_DEVICE', message)
  }
}

/** A tensor used after dispose() or after the scope() that made it has ended. */
export class DisposedError extends KerfError {
  constructor(message: string) {
    super('ERR_DISPOSED', message)
  }
}

/** Memory that could not be had. */
export class OutOfMemoryError extends KerfError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_OUT_OF_MEMORY', message, options)
  }
}

/** A file that is damaged, hostile, or not of the format it should be. */
export class FormatError extends KerfError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_FORMAT', message, options)
  }
}

/** The native addon is missing, stale, or answered what it never should: a bug of kerf's. */
export class NativeError extends KerfError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_NATIVE', message, options)
  }
}

/** Shows a value that a user passed, short enough for one line of an error. */
export function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value)
  if (typeof value === 'bigint') return `${value}n`
  if (value === null || ['number', 'boolean', 'undefined'].includes(typeof value)) return String(value)
  if (typeof value === 'function') return `function ${value.name || '(anonymous)'}`
  if (typeof value === 'symbol') return 'a symbol'
  if (Array.isArray(value)) {
    const items = value.slice(0, 8).map((v) => (Array.isArray(v) ? '[...]' : show(v)))
    return `[${items.join(', ')}${value.length > 8 ? ', ...' : ''}]`
  }
  if (ArrayBuffer.isView(value)) return `${value.constructor.name}(${(value as Uint8Array).length ?? value.byteLength})`
  const name = Object.getPrototypeOf(value)?.constructor?.name
  return name && name !== 'Object' ? `a ${name}` : 'an object'
}
