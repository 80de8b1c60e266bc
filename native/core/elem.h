// The 16-bit float formats as bit patterns, and their exact conversions.
//
// Everything is KERF_INLINE (static, always inlined): a translation unit built with AVX-512 flags must not
// emit a weak symbol that baseline code could end up calling.
#pragma once
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define KERF_INLINE static inline __host__ __device__ __attribute__((always_inline))
#else
#define KERF_INLINE static inline __attribute__((always_inline))
#endif

namespace kerf {

using i64 = int64_t;
using f64 = double;

struct f16 { uint16_t bits; };
struct bf16 { uint16_t bits; };

KERF_INLINE float bits_to_float(uint32_t bits) { float f; memcpy(&f, &bits, 4); return f; }
KERF_INLINE uint32_t float_to_bits(float f) { uint32_t bits; memcpy(&bits, &f, 4); return bits; }

KERF_INLINE float to_float(float f) { return f; }

KERF_INLINE float to_float(bf16 h) { return bits_to_float(static_cast<uint32_t>(h.bits) << 16); }

// Round to nearest even; NaN stays NaN (quietened, so that truncation cannot turn it into infinity).
KERF_INLINE bf16 to_bf16(float f) {
  uint32_t u = float_to_bits(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return bf16{static_cast<uint16_t>((u >> 16) | 0x40u)};
  return bf16{static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

KERF_INLINE float to_float(f16 h) {
  uint32_t sign = static_cast<uint32_t>(h.bits & 0x8000u) << 16;
  uint32_t magnitude = h.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return bits_to_float(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));  // inf, NaN
  if (magnitude < 0x0400u) {  // zero, subnormal: magnitude * 2^-24 is exact in float32
    float value = static_cast<float>(magnitude) * 0x1p-24f;
    return bits_to_float(sign | float_to_bits(value));
  }
  return bits_to_float(sign | ((magnitude << 13) + 0x38000000u));  // rebias the exponent: (127 - 15) << 23
}

// Round to nearest even, overflow to infinity, NaN stays NaN.
KERF_INLINE f16 to_f16(float f) {
  uint32_t u = float_to_bits(f);
  uint16_t sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return f16{static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu))};
  if (magnitude >= 0x477ff000u) return f16{static_cast<uint16_t>(sign | 0x7c00u)};  // >= 65520 rounds to infinity
  if (magnitude < 0x38800000u) {  // below 2^-14: adding 0.5 leaves a multiple of 2^-24, rounded to even by the adder
    float rounded = bits_to_float(magnitude) + 0.5f;
    return f16{static_cast<uint16_t>(sign | (float_to_bits(rounded) - 0x3f000000u))};
  }
  uint32_t odd = (magnitude >> 13) & 1u;
  return f16{static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13))};
}

}  // namespace kerf
