// The dtypes of matmul for every target that computes with float32 FMAs (matmul_tile.h and matmul_pack.h name what a
// dtype gives). The target's matmul_simd.h comes first; its Blocks struct says tile height, block sizes and speed.
#pragma once
#include "matmul_loops.h"

namespace kerf::KERF_TARGET {

struct MatmulF32 : Blocks {
  using In = float;
  using Unit = float;
  using Loaded = vf;
  static constexpr int kElements = 1, kSub = 1;
  static constexpr bool kReadsInPlace = true;
  using Wide = MatmulF32;
  static constexpr bool kWidens = false;  // Wide's tile on widened panels, where a panel is used often
  static constexpr const char* kName = Blocks::kNameF32;

  KERF_INLINE vf load_units(const Unit* p) { return load(p); }
  KERF_INLINE vf step(Loaded b, int) { return b; }
  KERF_INLINE vf mac(vf a, vf b, vf acc) { return fma(a, b, acc); }
  KERF_INLINE Unit unit(In lo, In) { return lo; }
  KERF_INLINE uint32_t word(In lo, In) { return float_to_bits(lo); }
  KERF_INLINE vf words(const In* p) { return load(p); }
  KERF_INLINE vf gather_units(const In* p) { return load(p); }
  KERF_INLINE void scatter_units(Unit* p, vf v) { store(p, v); }
};

// Half the bytes of B, widened in the register tile; A is widened when it is packed.
struct MatmulF16 : MatmulF32 {
  using In = f16;
  using Unit = f16;
  static constexpr bool kReadsInPlace = false, kWidens = true;
  static constexpr const char* kName = Blocks::kNameF16;

  KERF_INLINE vf load_units(const Unit* p) { return load(p); }
  KERF_INLINE Unit unit(In lo, In) { return lo; }
  KERF_INLINE uint32_t word(In lo, In) { return float_to_bits(to_float(lo)); }
  KERF_INLINE vf words(const In* p) { return load(p); }
  KERF_INLINE vf gather_units(const In* p) { return load(p); }  // back and forth is exact
  KERF_INLINE void scatter_units(Unit* p, vf v) { store(p, v); }
};

// Pairs (k, k + 1) in 32 bits: shifting and masking give two exact float32 steps.
struct MatmulBf16 : MatmulF32 {
  using In = bf16;
  using Unit = uint32_t;
  using Loaded = vi;
  static constexpr int kElements = 2, kSub = 2;
  static constexpr bool kReadsInPlace = false, kWidens = true;
  static constexpr const char* kName = Blocks::kNameBf16;

  KERF_INLINE vi load_units(const Unit* p) { return as_int(load(reinterpret_cast<const float*>(p))); }
  KERF_INLINE vf step(Loaded b, int s) {
    return as_float(s == 0 ? shift_left<16>(b) : and_i(b, set1i(static_cast<int32_t>(0xffff0000))));
  }
  KERF_INLINE Unit unit(In lo, In hi) { return lo.bits | static_cast<uint32_t>(hi.bits) << 16; }
  KERF_INLINE uint32_t word(In lo, In) { return float_to_bits(to_float(lo)); }
  KERF_INLINE vf words(const In* p) { return load(p); }
  KERF_INLINE vf gather_units(const In* p) { return load(reinterpret_cast<const float*>(p)); }
  KERF_INLINE void scatter_units(Unit* p, vf v) { store(reinterpret_cast<float*>(p), v); }
};

}  // namespace kerf::KERF_TARGET
