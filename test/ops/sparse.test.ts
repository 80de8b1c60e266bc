// Between dense and sparse formats: exact both ways; and hand-made sparse tensors, each fault named.
import fc from 'fast-check'
import t from 'tap'
import { tensor, zeros } from '#lib/ops/create'
import { densify, sparsify } from '#lib/ops/sparse'
import { type SparseFormat, type SparseParts, SparseTensor } from '#lib/tensor/sparse'
import { floats, random, read } from '../matrix'
import { nd } from '../oracle/array'

const int32 = (values: number[]) => tensor(values, { shape: [values.length], dtype: 'int32' })
const list = (x: { dataSync(): ArrayLike<number | bigint> } | null) => Array.from(x?.dataSync() ?? [], Number)

t.test('densify undoes sparsify: dtypes, formats, sizes that blocks do not divide', (t) => {
  fc.assert(
    fc.property(
      fc.constantFrom(...floats),
      fc.integer({ min: 0, max: 9 }),
      fc.integer({ min: 0, max: 9 }),
      fc.constantFrom<SparseFormat>(
        'csr',
        '2:4',
        { block: [1, 1] },
        { block: [2, 3] },
        { block: [5, 1] },
        { block: [16, 16] },
      ),
      fc.nat(),
      (dtype, rows, columns, format, seed) => {
        const wide = format === '2:4' ? columns * 4 : columns
        const values = random(dtype, [rows, wide], seed)
        const keep = random('float32', [rows, wide], seed + 1, [0, 1])
        const w = nd([rows, wide], ([, j], flat) => {
          const there =
            format === '2:4' ? (seed >> 3) % 4 === (j as number) % 4 || seed % 4 === (j as number) % 4 : true
          return there && (keep.data[flat] as number) < 0.4 ? (values.data[flat] as number) : 0
        })
        const s = sparsify(tensor(w.data, { shape: w.shape, dtype }), format)
        const back = read(densify(s))
        return (
          s.dtype === dtype &&
          back.data.every((v, i) => v === w.data[i]) &&
          s.bytes === s.parts().reduce((sum, part) => sum + part.bytes, 0)
        )
      },
    ),
    { numRuns: 300 },
  )
  t.end()
})

t.test('csr: the arrays of a small matrix', (t) => {
  const s = sparsify(
    tensor([
      [0, 5, 0, 7],
      [0, 0, 0, 0],
      [1, 0, Number.NaN, -0],
    ]),
    'csr',
  )
  t.same(list(s.values), [5, 7, 1, Number.NaN])
  t.same(list(s.pointers), [0, 2, 2, 4])
  t.same(list(s.columns), [1, 3, 0, 2])
  t.equal(s.count, 4)
  t.match(`${s}`, /SparseTensor<float32>\[3, 4\] csr, 4 values/)
  t.end()
})

t.test('2:4: all patterns of four, and their metadata', (t) => {
  for (let pattern = 0; pattern < 16; pattern++) {
    const row = [0, 1, 2, 3].map((place) => (pattern & (1 << place) ? place + 1 : 0))
    const places = row.filter((v) => v !== 0)
    const w = tensor([[...row, 0, 0, 0, 9]])
    if (places.length > 2) {
      t.throws(() => sparsify(w, '2:4'), { message: /row 0 has \d non-zeros in columns 0 to 3/, code: 'ERR_ARGUMENT' })
      continue
    }
    const s = sparsify(w, '2:4')
    t.same(list(densify(s)), [...row, 0, 0, 0, 9], `pattern ${pattern}`)
    const byte = list(s.metadata)[0] as number
    const [first, second] = [byte & 3, (byte >> 2) & 3]
    t.ok(first < second)
    const values = list(s.values)
    t.equal(row[first], values[0])
    t.equal(row[second], values[1])
    t.equal(byte >> 4, 0 | (3 << 2), 'the second four: 0 fills up, 3 is there')
  }
  t.end()
})

t.test('2:4 in float16 takes 56.25 % of the dense bytes', (t) => {
  const w = nd([64, 128], ([, j]) => ((j as number) % 4 < 2 ? 1 : 0))
  const dense = tensor(w.data, { shape: [64, 128], dtype: 'float16' })
  t.equal(sparsify(dense, '2:4').bytes / dense.bytes, 0.5625)
  t.end()
})

t.test('blocks: whole ones, zeros beyond the edge', (t) => {
  const s = sparsify(
    tensor([
      [0, 0, 0, 0, 5],
      [0, 0, 0, 0, 6],
      [1, 0, 0, 0, 0],
    ]),
    { block: [2, 2] },
  )
  t.same(list(s.pointers), [0, 1, 2])
  t.same(list(s.columns), [2, 0])
  t.same(s.values.shape, [2, 2, 2])
  t.same(list(s.values), [5, 0, 6, 0, 1, 0, 0, 0])
  t.end()
})

