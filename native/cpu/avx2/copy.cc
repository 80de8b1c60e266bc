#include "simd.h"
#include "../copy_loops.h"
#include "../install.h"

namespace kerf::KERF_TARGET {

void install_copy(Kernels& row) { install_copy_cells(row); }

}  // namespace kerf::KERF_TARGET
