// The SIMD vocabulary on AVX-512 F/BW/DQ/VL: sixteen lanes, real masks. Contracts: generic/simd.h.
#pragma once
#include <immintrin.h>
#include "../../core/elem.h"
#include "../../core/target.h"

namespace kerf::KERF_TARGET {

constexpr int W = 16;
constexpr bool kFused = true;

using vf = __m512;
using vi = __m512i;
using vm = __mmask16;

KERF_INLINE vf set1(float x) { return _mm512_set1_ps(x); }
KERF_INLINE vi set1i(int32_t x) { return _mm512_set1_epi32(x); }

KERF_INLINE vi as_int(vf a) { return _mm512_castps_si512(a); }
KERF_INLINE vf as_float(vi a) { return _mm512_castsi512_ps(a); }

KERF_INLINE vf add(vf a, vf b) { return _mm512_add_ps(a, b); }
KERF_INLINE vf sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
KERF_INLINE vf mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
KERF_INLINE vf div(vf a, vf b) { return _mm512_div_ps(a, b); }
KERF_INLINE vf fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
KERF_INLINE vf fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a * b

KERF_INLINE vm lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
KERF_INLINE vm le(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
KERF_INLINE vm gt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
KERF_INLINE vm ge(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
KERF_INLINE vm eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
KERF_INLINE vm ne(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }  // true where unordered
KERF_INLINE vm is_nan(vf a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }

KERF_INLINE vm mask_and(vm a, vm b) { return static_cast<vm>(a & b); }
KERF_INLINE vm mask_or(vm a, vm b) { return static_cast<vm>(a | b); }
KERF_INLINE vm mask_not(vm a) { return static_cast<vm>(~a); }
KERF_INLINE bool any(vm m) { return m != 0; }
KERF_INLINE uint32_t mask_bits(vm m) { return m; }  // bit i = lane i

KERF_INLINE vf select(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
KERF_INLINE vi select_i(vm m, vi a, vi b) { return _mm512_mask_blend_epi32(m, b, a); }

KERF_INLINE vf max(vf a, vf b) { return _mm512_max_ps(a, b); }
KERF_INLINE vf min(vf a, vf b) { return _mm512_min_ps(a, b); }

KERF_INLINE vf bit_and(vf a, vf b) { return _mm512_and_ps(a, b); }
KERF_INLINE vf bit_or(vf a, vf b) { return _mm512_or_ps(a, b); }
KERF_INLINE vf bit_xor(vf a, vf b) { return _mm512_xor_ps(a, b); }
KERF_INLINE vf abs(vf a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
KERF_INLINE vf neg(vf a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
KERF_INLINE vf copysign(vf magnitude, vf sign) {
  vf bit = _mm512_set1_ps(-0.0f);
  return _mm512_or_ps(_mm512_andnot_ps(bit, magnitude), _mm512_and_ps(bit, sign));
}

KERF_INLINE vi add_i(vi a, vi b) { return _mm512_add_epi32(a, b); }
KERF_INLINE vi sub_i(vi a, vi b) { return _mm512_sub_epi32(a, b); }
KERF_INLINE vi and_i(vi a, vi b) { return _mm512_and_si512(a, b); }
KERF_INLINE vi or_i(vi a, vi b) { return _mm512_or_si512(a, b); }
KERF_INLINE vi xor_i(vi a, vi b) { return _mm512_xor_si512(a, b); }
KERF_INLINE vm eq_i(vi a, vi b) { return _mm512_cmpeq_epi32_mask(a, b); }
KERF_INLINE vm gt_i(vi a, vi b) { return _mm512_cmpgt_epi32_mask(a, b); }
template <int bits> KERF_INLINE vi shift_left(vi a) { return _mm512_slli_epi32(a, bits); }
template <int bits> KERF_INLINE vi shift_right(vi a) { return _mm512_srai_epi32(a, bits); }  // keeps the sign

KERF_INLINE vf to_float32(vi a) { return _mm512_cvtepi32_ps(a); }
KERF_INLINE vi to_int(vf a) { return _mm512_cvtps_epi32(a); }

KERF_INLINE vf sqrt(vf a) { return _mm512_sqrt_ps(a); }
KERF_INLINE vf round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
KERF_INLINE vf floor(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
KERF_INLINE vf ceil(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC); }

KERF_INLINE vf widen_f16(__m256i h) { return _mm512_cvtph_ps(h); }
KERF_INLINE __m256i narrow_f16(vf a) { return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
KERF_INLINE vf widen_bf16(__m256i h) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
KERF_INLINE __m256i narrow_bf16(vf a) {
  vi u = as_int(a);
  vi top = _mm512_srli_epi32(u, 16);
  vi bias = _mm512_add_epi32(_mm512_and_si512(top, set1i(1)), set1i(0x7fff));
  vi rounded = _mm512_srli_epi32(_mm512_add_epi32(u, bias), 16);
  vi r = _mm512_mask_or_epi32(rounded, is_nan(a), top, set1i(0x40));
  return _mm512_cvtepi32_epi16(r);
}

KERF_INLINE vf load(const float* p) { return _mm512_loadu_ps(p); }
KERF_INLINE vf load(const f16* p) { return widen_f16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
KERF_INLINE vf load(const bf16* p) { return widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
KERF_INLINE void store(float* p, vf a) { _mm512_storeu_ps(p, a); }
KERF_INLINE void store(f16* p, vf a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow_f16(a)); }
KERF_INLINE void store(bf16* p, vf a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow_bf16(a)); }

KERF_INLINE __mmask16 tail_mask(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }

KERF_INLINE vf load_n(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(tail_mask(n), p); }
KERF_INLINE vf load_n(const f16* p, int64_t n) { return widen_f16(_mm256_maskz_loadu_epi16(tail_mask(n), p)); }
KERF_INLINE vf load_n(const bf16* p, int64_t n) { return widen_bf16(_mm256_maskz_loadu_epi16(tail_mask(n), p)); }
KERF_INLINE void store_n(float* p, vf a, int64_t n) { _mm512_mask_storeu_ps(p, tail_mask(n), a); }
KERF_INLINE void store_n(f16* p, vf a, int64_t n) { _mm256_mask_storeu_epi16(p, tail_mask(n), narrow_f16(a)); }
KERF_INLINE void store_n(bf16* p, vf a, int64_t n) { _mm256_mask_storeu_epi16(p, tail_mask(n), narrow_bf16(a)); }
KERF_INLINE void store_i(int32_t* p, vi a) { _mm512_storeu_si512(p, a); }

KERF_INLINE void store_mask(uint8_t* p, vm m) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_maskz_set1_epi8(m, 1));
}
KERF_INLINE void store_mask_n(uint8_t* p, vm m, int64_t n) {
  _mm_mask_storeu_epi8(p, tail_mask(n), _mm_maskz_set1_epi8(m, 1));
}

// Written out rather than _mm512_reduce_*: the order is part of the contract.
KERF_INLINE __m256 upper_half(vf a) { return _mm512_extractf32x8_ps(a, 1); }
KERF_INLINE float reduce_add(vf a) {
  __m256 q = _mm256_add_ps(_mm512_castps512_ps256(a), upper_half(a));
  __m128 h = _mm_add_ps(_mm256_castps256_ps128(q), _mm256_extractf128_ps(q, 1));
  h = _mm_add_ps(h, _mm_movehl_ps(h, h));
  return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}
KERF_INLINE float reduce_max(vf a) {
  __m256 q = _mm256_max_ps(_mm512_castps512_ps256(a), upper_half(a));
  __m128 h = _mm_max_ps(_mm256_castps256_ps128(q), _mm256_extractf128_ps(q, 1));
  h = _mm_max_ps(h, _mm_movehl_ps(h, h));
  return _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
}
KERF_INLINE float reduce_min(vf a) {
  __m256 q = _mm256_min_ps(_mm512_castps512_ps256(a), upper_half(a));
  __m128 h = _mm_min_ps(_mm256_castps256_ps128(q), _mm256_extractf128_ps(q, 1));
  h = _mm_min_ps(h, _mm_movehl_ps(h, h));
  return _mm_cvtss_f32(_mm_min_ss(h, _mm_movehdup_ps(h)));
}

}  // namespace kerf::KERF_TARGET
