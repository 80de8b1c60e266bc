// Weights as the CPU stores them ('2:4' SparseTensors, packInt4's codes), packed for the tensor cores and multiplied by
// the identity: what comes out is the matrix that went in.
import { spawnSync } from 'node:child_process'
import t from 'tap'
import { tensor } from '#lib/ops/create'
import { packInt4 } from '#lib/ops/quantize'
import { densify, sparsify } from '#lib/ops/sparse'
import { compile, noEmulator, root } from './programs'

/** Whole numbers from -limit to limit. */
function numbers(count: number, limit: number, seed: number): number[] {
  let state = seed
  return Array.from({ length: count }, () => {
    state = (state * 1103515245 + 12345) % 2147483648
    return (Math.floor(state / 65536) % (2 * limit + 1)) - limit
  })
}

/** With at most two non-zeros in each four, none of them fixed to a place; some fours are empty. */
function twoOfFour(rows: number, columns: number, limit: number): number[] {
  const values = numbers(rows * columns, limit, rows)
  const places = numbers(rows * columns, 3, columns)
  for (let four = 0; four < values.length; four += 4) {
    const keep = [Math.abs(places[four] as number) % 4, Math.abs(places[four + 1] as number) % 4]
    for (let i = 0; i < 4; i++) if (!keep.includes(i)) values[four + i] = 0
  }
  return values
}

t.test('packed weights', { skip: noEmulator }, async (t) => {
  const program = await compile('pack_check.cc', root, 'pack')
  const dense = (kind: string, rows: number, columns: number, bytes: Iterable<number>): number[] => {
    const { stdout } = spawnSync(program, { input: [kind, rows, columns, ...bytes].join(' '), encoding: 'utf8' })
    t.notMatch(stdout, /report/)
    return stdout.trim().split(/\s+/).map(Number)
  }
  const bytesOf = (array: ArrayBufferView) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength)

  for (const [rows, columns] of [
    [16, 64],
    [21, 72],
    [130, 136],
  ] as const) {
    const values = twoOfFour(rows, columns, 100)
    const sparse = sparsify(tensor(values, { shape: [rows, columns], dtype: 'float16' }), '2:4')
    const metadata = sparse.metadata?.dataSync() as Uint8Array
    const stored = bytesOf(sparse.values.dataSync() as Uint16Array)
    t.same(dense('f16', rows, columns, [...stored, ...metadata]), values, `float16 ${rows}x${columns}`)
    t.same((densify(sparse).arraySync() as number[][]).flat(), values, 'as on the CPU')
  }

  for (const [rows, columns] of [
    [16, 128],
    [21, 80],
  ] as const) {
    const values = twoOfFour(rows, columns, 127)
    const places = sparsify(tensor(values, { shape: [rows, columns] }), '2:4')
    const integers = Int8Array.from(places.values.dataSync())
    const stored = [...bytesOf(integers), ...(places.metadata?.dataSync() ?? [])]
    t.same(dense('s8', rows, columns, stored), values, `int8 ${rows}x${columns}`)
  }

  const less = (values: number[], columns: number) =>
    values.map((value, i) => value - (Math.floor((i % columns) / 64) % 7))
  const bytes = numbers(40 * 136, 127, 5)
  t.same(dense('codes8', 40, 136, bytesOf(Int8Array.from(bytes))), less(bytes, 136), '8-bit codes')
  const nibbles = numbers(24 * 200, 7, 6)
  const packed = packInt4(tensor(nibbles, { shape: [24, 200], dtype: 'int8' }))
  t.same(dense('codes4', 24, 200, packed.dataSync() as Uint8Array), less(nibbles, 200), '4-bit codes')
})
