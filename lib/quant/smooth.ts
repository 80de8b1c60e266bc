import { checkActivations, checkArray, checkFiniteRow } from '../core/checks'
import { ArgumentError, show } from '../core/errors'
import { checkInteger } from '../core/shape'

export interface SmoothOptions {
  /** How much of the activations' spread moves into the weights: 0 none, 1 all of it; default 0.5. */
  alpha?: number
}

/** The paper's code lets neither max|W_j| nor the scales be less. */
const MIN = 1e-5

/**
 * SmoothQuant's scales (Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
 * Models", 2022): s_j = max|X_j|^alpha / max|W_j|^(1 - alpha) for every input channel j; max|W_j| and s are at least
 * 1e-5. Dividing the inputs by s and multiplying the weights' columns by it leaves the output as it is, X W^T = (X / s)
 * (W * s)^T, and makes outlier channels of X quantizable. A channel whose activations or weights are all 0 gets 1.
 *
 * @param actMax max|X_j| over the calibration data, [inputs]
 * @param w Float32Array of [out, inputs], row-major. Layers that read the same input share their scales: stack their
 * rows
 * @returns s, [inputs]
 * @throws ArgumentError for sizes that do not match, a number that is not finite, and alpha outside [0, 1]
 */
export function smoothScales(
  actMax: Float32Array,
  w: Float32Array,
  out: number,
  inputs: number,
  options: SmoothOptions = {},
): Float32Array {
  checkInteger('smoothScales', 'out', out, 1)
  checkInteger('smoothScales', 'inputs', inputs, 1)
  checkArray('smoothScales', 'w', w, Float32Array, out * inputs)
  checkActivations('smoothScales', 'actMax', actMax, inputs)
  const { alpha = 0.5 } = options
  if (typeof alpha !== 'number' || !(alpha >= 0 && alpha <= 1))
    throw new ArgumentError(`smoothScales: alpha must be a number from 0 to 1, got ${show(alpha)}`)
  const weightMax = new Float32Array(inputs)
  for (let row = 0; row < out; row++) {
    checkFiniteRow('smoothScales', 'w', w, row, inputs)
    for (let j = 0; j < inputs; j++) {
      const x = Math.abs(w[row * inputs + j] as number)
      if (x > (weightMax[j] as number)) weightMax[j] = x
    }
  }
  return actMax.map((x, j) => {
    const y = weightMax[j] as number
    return x === 0 || y === 0 ? 1 : Math.max(MIN, x ** alpha / Math.max(MIN, y) ** (1 - alpha))
  })
}
