// Affine quantization from its definitions, an element or a range at a time: what the kernels of all targets and of CUDA share. In
// float32 throughout; no product is followed by a sum, so that no compiler's fused multiply-add changes a bit.
#pragma once
#include "elem.h"

namespace kerf {

// rint(a / scale), clipped so that the zero point can be added to it: references divide, and a product with the reciprocal differs
// next to ties. Adding 0 makes a 0 of -0: integers have but one.
KERF_INLINE float quantized(float a, float scale, int32_t zero, float low, float high) {
  const float z = static_cast<float>(zero), q = a / scale;
  const float raised = q > low - z ? q : low - z;  // NaN: the lowest
  return __builtin_nearbyintf(raised < high - z ? raised : high - z) + 0.0f;
}

// Whether it is not clipped: where the straight-through gradient is 1.
KERF_INLINE bool is_kept(float a, float scale, int32_t zero, float low, float high) {
  const float q = __builtin_nearbyintf(a / scale) + static_cast<float>(zero);
  return q >= low && q <= high;
}

// A difference that does not fit into 32 bits wraps.
KERF_INLINE float dequantized(int32_t x, int32_t zero, float scale) {
  return static_cast<float>(static_cast<int32_t>(static_cast<uint32_t>(x) - static_cast<uint32_t>(zero))) * scale;
}

// A range that holds 0, and whether only finite numbers were seen.
struct Range {
  float min, max;
  bool finite;
};

// ONNX's DynamicQuantizeLinear (uint8), in float32:
//   scale = (max == min ? 1 : max - min) / 255, zero = rint(clip(0 - min / scale, 0, 255))
// A NaN or an infinity in the data, or a width that overflows, gives the scale NaN, and so NaN in every result.
KERF_INLINE void dynamic_scale(const Range& range, float* scale, int32_t* zero) {
  const float width = range.max - range.min;
  *zero = 0;
  if (!range.finite || !(width < __builtin_inff())) {
    *scale = __builtin_nanf("");
    return;
  }
  *scale = (range.max == range.min ? 1.0f : width) / 255.0f;
  if (*scale == 0.0f) *scale = 0x1p-149f;  // a width of a few subnormals
  const float z = 0.0f - range.min / *scale;
  *zero = static_cast<int32_t>(__builtin_nearbyintf(z < 0.0f ? 0.0f : z > 255.0f ? 255.0f : z));
}

}  // namespace kerf
