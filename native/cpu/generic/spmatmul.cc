// Sparse weights: blocks for few rows, panels for any number.
#include "../install.h"
#include "qmatmul_simd.h"
#include "../spconv_loops.h"
#include "../spqmatmul_panels.h"

namespace kerf::KERF_TARGET {

void install_spmatmul(Kernels& row) {
  install_form(row, kFormPanels, [](auto weight) { return panels_cell<decltype(weight)>("spmatmul_panels@" KERF_TARGET_NAME); });
  // One vector of rows: with more, panels are 10 % faster.
  install_form(row, kFormBlocks, [](auto weight) { return blocks_cell<decltype(weight)>("spmatmul_blocks@" KERF_TARGET_NAME, W); });
  install_sparse_conv(row, "spconv2d@" KERF_TARGET_NAME);
  row.spqmatmul[kByteFormPanels] = byte_panels_cell<QuadUnitsOfPairs>("spqmatmul_panels@" KERF_TARGET_NAME);
}

}  // namespace kerf::KERF_TARGET
