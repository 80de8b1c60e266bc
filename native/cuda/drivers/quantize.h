// Of dynamic quantization, what products that quantize their operand share with the op.
#pragma once
#include "ops.h"

namespace kerf {
namespace cuda {
namespace ops {

// Scale and zero point, for uint8, by the range (core/affine.h's dynamic_scale) of all of `a` or of each of its rows. `a`: contiguous
// float32, float16 or bfloat16; column p is multiplied by multiplier[p] first, in float32, unless that is null. `scale` and `zero` get
// one element, or one a row. One launch.
Status dynamic_scales(Gpu& gpu, const View& a, const float* multiplier, bool by_row, float* scale, int32_t* zero);

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
