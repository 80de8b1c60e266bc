/** Scaled dot-product attention and the multi-head layer on it (Vaswani et al. 2017). */
import { isFloat } from '../core/dtype'
import { ArgumentError, DTypeError, ShapeError, show } from '../core/errors'
import { checkInteger, checkNumber, showShape } from '../core/shape'
import { add, ge, mul, where } from '../ops/arithmetic'
import { arange } from '../ops/create'
import { dropout } from '../ops/dropout'
import { matmul } from '../ops/matmul'
import { permute, reshape, transpose, unsqueeze } from '../ops/shape'
import { softmax } from '../ops/softmax'
import { noGrad, scope } from '../tensor/context'
import { checkTensor, type Tensor } from '../tensor/tensor'
import { xavierUniform, zeros } from './init'
import { Linear, type LinearOptions } from './linear'
import { Module } from './module'

export interface AttentionOptions {
  /**
   * Broadcasts to [..., queries, keys]. bool: true where a query may look at a key (PyTorch's
   * scaled_dot_product_attention; its MultiheadAttention means the opposite). float: added to the scores.
   */
  mask?: Tensor | null
  /** Query i sees keys 0 to i only. Default false. */
  causal?: boolean
  /** Probability of dropping an attention weight. Default 0. */
  dropout?: number
  /** Of the scores; default 1 / sqrt(size of a query). */
  scale?: number
}

/**
 * softmax(scale * q k^T + mask) v. A query that may look at nothing gets NaN, as in PyTorch.
 *
 * @param q [..., queries, d]
 * @param k [..., keys, d]
 * @param v [..., keys, dv]
 * @returns [..., queries, dv]
 */
export function scaledDotProductAttention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  const op = 'scaledDotProductAttention'
  for (const [name, x] of [
    ['q', q],
    ['k', k],
    ['v', v],
  ] as const) {
    checkTensor(op, name, x)
    if (x.rank < 2)
      throw new ShapeError(`${op}: ${name} must have two axes or more, its shape is ${showShape(x.shape)}`)
  }
  const scale =
    options.scale === undefined ? 1 / Math.sqrt(q.shape.at(-1) as number) : checkNumber(op, 'scale', options.scale)
  // The smaller operand is scaled: d values a query instead of one a pair.
  let scores = matmul(mul(q, scale) as Tensor, transpose(k)) as Tensor
  const { mask } = options
  if (mask) {
    checkTensor(op, 'mask', mask)
    if (mask.dtype === 'bool') scores = where(mask, scores, Number.NEGATIVE_INFINITY) as Tensor
    else if (isFloat(mask.dtype)) scores = add(scores, mask) as Tensor
    else throw new DTypeError(`${op}: mask must be bool or float, it is ${mask.dtype}`)
  }
  if (options.causal) {
    const visible = causalMask(scores.shape.at(-2) as number, scores.shape.at(-1) as number)
    scores = where(visible, scores, Number.NEGATIVE_INFINITY) as Tensor
  }
  const p = options.dropout ?? 0
  const weights = softmax(scores, -1)
  return matmul(p > 0 ? dropout(weights, p) : weights, v) as Tensor
}

/** True where column <= row. */
function causalMask(rows: number, columns: number): Tensor<'bool'> {
  return noGrad(() => scope(() => ge(unsqueeze(arange(0, rows), 1), arange(0, columns))))
}

export interface MultiHeadAttentionOptions extends LinearOptions {
  /** Features of a head; default embedDim / numHeads. A pruned layer has fewer heads of the same size. */
  headDim?: number
  /** Probability of dropping an attention weight while training; default 0. */
  dropout?: number
}

/**
 * Attention in numHeads subspaces: out(concat(heads)), each head attending with headDim features.
 *
 * The projections are four Linear layers, qProj kProj vProj outProj, so that each can be converted. Their weights
 * start as PyTorch's MultiheadAttention: q, k, v Xavier uniform as one [3 numHeads headDim, embedDim] matrix, biases 0.
 */
