// vpdpbusd in 512-bit registers, a 14 x 32 tile: 28 accumulators + 2 vectors of B + 1 broadcast of A = 31 of 32 registers. It
// adds four products of uint8 by int8 to each int32, exactly. Before the headers of products of bytes.
#pragma once
#include "../avx512/qmatmul_simd.h"

namespace kerf::KERF_TARGET {

struct Blocks {
  static constexpr int kRows = 14;
  static constexpr int64_t kBlock = 768, kBlock16 = 2048;  // quads, as the other rows' units of k
  static constexpr int64_t kRowPanelsInBlock = 16;
  static constexpr int64_t kPackedA = 700 << 10;
  static constexpr int64_t kPrefetch = 512;
  static constexpr double kFlopsPerNs = 750;
};

KERF_INLINE vi dot_bytes(vi acc, vi a, vi b) { return _mm512_dpbusd_epi32(acc, a, b); }

}  // namespace kerf::KERF_TARGET
