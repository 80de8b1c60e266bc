// What matmul needs beyond simd.h on AVX2.
#pragma once
#include "simd.h"

namespace kerf::KERF_TARGET {

// r[i] lane j becomes r[j] lane i: 2 x 2 blocks of 1, 2 and 4 lanes change places.
KERF_INLINE void transpose(vf (&r)[W]) {
  vf t[W];
#pragma GCC unroll 4
  for (int i = 0; i < W; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < W; i += 4) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; j++) {
      __m256d low = _mm256_castps_pd(t[i + j]), high = _mm256_castps_pd(t[i + 2 + j]);
      r[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, high));
      r[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, high));
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    t[c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x20);
    t[4 + c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x31);
  }
#pragma GCC unroll 8
  for (int i = 0; i < W; i++) r[i] = t[i];
}

}  // namespace kerf::KERF_TARGET
