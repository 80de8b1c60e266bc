/** Learned step sizes. */
import type { FloatDType } from '../core/dtype'
import { type Granularity, integerRange, perTensor, type QuantDType } from '../core/quantization'
import { checkAxis } from '../core/shape'
import { add, clamp, div, ge, le, mul, sub, where } from '../ops/arithmetic'
import { detach } from '../ops/clone'
import { pad } from '../ops/join'
import { converted, type Tensor, taped } from '../ops/op'
import { fakeQuantize } from '../ops/quantize'
import { sum } from '../ops/reduce'
import { reshape, slice } from '../ops/shape'
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
    const blocked = (t: Tensor) => {
      const whole = converted(t, 'float32')
      return reshape(blocks.rest === 0 ? whole : pad(whole, [0, blocks.rest]), blocks.shape)
    }
    const v = div(blocked(x), reshape(scale, blocks.scale))
    const zero = zeroPoint ? reshape(converted(zeroPoint, 'float32'), blocks.scale) : 0
    const rounded = add(round(v), zero)
    const inside = mul(ge(rounded, qmin), le(rounded, qmax))
    const q = sub(clamp(rounded, qmin, qmax), zero)
    const g = blocked(grad)
    const passed = reshape(where(inside as Tensor, g, 0), blocks.padded)
    const toX = blocks.rest === 0 ? passed : slice(passed, [...x.shape.map((n) => [0, n] as const)])
    const toScale = sum(mul(g, where(inside as Tensor, sub(q, v), q)), blocks.axes, { keepdim: true })
    return [converted(toX, x.dtype), converted(reshape(mul(toScale, factor), scale.shape), scale.dtype)]
  })
}

interface Blocks {
  /** Shapes under which elements and scales broadcast. */
  shape: number[]
  scale: number[]
  /** The axes that share a scale. */
  axes: number[]
  /** Zeros that fill up a shorter last group, and the tensor's shape with them. */
  rest: number
  padded: readonly number[]
}

function blocksOf(shape: readonly number[], g: Granularity): Blocks {
  const all = shape.map((_, i) => i)
  const plain = (scale: number[], axes: number[]): Blocks => ({
    shape: [...shape],
    scale,
    axes,
    rest: 0,
    padded: shape,
  })
  const lead = shape.slice(0, -1)
  switch (g.kind) {
    case 'tensor':
      return plain(
        shape.map(() => 1),
        all,
      )
    case 'token':
      return plain([...lead, 1], [shape.length - 1])
    case 'channel': {
      const axis = checkAxis('learnedQuantize', g.axis, shape.length)
      return plain(
        shape.map((n, i) => (i === axis ? n : 1)),
        all.filter((i) => i !== axis),
      )
    }
    case 'group': {
      const n = shape[shape.length - 1] as number
      const groups = Math.ceil(n / g.size)
      return {
        shape: [...lead, groups, g.size],
        scale: [...lead, groups, 1],
        axes: [shape.length],
        rest: groups * g.size - n,
        padded: [...lead, groups * g.size],
      }
    }
  }
}