const right = (): SparseParts => ({
  shape: [2, 3],
  format: 'csr',
  values: tensor([1, 2, 3]),
  pointers: int32([0, 2, 3]),
  columns: int32([0, 2, 1]),
})

t.test('hand-made CSR: what is wrong is named by row and column', (t) => {
  t.same(list(densify(new SparseTensor<'float32'>(right()))), [1, 0, 2, 0, 3, 0])
  const faults: [Partial<Record<keyof SparseParts, unknown>>, RegExp][] = [
    [{ columns: int32([2, 0, 1]) }, /row 0 has column 0 after 2; columns must grow/],
    [{ columns: int32([2, 2, 1]) }, /row 0 has column 2 twice/],
    [{ columns: int32([0, 2, 3]) }, /row 1 has column 3, which is not 0 to 2/],
    [{ columns: int32([0, 2, -1]) }, /row 1 has column -1/],
    [{ columns: int32([0, 2]) }, /columns of csr \[2, 3\] must be \[3\], not \[2\]/],
    [{ columns: null }, /columns must be a tensor/],
    [{ columns: zeros([3]) }, /columns must be int32, not float32/],
    [{ pointers: int32([1, 2, 3]) }, /pointers must begin with 0, not 1/],
    [{ pointers: int32([0, 2, 1]) }, /pointers\[2\] must be 2 to 3, it is 1/],
    [{ pointers: int32([0, 4, 3]) }, /pointers\[1\] must be 0 to 3, it is 4/],
    [{ pointers: int32([0, 1, 2]) }, /pointers must end with the 3 values, not 2/],
    [{ pointers: int32([0, 3]) }, /pointers of csr \[2, 3\] must be \[3\], not \[2\]/],
    [{ metadata: zeros([2, 1], { dtype: 'uint8' }) }, /csr has no metadata/],
    [{ values: int32([1, 2, 3]) }, /values must be a float tensor or int8, they are int32/],
    [{ values: zeros([3, 1]) }, /values of csr/],
    [{ values: undefined }, /values must be a tensor/],
    [{ shape: [2, 3, 1] }, /shape must be \[rows, columns\]/],
    [{ shape: [-1, 3] }, /sizes must be whole numbers >= 0/],
    [{ format: 'coo' }, /format must be 'csr', '2:4' or/],
    [{ format: { block: [0, 1] } }, /block\[0\] must be a whole number from 1/],
    [{ format: { block: [1] } }, /format must be/],
  ]
  for (const [fault, message] of faults)
    t.throws(() => new SparseTensor({ ...right(), ...fault } as SparseParts), { message }, `${message}`)
  t.throws(() => new SparseTensor(null as never), /parts must be an object/)
  t.end()
})

t.test('hand-made 2:4: places must grow, shapes fit', (t) => {
  const parts = { shape: [1, 4], format: '2:4' as const, values: tensor([[1, 2]]) }
  const metadata = (byte: number) => tensor([[byte]], { dtype: 'uint8' })
  t.same(list(densify(new SparseTensor<'float32'>({ ...parts, metadata: metadata(0b1101) }))), [0, 1, 0, 2])
  t.throws(
    () => new SparseTensor({ ...parts, metadata: metadata(0b0101) }),
    /row 0, columns 0 to 3: places 1, 1 do not grow/,
  )
  t.throws(() => new SparseTensor({ ...parts, metadata: metadata(0b0001) }), /places 1, 0 do not grow/)
  t.throws(() => new SparseTensor({ ...parts, shape: [1, 6], metadata: metadata(4) }), /a multiple of 4 columns/)
  t.throws(() => new SparseTensor({ ...parts, shape: [2, 4], metadata: metadata(4) }), /values of 2:4/)
  t.throws(() => sparsify(zeros([2, 6]), '2:4'), { code: 'ERR_SHAPE' })
  t.end()
})

t.test('what sparsify and densify refuse; dispose', (t) => {
  t.throws(() => sparsify(zeros([3]), 'csr'), { code: 'ERR_SHAPE' })
  t.throws(() => sparsify(zeros([3, 3], { dtype: 'int8' }) as never, 'csr'), { code: 'ERR_DTYPE' })
  t.throws(() => sparsify(zeros([3, 3]), 'bsr' as never), { code: 'ERR_ARGUMENT' })
  t.throws(() => densify({} as never), { code: 'ERR_ARGUMENT' })
  const s = new SparseTensor(right())
  s.dispose()
  t.ok(s.disposed)
  t.throws(() => densify(s), { code: 'ERR_DISPOSED' })
  t.end()
})
