// bfloat16 by vdpbf16ps.
#pragma once
#include "../matmul_types.h"

namespace kerf::KERF_TARGET {

// vdpbf16ps: acc += a.lo * b.lo + a.hi * b.hi
struct MatmulDotBf16 : MatmulBf16 {
  using Loaded = vf;
  using Wide = MatmulDotBf16;
  static constexpr int kSub = 1;
  static constexpr bool kWidens = false;

  KERF_INLINE vf load_units(const Unit* p) { return load(reinterpret_cast<const float*>(p)); }
  KERF_INLINE vf step(Loaded b, int) { return b; }
  KERF_INLINE vf mac(vf a, vf b, vf acc) { return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b); }
  KERF_INLINE uint32_t word(In lo, In hi) { return unit(lo, hi); }
  KERF_INLINE vf words(const In* p) { return load(reinterpret_cast<const float*>(p)); }
};

}  // namespace kerf::KERF_TARGET