export class MultiHeadAttention extends Module<
  [query: Tensor, key?: Tensor | null, value?: Tensor | null, options?: Pick<AttentionOptions, 'mask' | 'causal'>]
> {
  qProj: Linear
  kProj: Linear
  vProj: Linear
  outProj: Linear
  readonly dropout: number
  readonly headDim: number

  constructor(embedDim: number, numHeads: number, options: MultiHeadAttentionOptions = {}) {
    super()
    checkInteger('MultiHeadAttention', 'embedDim', embedDim, 1)
    checkInteger('MultiHeadAttention', 'numHeads', numHeads, 1)
    if (options.headDim === undefined && embedDim % numHeads !== 0) {
      throw new ArgumentError(`MultiHeadAttention: embedDim ${embedDim} is not a multiple of numHeads ${numHeads}`)
    }
    this.headDim = checkInteger('MultiHeadAttention', 'headDim', options.headDim ?? embedDim / numHeads, 1)
    this.dropout = checkNumber('MultiHeadAttention', 'dropout', options.dropout ?? 0)
    if (!(this.dropout >= 0 && this.dropout <= 1)) {
      throw new ArgumentError(`MultiHeadAttention: dropout must be in [0, 1], got ${show(options.dropout)}`)
    }
    const inner = numHeads * this.headDim
    const projection = () => new Linear(embedDim, inner, options)
    this.qProj = projection()
    this.kProj = projection()
    this.vProj = projection()
    this.outProj = new Linear(inner, embedDim, options)
    // From sqrt(6 / (embedDim + inner)), the bound of one projection, to sqrt(6 / (embedDim + 3 inner)).
    const gain = Math.sqrt((embedDim + inner) / (embedDim + 3 * inner))
    for (const p of [this.qProj, this.kProj, this.vProj]) xavierUniform(p.weight, { gain })
    for (const p of [this.qProj, this.kProj, this.vProj, this.outProj]) if (p.bias) zeros(p.bias)
  }

  // The sizes are those of the projections: pruning makes these smaller.
  get embedDim(): number {
    return this.qProj.inFeatures
  }

  get numHeads(): number {
    return this.qProj.outFeatures / this.headDim
  }

  /**
   * @param query [batch, queries, embedDim]
   * @param key [batch, keys, embedDim]; left out: the query (self-attention)
   * @param value like key; left out: the key
   * @param options.mask broadcasts to [batch, numHeads, queries, keys]; see AttentionOptions
   * @returns [batch, queries, embedDim]
   */
  forward(
    query: Tensor,
    key?: Tensor | null,
    value?: Tensor | null,
    options: Pick<AttentionOptions, 'mask' | 'causal'> = {},
  ): Tensor {
    const k = key ?? query
    const v = value ?? k
    for (const [name, x] of [
      ['query', query],
      ['key', k],
      ['value', v],
    ] as const) {
      checkTensor('MultiHeadAttention', name, x)
      if (x.rank !== 3 || x.shape[2] !== this.embedDim) {
        throw new ShapeError(
          `MultiHeadAttention: ${name} must be [batch, length, ${this.embedDim}], it is ${showShape(x.shape)}`,
        )
      }
    }
    const heads = scaledDotProductAttention(
      this.#split(this.qProj.forward(query)),
      this.#split(this.kProj.forward(k)),
      this.#split(this.vProj.forward(v)),
      { ...options, dropout: this.training ? this.dropout : 0 },
    )
    const [batch, queries] = query.shape as readonly [number, number, number]
    return this.outProj.forward(reshape(permute(heads, [0, 2, 1, 3]), [batch, queries, this.numHeads * this.headDim]))
  }

  override describe(): string {
    return `embedDim=${this.embedDim}, numHeads=${this.numHeads}, headDim=${this.headDim}`
  }

  /** [batch, length, numHeads * headDim] as [batch, numHeads, length, headDim]. */
  #split(x: Tensor): Tensor {
    const [batch, length] = x.shape as readonly [number, number, number]
    return permute(reshape(x, [batch, length, this.numHeads, this.headDim]), [0, 2, 1, 3])
  }
}
