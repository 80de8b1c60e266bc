// What the tests of pruning share: small models, and the choice of what to prune by sorting, in plain JavaScript.
import { nn, type Tensor, tensor } from 'kerf'
import { normal } from '../quant/data'

export const flat = (x: Tensor): number[] => ([x.arraySync()] as unknown[]).flat(9).map(Number)

/** The linear layers of a model, in order. */
export const linears = (model: nn.Module): nn.Linear[] =>
  model.modules().filter((m): m is nn.Linear => (m as unknown) instanceof nn.Linear)

/** 1 where a weight is kept, of every linear layer. */
export const masks = (model: nn.Module): (number[] | null)[] =>
  linears(model).map(({ weight }) => weight.mask && flat(weight.mask))

/** The values of every parameter. */
export const values = (model: nn.Module): number[][] => model.parameters().map(flat)

/** Puts values into a layer's weight. */
export function setWeight(layer: nn.Linear, w: readonly number[]): void {
  const dict = { weight: tensor([...w], { shape: layer.weight.shape }) }
  layer.loadStateDict(dict, { strict: false })
}

/** Linear layers of these sizes with ReLU between; small whole weights when `ties`, so that many are equal. */
export function net(seed: number, sizes: readonly number[], ties = false): nn.Sequential {
  const next = normal(seed)
  const layers: nn.Module[] = []
  for (let i = 1; i < sizes.length; i++) {
    const layer = new nn.Linear(sizes[i - 1] as number, sizes[i] as number)
    setWeight(
      layer,
      flat(layer.weight).map(() => (ties ? Math.round(2 * next()) : next())),
    )
    layers.push(layer, ...(i + 1 < sizes.length ? [new nn.ReLU()] : []))
  }
  return new nn.Sequential(...layers)
}

/**
 * 1 for what stays when `count` elements go: those pruned already, then the least scores, of equal ones the later. `kept`
 * is what stayed before.
 */
export function topK(scores: readonly number[], count: number, kept = scores.map(() => 1)): number[] {
  const order = scores.map((_, i) => i).filter((i) => kept[i] === 1)
  order.sort((a, b) => (scores[a] as number) - (scores[b] as number) || b - a)
  const gone = new Set(order.slice(0, Math.max(0, count - (scores.length - order.length))))
  return kept.map((keep, i) => (gone.has(i) ? 0 : keep))
}

/** An array cut into parts of these lengths. */
export function cut<T>(list: readonly T[], lengths: readonly number[]): T[][] {
  let at = 0
  return lengths.map((n) => {
    at += n
    return list.slice(at - n, at)
  })
}
