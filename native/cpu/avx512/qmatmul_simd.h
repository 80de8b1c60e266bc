// What the int8 kernels need beyond simd.h on AVX-512. Contracts: generic/qmatmul_simd.h.
#pragma once
#include "matmul_simd.h"

namespace kerf::KERF_TARGET {

KERF_INLINE vi load_i(const int32_t* p) { return _mm512_loadu_si512(p); }
KERF_INLINE vi load_in(const int32_t* p, int64_t n) { return _mm512_maskz_loadu_epi32(tail_mask(n), p); }
KERF_INLINE void store_in(int32_t* p, vi a, int64_t n) { _mm512_mask_storeu_epi32(p, tail_mask(n), a); }
KERF_INLINE vi mul_i(vi a, vi b) { return _mm512_mullo_epi32(a, b); }

KERF_INLINE __m128i sixteen_bytes(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
KERF_INLINE vi load_u8(const uint8_t* p) { return _mm512_cvtepu8_epi32(sixteen_bytes(p)); }
KERF_INLINE vi load_s8(const int8_t* p) { return _mm512_cvtepi8_epi32(sixteen_bytes(p)); }
KERF_INLINE vi load_u8_n(const uint8_t* p, int64_t n) {
  return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(tail_mask(n), p));
}
KERF_INLINE vi load_s8_n(const int8_t* p, int64_t n) {
  return _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(tail_mask(n), p));
}
KERF_INLINE void store_bytes(void* p, vi a) {
  _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
}
KERF_INLINE void store_bytes_n(void* p, vi a, int64_t n) {
  _mm_mask_storeu_epi8(p, tail_mask(n), _mm512_cvtepi32_epi8(a));
}

KERF_INLINE vi madd(vi a, vi b) { return _mm512_madd_epi16(a, b); }
KERF_INLINE vi dot_pairs(const uint8_t* p) {
  const vi q = _mm512_cvtepu32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  const vi both = _mm512_or_si512(q, _mm512_slli_epi64(_mm512_srli_epi64(q, 8), 32));
  return _mm512_and_si512(both, _mm512_set1_epi32(0x00ff00ff));
}
KERF_INLINE vi even_bytes(vi q) { return _mm512_srai_epi16(_mm512_slli_epi16(q, 8), 8); }
KERF_INLINE vi odd_bytes(vi q) { return _mm512_srai_epi16(q, 8); }

}  // namespace kerf::KERF_TARGET
