// Augmentation: each change against a plain loop over pixels, the shares of chance, and that a sample's changes depend on seed, epoch
// and index alone.
import { data, type Tensor, tensor } from 'kerf'
import t from 'tap'
import { uniformGenerator } from '#lib/core/rng'
import { unit } from '../oracle/float'

type Image = (c: number, y: number, x: number) => number
type Step = data.ImageTransform

const SIZES = [
  [1, 5, 5],
  [3, 4, 7],
  [2, 1, 3],
  [1, 8, 2],
] as const

/** An image of random values and the same as a function, `fill` outside. */
function made([channels, height, width]: readonly [number, number, number], fill = 0) {
  const random = uniformGenerator(channels * 100 + height * 10 + width)
  const values = Float32Array.from({ length: channels * height * width }, () => 2 * random() - 1)
  const at: Image = (c, y, x) =>
    y < 0 || y >= height || x < 0 || x >= width ? fill : (values[(c * height + y) * width + x] as number)
  return { values, at }
}

/** What a step makes of an image, with these random numbers. */
function applied(
  step: Step,
  [channels, height, width]: readonly [number, number, number],
  values: Float32Array,
  ...numbers: number[]
) {
  const image = Float32Array.from(values)
  let next = 0
  const random = () => numbers[next++ % Math.max(numbers.length, 1)] ?? 0
  step(image, { channels, height, width }, random, new Float32Array(image.length).fill(Number.NaN))
  return image
}

function expected([channels, height, width]: readonly [number, number, number], of: Image): Float32Array {
  const out: number[] = []
  for (let c = 0; c < channels; c++)
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) out.push(of(c, y, x))
  return Float32Array.from(out)
}

t.test('shifts are exact', (t) => {
  for (const size of SIZES)
    for (const fill of [0, -0.5])
      for (let down = -3; down <= 3; down++)
        for (let right = -9; right <= 9; right += 3) {
          const { values, at } = made(size, fill)
          const step = data.randomShift({ pixels: [-9, 9], fill })
          const drawn = (n: number) => (n + 9 + 0.5) / 19
          const got = applied(step, size, values, drawn(down), drawn(right))
          const want = expected(size, (c, y, x) => at(c, y - down, x - right))
          t.same(got, want, `[${size}] by ${down}, ${right}`)
        }
  t.end()
})

t.test('rotations by right angles are exact', (t) => {
  for (const size of [
    [1, 5, 5],
    [2, 4, 4],
  ] as const) {
    // Beside 1e9, a cosine of 6e-17 would show in a 0.
    const { values, at } = made(size)
    for (const i of values.keys()) values[i] = i % 3 === 0 ? 0 : 1e9 * (values[i] as number)
    const n = size[1] - 1
    // Counter-clockwise: what was on the right comes to the top.
    const turned: [number, Image][] = [
      [0, at],
      [90, (c, y, x) => at(c, x, n - y)],
      [180, (c, y, x) => at(c, n - y, n - x)],
      [270, (c, y, x) => at(c, n - x, y)],
      [-90, (c, y, x) => at(c, n - x, y)],
      [450, (c, y, x) => at(c, x, n - y)],
    ]
    for (const [degrees, of] of turned)
      t.same(
        applied(data.randomRotation({ degrees: [degrees, degrees] }), size, values),
        expected(size, of),
        `${degrees}`,
      )
  }
  t.end()
})

t.test('rotations by any angle are bilinear', (t) => {
  for (const size of SIZES)
    for (const [drawn, fill] of [
      [0.1, 0],
      [0.7, 2],
    ] as const) {
      const { values, at } = made(size, fill)
      const angle = ((-50 + 100 * drawn) * Math.PI) / 180
      const [middleY, middleX] = [(size[1] - 1) / 2, (size[2] - 1) / 2]
      const want = expected(size, (c, y, x) => {
        // Every pixel of the plane counts by its nearness to the place, along both axes.
        const px = middleX + Math.cos(angle) * (x - middleX) - Math.sin(angle) * (y - middleY)
        const py = middleY + Math.sin(angle) * (x - middleX) + Math.cos(angle) * (y - middleY)
        let sum = 0
        for (let v = -12; v < 20; v++)
          for (let u = -12; u < 20; u++)
            sum += Math.max(0, 1 - Math.abs(px - u)) * Math.max(0, 1 - Math.abs(py - v)) * at(c, v, u)
        return sum
      })
      const got = applied(data.randomRotation({ degrees: 50, fill }), size, values, drawn)
      // Both in float64, from angles that differ by its roundings; then one rounding to float32 each.
      const worst = Math.max(...got.map((value, i) => Math.abs(value - (want[i] as number))))
      t.ok(worst <= 4 * unit('float32'), `[${size}]: ${worst}`)
    }
  t.end()
})

