// Scale and zero point of dynamic quantization, shared by the kernels that fuse it and the op that does not.
#pragma once
#include "elem.h"

namespace kerf {

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
