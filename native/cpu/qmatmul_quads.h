// Products of bytes with a dot product of four; the target defines dot_bytes(acc, unsigned, signed) first.
#pragma once
#include "qmatmul_types.h"

namespace kerf::KERF_TARGET {

struct MatmulQuads : Int8Blocks {
  using Loaded = vf;
  using Wide = MatmulQuads;
  static constexpr int kSub = 1;
  static constexpr bool kWidens = false;

  KERF_INLINE vf load_units(const Unit* p) { return load(reinterpret_cast<const float*>(p)); }
  KERF_INLINE vf step(vf b, int) { return b; }
  KERF_INLINE vf mac(vf a, vf b, vf acc) { return as_float(dot_bytes(as_int(acc), as_int(a), as_int(b))); }
  KERF_INLINE vf words(const uint8_t* p) { return load(reinterpret_cast<const float*>(p)); }
};

}  // namespace kerf::KERF_TARGET
