// The SIMD vocabulary in portable C++: four lanes in the compilers' vector extension (SSE2 or NEON where the baseline
// has them, plain code elsewhere). The words and their contracts are the same in every target's simd.h:
//
//   vf, vi, vm      W lanes of float32, of int32, and a mask
//   load, store     W elements of float, f16 or bf16, any alignment; f16/bf16 widen exactly and round to nearest even
//   load_n, store_n the first n lanes, 0 <= n <= W: lanes beyond n read as zero and are not written
//   store_mask      one byte a lane, 0 or 1
//   fma(a, b, c)    a * b + c, fused or not: code built on it must be accurate either way
//   max, min        b where either is NaN
//   to_int          rounds to nearest even; the caller keeps |x| below 2^31
//   reduce_*        folds the upper half onto the lower until one lane is left: a fixed order
#pragma once
#include "../../core/elem.h"
#include "../../core/target.h"

namespace kerf::KERF_TARGET {

constexpr int W = 4;
constexpr bool kFused = false;  // whether fma and fnma round once

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef int32_t vm __attribute__((vector_size(16)));  // lanes are 0 or -1
typedef uint16_t half_bits __attribute__((vector_size(8)));

KERF_INLINE vf set1(float x) { return vf{x, x, x, x}; }
KERF_INLINE vi set1i(int32_t x) { return vi{x, x, x, x}; }

// Integers wrap around, which C++ grants to unsigned lanes only.
typedef uint32_t vu __attribute__((vector_size(16)));
KERF_INLINE vi add_i(vi a, vi b) { return (vi)((vu)a + (vu)b); }
KERF_INLINE vi sub_i(vi a, vi b) { return (vi)((vu)a - (vu)b); }

KERF_INLINE vi as_int(vf a) { return (vi)a; }
KERF_INLINE vf as_float(vi a) { return (vf)a; }

KERF_INLINE vf add(vf a, vf b) { return a + b; }
KERF_INLINE vf sub(vf a, vf b) { return a - b; }
KERF_INLINE vf mul(vf a, vf b) { return a * b; }
KERF_INLINE vf div(vf a, vf b) { return a / b; }
KERF_INLINE vf fma(vf a, vf b, vf c) { return a * b + c; }
KERF_INLINE vf fnma(vf a, vf b, vf c) { return c - a * b; }  // c - a * b

KERF_INLINE vm lt(vf a, vf b) { return a < b; }
KERF_INLINE vm le(vf a, vf b) { return a <= b; }
KERF_INLINE vm gt(vf a, vf b) { return a > b; }
KERF_INLINE vm ge(vf a, vf b) { return a >= b; }
KERF_INLINE vm eq(vf a, vf b) { return a == b; }
KERF_INLINE vm ne(vf a, vf b) { return a != b; }  // true where unordered
KERF_INLINE vm is_nan(vf a) { return a != a; }

KERF_INLINE vm mask_and(vm a, vm b) { return a & b; }
KERF_INLINE vm mask_or(vm a, vm b) { return a | b; }
KERF_INLINE vm mask_not(vm a) { return ~a; }
KERF_INLINE bool any(vm m) { return (m[0] | m[1] | m[2] | m[3]) != 0; }
KERF_INLINE uint32_t mask_bits(vm m) { return (m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8); }  // bit i = lane i

KERF_INLINE vf select(vm m, vf a, vf b) { return m ? a : b; }
KERF_INLINE vi select_i(vm m, vi a, vi b) { return m ? a : b; }

KERF_INLINE vf max(vf a, vf b) { return a > b ? a : b; }
KERF_INLINE vf min(vf a, vf b) { return a < b ? a : b; }

KERF_INLINE vf bit_and(vf a, vf b) { return (vf)((vi)a & (vi)b); }
KERF_INLINE vf bit_or(vf a, vf b) { return (vf)((vi)a | (vi)b); }
KERF_INLINE vf bit_xor(vf a, vf b) { return (vf)((vi)a ^ (vi)b); }
KERF_INLINE vf abs(vf a) { return (vf)((vi)a & set1i(0x7fffffff)); }
KERF_INLINE vf neg(vf a) { return (vf)((vi)a ^ set1i(INT32_MIN)); }
KERF_INLINE vf copysign(vf magnitude, vf sign) {
  return (vf)(((vi)magnitude & set1i(0x7fffffff)) | ((vi)sign & set1i(INT32_MIN)));
}

KERF_INLINE vi and_i(vi a, vi b) { return a & b; }
KERF_INLINE vi or_i(vi a, vi b) { return a | b; }
KERF_INLINE vi xor_i(vi a, vi b) { return a ^ b; }
KERF_INLINE vm eq_i(vi a, vi b) { return a == b; }
KERF_INLINE vm gt_i(vi a, vi b) { return a > b; }
template <int bits> KERF_INLINE vi shift_left(vi a) { return a << bits; }
template <int bits> KERF_INLINE vi shift_right(vi a) { return a >> bits; }  // keeps the sign

KERF_INLINE vf to_float32(vi a) { return __builtin_convertvector(a, vf); }

KERF_INLINE vf sqrt(vf a) {
  return vf{__builtin_sqrtf(a[0]), __builtin_sqrtf(a[1]), __builtin_sqrtf(a[2]), __builtin_sqrtf(a[3])};
}
// Adding 2^23 leaves no bits below one, so the adder itself rounds to even.
KERF_INLINE vf round(vf a) {
  vf magnitude = abs(a);
  vf rounded = (magnitude + set1(0x1p23f)) - set1(0x1p23f);
  return magnitude < set1(0x1p23f) ? copysign(rounded, a) : a;
}
KERF_INLINE vf floor(vf a) {
  vf r = round(a);
  return r > a ? r - set1(1.0f) : r;
}
KERF_INLINE vf ceil(vf a) {
  vf r = round(a);
  return copysign(r < a ? r + set1(1.0f) : r, a);
}
KERF_INLINE vi to_int(vf a) { return __builtin_convertvector(round(a), vi); }

// The same arithmetic as elem.h, without branches.
KERF_INLINE vf widen_f16(half_bits h) {
  vi u = __builtin_convertvector(h, vi);
  vi sign = (u & set1i(0x8000)) << 16;
  vi magnitude = u & set1i(0x7fff);
  vi normal = (magnitude << 13) + set1i(0x38000000);
  normal = magnitude >= set1i(0x7c00) ? normal + set1i(0x38000000) : normal;
  vi subnormal = as_int(to_float32(magnitude) * set1(0x1p-24f));
  return as_float((magnitude < set1i(0x0400) ? subnormal : normal) | sign);
}
KERF_INLINE half_bits narrow_f16(vf a) {
  vi u = as_int(a);
  vi sign = (u >> 16) & set1i(0x8000);
  vi magnitude = u & set1i(0x7fffffff);
  vi normal = add_i(sub_i(magnitude, set1i(0x38000000 - 0xfff)), (magnitude >> 13) & set1i(1)) >> 13;
  vi subnormal = sub_i(as_int(as_float(magnitude) + set1(0.5f)), set1i(0x3f000000));
  vi nan = set1i(0x7e00) | ((magnitude >> 13) & set1i(0x3ff));
  vi r = magnitude < set1i(0x38800000) ? subnormal : normal;
  r = magnitude >= set1i(0x477ff000) ? set1i(0x7c00) : r;
  r = magnitude > set1i(0x7f800000) ? nan : r;
  return __builtin_convertvector(r | sign, half_bits);
}
KERF_INLINE vf widen_bf16(half_bits h) { return as_float(__builtin_convertvector(h, vi) << 16); }
KERF_INLINE half_bits narrow_bf16(vf a) {
  vi u = as_int(a);
  vi rounded = add_i(add_i(u, set1i(0x7fff)), (u >> 16) & set1i(1)) >> 16;
  vi nan = (u >> 16) | set1i(0x40);
  return __builtin_convertvector(a != a ? nan : rounded, half_bits);
}

KERF_INLINE vf load(const float* p) { vf r; memcpy(&r, p, sizeof r); return r; }
KERF_INLINE vf load(const f16* p) { half_bits h; memcpy(&h, p, sizeof h); return widen_f16(h); }
KERF_INLINE vf load(const bf16* p) { half_bits h; memcpy(&h, p, sizeof h); return widen_bf16(h); }
KERF_INLINE void store(float* p, vf a) { memcpy(p, &a, sizeof a); }
KERF_INLINE void store(f16* p, vf a) { half_bits h = narrow_f16(a); memcpy(p, &h, sizeof h); }
KERF_INLINE void store(bf16* p, vf a) { half_bits h = narrow_bf16(a); memcpy(p, &h, sizeof h); }

KERF_INLINE vf load_n(const float* p, int64_t n) {
  vf r = set1(0.0f);
  for (int i = 0; i < n; i++) r[i] = p[i];
  return r;
}
KERF_INLINE vf load_n(const f16* p, int64_t n) {
  vf r = set1(0.0f);
  for (int i = 0; i < n; i++) r[i] = kerf::to_float(p[i]);
  return r;
}
KERF_INLINE vf load_n(const bf16* p, int64_t n) {
  vf r = set1(0.0f);
  for (int i = 0; i < n; i++) r[i] = kerf::to_float(p[i]);
  return r;
}
KERF_INLINE void store_n(float* p, vf a, int64_t n) { for (int i = 0; i < n; i++) p[i] = a[i]; }
KERF_INLINE void store_n(f16* p, vf a, int64_t n) {
  half_bits h = narrow_f16(a);
  for (int i = 0; i < n; i++) p[i].bits = h[i];
}
KERF_INLINE void store_n(bf16* p, vf a, int64_t n) {
  half_bits h = narrow_bf16(a);
  for (int i = 0; i < n; i++) p[i].bits = h[i];
}
KERF_INLINE void store_i(int32_t* p, vi a) { memcpy(p, &a, sizeof a); }

typedef uint8_t mask_bytes __attribute__((vector_size(4)));
KERF_INLINE void store_mask(uint8_t* p, vm m) {
  mask_bytes b = __builtin_convertvector(m & set1i(1), mask_bytes);
  memcpy(p, &b, sizeof b);
}
KERF_INLINE void store_mask_n(uint8_t* p, vm m, int64_t n) { for (int i = 0; i < n; i++) p[i] = m[i] & 1; }

KERF_INLINE float reduce_add(vf a) { return (a[0] + a[2]) + (a[1] + a[3]); }
KERF_INLINE float reduce_max(vf a) {
  vf h = max(a, vf{a[2], a[3], a[2], a[3]});
  return h[0] > h[1] ? h[0] : h[1];
}
KERF_INLINE float reduce_min(vf a) {
  vf h = min(a, vf{a[2], a[3], a[2], a[3]});
  return h[0] < h[1] ? h[0] : h[1];
}

}  // namespace kerf::KERF_TARGET
