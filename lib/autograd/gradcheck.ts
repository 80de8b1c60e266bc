/**
 * Checks gradient rules against differences of values.
 *
 * Only float32 exists, so a plain difference quotient would drown in rounding. With L = sum(w * f(x)), w random and the
 * sum taken in float64, the quotient D(h) = (L(x + h) - L(x - h)) / (2h) has a truncation error of L''' h^2 / 6; one step
 * of Richardson extrapolation, R = (4 D(h) - D(2h)) / 3, leaves O(h^4), so h may be large: 2^-5. What rounding then does
 * to R is bounded by 5/3 * (sum of |w| * |f| over the outputs that moved) * u / h with u the error of one output
 * relative to itself, taken as 8 * 2^-24 (an op's 2 ulp, and what a few ops add up to).
 */
import { ArgumentError, KerfError } from '../core/errors'
import { uniformGenerator } from '../core/rng'
import { native } from '../native/call'
import { tensor } from '../ops/create'
import { noGrad } from '../tensor/context'
import { checkTensor, copyTo, type Tensor } from '../tensor/tensor'
import { grad } from './backward'

export interface GradcheckOptions {
  /** h above: relative to 1, so inputs should be about 1 in size. Default 2^-5. */
  eps?: number
  /** Allowed on top of the rounding bound, relative to the largest gradient. Default 2^-14. */
  tolerance?: number
  /** Of the weights w. Default 0. */
  seed?: number
}

export interface GradcheckFailure {
  /** Which input, and which of its elements in row-major order. */
  input: number
  element: number
  /** What backward() says, what the differences say, and how far they may be apart. */
  analytic: number
  numeric: number
  allowed: number
}

/**
 * Compares the gradients that backward() computes for `fn` with central differences, element by element.
 *
 * @param fn a function of the inputs, the same at every call (no dropout), smooth within 2 eps of them
 * @param inputs float32 leaves with requiresGrad; others are passed through unchecked
 * @returns true; throws with the first elements that differ
 */
export function gradcheck(
  fn: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
  options: GradcheckOptions = {},
): true {
  const failures = gradcheckFailures(fn, inputs, options)
  if (failures.length === 0) return true
  const lines = failures
    .slice(0, 5)
    .map((f) => `input ${f.input}[${f.element}]: backward ${f.analytic}, differences ${f.numeric} (+-${f.allowed})`)
  throw new KerfError('ERR_GRADCHECK', `gradcheck: ${failures.length} elements differ\n  ${lines.join('\n  ')}`)
}

/** gradcheck(), answering what differs instead of throwing. */
export function gradcheckFailures(
  fn: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
  options: GradcheckOptions = {},
): GradcheckFailure[] {
  const h = options.eps ?? 2 ** -5
  const slack = options.tolerance ?? 2 ** -14
  const checked = inputs.filter((x, i) => checkTensor('gradcheck', `inputs[${i}]`, x).requiresGrad)
  if (checked.length === 0) throw new ArgumentError('gradcheck: no input has requiresGrad')
  for (const x of checked)
    if (x.dtype !== 'float32') throw new ArgumentError(`gradcheck: inputs must be float32, got ${x.dtype}`)

  const out = fn(...inputs)
  const random = uniformGenerator(options.seed ?? 0)
  const weights = Float32Array.from({ length: out.size }, () => (random() < 0.5 ? -1 : 1) * (0.5 + random()))
  const analytic = grad(out, checked, weightTensor(weights, out)).map((g) => values(g))

  const failures: GradcheckFailure[] = []
  for (const [i, x] of checked.entries()) {
    const own = analytic[i] as Float64Array
    const largest = own.reduce((most, g) => Math.max(most, Math.abs(g)), 1)
    for (let element = 0; element < x.size; element++) {
      const { slope, rounding } = richardson(fn, inputs, x, element, h, weights)
      const allowed = rounding + slack * largest
      const found = own[element] as number
      if (!(Math.abs(found - slope) <= allowed)) {
        failures.push({ input: inputs.indexOf(x), element, analytic: found, numeric: slope, allowed })
      }
    }
  }
  return failures
}

/** R of the file's head, for one element of x, and the bound on what rounding did to it. */
function richardson(
  fn: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
  x: Tensor,
  element: number,
  h: number,
  weights: Float32Array,
): { slope: number; rounding: number } {
  const at = (delta: number) => {
    const moved = shifted(x, element, delta)
    const f = noGrad(() => fn(...inputs.map((input) => (input === x ? moved.tensor : input))))
    return { x: moved.value, f: values(f) }
  }
  const quotient = (step: number) => {
    const [above, below] = [at(step), at(-step)]
    let difference = 0
    let size = 0
    for (let j = 0; j < weights.length; j++) {
      const [a, b, w] = [above.f[j] as number, below.f[j] as number, weights[j] as number]
      if (a === b) continue
      difference += w * (a - b)
      size += Math.abs(w) * Math.max(Math.abs(a), Math.abs(b))
    }
    return { slope: difference / (above.x - below.x), size }
  }
  const [one, two] = [quotient(h), quotient(2 * h)]
  return { slope: (4 * one.slope - two.slope) / 3, rounding: ((5 / 3) * one.size * 8 * 2 ** -24) / h }
}

/** A copy of x with one element moved, and that element's value after rounding to float32. */
function shifted(x: Tensor, element: number, delta: number): { tensor: Tensor; value: number } {
  const tensor = copyTo(x, 'float32')
  const view = tensor.view('gradcheck', [], [], tensor.offset + element)
  const value = Math.fround((view.item() as number) + delta)
  native.fill(view, value)
  view.dispose()
  return { tensor, value }
}

function values(t: Tensor): Float64Array {
  return Float64Array.from(copyTo(t, 'float32').dataSync())
}

function weightTensor(weights: Float32Array, like: Tensor): Tensor {
  const values = tensor(weights, { shape: like.shape, device: like.device })
  return like.dtype === 'float32' ? values : copyTo(values, like.dtype)
}
