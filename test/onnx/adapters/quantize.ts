// Between floats and bytes, and products of bytes: integers have to be exact.
import { dequantizeLinear, dynamicQuantizeLinear, matmulInteger, qlinearMatmul, quantizeLinear } from 'kerf/quant'
import type { Tensor } from '#lib/tensor/tensor'
import { type Adapters, exact } from '../adapter'
import type { Call } from '../call'

const optional = (call: Call, i: number) => (call.has(i) ? call.input(i) : null)
const axis = (call: Call) => ({ axis: call.number('axis', 1) })
const byte = (call: Call, i: number) => call.input(i) as Tensor<'uint8'>

export const quantization: Adapters = {
  QuantizeLinear: exact((call) =>
    quantizeLinear(call.input(0), call.input(1), optional(call, 2) as Tensor<'uint8'> | null, axis(call)),
  ),
  // One product of a small integer and the scale, rounded once on either side.
  DequantizeLinear: exact((call) => dequantizeLinear(call.input(0), call.input(1), optional(call, 2), axis(call))),
  DynamicQuantizeLinear: exact((call) => {
    const { values, scale, zeroPoint } = dynamicQuantizeLinear(call.input(0))
    return [values, scale, zeroPoint]
  }),
  MatMulInteger: exact((call) => matmulInteger(call.input(0), call.input(1), optional(call, 2), optional(call, 3))),
  QLinearMatMul: exact((call) =>
    qlinearMatmul(
      call.input(0),
      call.input(1),
      call.input(2),
      call.input(3),
      call.input(4),
      call.input(5),
      call.input(6),
      byte(call, 7),
    ),
  ),
}
