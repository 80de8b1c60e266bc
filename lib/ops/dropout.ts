/** Random zeroing of elements. */
import { type DType, type FloatOf, floatOf } from '../core/dtype'
import { ArgumentError, show } from '../core/errors'
import { takeRandom } from '../core/rng'
import { native } from '../native/call'
import { arg, converted, empty, emptyLike, type Tensor, taped } from './op'

export interface DropoutOptions {
  /** False returns the tensor as it is. Default true. */
  training?: boolean
}

/**
 * Each element is set to 0 with probability p, the others are divided by 1 - p, so that the expected value stays. Which
 * ones is drawn from the stream that manualSeed() seeds.
 *
 * @param p from 0 to 1, default 0.5
 */
export function dropout<D extends DType>(a: Tensor<D>, p = 0.5, options: DropoutOptions = {}): Tensor<FloatOf<D>> {
  const x = arg('dropout', 'a', a)
  if (typeof p !== 'number' || !(p >= 0 && p <= 1))
    throw new ArgumentError(`dropout: p must be a number from 0 to 1, got ${show(p)}`)
  const dtype = floatOf(x.dtype)
  const source = converted(x, dtype)
  if (options.training === false || p === 0) return source
  if (p === 1) {
    const nothing = () => {
      const out = emptyLike(x, dtype)
      native.fill(out, 0)
      return out
    }
    return taped('dropout', nothing(), [x], () => [nothing()])
  }
  const { seed, offset } = takeRandom(x.size)
  const drop = (from: Tensor) => {
    const out = emptyLike(from, dtype)
    const mask = empty('bool', from.shape, from.device)
    native.dropout(out, mask, from, p, seed, offset)
    mask.dispose()
    return out
  }
  // The numbers of the stream are counted, so backward draws the same mask again: nothing is kept.
  return taped('dropout', drop(source), [x], (grad) => [drop(grad)])
}
