#include "../avx512/simd.h"
#include "../install.h"
#include "../probe_loops.h"

namespace kerf::KERF_TARGET {

void install_probe(Kernels& row) {
  row.bf16_dot_peak = [](int64_t rounds) {
    __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f803f80);  // ones
    chains<vf>(rounds, set1(0.0f), [=](vf acc) { return _mm512_dpbf16_ps(acc, x, x); });
    return 4.0 * W * kChains * static_cast<double>(rounds);
  };
}

}  // namespace kerf::KERF_TARGET
