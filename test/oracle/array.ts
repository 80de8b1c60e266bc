// Dense float64 arrays and the loop nests that kerf's ops are compared with. Slow and plain on purpose.

export interface Nd {
  readonly shape: readonly number[]
  readonly data: Float64Array
}

export function size(shape: readonly number[]): number {
  return shape.reduce((n, s) => n * s, 1)
}

export function nd(shape: readonly number[], at: (index: number[], flat: number) => number): Nd {
  const data = new Float64Array(size(shape))
  let flat = 0
  for (const index of indices(shape)) data[flat] = at(index, flat++)
  return { shape: [...shape], data }
}

/** Every index of a shape in row-major order. The same array is reused. */
export function* indices(shape: readonly number[]): Generator<number[]> {
  const index = new Array<number>(shape.length).fill(0)
  for (let n = size(shape); n > 0; n--) {
    yield index
    for (let i = shape.length - 1; i >= 0; i--) {
      index[i] = (index[i] as number) + 1
      if ((index[i] as number) < (shape[i] as number)) break
      index[i] = 0
    }
  }
}

/** The element at an index, which may be longer (leading axes are dropped) or broadcast (axes of size 1). */
export function at(a: Nd, index: readonly number[]): number {
  let flat = 0
  const lead = index.length - a.shape.length
  for (let i = 0; i < a.shape.length; i++) {
    const n = a.shape[i] as number
    flat = flat * n + (n === 1 ? 0 : (index[i + lead] as number))
  }
  return a.data[flat] as number
}

export function map(a: Nd, f: (x: number, flat: number) => number): Nd {
  return { shape: a.shape, data: a.data.map(f) }
}

export function broadcast(...shapes: (readonly number[])[]): number[] {
  const rank = Math.max(...shapes.map((s) => s.length))
  return Array.from({ length: rank }, (_, i) => {
    const sizes = shapes.map((s) => s[s.length - rank + i] ?? 1)
    return sizes.find((n) => n !== 1) ?? 1
  })
}

export function zip(a: Nd, b: Nd, f: (x: number, y: number) => number): Nd {
  return nd(broadcast(a.shape, b.shape), (index) => f(at(a, index), at(b, index)))
}

/** Folds the lines along `axes` into one element each; reduced axes stay as 1. */
export function fold(a: Nd, axes: readonly number[], f: (line: number[]) => number): Nd {
  const inner = a.shape.map((n, i) => (axes.includes(i) ? n : 1))
  return nd(
    a.shape.map((n, i) => (axes.includes(i) ? 1 : n)),
    (index) => {
      const line: number[] = []
      for (const more of indices(inner))
        line.push(
          at(
            a,
            more.map((m, i) => m + (index[i] as number)),
          ),
        )
      return f(line)
    },
  )
}

/** Replaces every line along `axis` by a line of the same length. */
export function along(a: Nd, axis: number, f: (line: number[], before: readonly number[]) => number[]): Nd {
  const lines = new Map<string, number[]>()
  return nd(a.shape, (index) => {
    const start = index.map((m, i) => (i === axis ? 0 : m))
    const key = start.join()
    let line = lines.get(key)
    if (line === undefined) {
      const values = Array.from({ length: a.shape[axis] as number }, (_, k) =>
        at(
          a,
          start.map((m, i) => (i === axis ? k : m)),
        ),
      )
      line = f(values, start)
      lines.set(key, line)
    }
    return line[index[axis] as number] as number
  })
}

/** sum over p of a[..., i, p] * b[..., p, j]; the axes before the last two broadcast. */
export function matmul(a: Nd, b: Nd): Nd {
  const batch = broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2))
  const [m, k] = a.shape.slice(-2) as [number, number]
  const n = b.shape[b.shape.length - 1] as number
  const data = new Float64Array(size(batch) * m * n)
  const matrices = (x: Nd): Nd => nd(x.shape.slice(0, -2), (_, flat) => flat)
  let out = 0
  for (const lead of indices(batch)) {
    const x = at(matrices(a), lead) * m * k
    const y = at(matrices(b), lead) * k * n
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let total = 0
        for (let p = 0; p < k; p++) total += (a.data[x + i * k + p] as number) * (b.data[y + p * n + j] as number)
        data[out++] = total
      }
    }
  }
  return { shape: [...batch, m, n], data }
}

export const abs = (a: Nd): Nd => map(a, Math.abs)

export function sum(line: readonly number[]): number {
  return line.reduce((s, x) => s + x, 0)
}

export function mean(line: readonly number[]): number {
  return sum(line) / line.length
}

export function variance(line: readonly number[], correction: number): number {
  const m = mean(line)
  return sum(line.map((x) => (x - m) ** 2)) / Math.max(0, line.length - correction)
}

export function softmax(line: readonly number[]): number[] {
  const top = Math.max(...line)
  const e = line.map((x) => Math.exp(x - top))
  const total = sum(e)
  return e.map((x) => x / total)
}

export function logSumExp(line: readonly number[]): number {
  const top = Math.max(...line)
  return top + Math.log(sum(line.map((x) => Math.exp(x - top))))
}
