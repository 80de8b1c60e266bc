/** Learned step sizes. */
import type { FloatDType } from '../core/dtype'
import { ArgumentError } from '../core/errors'
import { type Granularity, integerRange, perTensor, type QuantDType } from '../core/quantization'
import { checkAxis } from '../core/shape'
import { add, clamp, div, ge, le, mul, sub, where } from '../ops/arithmetic'
import { detach } from '../ops/clone'
import { converted, type Tensor, taped } from '../ops/op'
import { fakeQuantize } from '../ops/quantize'
import { sum } from '../ops/reduce'
import { reshape } from '../ops/shape'
import { round } from '../ops/unary'
import { noGrad } from '../tensor/context'

/**
 * fakeQuantize whose scale has a gradient too (LSQ; Esser et al., "Learned Step Size Quantization", 2020):
 * d out / d scale is q - x / scale where x is not clipped and q where it is, q being the integer without the zero point;
 * the gradient is divided by sqrt(n qmax), n the elements that share a scale.
 *
 * @param x float
 * @param scale float32, of the shape that the granularity says, positive
 * @param zeroPoint int32 of scale's shape, or null
 */
export function learnedQuantize(
  x: Tensor,
  scale: Tensor,
  zeroPoint: Tensor | null,
  options: { dtype: QuantDType; granularity?: Granularity },
): Tensor {
  const { dtype, granularity = perTensor } = options
  const { qmin, qmax } = integerRange(dtype)
  const plain = noGrad(() =>
    fakeQuantize(detach(x) as Tensor<FloatDType>, detach(scale), zeroPoint, { dtype, granularity }),
  )
  const blocks = blocksOf(x.shape, granularity)
  const factor = 1 / Math.sqrt((x.size / Math.max(scale.size, 1)) * qmax)
  return taped('learnedQuantize', plain, [x, scale], (grad) => {
    const v = div(reshape(converted(x, 'float32'), blocks.shape), reshape(scale, blocks.scale))
    const zero = zeroPoint ? reshape(converted(zeroPoint, 'float32'), blocks.scale) : 0
    const rounded = add(round(v), zero)
    const inside = mul(ge(rounded, qmin), le(rounded, qmax))
    const q = sub(clamp(rounded, qmin, qmax), zero)
    const g = reshape(converted(grad, 'float32'), blocks.shape)
    const toX = reshape(where(inside as Tensor, g, 0), x.shape)
    const toScale = sum(mul(g, where(inside as Tensor, sub(q, v), q)), blocks.axes, { keepdim: true })
    return [converted(toX, x.dtype), converted(reshape(mul(toScale, factor), scale.shape), scale.dtype)]
  })
}

/** Shapes under which elements and scales broadcast, and the axes that share a scale. */
function blocksOf(shape: readonly number[], g: Granularity): { shape: number[]; scale: number[]; axes: number[] } {
  const all = shape.map((_, i) => i)
  switch (g.kind) {
    case 'tensor':
      return { shape: [...shape], scale: shape.map(() => 1), axes: all }
    case 'token':
      return { shape: [...shape], scale: [...shape.slice(0, -1), 1], axes: [shape.length - 1] }
    case 'channel': {
      const axis = checkAxis('learnedQuantize', g.axis, shape.length)
      return {
        shape: [...shape],
        scale: shape.map((n, i) => (i === axis ? n : 1)),
        axes: all.filter((i) => i !== axis),
      }
    }
    case 'group': {
      const n = shape[shape.length - 1] as number
      if (n % g.size !== 0) throw new ArgumentError(`learnedQuantize: groups of ${g.size} do not divide ${n}`)
      const lead = shape.slice(0, -1)
      return { shape: [...lead, n / g.size, g.size], scale: [...lead, n / g.size, 1], axes: [shape.length] }
    }
  }
}
