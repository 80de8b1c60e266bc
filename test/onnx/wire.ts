// The wire format of protobuf (protobuf.dev/programming-guides/encoding): enough to read a message whose field numbers
// are known. A message is a series of fields, each a tag (number and wire type) and a value.

const VARINT = 0
const FIXED64 = 1
const LENGTH = 2
const FIXED32 = 5

/** A varint as 64 unsigned bits, anything else as its bytes. */
type Value = bigint | Uint8Array

class Cursor {
  at = 0
  constructor(readonly bytes: Uint8Array) {}

  get done(): boolean {
    return this.at === this.bytes.length
  }

  take(count: number): Uint8Array {
    const end = this.at + count
    if (!(end <= this.bytes.length)) throw new Error(`protobuf: ${count} bytes at ${this.at} of ${this.bytes.length}`)
    const part = this.bytes.subarray(this.at, end)
    this.at = end
    return part
  }

  varint(): bigint {
    let value = 0n
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.take(1)[0] as number
      value |= BigInt(byte & 127) << shift
      if (byte < 128) return BigInt.asUintN(64, value)
    }
    throw new Error(`protobuf: the varint that ends at ${this.at} has more than ten bytes`)
  }
}

function readValue(from: Cursor, wire: number): Value {
  if (wire === VARINT) return from.varint()
  if (wire === FIXED64) return from.take(8)
  if (wire === LENGTH) return from.take(Number(from.varint()))
  if (wire === FIXED32) return from.take(4)
  throw new Error(`protobuf: wire type ${wire} before byte ${from.at}`)
}

/** A message, by field number. Repeated numbers may be packed (one run of bytes) or not (a field each): both are read. */
export class Message {
  readonly #fields = new Map<number, Value[]>()

  constructor(bytes: Uint8Array) {
    const from = new Cursor(bytes)
    while (!from.done) {
      const tag = Number(from.varint())
      const field = Math.floor(tag / 8)
      const values = this.#fields.get(field) ?? []
      this.#fields.set(field, values)
      values.push(readValue(from, tag % 8))
    }
  }

  has(field: number): boolean {
    return this.#fields.has(field)
  }

  /** The bytes of every occurrence. */
  chunks(field: number): Uint8Array[] {
    return this.#values(field).map((value) => {
      if (typeof value === 'bigint') throw new Error(`protobuf: field ${field} is a varint, not bytes`)
      return value
    })
  }

  /** The bytes of all occurrences in a buffer of their own, so that any typed array may look at it. */
  bytes(field: number): ArrayBuffer {
    const whole = Buffer.concat(this.chunks(field))
    return whole.buffer.slice(whole.byteOffset, whole.byteOffset + whole.length) as ArrayBuffer
  }

  messages(field: number): Message[] {
    return this.chunks(field).map((bytes) => new Message(bytes))
  }

  texts(field: number): string[] {
    return this.chunks(field).map((bytes) => Buffer.from(bytes).toString('utf8'))
  }

  text(field: number): string {
    return this.texts(field).at(-1) ?? ''
  }

  floats(field: number): Float32Array {
    return new Float32Array(this.bytes(field))
  }

  doubles(field: number): Float64Array {
    return new Float64Array(this.bytes(field))
  }

  /** int32, int64 and uint64 alike: 64 unsigned bits; a negative number is sign-extended to them. */
  varints(field: number): bigint[] {
    return this.#values(field).flatMap((value) => {
      if (typeof value === 'bigint') return value
      const list: bigint[] = []
      for (const from = new Cursor(value); !from.done; ) list.push(from.varint())
      return list
    })
  }

  integers(field: number): number[] {
    return this.varints(field).map((bits) => Number(BigInt.asIntN(64, bits)))
  }

  integer(field: number): number {
    return this.integers(field).at(-1) ?? 0
  }

  #values(field: number): readonly Value[] {
    return this.#fields.get(field) ?? []
  }
}
