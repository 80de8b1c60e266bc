/** convert: puts sparse layers in the place of a model's Linear and QuantizedLinear layers, where they are faster. */
import { Pauses } from '../core/pauses'
import { uniformGenerator } from '../core/rng'
import { checkInteger, showShape } from '../core/shape'
import { showPercent, textTable } from '../core/text-table'
import { atLayer } from '../nn/calibrate'
import { Linear } from '../nn/linear'
import { layersOf } from '../nn/linear-layers'
import { replaceLayer } from '../nn/model'
import type { AnyModule } from '../nn/module'
import { copyInput } from '../nn/quantized-input'
import { QuantizedLinear } from '../nn/quantized-linear'
import { tensor } from '../ops/create'
import { converted } from '../ops/op'
import { dequantize } from '../ops/quantize'
import { sparsifyInTurns, whyNotSparse } from '../ops/sparse'
import { noGrad, scope } from '../tensor/context'
import { checkFormat, type SparseFormat } from '../tensor/sparse'
import { copyTo, type Tensor } from '../tensor/tensor'
import { candidatesOf, chooseFormat, formatKey, lookAt, type Timed } from './candidates'
import { checkOptions, type LayerOptions } from './layers'
import { race } from './race'
import { SparseLinear } from './sparse-linear'

/** What can become sparse. */
type Dense = Linear | QuantizedLinear

export interface ConvertOptions extends LayerOptions<Linear | QuantizedLinear> {
  /**
   * With 'auto': how many rows of input (batch times positions) the layers will compute at once; default 1. What is fastest
   * depends on it: few rows gain the most from zeros.
   */
  rows?: number
}

/** What a layer costs in one format. */
export interface FormatCost {
  format: SparseFormat | 'dense'
  /** The best time of one forward, in microseconds; null where none was measured. */
  us: number | null
  /** Of the weights as they are stored. */
  bytes: number
}

export interface ConvertedLayer {
  path: string
  /** [out, in]. */
  shape: readonly [number, number]
  /** Weights that are 0. */
  zeros: number
  /** What it computes with now. */
  format: SparseFormat | 'dense'
  /** What it was chosen from, dense first. */
  costs: FormatCost[]
  /** Of the weights, before and after. */
  denseBytes: number
  bytes: number
}

export interface ConvertReport<M extends AnyModule = AnyModule> {
  /** The model that was given; the new layer when that was itself a Linear. */
  model: M
  /** Rows of input that the times are for; null when nothing was measured. */
  rows: number | null
  layers: ConvertedLayer[]
  total: { denseBytes: number; bytes: number }
  /** The table as text. */
  toString(): string
}

interface Made {
  report: ConvertedLayer
  /** Null for one that stays dense. */
  layer: SparseLinear | null
}

const weightBytes = (layer: SparseLinear): number => layer.sparseWeight.bytes

const denseBytes = (layer: Dense): number =>
  layer instanceof QuantizedLinear ? layer.quantizedWeight.bytes : layer.weight.bytes

async function toSparse(layer: Dense, format: SparseFormat, pauses: Pauses): Promise<SparseLinear> {
  return noGrad(async () => {
    const dense = layer instanceof QuantizedLinear ? layer.quantizedWeight : layer.weight
    const weight = await sparsifyInTurns(dense, format, pauses)
    const bias = layer.bias && copyTo(layer.bias, layer.bias.dtype)
    return new SparseLinear({ weight, bias, ...(layer instanceof QuantizedLinear ? copyInput(layer) : {}) })
  })
}

/** Whatever it is: every layer in this format. */
async function fixed(path: string, layer: Dense, format: SparseFormat, pauses: Pauses): Promise<Made> {
  const made = await toSparse(layer, format, pauses)
  const { outFeatures: out, inFeatures: inputs } = layer
  const sizes = { denseBytes: denseBytes(layer), bytes: weightBytes(made) }
  const costs: FormatCost[] = [
    { format: 'dense', us: null, bytes: sizes.denseBytes },
    { format, us: null, bytes: sizes.bytes },
  ]
  const { zeros } = made
  return { layer: made, report: { path, shape: [out, inputs], zeros, format: made.format, costs, ...sizes } }
}

/** Numbers from -1 to 1; the program's own random numbers stay as they are. */
function exampleInput(rows: number, layer: Dense): Tensor {
  const next = uniformGenerator(rows)
  const values = Float32Array.from({ length: rows * layer.inFeatures }, () => 2 * next() - 1)
  // The bias has the dtype that a quantized layer's model computes in.
  const dtype = layer instanceof QuantizedLinear ? (layer.bias?.dtype ?? 'float32') : layer.weight.dtype
  return tensor(values, { shape: [rows, layer.inFeatures], dtype, device: layer.weight.device })
}

/** Numbers that are 0 where the weights are. */
async function valuesOf(layer: Dense): Promise<ArrayLike<number>> {
  if (!(layer instanceof QuantizedLinear))
    return (await converted(layer.weight as Tensor, 'float32').data()) as Float32Array
  const q = layer.quantizedWeight
  return q.bits === 8 && !q.zeroPoint ? q.values.data() : dequantize(q).data()
}

/** Whether a sparse layer could compute the same. */
const canBeSparse = (layer: Dense): boolean =>
  !(layer instanceof QuantizedLinear) || whyNotSparse('convert', layer.quantizedWeight) === null

