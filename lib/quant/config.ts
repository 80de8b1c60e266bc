/** What quantizeModel, prepareQat and tune are asked to do: plain values, one for each way to quantize a layer. */
import { ArgumentError, show } from '../core/errors'
import { checkGranularity, type Granularity, perChannel, perGroup } from '../core/quantization'
import { type CalibrationName, calibrations, type Observer } from './calibration'

/** Weights and inputs are bytes; a range is found for every batch, or every row of it, as it comes. */
export interface Int8Dynamic {
  readonly kind: 'int8Dynamic'
  readonly input: 'tensor' | 'token'
  /** Of the weights: perChannel(0) or perTensor. */
  readonly granularity: Granularity
  readonly smoothQuant: number | null
}

/** Weights and inputs are bytes; the inputs' range comes from calibration data. */
export interface Int8Static {
  readonly kind: 'int8Static'
  /** Makes an observer for each layer's input. */
  readonly observer: () => Observer
  /** Of the inputs: uint8 with a zero point, or symmetric int8. */
  readonly input: 'uint8' | 'int8'
  readonly granularity: Granularity
  readonly smoothQuant: number | null
}

export type WeightMethod = 'nearest' | 'gptq' | 'awq'

/** Weights of 8 or 4 bits; inputs stay float. */
export interface WeightOnly {
  readonly kind: 'weightOnly'
  readonly bits: 4 | 8
  /** perGroup(n), or perChannel(0) for one scale an output. */
  readonly granularity: Granularity
  /** False: with zero points. */
  readonly symmetric: boolean
  /** How codes are chosen; 'gptq' and 'awq' need calibration data. */
  readonly method: WeightMethod
  /** GPTQ: columns by falling importance. */
  readonly actOrder: boolean
}

export type QuantConfig = Int8Dynamic | Int8Static | WeightOnly

function rowWise(op: string, granularity: Granularity): Granularity {
  const g = checkGranularity(op, granularity, 2)
  if (g.kind === 'tensor' || (g.kind === 'channel' && (g.axis === 0 || g.axis === -2))) return g
  throw new ArgumentError(
    `${op}: granularity of the weights must be perChannel(0) or perTensor, got ${show(granularity)}`,
  )
}

function checkAlpha(op: string, value: number | boolean | undefined): number | null {
  if (value === undefined || value === false) return null
  const alpha = value === true ? 0.5 : value
  if (typeof alpha !== 'number' || !(alpha >= 0 && alpha <= 1))
    throw new ArgumentError(`${op}: smoothQuant must be a number from 0 to 1 or a boolean, got ${show(value)}`)
  return alpha
}

/**
 * int8 weights and inputs, the inputs' range found while the layer runs: no calibration data.
 *
 * @param options.input 'token' (default): a range for every row; 'tensor': one for the batch
 * @param options.granularity of the weights: perChannel(0) (default) or perTensor
 * @param options.smoothQuant SmoothQuant's alpha, or true for 0.5; needs calibration data
 */
export function int8Dynamic(
  options: { input?: 'tensor' | 'token'; granularity?: Granularity; smoothQuant?: number | boolean } = {},
): Int8Dynamic {
  const op = 'int8Dynamic'
  const input = options.input ?? 'token'
  if (input !== 'tensor' && input !== 'token')
    throw new ArgumentError(`${op}: input must be 'tensor' or 'token', got ${show(input)}`)
  return {
    kind: op,
    input,
    granularity: rowWise(op, options.granularity ?? perChannel(0)),
    smoothQuant: checkAlpha(op, options.smoothQuant),
  }
}

/**
 * int8 weights and inputs, the inputs' range from calibration data (in prepareQat: from training batches).
 *
 * @param options.calibration how the range is chosen: a name (default 'minMax') or a function that makes an Observer
 * @param options.input 'uint8' (default): with a zero point; 'int8': symmetric
 * @param options.granularity of the weights: perChannel(0) (default) or perTensor
 * @param options.smoothQuant SmoothQuant's alpha, or true for 0.5
 */
