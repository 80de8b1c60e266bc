#include "../install.h"
#include "simd.h"
#include "../row_cells.h"

namespace kerf::KERF_TARGET {

void install_rows(Kernels& row) { install_row_cells(row); }

}  // namespace kerf::KERF_TARGET
