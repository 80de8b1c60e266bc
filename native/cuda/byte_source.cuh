// What products and convolutions of bytes read: elements of any dtype as int8.
#pragma once
#include "../core/affine.h"
#include "elements.cuh"

namespace kerf {
namespace cuda {

// Elements that become int8: bytes as they are, floats quantized; uint8 ones 128 less.
struct ByteSource {
  Anything a;
  Quantize quantize;  // none, to_uint8 or to_int8

  CU_FUNCTION bool is_signed() const { return quantize == Quantize::none ? a.dtype == DType::int8_ : quantize == Quantize::to_int8; }
  CU_FUNCTION int32_t flipped(int32_t value) const { return is_signed() ? value : value - 128; }
  CU_FUNCTION int32_t byte(int64_t at, float multiplier, float scale, int32_t zero) const {
    if (quantize == Quantize::none) return flipped(static_cast<int32_t>(a.get_integer(at)));
    const float low = is_signed() ? -128.0f : 0.0f, high = is_signed() ? 127.0f : 255.0f;
    return flipped(static_cast<int32_t>(quantized(a.get_float(at) * multiplier, scale, zero, low, high)) + zero);
  }
};

}  // namespace cuda
}  // namespace kerf