/** The fastest of dense and the formats that its zeros allow. */
async function measured(path: string, layer: Dense, rows: number, pauses: Pauses): Promise<Made> {
  const { outFeatures: out, inFeatures: inputs } = layer
  const found = await lookAt(await valuesOf(layer), out, inputs, pauses)
  const bytes = denseBytes(layer)
  const report = { path, shape: [out, inputs] as const, zeros: found.zeros, denseBytes: bytes }
  const candidates: SparseLinear[] = []
  for (const format of canBeSparse(layer) ? candidatesOf(found, out * inputs) : []) {
    candidates.push(await toSparse(layer, format, pauses))
  }
  if (candidates.length === 0) {
    const costs: FormatCost[] = [{ format: 'dense', us: null, bytes }]
    return { layer: null, report: { ...report, format: 'dense', costs, bytes } }
  }
  const x = exampleInput(rows, layer)
  const [dense, ...times] = await race([layer, ...candidates].map((one) => () => one.forward(x)))
  const tried: (Timed & { layer: SparseLinear | null })[] = [
    { format: 'dense', us: 1000 * (dense as number), bytes, layer: null },
    ...candidates.map((one, i) => ({
      format: one.format,
      us: 1000 * (times[i] as number),
      bytes: weightBytes(one),
      layer: one,
    })),
  ]
  const chosen = chooseFormat(tried)
  for (const one of candidates) if (one !== chosen.layer) one.sparseWeight.dispose()
  const costs = tried.map(({ format, us, bytes }) => ({ format, us, bytes }))
  return { layer: chosen.layer, report: { ...report, format: chosen.format, costs, bytes: chosen.bytes } }
}

/**
 * Replaces Linear and QuantizedLinear layers of a pruned model by sparse ones, in place. They cannot be trained on: convert
 * when pruning and quantizing are done.
 *
 * A quantized layer stays int8 and takes its input as before: what it computes with bytes stays the same, bit for bit (with
 * input 'float' sums are those of float32, not of 16 bits). That is for int8 weights per tensor or per channel(0) without
 * zero points; others stay as they are with 'auto', and are an error with a format.
 *
 * With a format every layer is converted. With 'auto' each layer is **timed**, dense and in the formats that its zeros allow
 * ('csr'; '2:4' where its pattern fits; blocks of [1, 16] where they are filled), on random input of `rows` rows, for some
 * 25 ms, and gets the fastest; it stays dense unless a sparse format is at least 5 % faster, and under 30 % zeros it is not
 * tried. So nothing else should keep the machine busy meanwhile. The event loop keeps turning.
 *
 * @param format 'auto' (default), or one for all layers: 'csr', '2:4', { block: [rows, columns] }
 * @returns the model and, by toString(), the table of what each layer costs; layers that share a weight get one each
 * @throws ArgumentError for wrong options, and naming the layer, when '2:4' does not fit or its integers cannot be sparse; no
 * layer has been replaced then
 * @example console.log(String(await prune.convert(model, 'auto', { rows: 32 })))
 */
export async function convert<M extends AnyModule>(
  model: M,
  format: SparseFormat | 'auto' = 'auto',
  options: ConvertOptions = {},
): Promise<ConvertReport<M>> {
  const op = 'convert'
  checkOptions(op, options)
  const wanted = format === 'auto' ? format : checkFormat(op, format)
  const rows = checkInteger(op, 'rows', options.rows ?? 1, 1)
  const layers = layersOf<Dense>(op, model, [Linear, QuantizedLinear], options)
  const pauses = new Pauses()
  const made: Made[] = []
  for (const [path, layer] of layers) {
    made.push(
      await atLayer(op, path, () =>
        scope(() =>
          wanted === 'auto' ? noGrad(() => measured(path, layer, rows, pauses)) : fixed(path, layer, wanted, pauses),
        ),
      ),
    )
    if (pauses.due()) await pauses.take()
  }
  let result = model
  for (const [i, { layer }] of made.entries())
    if (layer) result = replaceLayer(result, (layers[i] as [string, Dense])[1], layer)
  const reports = made.map(({ report }) => report)
  const sum = (value: (l: ConvertedLayer) => number) => reports.reduce((total, l) => total + value(l), 0)
  const report: ConvertReport<M> = {
    model: result,
    rows: wanted === 'auto' ? rows : null,
    layers: reports,
    total: { denseBytes: sum((l) => l.denseBytes), bytes: sum((l) => l.bytes) },
    toString: () => table(report),
  }
  return report
}

function table({ rows, layers, total }: ConvertReport): string {
  const number = (n: number) => n.toLocaleString('en')
  // A column for each format that was timed somewhere.
  const timed = new Set(
    layers.flatMap(({ costs }) => costs.flatMap((c) => (c.us === null ? [] : [formatKey(c.format)]))),
  )
  const times = (l: ConvertedLayer) =>
    [...timed].map((key) => {
      const us = l.costs.find((c) => formatKey(c.format) === key)?.us
      return us == null ? '-' : us < 100 ? us.toPrecision(3) : number(Math.round(us))
    })
  const head = ['layer', 'shape', 'format', 'zeros', ...[...timed].map((key) => `${key} us`), 'bytes dense', 'bytes']
  const lines = layers.map((l) => [
    l.path || '(model)',
    showShape(l.shape),
    formatKey(l.format),
    showPercent(l.zeros / (l.shape[0] * l.shape[1])),
    ...times(l),
    number(l.denseBytes),
    number(l.bytes),
  ])
  const sums = ['total', '', '', '', ...[...timed].map(() => ''), number(total.denseBytes), number(total.bytes)]
  const note = rows === null ? '' : `\nus: microseconds a forward of ${rows} ${rows === 1 ? 'row' : 'rows'}`
  return `${textTable([head, ...lines, sums], 3)}${note}`
}
