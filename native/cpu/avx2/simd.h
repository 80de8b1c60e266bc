// The SIMD vocabulary on AVX2 + FMA + F16C: eight lanes. Contracts: generic/simd.h.
#pragma once
#include <immintrin.h>
#include "../../core/elem.h"
#include "../../core/target.h"

namespace kerf::KERF_TARGET {

constexpr int W = 8;
constexpr bool kFused = true;

using vf = __m256;
using vi = __m256i;
using vm = __m256;  // lanes are all zeros or all ones

KERF_INLINE vf set1(float x) { return _mm256_set1_ps(x); }
KERF_INLINE vi set1i(int32_t x) { return _mm256_set1_epi32(x); }

KERF_INLINE vi as_int(vf a) { return _mm256_castps_si256(a); }
KERF_INLINE vf as_float(vi a) { return _mm256_castsi256_ps(a); }

KERF_INLINE vf add(vf a, vf b) { return _mm256_add_ps(a, b); }
KERF_INLINE vf sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
KERF_INLINE vf mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
KERF_INLINE vf div(vf a, vf b) { return _mm256_div_ps(a, b); }
KERF_INLINE vf fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
KERF_INLINE vf fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }  // c - a * b

KERF_INLINE vm lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
KERF_INLINE vm le(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
KERF_INLINE vm gt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
KERF_INLINE vm ge(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_GE_OQ); }
KERF_INLINE vm eq(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
KERF_INLINE vm ne(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_NEQ_UQ); }  // true where unordered
KERF_INLINE vm is_nan(vf a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }

KERF_INLINE vm mask_and(vm a, vm b) { return _mm256_and_ps(a, b); }
KERF_INLINE vm mask_or(vm a, vm b) { return _mm256_or_ps(a, b); }
KERF_INLINE vm mask_not(vm a) { return _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(-1))); }
KERF_INLINE bool any(vm m) { return !_mm256_testz_ps(m, m); }
KERF_INLINE uint32_t mask_bits(vm m) { return static_cast<uint32_t>(_mm256_movemask_ps(m)); }  // bit i = lane i

KERF_INLINE vf select(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }
KERF_INLINE vi select_i(vm m, vi a, vi b) { return _mm256_blendv_epi8(b, a, _mm256_castps_si256(m)); }

KERF_INLINE vf max(vf a, vf b) { return _mm256_max_ps(a, b); }
KERF_INLINE vf min(vf a, vf b) { return _mm256_min_ps(a, b); }

KERF_INLINE vf bit_and(vf a, vf b) { return _mm256_and_ps(a, b); }
KERF_INLINE vf bit_or(vf a, vf b) { return _mm256_or_ps(a, b); }
KERF_INLINE vf bit_xor(vf a, vf b) { return _mm256_xor_ps(a, b); }
KERF_INLINE vf abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
KERF_INLINE vf neg(vf a) { return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f)); }
KERF_INLINE vf copysign(vf magnitude, vf sign) {
  vf bit = _mm256_set1_ps(-0.0f);
  return _mm256_or_ps(_mm256_andnot_ps(bit, magnitude), _mm256_and_ps(bit, sign));
}

KERF_INLINE vi add_i(vi a, vi b) { return _mm256_add_epi32(a, b); }
KERF_INLINE vi sub_i(vi a, vi b) { return _mm256_sub_epi32(a, b); }
KERF_INLINE vi and_i(vi a, vi b) { return _mm256_and_si256(a, b); }
KERF_INLINE vi or_i(vi a, vi b) { return _mm256_or_si256(a, b); }
KERF_INLINE vi xor_i(vi a, vi b) { return _mm256_xor_si256(a, b); }
KERF_INLINE vm eq_i(vi a, vi b) { return _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b)); }
KERF_INLINE vm gt_i(vi a, vi b) { return _mm256_castsi256_ps(_mm256_cmpgt_epi32(a, b)); }
template <int bits> KERF_INLINE vi shift_left(vi a) { return _mm256_slli_epi32(a, bits); }
template <int bits> KERF_INLINE vi shift_right(vi a) { return _mm256_srai_epi32(a, bits); }  // keeps the sign

KERF_INLINE vf to_float32(vi a) { return _mm256_cvtepi32_ps(a); }
KERF_INLINE vi to_int(vf a) { return _mm256_cvtps_epi32(a); }

