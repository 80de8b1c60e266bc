// Sparse weights on AVX-512: tables or pairs for few rows, panels or blocks for more.
#include "../install.h"
#include "qmatmul_simd.h"
#include "../spconv_loops.h"
#include "../spqmatmul_panels.h"
#include "spmatmul_tables.h"

namespace kerf::KERF_TARGET {

KERF_INLINE vf pick(const float* four, vi places) { return _mm512_permutevar_ps(_mm512_broadcast_f32x4(_mm_loadu_ps(four)), places); }
KERF_INLINE vi next_place(vi places) { return _mm512_srli_epi32(places, 2); }

}  // namespace kerf::KERF_TARGET

#include "../spmatmul_pairs.h"

namespace kerf::KERF_TARGET {

void install_spmatmul(Kernels& row) {
  install_form(row, kFormPanels, [](auto weight) { return panels_cell<decltype(weight)>("spmatmul_panels@" KERF_TARGET_NAME); });
  install_form(row, kFormTables, [](auto weight) { return tables_cell<decltype(weight)>("spmatmul_tables@" KERF_TARGET_NAME); });
  install_form(row, kFormPairs, [](auto weight) { return pairs_cell<decltype(weight)>("spmatmul_pairs@" KERF_TARGET_NAME); });
  install_form(row, kFormBlocks, [](auto weight) { return blocks_cell<decltype(weight)>("spmatmul_blocks@" KERF_TARGET_NAME); });
  install_sparse_conv(row, "spconv2d@" KERF_TARGET_NAME);
  row.spqmatmul[kByteFormPanels] = byte_panels_cell<QuadUnitsOfPairs>("spqmatmul_panels@" KERF_TARGET_NAME);
}

}  // namespace kerf::KERF_TARGET
