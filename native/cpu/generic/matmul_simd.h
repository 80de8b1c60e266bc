// What matmul needs beyond simd.h in portable C++.
#pragma once
#include "simd.h"

namespace kerf::KERF_TARGET {

KERF_INLINE void transpose(vf (&r)[W]) {  // r[i] lane j becomes r[j] lane i
  for (int i = 0; i < W; i++) {
    for (int j = 0; j < i; j++) {
      float x = r[i][j];
      r[i][j] = r[j][i];
      r[j][i] = x;
    }
  }
}

}  // namespace kerf::KERF_TARGET