KERF_INLINE vf sqrt(vf a) { return _mm256_sqrt_ps(a); }
KERF_INLINE vf round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
KERF_INLINE vf floor(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
KERF_INLINE vf ceil(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC); }

KERF_INLINE vf widen_f16(__m128i h) { return _mm256_cvtph_ps(h); }
KERF_INLINE __m128i narrow_f16(vf a) { return _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
KERF_INLINE vf widen_bf16(__m128i h) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
KERF_INLINE __m128i narrow_bf16(vf a) {
  vi u = as_int(a);
  vi top = _mm256_srli_epi32(u, 16);
  vi bias = _mm256_add_epi32(_mm256_and_si256(top, set1i(1)), set1i(0x7fff));
  vi rounded = _mm256_srli_epi32(_mm256_add_epi32(u, bias), 16);
  vi nan = _mm256_or_si256(top, set1i(0x40));
  vi r = select_i(is_nan(a), nan, rounded);
  return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0x08));
}

KERF_INLINE vf load(const float* p) { return _mm256_loadu_ps(p); }
KERF_INLINE vf load(const f16* p) { return widen_f16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
KERF_INLINE vf load(const bf16* p) { return widen_bf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
KERF_INLINE void store(float* p, vf a) { _mm256_storeu_ps(p, a); }
KERF_INLINE void store(f16* p, vf a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow_f16(a)); }
KERF_INLINE void store(bf16* p, vf a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow_bf16(a)); }

alignas(64) static const int32_t kTailMask[2 * W] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
KERF_INLINE vi tail_mask(int64_t n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kTailMask + W - n));
}

// AVX2 has no masked 16-bit access.
KERF_INLINE __m128i load_half_n(const void* p, int64_t n) {
  alignas(16) uint16_t bits[W] = {};
  for (int i = 0; i < n; i++) memcpy(bits + i, static_cast<const char*>(p) + 2 * i, 2);
  return _mm_load_si128(reinterpret_cast<const __m128i*>(bits));
}
KERF_INLINE void store_half_n(void* p, __m128i h, int64_t n) {
  alignas(16) uint16_t bits[W];
  _mm_store_si128(reinterpret_cast<__m128i*>(bits), h);
  for (int i = 0; i < n; i++) memcpy(static_cast<char*>(p) + 2 * i, bits + i, 2);
}

KERF_INLINE vf load_n(const float* p, int64_t n) { return _mm256_maskload_ps(p, tail_mask(n)); }
KERF_INLINE vf load_n(const f16* p, int64_t n) { return widen_f16(load_half_n(p, n)); }
KERF_INLINE vf load_n(const bf16* p, int64_t n) { return widen_bf16(load_half_n(p, n)); }
KERF_INLINE void store_n(float* p, vf a, int64_t n) { _mm256_maskstore_ps(p, tail_mask(n), a); }
KERF_INLINE void store_n(f16* p, vf a, int64_t n) { store_half_n(p, narrow_f16(a), n); }
KERF_INLINE void store_n(bf16* p, vf a, int64_t n) { store_half_n(p, narrow_bf16(a), n); }
KERF_INLINE void store_i(int32_t* p, vi a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a); }

KERF_INLINE uint64_t mask_bytes(vm m) {
  __m256i lanes = _mm256_srli_epi32(_mm256_castps_si256(m), 31);
  __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(_mm_packus_epi16(words, words)));
}
KERF_INLINE void store_mask(uint8_t* p, vm m) { uint64_t b = mask_bytes(m); memcpy(p, &b, 8); }
KERF_INLINE void store_mask_n(uint8_t* p, vm m, int64_t n) {
  uint64_t b = mask_bytes(m);
  for (int i = 0; i < n; i++, b >>= 8) p[i] = static_cast<uint8_t>(b);
}

KERF_INLINE float reduce_add(vf a) {
  __m128 h = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  h = _mm_add_ps(h, _mm_movehl_ps(h, h));
  return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}
KERF_INLINE float reduce_max(vf a) {
  __m128 h = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  h = _mm_max_ps(h, _mm_movehl_ps(h, h));
  return _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
}
KERF_INLINE float reduce_min(vf a) {
  __m128 h = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  h = _mm_min_ps(h, _mm_movehl_ps(h, h));
  return _mm_cvtss_f32(_mm_min_ss(h, _mm_movehdup_ps(h)));
}

}  // namespace kerf::KERF_TARGET
