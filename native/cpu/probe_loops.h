// What this machine can do at best, per target: `kerf bench` prints its kernels as a share of these, measured in the
// same run. A probe answers how much it did; whoever calls it takes the time.
// Include the simd.h of the target first.
#pragma once
#include "../core/kernels.h"

namespace kerf::KERF_TARGET {

// Enough independent chains to hide the latency of two multiply-adds a cycle (4 cycles; 6 for vdpbf16ps, where 14 chains
// reach 3 % less than 24) with room to spare; with the operand they fit 32 registers, or the sixteen of narrower targets.
constexpr int kChains = W == 16 ? 24 : 14;

// Runs `step` on each of kChains accumulators `rounds` times; nothing but registers is touched.
template <class V, class Step>
KERF_INLINE void chains(int64_t rounds, V start, Step step) {
  V acc[kChains];
#pragma GCC unroll 24
  for (int j = 0; j < kChains; j++) acc[j] = start;
  for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 24
    for (int j = 0; j < kChains; j++) {
      acc[j] = step(acc[j]);
      KERF_KEEP_IN_REGISTER(acc[j]);  // neither merged with its neighbours nor dropped
    }
  }
}

KERF_INLINE double fma_peak(int64_t rounds) {
  vf x = set1(1e-6f);
  chains<vf>(rounds, set1(0.0f), [=](vf acc) { return fma(x, x, acc); });
  return 2.0 * W * kChains * static_cast<double>(rounds);
}

// Reads `bytes` bytes (a multiple of 4 KiB) as a matrix kernel would read its panels: several sequential streams with
// software prefetch, one addition a vector, no store.
KERF_INLINE float read_all(int64_t bytes, const void* data) {
  constexpr int kStreams = 4;
  constexpr int64_t kLine = 16;     // floats
  constexpr int64_t kAhead = 1024;  // floats: far enough for the latency of memory at its full rate
  const int64_t each = bytes / kStreams / 4;
  const float* p = static_cast<const float*>(data);
  vf sum[2 * kStreams];
#pragma GCC unroll 8
  for (int s = 0; s < 2 * kStreams; s++) sum[s] = set1(0.0f);
  for (int64_t i = 0; i < each; i += kLine) {
#pragma GCC unroll 4
    for (int s = 0; s < kStreams; s++) {
      const float* q = p + s * each + i;
      __builtin_prefetch(q + kAhead, 0, 3);
#pragma GCC unroll 4
      for (int j = 0; j < kLine / W; j++) sum[2 * s + j % 2] = bit_xor(sum[2 * s + j % 2], load(q + j * W));
    }
  }
  vf all = sum[0];
#pragma GCC unroll 8
  for (int s = 1; s < 2 * kStreams; s++) all = bit_xor(all, sum[s]);
  return reduce_max(all);
}

}  // namespace kerf::KERF_TARGET
