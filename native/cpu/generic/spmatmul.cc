// Sparse weights: panels for any number of rows.
#include "../install.h"
#include "qmatmul_simd.h"
#include "../spqmatmul_panels.h"

namespace kerf::KERF_TARGET {

void install_spmatmul(Kernels& row) {
  install_form(row, kFormPanels, [](auto weight) { return panels_cell<decltype(weight)>("spmatmul_panels@" KERF_TARGET_NAME); });
  row.spqmatmul[kByteFormPanels] = byte_panels_cell<QuadUnitsOfPairs>("spqmatmul_panels@" KERF_TARGET_NAME);
}

}  // namespace kerf::KERF_TARGET
