#include "simd.h"
#include "../install.h"
#include "../map_cells.h"

namespace kerf::KERF_TARGET {

void install_map(Kernels& row) {
  install_float_cells(row);
  install_plain_cells(row);
}

}  // namespace kerf::KERF_TARGET