t.test('flips, boxes, normalising', (t) => {
  for (const size of SIZES) {
    const { values, at } = made(size)
    const [, height, width] = size
    const flipped = expected(size, (c, y, x) => at(c, y, width - 1 - x))
    t.same(applied(data.randomHorizontalFlip(), size, values, 0.49), flipped)
    t.same(applied(data.randomHorizontalFlip(), size, values, 0.5), values)
    for (const edge of [1, 2, 3])
      for (const [a, b] of [
        [0, 0],
        [0.99, 0.99],
        [0.5, 0.3],
      ] as const) {
        const [top, left] = [Math.floor(a * height) - (edge >> 1), Math.floor(b * width) - (edge >> 1)]
        const inside = (y: number, x: number) => y >= top && y < top + edge && x >= left && x < left + edge
        const want = expected(size, (c, y, x) => (inside(y, x) ? 9 : at(c, y, x)))
        t.same(applied(data.cutout({ size: edge, value: 9 }), size, values, 0, a, b), want, `[${size}] ${edge}`)
      }
    const scaled = applied(data.normalize({ mean: 0.5, std: 0.25 }), size, values)
    t.same(
      scaled,
      expected(size, (c, y, x) => (at(c, y, x) - 0.5) * 4),
    )
    const by = size.length === 3 && size[0] === 3 ? [1, 2, 4] : Array.from({ length: size[0] }, () => 2)
    const each = applied(data.normalize({ mean: by, std: by }), size, values)
    t.same(
      each,
      expected(size, (c, y, x) => (at(c, y, x) - (by[c] as number)) * (1 / (by[c] as number))),
    )
  }
  t.end()
})

t.test('random erasing: shares, shapes, places', (t) => {
  const size = { channels: 1, height: 40, width: 40 }
  const random = uniformGenerator(1)
  const step = data.randomErasing({ p: 0.7, scale: [0.1, 0.2], ratio: 2, value: 9 })
  const [runs, seen] = [2000, { erased: 0, tall: 0, left: 0 }]
  const edges = new Set<string>()
  for (let i = 0; i < runs; i++) {
    const image = new Float32Array(1600)
    step(image, size, random, new Float32Array(1600))
    const rows = [...Array(40).keys()].filter((y) => image.subarray(y * 40, y * 40 + 40).includes(9))
    const columns = [...Array(40).keys()].filter((x) => rows.some((y) => image[y * 40 + x] === 9))
    if (rows.length === 0) continue
    seen.erased++
    const area = image.filter((x) => x === 9).length
    if (area !== rows.length * columns.length) t.fail('it is a box')
    // Edges are rounded to half a pixel each.
    const [h, w] = [rows.length, columns.length]
    if ((h + 0.5) * (w + 0.5) < 160 || (h - 0.5) * (w - 0.5) > 320) t.fail(`area ${area}`)
    if ((h + 0.5) / (w - 0.5) < 0.5 || (h - 0.5) / (w + 0.5) > 2) t.fail(`${h} to ${w}`)
    if (h > w) seen.tall++
    if (rows[0] === 0) edges.add('top')
    if (rows.at(-1) === 39) edges.add('bottom')
    if (columns[0] === 0) edges.add('left')
    if (columns.at(-1) === 39) edges.add('right')
    if ((columns[0] as number) < 40 - w - (columns[0] as number)) seen.left++
  }
  t.same([...edges].sort(), ['bottom', 'left', 'right', 'top'], 'boxes reach every edge')
  // Five standard deviations of a share of so many draws; equal edges, and boxes in the very middle, are in neither half.
  const deviation = (p: number, n: number) => 5 * Math.sqrt((p * (1 - p)) / n)
  t.ok(Math.abs(seen.erased / runs - 0.7) < deviation(0.7, runs), `${seen.erased}`)
  t.ok(Math.abs(seen.tall / seen.erased - 0.47) < deviation(0.5, seen.erased) + 0.05, `${seen.tall}`)
  t.ok(Math.abs(seen.left / seen.erased - 0.48) < deviation(0.5, seen.erased) + 0.03, `${seen.left}`)
  t.end()
})

