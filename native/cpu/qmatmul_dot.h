// Sparse and weight-only products of bytes with a dot product of four (qmatmul_quads.h).
#pragma once
#include "qmatmul_quads.h"
#include "spqmatmul_panels.h"
#include "wmatmul_loops.h"

namespace kerf::KERF_TARGET {

// For sparse weights.
struct QuadUnitsOfDots : QuadUnits {
  using Weight = vi;
  KERF_INLINE vi broadcast(const uint32_t* unit) { return set1i(static_cast<int32_t>(*unit)); }
  KERF_INLINE vf mac(vi weight, vf x, vf acc) { return as_float(dot_bytes(as_int(acc), as_int(x), weight)); }
};

// For weight-only products: activations in two digits, 256 high + low, each a signed byte; weights unsigned.
struct QuadsDot {
  static constexpr int kParts = 2;
  using Weights = vi;
  KERF_INLINE vi prepare(vi quads) { return quads; }
  KERF_INLINE vi dot(vi acc, vi w, vi x, int) { return dot_bytes(acc, w, x); }
  KERF_INLINE vi total(const vi* acc) { return add_i(shift_left<8>(acc[0]), acc[1]); }
  KERF_INLINE void words(uint32_t* out, const int32_t* x) {
    uint32_t high = 0, low = 0;
    for (int e = 0; e < 4; e++) {
      const int32_t h = (x[e] + 128) >> 8;
      high |= static_cast<uint32_t>(h & 0xff) << (8 * e);
      low |= static_cast<uint32_t>((x[e] - 256 * h) & 0xff) << (8 * e);
    }
    out[0] = high;
    out[1] = low;
  }
  static constexpr int32_t kOffset = 128;
};

}  // namespace kerf::KERF_TARGET
