// What the int8 kernels need beyond simd.h on AVX2. Contracts: generic/qmatmul_simd.h.
#pragma once
#include "matmul_simd.h"

namespace kerf::KERF_TARGET {

KERF_INLINE vi load_i(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
KERF_INLINE vi load_in(const int32_t* p, int64_t n) { return _mm256_maskload_epi32(p, tail_mask(n)); }
KERF_INLINE void store_in(int32_t* p, vi a, int64_t n) { _mm256_maskstore_epi32(p, tail_mask(n), a); }
KERF_INLINE vi mul_i(vi a, vi b) { return _mm256_mullo_epi32(a, b); }

KERF_INLINE __m128i eight_bytes(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }
KERF_INLINE __m128i eight_bytes_n(const void* p, int64_t n) {
  uint64_t bits = 0;
  memcpy(&bits, p, static_cast<size_t>(n));
  return _mm_cvtsi64_si128(static_cast<int64_t>(bits));
}
KERF_INLINE vi load_u8(const uint8_t* p) { return _mm256_cvtepu8_epi32(eight_bytes(p)); }
KERF_INLINE vi load_s8(const int8_t* p) { return _mm256_cvtepi8_epi32(eight_bytes(p)); }
KERF_INLINE vi load_u8_n(const uint8_t* p, int64_t n) { return _mm256_cvtepu8_epi32(eight_bytes_n(p, n)); }
KERF_INLINE vi load_s8_n(const int8_t* p, int64_t n) { return _mm256_cvtepi8_epi32(eight_bytes_n(p, n)); }

KERF_INLINE int64_t low_bytes(vi a) {
  const __m256i gather = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,  //
                                          0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i halves = _mm256_shuffle_epi8(a, gather);
  return _mm_cvtsi128_si64(_mm_unpacklo_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1)));
}
KERF_INLINE void store_bytes(void* p, vi a) {
  const int64_t bits = low_bytes(a);
  memcpy(p, &bits, 8);
}
KERF_INLINE void store_bytes_n(void* p, vi a, int64_t n) {
  const int64_t bits = low_bytes(a);
  memcpy(p, &bits, static_cast<size_t>(n));
}

KERF_INLINE vi madd(vi a, vi b) { return _mm256_madd_epi16(a, b); }
KERF_INLINE vi dot_pairs(const uint8_t* p) {
  const vi q = _mm256_cvtepu32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const vi both = _mm256_or_si256(q, _mm256_slli_epi64(_mm256_srli_epi64(q, 8), 32));
  return _mm256_and_si256(both, _mm256_set1_epi32(0x00ff00ff));
}
KERF_INLINE vi even_bytes(vi q) { return _mm256_srai_epi16(_mm256_slli_epi16(q, 8), 8); }
KERF_INLINE vi odd_bytes(vi q) { return _mm256_srai_epi16(q, 8); }

}  // namespace kerf::KERF_TARGET
