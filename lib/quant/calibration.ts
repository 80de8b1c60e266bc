/**
 * Calibration: observers look at the values that a tensor takes on sample data and choose the range that is quantized;
 * what lies outside is clipped. `affineOf` makes scale and zero point of a range.
 *
 * Constant data (one value, zeros only) has the range [c, c] whatever the observer. No range is wider than the values
 * seen. Except for the moving average, ranges depend on which values were observed, and neither on their order nor on
 * the batches, to the last bit.
 */
import { ArgumentError, show } from '../core/errors'
import { affineOf, type Convention, type QuantDType } from '../core/quantization'
import { checkInteger } from '../core/shape'
import { Histogram, MAX_BINS } from './histogram'
import { entropyRange, mseRange, percentileRange, type Range } from './thresholds'

export type { Range } from './thresholds'

/** Sees a tensor's values batch by batch and chooses the range to quantize. */
export interface Observer {
  /** The key in {@link calibrations}. */
  readonly name: string
  /**
   * Takes a batch of any size; an empty one changes nothing.
   *
   * @throws ArgumentError when a value is not finite; the batch is then not counted
   */
  observe(values: Float32Array): void
  /**
   * The range of what was observed so far; may be asked at any time.
   *
   * @throws ArgumentError when nothing was observed
   */
  range(): Range
  /** Forgets all values. */
  reset(): void
}

abstract class BaseObserver implements Observer {
  #empty = true
  constructor(readonly name: string) {}

  protected abstract add(values: Float32Array, batch: Range): void
  protected abstract choose(): Range
  protected abstract clear(): void

  observe(values: Float32Array): void {
    if (!(values instanceof Float32Array))
      throw new ArgumentError(`${this.name}: observe takes a Float32Array, got ${show(values)}`)
    if (values.length === 0) return
    this.add(values, finiteRange(this.name, values))
    this.#empty = false
  }

  range(): Range {
    if (this.#empty) throw new ArgumentError(`${this.name}: the calibration data was empty, so there is no range`)
    return this.choose()
  }

  reset(): void {
    this.clear()
    this.#empty = true
  }
}

/** The least and largest of at least one value, all of which must be finite. */
function finiteRange(name: string, values: Float32Array): Range {
  let min = Number.POSITIVE_INFINITY
  let max = Number.NEGATIVE_INFINITY
  let bad = 0
  let first = 0
  for (let i = 0; i < values.length; i++) {
    const x = values[i] as number
    if (x - x !== 0 && bad++ === 0) first = i // NaN for NaN and infinities
    if (x < min) min = x
    if (x > max) max = x
  }
  if (bad > 0) {
    throw new ArgumentError(
      `${name}: ${bad} of ${values.length} calibration values ${bad === 1 ? 'is' : 'are'} not finite, ` +
        `${bad === 1 ? 'at' : 'the first at'} index ${first}: ${values[first]}`,
    )
  }
  return { min: min + 0, max: max + 0 } // + 0: -0 becomes 0
}

class MinMaxObserver extends BaseObserver {
  #range: Range | null = null
  constructor(
    name: string,
    readonly rate: number | null,
  ) {
    super(name)
  }

  protected add(_: Float32Array, batch: Range): void {
    const old = this.#range
    if (old === null) this.#range = batch
    else if (this.rate === null) this.#range = { min: Math.min(old.min, batch.min), max: Math.max(old.max, batch.max) }
    else {
      this.#range = {
        min: old.min + this.rate * (batch.min - old.min),
        max: old.max + this.rate * (batch.max - old.max),
      }
    }
  }

  protected choose(): Range {
    const { min, max } = this.#range as Range
    return { min, max: Math.max(min, max) } // rounding can swap the ends of an average
  }

  protected clear(): void {
    this.#range = null
  }
}

class HistogramObserver extends BaseObserver {
  readonly #histogram: Histogram
  readonly #rule: (histogram: Histogram) => Range
  constructor(name: string, bins: unknown, rule: (histogram: Histogram) => Range) {
    super(name)
    this.#histogram = new Histogram(checkInteger(name, 'bins', bins, 2, MAX_BINS))
    this.#rule = rule
  }

  protected add(values: Float32Array, batch: Range): void {
    this.#histogram.add(values, batch.min, batch.max)
  }

  protected choose(): Range {
    const { min, max } = this.#histogram
    return min === max ? { min, max } : this.#rule(this.#histogram)
  }

  protected clear(): void {
    this.#histogram.reset()
  }
}

/** The least and largest value: clips nothing. */
export function minMax(): Observer {
  return new MinMaxObserver('minMax', null)
}

export interface MovingAverageOptions {
  /** How much of a new batch's range is taken over, in (0, 1]; default 0.01. */
  rate?: number
}

/**
 * The exponential moving average of the batches' least and largest values, as PyTorch's MovingAverageMinMaxObserver:
 * the first batch sets them, then min += rate * (batch's min - min), and max alike. Depends on the batches' order. In
 * float64; PyTorch's is float32.
 */
export function movingAverage(options: MovingAverageOptions = {}): Observer {
  const { rate = 0.01 } = options
  if (!(typeof rate === 'number' && rate > 0 && rate <= 1))
    throw new ArgumentError(`movingAverage: rate must be in (0, 1], got ${show(rate)}`)
  return new MinMaxObserver('movingAverage', rate)
}