export function int8Static(
  options: {
    calibration?: CalibrationName | (() => Observer)
    input?: 'uint8' | 'int8'
    granularity?: Granularity
    smoothQuant?: number | boolean
  } = {},
): Int8Static {
  const op = 'int8Static'
  const { calibration = 'minMax', input = 'uint8' } = options
  const observer =
    typeof calibration === 'function'
      ? calibration
      : Object.hasOwn(calibrations, calibration) && calibrations[calibration]
  if (!observer) {
    throw new ArgumentError(
      `${op}: calibration must be ${Object.keys(calibrations).join(', ')} or a function, got ${show(calibration)}`,
    )
  }
  if (input !== 'uint8' && input !== 'int8')
    throw new ArgumentError(`${op}: input must be 'uint8' or 'int8', got ${show(input)}`)
  return {
    kind: op,
    observer: () => observer(),
    input,
    granularity: rowWise(op, options.granularity ?? perChannel(0)),
    smoothQuant: checkAlpha(op, options.smoothQuant),
  }
}

/**
 * Weights of 8 or 4 bits, inputs float: for models whose speed is that of reading their weights.
 *
 * @param options.bits 8 (default) or 4
 * @param options.granularity perGroup(n), default perGroup(128), or perChannel(0)
 * @param options.symmetric false: with zero points; default true
 * @param options.method 'nearest' (default), 'gptq' or 'awq', which need calibration data
 * @param options.actOrder GPTQ's order by falling importance; default false
 */
export function weightOnly(
  options: {
    bits?: 4 | 8
    granularity?: Granularity
    symmetric?: boolean
    method?: WeightMethod
    actOrder?: boolean
  } = {},
): WeightOnly {
  const op = 'weightOnly'
  const { bits = 8, method = 'nearest', symmetric = true, actOrder = false } = options
  if (bits !== 4 && bits !== 8) throw new ArgumentError(`${op}: bits must be 4 or 8, got ${show(bits)}`)
  if (method !== 'nearest' && method !== 'gptq' && method !== 'awq')
    throw new ArgumentError(`${op}: method must be 'nearest', 'gptq' or 'awq', got ${show(method)}`)
  for (const [name, value] of Object.entries({ symmetric, actOrder }))
    if (typeof value !== 'boolean') throw new ArgumentError(`${op}: ${name} must be true or false, got ${show(value)}`)
  const granularity = checkGranularity(op, options.granularity ?? perGroup(128), 2)
  if (
    granularity.kind !== 'group' &&
    !(granularity.kind === 'channel' && (granularity.axis === 0 || granularity.axis === -2))
  )
    throw new ArgumentError(`${op}: granularity must be perGroup(n) or perChannel(0), got ${show(options.granularity)}`)
  return { kind: op, bits, granularity, symmetric, method, actOrder }
}

/** Throws unless it is one of the above. */
export function checkConfig(op: string, config: unknown): QuantConfig {
  const { kind, observer } = (typeof config === 'object' ? (config ?? {}) : {}) as Partial<Int8Static>
  // A configuration that went through JSON has lost its observer.
  const whole = kind !== 'int8Static' || typeof observer === 'function'
  if (kind && ['int8Dynamic', 'int8Static', 'weightOnly'].includes(kind) && whole) return config as QuantConfig
  throw new ArgumentError(`${op}: config must be int8Dynamic(), int8Static() or weightOnly(), got ${show(config)}`)
}

/** What a config needs to see of a layer's inputs before it can quantize it. */
export function needsOf(config: QuantConfig): { range: boolean; channels: boolean; gram: boolean } {
  const weights = config.kind === 'weightOnly' ? config.method : 'nearest'
  return {
    range: config.kind === 'int8Static',
    channels: weights === 'awq' || (config.kind !== 'weightOnly' && config.smoothQuant !== null),
    gram: weights === 'gptq' || weights === 'awq',
  }
}
