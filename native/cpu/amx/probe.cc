#include "../avx512/simd.h"
#include "../install.h"
#include "tiles.h"

namespace kerf::KERF_TARGET {

// `rounds` times `step`, which does `ops` operations on six accumulators, of tiles of zeros.
template <class Step>
static double products(int64_t rounds, double ops, Step step) {
  const AmxState state;
  _tile_zero(6);
  _tile_zero(7);
  for (int64_t i = 0; i < rounds; i++) step();
  return ops * static_cast<double>(rounds);
}

void install_probe(Kernels& row) {
  constexpr double kSums = kTileRows * W, kAccumulators = 6;
#define SIX(product) product(0, 6, 7); product(1, 6, 7); product(2, 6, 7); product(3, 6, 7); product(4, 6, 7); product(5, 6, 7);
  row.bf16_dot_peak = [](int64_t rounds) {
    return products(rounds, kAccumulators * kSums * 2 * 2 * W, [] { SIX(_tile_dpbf16ps) });
  };
  row.int8_dot_peak = [](int64_t rounds) {
    return products(rounds, kAccumulators * kSums * 2 * 4 * W, [] { SIX(_tile_dpbusd) });
  };
#undef SIX
}

}  // namespace kerf::KERF_TARGET