export interface HistogramOptions {
  /** At least so many bins, and less than twice as many, cover [0, max |x|]; default 2048, at most 2^20. */
  bins?: number
}

export interface PercentileOptions extends HistogramOptions {
  /** Percent of the values that are not clipped, in (0, 100]; default 99.99. */
  percentile?: number
  /** One threshold for |x| instead of one for either end; default false. */
  symmetric?: boolean
}

/**
 * Clips (100 - percentile) % of the values. By default half of them at either end, as onnxruntime's
 * PercentileCalibrater with symmetric=False; it suits one-sided data and affine quantization. With `symmetric` the
 * largest magnitudes: [-t, t] for t the percentile of |x|, as pytorch-quantization (NVIDIA) and onnxruntime with
 * symmetric=True; it suits scales without zero point.
 *
 * Those answer the lower edge of the bin that the percentile falls into; we interpolate inside it. Either is within a
 * bin's width of the exact percentile, at most max |x| / bins.
 */
export function percentile(options: PercentileOptions = {}): Observer {
  const { percentile: kept = 99.99, bins = 2048, symmetric = false } = options
  if (!(typeof kept === 'number' && kept > 0 && kept <= 100))
    throw new ArgumentError(`percentile: percentile must be in (0, 100], got ${show(kept)}`)
  if (typeof symmetric !== 'boolean')
    throw new ArgumentError(`percentile: symmetric must be true or false, got ${show(symmetric)}`)
  return new HistogramObserver('percentile', bins, (histogram) => percentileRange(histogram, kept, symmetric))
}

export interface EntropyOptions extends HistogramOptions {
  /** Levels of |x| after quantization: 128 for int8, the default; 256 for uint8. Less than bins. */
  quantizedBins?: number
}

/**
 * The symmetric threshold that loses least information, by TensorRT's algorithm (Migacz, "8-bit Inference with
 * TensorRT", GTC 2017) as pytorch-quantization computes it. Of the counts of |x| in bins, with bin 0 replaced by bin 1
 * (zeros are exact, and a ReLU's would hide all else), every number i of bins from quantizedBins on is a candidate:
 *
 * - P = the first i counts, all later ones added to the last of them
 * - Q = the first i counts, cut into quantizedBins levels (bin k into level floor(k quantizedBins / i)) and the sum of
 *   each level spread evenly over its bins that were not empty
 * - the divergence KL(P || Q) = sum p log(p / q), both normalized; infinite where q = 0 and p is not
 *
 * The least divergence wins, the last of equal ones. The range is [-t, t] for t the upper edge of bin i - 1, cut down
 * to the values seen.
 *
 * It weighs resolution against the number of clipped values, and not how far out they are: it gives up a few far
 * outliers even where their squared error outweighs all else ({@link mse} does not), and it wants many values, 10^5 or
 * more. Not to be confused with onnxruntime's entropy calibration, whose levels lie over signed bins and whose default
 * of as many bins as levels leaves a single candidate: nothing is ever clipped.
 */
export function entropy(options: EntropyOptions = {}): Observer {
  const { bins = 2048, quantizedBins = 128 } = options
  checkInteger('entropy', 'quantizedBins', quantizedBins, 2)
  const observer = new HistogramObserver('entropy', bins, (histogram) => entropyRange(histogram, quantizedBins))
  if (quantizedBins >= bins)
    throw new ArgumentError(
      `entropy: quantizedBins must be less than bins, or nothing is left to choose; got ${quantizedBins} and ${bins}`,
    )
  return observer
}

export interface MseOptions extends HistogramOptions {
  /** What the values are to be quantized to; default 'int8'. */
  dtype?: QuantDType
  /** How scale and zero point follow from the range; default 'affine'. */
  convention?: Convention
}

const DTYPES: readonly QuantDType[] = ['int8', 'uint8', 'int4', 'uint4']
const CONVENTIONS: readonly Convention[] = ['narrow', 'pytorch', 'noClip', 'affine']

/**
 * The range whose quantization has the least mean squared error, rounding and clipping together, over the histogram.
 * Scale, zero point and levels are those that `affineOf` makes of the range for `dtype` and `convention`: by default
 * 256 levels with a zero point, 255 around 0 for 'narrow'. Candidates are the edges of bins. Under 'affine' each end is
 * searched while the other one stands still, in turn, until neither can be better; under the symmetric conventions the
 * range is [-t, t], cut down to the values seen.
 *
 * Values count as spread evenly over their bin (as in PyTorch's HistogramObserver), exact zeros as zeros. Were they all
 * at its centre, as in pytorch-quantization, a step of a whole number of bins would look better than it is and win.
 */
export function mse(options: MseOptions = {}): Observer {
  const { bins = 2048, dtype = 'int8', convention = 'affine' } = options
  if (!DTYPES.includes(dtype))
    throw new ArgumentError(`mse: dtype must be one of ${DTYPES.join(', ')}, got ${show(dtype)}`)
  if (!CONVENTIONS.includes(convention))
    throw new ArgumentError(`mse: convention must be one of ${CONVENTIONS.join(', ')}, got ${show(convention)}`)
  affineOf(0, 0, dtype, convention) // do they go together?
  return new HistogramObserver('mse', bins, (histogram) => mseRange(histogram, dtype, convention))
}

/** All observers by name: what a configuration file says. */
export const calibrations = { minMax, movingAverage, percentile, entropy, mse } as const
export type CalibrationName = keyof typeof calibrations
