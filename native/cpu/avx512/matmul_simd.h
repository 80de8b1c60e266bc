// What matmul needs beyond simd.h on AVX-512.
#pragma once
#include "simd.h"

namespace kerf::KERF_TARGET {

// r[i] lane j becomes r[j] lane i: 2 x 2 blocks of 1, 2, 4 and 8 lanes change places.
KERF_INLINE void transpose(vf (&r)[W]) {
  vf t[W];
#pragma GCC unroll 8
  for (int i = 0; i < W; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < W; i += 4) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; j++) {
      __m512d low = _mm512_castps_pd(t[i + j]), high = _mm512_castps_pd(t[i + 2 + j]);
      r[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      r[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  }
  // r[4 g + c] now holds column c of every 4-lane block of rows 4 g .. 4 g + 3
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    vf low01 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88), high01 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
    vf low23 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
    vf high23 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
    t[c] = _mm512_shuffle_f32x4(low01, low23, 0x88);
    t[8 + c] = _mm512_shuffle_f32x4(low01, low23, 0xdd);
    t[4 + c] = _mm512_shuffle_f32x4(high01, high23, 0x88);
    t[12 + c] = _mm512_shuffle_f32x4(high01, high23, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < W; i++) r[i] = t[i];
}

}  // namespace kerf::KERF_TARGET
