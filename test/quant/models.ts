// What the tests of quantized models share: small models and their inputs, and a float64 oracle of a quantized layer
// that takes nothing from the library but the values that the layer stores.
import { type DType, nn, type quant, type Tensor, tensor } from 'kerf'
import { normal, rint } from './data'

export type Rows = number[][]

/** The values of a tensor as rows of its last axis. */
export function rowsOf(x: Tensor): Rows {
  const columns = x.shape[x.rank - 1] as number
  const flat = ([x.arraySync()] as unknown[]).flat(9) as number[]
  return Array.from({ length: flat.length / columns }, (_, r) => flat.slice(r * columns, (r + 1) * columns))
}

export const at = (m: Rows, i: number, j: number): number => (m[i] as number[])[j] as number

/** The floats that a layer has, and a bias of zeros if it has none. */
export function floatsOf(layer: nn.Linear): { w: Rows; b: number[] } {
  const b = layer.bias ? (layer.bias.arraySync() as number[]) : new Array<number>(layer.outFeatures).fill(0)
  return { w: rowsOf(layer.weight), b }
}

/** Linear layers of these sizes with ReLU between, named '0', '2', '4' ...; weights are normal, biases up to 1. */
export function mlp(seed: number, sizes: readonly number[], options: nn.LinearOptions = {}): nn.Sequential {
  const next = normal(seed)
  const layers: nn.Module[] = []
  for (let i = 1; i < sizes.length; i++) {
    const layer = new nn.Linear(sizes[i - 1] as number, sizes[i] as number, options)
    const scale = 1 / Math.sqrt(layer.inFeatures)
    const draw = (shape: readonly number[], by: number) =>
      tensor(
        Array.from({ length: shape.reduce((n, s) => n * s, 1) }, () => next() * by),
        { shape },
      )
    layer.loadStateDict({
      weight: draw(layer.weight.shape, scale),
      ...(layer.bias && { bias: draw(layer.bias.shape, 0.3) }),
    })
    layers.push(layer, ...(i + 1 < sizes.length ? [new nn.ReLU()] : []))
  }
  return new nn.Sequential(...layers).eval()
}

/** Normal inputs, each column times `magnitude` of it. */
export function inputs(
  seed: number,
  rows: number,
  columns: number,
  magnitude: (column: number) => number = () => 1,
  dtype: DType = 'float32',
): Tensor {
  const next = normal(seed)
  const values = Array.from({ length: rows * columns }, (_, i) => next() * magnitude(i % columns))
  return tensor(values, { shape: [rows, columns], dtype })
}

/** Root of the mean square of a - b over that of b. */
export function relativeError(a: Tensor, b: Tensor): number {
  const [x, y] = [rowsOf(a).flat(), rowsOf(b).flat()]
  let error = 0
  let size = 0
  for (const [i, v] of y.entries()) {
    error += ((x[i] as number) - v) ** 2
    size += v * v
  }
  return Math.sqrt(error / size)
}

export interface Stored {
  codes: Rows
  scale: Rows
  zero: Rows
}

/** Codes, and for every one of them its scale and zero point, read from a layer's buffers. */
export function storedIn(layer: quant.QuantizedLinear): Stored {
  const { outFeatures: out, inFeatures: inputs, granularity, weightDType } = layer
  const raw = layer.weight.arraySync() as Rows
  const codes = raw.map((row) => {
    if (!weightDType.endsWith('4')) return row
    // Two a byte, the first in the low half; signed ones in two's complement.
    const nibbles = row.flatMap((byte) => [byte & 15, byte >> 4]).slice(0, inputs)
    return weightDType === 'uint4' ? nibbles : nibbles.map((code) => (code < 8 ? code : code - 16))
  })
  const groups = layer.weightScale.size / out
  const size = granularity.kind === 'group' ? granularity.size : inputs
  const spread = (values: Tensor | null): Rows => {
    const flat = values ? ([values.arraySync()] as unknown[]).flat(3) : []
    return codes.map((row, o) =>
      row.map((_, j) => {
        const i = granularity.kind === 'tensor' ? 0 : o * groups + Math.floor(j / size)
        return values ? (flat[i] as number) : 0
      }),
    )
  }
  return { codes, scale: spread(layer.weightScale), zero: spread(layer.weightZeroPoint) }
}

/** What integers stand for; float32 has one rounding, the product. */
export const weightsIn = ({ codes, scale, zero }: Stored): Rows =>
  codes.map((row, o) => row.map((code, j) => Math.fround((code - at(zero, o, j)) * at(scale, o, j))))

export interface Bytes {
  codes: number[]
  scale: number
  zero: number
}

