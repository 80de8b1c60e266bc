// The reader of protobuf messages, on bytes put together by hand: the node cases keep all elements in raw_data, so they
// say nothing of the other fields.
import t from 'tap'
import { read } from '../matrix'
import { type OnnxTensor, readAttribute, readTensor, toNd, toTensor } from './model'
import { Message } from './wire'

/** A varint; negative numbers as 64 bits, as protobuf has them. */
function varint(value: number | bigint): number[] {
  const bytes: number[] = []
  let rest = BigInt.asUintN(64, BigInt(value))
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128)
  return [...bytes, Number(rest)]
}
const number = (field: number, value: number | bigint) => [...varint(field * 8), ...varint(value)]
const bytes = (field: number, value: readonly number[]) => [...varint(field * 8 + 2), ...varint(value.length), ...value]
const packed = (field: number, values: readonly number[]) => bytes(field, values.flatMap(varint))
const raw = (array: Float32Array | Float64Array | BigInt64Array) => Array.from(new Uint8Array(array.buffer))
const message = (...fields: number[][]) => new Message(Uint8Array.from(fields.flat()))

t.test('repeated numbers, packed, not packed, or both', (t) => {
  t.same(message(number(1, 3), number(1, -1)).integers(1), [3, -1])
  t.same(message(packed(1, [300, -(2 ** 40)])).integers(1), [300, -(2 ** 40)])
  t.same(message(number(1, 1), packed(1, [2, 3]), number(1, 4)).integers(1), [1, 2, 3, 4])
  const two = raw(Float32Array.of(1.5, -2))
  const tag = 4 * 8 + 5 // field 4, a fixed32
  t.same(message(bytes(4, two)).floats(4), [1.5, -2])
  t.same(message([tag, ...two.slice(0, 4)], [tag, ...two.slice(4)]).floats(4), [1.5, -2])
  t.same(message().integers(1), [])
  t.equal(message().integer(1), 0)
  t.equal(message(bytes(3, [0xc3, 0xa9])).text(3), 'é')
  t.end()
})

t.test('bytes that are no message', (t) => {
  t.throws(() => message([8]), /protobuf: 1 bytes at 1 of 1/, 'nothing after the tag')
  t.throws(() => message([10, 5, 1]), /protobuf: 5 bytes at 2 of 3/, 'a length beyond the end')
  t.throws(() => message([8, ...new Array<number>(11).fill(255)]), /more than ten bytes/)
  t.throws(() => message([11]), /wire type 3/, 'a group')
  t.throws(() => message(bytes(1, [128])).integers(1), /protobuf: 1 bytes at 1 of 1/, 'a packed varint cut short')
  t.end()
})

t.test('elements in the field of their type', (t) => {
  const cases: [name: string, type: number, field: number[], want: number[]][] = [
    ['float', 1, bytes(4, raw(Float32Array.of(0.5, -1))), [0.5, -1]],
    ['uint8', 2, packed(5, [0, 255]), [0, 255]],
    ['int8', 3, packed(5, [-128, 127]), [-128, 127]],
    ['int32', 6, packed(5, [-(2 ** 31), 7]), [-(2 ** 31), 7]],
    ['int64', 7, packed(7, [-1, 2 ** 40]), [-1, 2 ** 40]],
    ['bool', 9, packed(5, [0, 1]), [0, 1]],
    ['float16', 10, packed(5, [0x3c00, 0xc000]), [1, -2]],
    ['double', 11, bytes(10, raw(Float64Array.of(0.25, 3))), [0.25, 3]],
    ['bfloat16', 16, packed(5, [0x3f80, 0xc000]), [1, -2]],
  ]
  for (const [name, type, field, want] of cases) {
    const tensor = readTensor(message(packed(1, [2, 1]), number(2, type), field))
    t.same(toNd(tensor), { shape: [2, 1], data: want }, name)
    t.same(read(toTensor(tensor)).data, want, `${name}, as a tensor of kerf's`)
  }
  t.same(readTensor(message(packed(1, [2]), number(2, 4), packed(5, [1, 65535]))).data, [1, 65535], 'uint16')
  t.same(readTensor(message(packed(1, [1]), number(2, 13), number(11, -1n))).data, [2n ** 64n - 1n], 'uint64')
  t.same(
    toNd(readTensor(message(number(2, 1), bytes(9, raw(Float32Array.of(3)))))),
    { shape: [], data: [3] },
    'raw_data',
  )
  t.throws(() => readTensor(message(packed(1, [3]), number(2, 6), packed(5, [1]))), /1 elements of int32 for .* \[3\]/)
  t.throws(() => readTensor(message(number(2, 8))), /string/)
  t.throws(() => toTensor(readTensor(message(packed(1, [0]), number(2, 5)))), /kerf has no int16/)
  t.throws(() => toNd(readTensor(message(number(2, 7), number(7, 2n ** 53n + 1n)))), /is not a float64/)
  t.end()
})

t.test('attributes', (t) => {
  const attribute = (kind: number, ...fields: number[][]) => readAttribute(message(...fields, number(20, kind)))
  t.equal(attribute(1, [2 * 8 + 5, ...raw(Float32Array.of(0.5))]), 0.5)
  t.equal(attribute(2, number(3, -2)), -2)
  t.equal(attribute(3, bytes(4, [97, 98])), 'ab')
  t.same((attribute(4, bytes(5, [...number(2, 6), ...packed(5, [9])])) as OnnxTensor).data, [9])
  t.same(attribute(6, bytes(7, raw(Float32Array.of(1, 2)))), [1, 2])
  t.same(attribute(7, number(8, 1), number(8, -1)), [1, -1])
  t.same(attribute(8, bytes(9, [97]), bytes(9, [])), ['a', ''])
  t.throws(() => attribute(5, bytes(1, [97]), bytes(6, [])), /attribute a is a graph/)
  t.end()
})
