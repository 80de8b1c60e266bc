// Matrix products of floats.
import { add, matmul, mul, reshape, type Tensor, transpose } from 'kerf'
import * as oracle from '../../oracle/array'
import { type Nd, nd } from '../../oracle/array'
import { type Adapters, binary, roundings } from '../adapter'
import type { Call } from '../call'

/** A vector as a row on the left, as a column on the right. */
function matrix(a: Nd, left: boolean): Nd {
  if (a.shape.length > 1) return a
  return { shape: left ? [1, a.data.length] : [a.data.length, 1], data: a.data }
}

function transposed(a: Nd, yes: boolean): Nd {
  if (!yes) return a
  return nd([...a.shape].reverse(), ([i, j]) => oracle.at(a, [j, i] as number[]))
}

function gemmMagnitude(call: Call, want: Nd): Nd {
  const a = transposed(oracle.abs(call.values(0)), call.flag('transA'))
  const b = transposed(oracle.abs(call.values(1)), call.flag('transB'))
  const product = oracle.map(oracle.matmul(a, b), (x) => x * Math.abs(call.number('alpha', 1)))
  if (!call.has(2)) return product
  const c = oracle.map(call.values(2), (x) => Math.abs(x * call.number('beta', 1)))
  return nd(want.shape, (index, flat) => (product.data[flat] as number) + oracle.at(c, index))
}

function gemm(call: Call): Tensor {
  const a = call.flag('transA') ? transpose(call.input(0)) : call.input(0)
  const b = call.flag('transB') ? transpose(call.input(1)) : call.input(1)
  const alpha = call.number('alpha', 1)
  if (!call.has(2)) return mul(matmul(a, b), alpha)
  const c = mul(call.input(2), call.number('beta', 1))
  const perColumn = c.size === b.shape[1] && c.shape.at(-1) === c.size
  if (alpha === 1 && perColumn) return matmul(a, b, { bias: reshape(c, [c.size]) })
  return add(mul(matmul(a, b), alpha), c)
}

/**
 * Both sides are chains of k multiply-adds in float32, in whatever order: twice the classical bound of docs/numerics.md,
 * with four more roundings for alpha, beta and the sum of the two.
 */
const chains = (k: number) => 2 * (k + 4)

export const products: Adapters = {
  MatMul: roundings(
    (call) => chains(call.values(0).shape.at(-1) as number),
    (call) => oracle.matmul(matrix(oracle.abs(call.values(0)), true), matrix(oracle.abs(call.values(1)), false)),
    binary((a, b) => matmul(a, b)),
  ),
  Gemm: roundings((call) => chains(call.values(0).shape[call.flag('transA') ? 0 : 1] as number), gemmMagnitude, gemm),
}