/** clip(rint(x / scale) + zero). */
export function toBytes(x: readonly number[], scale: number, zero: number, low: number, high: number): Bytes {
  const codes = x.map((v) => Math.min(high, Math.max(low, rint(Math.fround(v / scale)) + zero)))
  return { codes, scale, zero }
}

/** Scale and zero point of uint8 for a range that holds 0, as ONNX's DynamicQuantizeLinear has them. */
export function affineBytes(x: readonly number[]): { scale: number; zero: number } {
  const f = Math.fround
  const low = Math.min(0, ...x)
  const high = Math.max(0, ...x)
  const scale = f((high === low ? 1 : f(high - low)) / 255)
  return { scale, zero: rint(Math.min(255, Math.max(0, f(-low / scale)))) }
}

/** The rows of a layer's input as the bytes that it makes of them. */
export function bytesIn(layer: quant.QuantizedLinear, x: Rows): Bytes[] {
  const multiplier = layer.inputMultiplier?.arraySync() as number[] | undefined
  const rows = multiplier ? x.map((row) => row.map((v, j) => Math.fround(v * (multiplier[j] as number)))) : x
  const { input } = layer
  const whole = affineBytes(rows.flat())
  return rows.map((row) => {
    if (input === 'tensor' || input === 'token') {
      const { scale, zero } = input === 'tensor' ? whole : affineBytes(row)
      return toBytes(row, scale, zero, 0, 255)
    }
    const [low, high] = input === 'int8' ? [-128, 127] : [0, 255]
    const zero = (layer.inputZeroPoint?.item() as number | undefined) ?? 0
    return toBytes(row, layer.inputScale?.item() as number, zero, low, high)
  })
}

/** u of a result's dtype. */
export const unit: Record<string, number> = { float32: 2 ** -24, float16: 2 ** -11, bfloat16: 2 ** -8 }

export interface Expected {
  y: Rows
  /** How far the layer may be off (docs/numerics.md). */
  tolerance: Rows
}

/** What a quantized layer gives for the rows x, in float64. */
export function expected(layer: quant.QuantizedLinear, x: Rows, dtype: DType = 'float32'): Expected {
  const w = storedIn(layer)
  const bias = layer.bias?.arraySync() as number[] | undefined
  const u = unit.float32 as number
  const out = unit[dtype] as number
  const [y, tolerance]: [Rows, Rows] = [[], []]
  if (layer.input === 'float') {
    const real = weightsIn(w)
    const multiplier = layer.inputMultiplier?.arraySync() as number[] | undefined
    for (const row of x) {
      const scaled = row.map((v, j) => v * (multiplier?.[j] ?? 1))
      const largest = Math.max(...scaled.map(Math.abs))
      const sums = real.map((weights) => {
        let [sum, size, weight] = [0, 0, 0]
        for (const [j, v] of scaled.entries()) {
          sum += v * (weights[j] as number)
          size += Math.abs(v * (weights[j] as number))
          weight += Math.abs(weights[j] as number)
        }
        return { sum, size, weight }
      })
      y.push(sums.map(({ sum }, o) => sum + (bias?.[o] ?? 0)))
      // Inputs are 16-bit integers, off by 2^-16 of the largest; a multiplied one is rounded to its dtype before.
      tolerance.push(
        sums.map(({ sum, size, weight }, o) => {
          const b = bias?.[o] ?? 0
          const rounded = multiplier ? (out + u) * size : 0
          const sums = (row.length + 4) * u * (size + Math.abs(b))
          return 2 ** -16 * largest * weight + rounded + sums + out * Math.abs(sum + b)
        }),
      )
    }
    return { y, tolerance }
  }
  for (const { codes, scale, zero } of bytesIn(layer, x)) {
    const products = w.codes.map((row, o) => {
      let sum = 0
      for (const [j, code] of row.entries()) sum += ((codes[j] as number) - zero) * (code - at(w.zero, o, j))
      return sum * scale * at(w.scale, o, 0)
    })
    y.push(products.map((v, o) => v + (bias?.[o] ?? 0)))
    // The integers are exact: what rounds are the product of the scales, the one with it, and the sum with the bias.
    tolerance.push(
      products.map((v, o) => {
        const b = bias?.[o] ?? 0
        return 4 * u * (Math.abs(v) + Math.abs(b)) + out * Math.abs(v + b)
      }),
    )
  }
  return { y, tolerance }
}

/** The first element of a tensor that is not what it should be, or null. */
export function difference(found: Tensor, { y, tolerance }: Expected): string | null {
  for (const [r, row] of rowsOf(found).entries()) {
    for (const [o, v] of row.entries()) {
      const [wanted, bound] = [at(y, r, o), at(tolerance, r, o)]
      if (!(Math.abs(v - wanted) <= bound)) return `[${r}, ${o}] is ${v}, should be ${wanted} +- ${bound}`
    }
  }
  return null
}
