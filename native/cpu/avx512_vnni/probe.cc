#include "../avx512/simd.h"
#include "../install.h"
#include "../probe_loops.h"

namespace kerf::KERF_TARGET {

void install_probe(Kernels& row) {
  row.int8_dot_peak = [](int64_t rounds) {
    const vi ones = _mm512_set1_epi8(1);
    chains<vi>(rounds, set1i(0), [=](vi acc) { return _mm512_dpbusd_epi32(acc, ones, ones); });
    return 8.0 * W * kChains * static_cast<double>(rounds);
  };
}

}  // namespace kerf::KERF_TARGET