const N = 4000
/** Sample i is an image of one row, [i, -1]. */
const numbered = (n: number) =>
  new data.TensorDataset(
    tensor(
      Float32Array.from({ length: 2 * n }, (_, i) => (i % 2 === 0 ? i / 2 : -1)),
      { shape: [n, 1, 2] },
    ),
  )

async function byIndex(loader: data.Loader, n: number): Promise<number[][]> {
  const seen: number[][] = new Array(n)
  for await (const [x] of loader)
    for (const [pair] of (await (x as Tensor).array()) as number[][][])
      seen[Math.max(...(pair as number[]))] = pair as number[]
  return seen
}

t.test('chance: every other image is flipped, each epoch others, and each distance is as likely', async (t) => {
  const loader = data.loader(numbered(N), {
    batchSize: 100,
    seed: 5,
    transform: data.augment([data.randomHorizontalFlip()]),
  })
  const epochs = [await byIndex(loader, N), await byIndex(loader, N)].map((seen) => seen.map(([first]) => first === -1))
  const share = (list: boolean[]) => list.filter(Boolean).length / list.length
  const five = 5 * Math.sqrt(0.25 / N)
  const [a, b] = epochs as [boolean[], boolean[]]
  t.ok(Math.abs(share(a) - 0.5) < five, `${share(a)}`)
  t.ok(Math.abs(share(a.map((flip, i) => flip === b[i])) - 0.5) < five, 'epochs know nothing of each other')
  t.ok(Math.abs(share(a.slice(1).map((flip, i) => flip === a[i])) - 0.5) < five, 'neighbours neither')
  const counts = new Map<number, number>()
  const mark = (image: Float32Array) => {
    const at = image.indexOf(1)
    counts.set(at, (counts.get(at) ?? 0) + 1)
  }
  const dots = tensor(
    Float32Array.from({ length: 25 * N }, (_, i) => (i % 25 === 12 ? 1 : 0)),
    { shape: [N, 5, 5] },
  )
  const shifted = data.loader(new data.TensorDataset(dots), {
    batchSize: 100,
    transform: data.augment([data.randomShift({ pixels: 2 }), mark], { seed: 1 }),
  })
  for await (const _ of shifted);
  t.equal(counts.size, 25)
  for (const [at, count] of counts)
    t.ok(Math.abs(count / N - 0.04) < 5 * Math.sqrt((0.04 * 0.96) / N), `${at}: ${count}`)
})

t.test('a sample is changed by seed, epoch and index alone', async (t) => {
  const n = 60
  const noise: Step = (image, _size, random) => {
    image[1] = -random() - 1e-3
  }
  const seen = async (options: data.LoaderOptions, epoch = 0) => {
    const loader = data.loader(numbered(n), { batchSize: 7, transform: data.augment([noise], { seed: 3 }), ...options })
    loader.epoch = epoch
    return byIndex(loader, n)
  }
  const want = await seen({})
  t.same(await seen({}), want, 'again')
  t.same(await seen({ batchSize: 60 }), want, 'other batches')
  t.same(await seen({ shuffle: true, seed: 9 }), want, 'another order')
  t.not(String(await seen({}, 1)), String(want), 'another epoch')
  t.not(String(await seen({ transform: data.augment([noise], { seed: 4 }) })), String(want), 'another seed')
  t.not(String(await seen({ transform: data.augment([noise], { seed: 3 + 2 ** 32 }) })), String(want), 'all 53 bits')
  t.same(await seen({ seed: 3, transform: data.augment([noise]) }), want, "the loader's seed is the default")
  t.equal(new Set(want.map(String)).size, n)

  const whole = data.loader(numbered(n), { batchSize: 7, shuffle: true, transform: data.augment([noise]) })
  const state = whole.stateDict()
  const values = async (loader: data.Loader) => {
    const all: unknown[] = []
    for await (const [x] of loader) all.push(await (x as Tensor).array())
    return all
  }
  const all = await values(whole)
  const later = data.loader(numbered(n), { batchSize: 7, shuffle: true, transform: data.augment([noise]) })
  later.loadStateDict({ ...state, batch: 4 })
  t.same(await values(later), all.slice(4), 'resumed, without a seed of its own')
})

