#include "simd.h"

#include "../install.h"
#include "../probe_loops.h"

namespace kerf::KERF_TARGET {

void install_probe(Kernels& row) {
  row.fma_peak = [](int64_t rounds) { return fma_peak(rounds); };
  row.read = [](int64_t bytes, const void* data) { return read_all(bytes, data); };
}

}  // namespace kerf::KERF_TARGET
