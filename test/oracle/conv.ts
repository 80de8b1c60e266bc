// Convolution as the sums it is, in float64.
import { type Nd, nd } from './array'

export interface ConvSpec {
  stride: readonly [number, number]
  pad: readonly [number, number]
  dilation: readonly [number, number]
  groups: number
}

/** Calls body for every product: (output, input, weight) positions, all flat. */
function products(
  x: readonly number[],
  w: readonly number[],
  out: readonly number[],
  s: ConvSpec,
  body: (o: number, i: number, k: number) => void,
): void {
  const [n, c, h, width] = x as [number, number, number, number]
  const [o, perGroup, r, q] = w as [number, number, number, number]
  const [, , outH, outW] = out as [number, number, number, number]
  const outs = o / s.groups
  for (let image = 0; image < n; image++)
    for (let to = 0; to < o; to++)
      for (let y = 0; y < outH; y++)
        for (let column = 0; column < outW; column++)
          for (let from = 0; from < perGroup; from++)
            for (let i = 0; i < r; i++)
              for (let j = 0; j < q; j++) {
                const inY = y * s.stride[0] + i * s.dilation[0] - s.pad[0]
                const inX = column * s.stride[1] + j * s.dilation[1] - s.pad[1]
                if (inY < 0 || inX < 0 || inY >= h || inX >= width) continue
                const channel = Math.floor(to / outs) * perGroup + from
                body(
                  ((image * o + to) * outH + y) * outW + column,
                  ((image * c + channel) * h + inY) * width + inX,
                  ((to * perGroup + from) * r + i) * q + j,
                )
              }
}

const filled = (shape: readonly number[]): Nd => nd(shape, () => 0)
const add = (a: Nd, i: number, x: number) => {
  a.data[i] = (a.data[i] as number) + x
}
const get = (a: Nd, i: number) => a.data[i] as number

/** out = x convolved with w; its shape is given. */
export function conv(x: Nd, w: Nd, shape: readonly number[], spec: ConvSpec): Nd {
  const out = filled(shape)
  products(x.shape, w.shape, shape, spec, (o, i, k) => add(out, o, get(x, i) * get(w, k)))
  return out
}

/** The gradient for x of a convolution whose result has the gradient g. */
export function convInput(g: Nd, w: Nd, shape: readonly number[], spec: ConvSpec): Nd {
  const dx = filled(shape)
  products(shape, w.shape, g.shape, spec, (o, i, k) => add(dx, i, get(g, o) * get(w, k)))
  return dx
}

/** The gradient for w. */
export function convWeight(g: Nd, x: Nd, shape: readonly number[], spec: ConvSpec): Nd {
  const dw = filled(shape)
  products(x.shape, shape, g.shape, spec, (o, i, k) => add(dw, k, get(g, o) * get(x, i)))
  return dw
}