t.test('shapes and dtypes', async (t) => {
  const one = (
    shape: number[],
    options: data.AugmentOptions = {},
    dtype: 'float32' | 'uint8' | 'float16' = 'float32',
  ) => {
    const x = tensor(
      Float32Array.from({ length: 12 }, (_, i) => i),
      { shape, dtype },
    )
    const y = tensor([1, 2])
    const transform = data.augment([data.randomHorizontalFlip({ p: 1 })], options)
    return {
      x,
      loader: data.loader(new data.TensorDataset(x as Tensor, y), { batchSize: 2, transform, recycle: true }),
    }
  }
  for (const [{ x: all, loader }, want] of [
    [one([2, 2, 3]), [2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9]],
    [one([2, 2, 1, 3]), [2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9]],
    [one([2, 6], { image: [1, 1, 6] }), [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6]],
    [one([2, 6], { image: [1, 3, 2] }, 'uint8'), [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10]],
    [one([2, 3, 2], {}, 'float16'), [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10]],
  ] as const) {
    let batches = 0
    for await (const [x, y] of loader) {
      t.equal((x as Tensor).dtype, 'float32')
      t.same([...(await (x as Tensor).data())], want)
      t.same(await (y as Tensor).array(), [1, 2], 'the labels are left alone')
      t.same(all.shape, (x as Tensor).shape)
      batches++
    }
    t.equal(batches, 1)
    // The dataset's own tensors survive recycling, and hold what they held.
    t.same((await all.to('float32').data())[1], 1)
    t.notOk(all.disposed)
  }
  for (const { loader } of [one([2, 6]), one([2, 6], { image: [1, 2, 2] })])
    await t.rejects(byIndex(loader, 2), { code: 'ERR_SHAPE', message: /^augment: image/ })
  t.throws(() => [...one([2, 2, 3]).loader], { code: 'ERR_ARGUMENT', message: /transform works asynchronously/ })
})

t.test('recycling gives back what came in and what went out', async (t) => {
  const made: Tensor[] = []
  const dataset: data.Dataset = {
    length: 4,
    batch: (indices) => {
      made.push(tensor(new Float32Array(indices.length), { shape: [indices.length, 1, 1] }))
      return made.slice(-1)
    },
  }
  for await (const [x] of data.loader(dataset, { batchSize: 2, recycle: true, transform: data.augment([]) }))
    made.push(x as Tensor)
  t.same(
    made.map(({ disposed }) => disposed),
    [true, true, true, true],
  )
})

t.test('options are checked', (t) => {
  for (const [make, message] of [
    [() => data.randomShift({} as never), /^randomShift: pixels must be a number/],
    [() => data.randomShift({ pixels: 0.5 }), /^randomShift: pixels must be whole numbers/],
    [() => data.randomShift({ pixels: [2, 1] }), /^randomShift: pixels must be/],
    [() => data.randomRotation({ degrees: -1 }), /^randomRotation: degrees must be/],
    [() => data.randomRotation({ degrees: Number.NaN }), /^randomRotation: degrees must be/],
    [() => data.randomHorizontalFlip({ p: 1.1 }), /^randomHorizontalFlip: p must be in \[0, 1\], got 1\.1/],
    [() => data.cutout({ size: 0 }), /^cutout: size must be a whole number >= 1, got 0/],
    [() => data.randomErasing({ scale: [0.5, 2] }), /^randomErasing: scale\[1\] must be in/],
    [() => data.randomErasing({ ratio: 0.5 }), /^randomErasing: ratio must be >= 1/],
    [() => data.normalize({ mean: 0, std: 0 }), /^normalize: std must be numbers > 0, got 0/],
    [() => data.augment(1 as never), /^augment: transforms must be an array/],
    [() => data.augment([1 as never]), /^augment: transforms\[0\] must be a function/],
    [() => data.augment([], { image: [1, 2] as never }), /^augment: image must be \[channels/],
    [() => data.augment([], { image: [1, 0, 2] }), /^augment: image\[1\] must be/],
    [() => data.augment([], { seed: -1 }), /^augment: seed must be/],
    [() => data.loader(numbered(1), { transform: 1 as never }), /^loader: transform must be a function/],
  ] as const)
    t.throws(make, { code: 'ERR_ARGUMENT', message })
  const step = data.normalize({ mean: [1, 2], std: 1 })
  t.throws(() => applied(step, [3, 1, 1], new Float32Array(3)), { code: 'ERR_ARGUMENT', message: /mean has 2 numbers/ })
  t.end()
})
