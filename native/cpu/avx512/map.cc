#include "../install.h"
#include "simd.h"

namespace kerf::KERF_TARGET {

void install_map(Kernels&) {}

}  // namespace kerf::KERF_TARGET
