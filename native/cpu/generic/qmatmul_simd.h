// What the int8 kernels need beyond simd.h, in portable C++. The words and their contracts:
//
//   load_i, load_in, store_in   W (or the first n) lanes of int32
//   mul_i                       the low 32 bits of each product
//   load_u8, load_s8            W bytes, widened; load_u8_n, load_s8_n the first n
//   store_bytes, store_bytes_n  the low byte of each lane
//   madd(a, b)                  a lane is two int16: the sum of the two products, exact in int32
//   even_bytes, odd_bytes       of each lane the bytes 0 and 2, or 1 and 3, sign-extended to two int16
//   dot_pairs(p)                W lanes for madd from W / 2 quads of bytes: of each quad (k0, k2), then (k1, k3)
#pragma once
#include "matmul_simd.h"

namespace kerf::KERF_TARGET {

typedef uint8_t u8_lanes __attribute__((vector_size(4)));
typedef int8_t s8_lanes __attribute__((vector_size(4)));

KERF_INLINE vi load_i(const int32_t* p) { vi r; memcpy(&r, p, sizeof r); return r; }
KERF_INLINE vi load_in(const int32_t* p, int64_t n) {
  vi r = set1i(0);
  for (int i = 0; i < n; i++) r[i] = p[i];
  return r;
}
KERF_INLINE void store_in(int32_t* p, vi a, int64_t n) { for (int i = 0; i < n; i++) p[i] = a[i]; }
KERF_INLINE vi mul_i(vi a, vi b) { return (vi)((vu)a * (vu)b); }

KERF_INLINE vi load_u8(const uint8_t* p) { u8_lanes b; memcpy(&b, p, sizeof b); return __builtin_convertvector(b, vi); }
KERF_INLINE vi load_s8(const int8_t* p) { s8_lanes b; memcpy(&b, p, sizeof b); return __builtin_convertvector(b, vi); }
KERF_INLINE vi load_u8_n(const uint8_t* p, int64_t n) {
  vi r = set1i(0);
  for (int i = 0; i < n; i++) r[i] = p[i];
  return r;
}
KERF_INLINE vi load_s8_n(const int8_t* p, int64_t n) {
  vi r = set1i(0);
  for (int i = 0; i < n; i++) r[i] = p[i];
  return r;
}
KERF_INLINE void store_bytes(void* p, vi a) {
  u8_lanes b = __builtin_convertvector(a & set1i(0xff), u8_lanes);
  memcpy(p, &b, sizeof b);
}
KERF_INLINE void store_bytes_n(void* p, vi a, int64_t n) {
  for (int i = 0; i < n; i++) static_cast<uint8_t*>(p)[i] = static_cast<uint8_t>(a[i]);
}

KERF_INLINE vi madd(vi a, vi b) {
  return add_i(shift_right<16>(shift_left<16>(a)) * shift_right<16>(shift_left<16>(b)),
               shift_right<16>(a) * shift_right<16>(b));
}
KERF_INLINE vi dot_pairs(const uint8_t* p) {
  uint32_t q[2];
  memcpy(q, p, sizeof q);
  const uint32_t mask = 0x00ff00ff;
  return (vi)vu{q[0] & mask, q[0] >> 8 & mask, q[1] & mask, q[1] >> 8 & mask};
}
KERF_INLINE vi even_bytes(vi q) {
  return (shift_right<24>(shift_left<24>(q)) & set1i(0xffff)) | shift_left<16>(shift_right<24>(shift_left<8>(q)));
}
KERF_INLINE vi odd_bytes(vi q) {
  return (shift_right<24>(shift_left<16>(q)) & set1i(0xffff)) | shift_left<16>(shift_right<24>(q));
}

}  // namespace kerf::KERF_TARGET
