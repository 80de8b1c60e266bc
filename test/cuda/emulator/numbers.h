// The 16-bit float formats. The exact conversions are those of the CPU kernels (native/core/elem.h), which have tests
// of their own; the device has instructions with the same rounding.
#pragma once
#include <cmath>
#include <type_traits>
#include <vector>

#include "native/core/elem.h"
#include "native/cuda/types.h"

namespace cu {

inline uint32_t pack2(f16, float low, float high) {
  return kerf::to_f16(low).bits | static_cast<uint32_t>(kerf::to_f16(high).bits) << 16;
}
inline uint32_t pack2(bf16, float low, float high) {
  return kerf::to_bf16(low).bits | static_cast<uint32_t>(kerf::to_bf16(high).bits) << 16;
}

namespace emu {

// A product of 256^3 converts 100 million operands: a table of all float16 numbers.
inline float f16_value(uint16_t bits) {
  static const std::vector<float> values = [] {
    std::vector<float> all(65536);
    for (int i = 0; i < 65536; i++) all[i] = kerf::to_float(kerf::f16{static_cast<uint16_t>(i)});
    return all;
  }();
  return values[bits];
}

// `bytes` of operands of type T as numbers in which their products are exact.
inline void widen(f16, const uint8_t* from, int bytes, float* to) {
  for (int i = 0; i < bytes / 2; i++) {
    uint16_t bits;
    memcpy(&bits, from + 2 * i, 2);
    to[i] = f16_value(bits);
  }
}
inline void widen(bf16, const uint8_t* from, int bytes, float* to) {
  for (int i = 0; i < bytes / 2; i++) {
    uint16_t bits;
    memcpy(&bits, from + 2 * i, 2);
    to[i] = kerf::to_float(kerf::bf16{bits});
  }
}
inline void widen(s8, const uint8_t* from, int bytes, int* to) {
  for (int i = 0; i < bytes; i++) to[i] = static_cast<int8_t>(from[i]);
}

}  // namespace emu
}  // namespace cu
