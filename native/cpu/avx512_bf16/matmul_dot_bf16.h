// bfloat16 matmul with vdpbf16ps: a 14 x 32 tile, 28 accumulators + 2 vectors of pairs of B + 1 broadcast pair of A =
// 31 registers; a unit of k is a pair (k, k + 1). The instruction adds the two products of a pair to a float32 sum
// with roundings to nearest even of its own, whatever MXCSR says, and treats subnormal inputs and results as zero:
// results differ in the last bits from the avx512 row's, and subnormal bfloat16 numbers count as zero. Measured,
// 2-core Zen 5 VM: 1024^3 packed 386 GFLOP/s of about 460 on one thread (84 %), 767 on two.
#pragma once
#include "../avx512/matmul_simd.h"

namespace kerf::KERF_TARGET {

struct Blocks {
  static constexpr int kRows = 14;
  static constexpr int64_t kBlock = 768;
  static constexpr int64_t kBlock16 = 2048;
  static constexpr int64_t kRowPanelsInBlock = 8;
  static constexpr int64_t kPackedA = 700 << 10;
  static constexpr int64_t kPrefetch = 512;
  static constexpr double kFlopsPerNs = 360;
  static constexpr const char* kNameF32 = nullptr;  // those cells stay the avx512 row's
  static constexpr const char* kNameF16 = nullptr;
  static constexpr const char* kNameBf16 = "matmul_bf16_14x32@" KERF_TARGET_NAME;
};

}  // namespace kerf::KERF_TARGET

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
