// The 16-bit float formats. The exact conversions are those of the CPU kernels (native/core/elem.h), which have tests
// of their own; the device has instructions with the same rounding.
#pragma once
#include <cmath>
#include <cstring>
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

inline float low_of(f16, uint32_t pair) { return kerf::to_float(kerf::f16{static_cast<uint16_t>(pair)}); }
inline float low_of(bf16, uint32_t pair) { return kerf::to_float(kerf::bf16{static_cast<uint16_t>(pair)}); }

// a b + c of pairs. float64 holds products of 16-bit numbers exactly; their sum with c is exact wherever kernels use
// this (whole numbers below 2^24), and is rounded once more on the way through float where it is not.
template <class T>
uint32_t fma2(T, uint32_t a, uint32_t b, uint32_t c) {
  auto one = [&](int shift) {
    double product = double(low_of(T{}, a >> shift)) * double(low_of(T{}, b >> shift));
    return static_cast<float>(product + double(low_of(T{}, c >> shift)));
  };
  return pack2(T{}, one(0), one(16));
}

inline float multiply(float a, float b) { return a * b; }

inline float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

inline uint32_t permute_bytes(uint32_t low, uint32_t high, uint32_t selector) {
  uint64_t bytes = low | static_cast<uint64_t>(high) << 32;
  uint32_t r = 0;
  for (int i = 0; i < 4; i++) r |= static_cast<uint32_t>(bytes >> (selector >> (4 * i) & 7) * 8 & 0xff) << (8 * i);
  return r;
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
