#include "../install.h"
#include "simd.h"
#include "../plane_cells.h"

namespace kerf::KERF_TARGET {

void install_planes(Kernels& row) { install_plane_cells(row); }

}  // namespace kerf::KERF_TARGET
