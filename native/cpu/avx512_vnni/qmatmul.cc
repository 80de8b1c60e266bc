// int8 matmul with VNNI in 512-bit registers: a 14 x 32 tile, 28 accumulators + 2 vectors of B + 1 broadcast of A = 31 of 32
// registers. vpdpbusd adds four products of uint8 by int8 to each int32, exactly.
#include "../install.h"
#include "../avx512/qmatmul_simd.h"

namespace kerf::KERF_TARGET {

struct Blocks {
  static constexpr int kRows = 14;
  static constexpr int64_t kBlock = 768, kBlock16 = 2048;  // quads, as the other rows' units of k
  static constexpr int64_t kRowPanelsInBlock = 16;
  static constexpr int64_t kPackedA = 700 << 10;
  static constexpr int64_t kPrefetch = 512;
  static constexpr double kFlopsPerNs = 750;
};

KERF_INLINE vi dot_bytes(vi acc, vi a, vi b) { return _mm512_dpbusd_epi32(acc, a, b); }

}  // namespace kerf::KERF_TARGET

#include "../qconv_loops.h"
#include "../qmatmul_dot.h"
#include "spqmatmul_tables.h"

namespace kerf::KERF_TARGET {

struct WeightBlocks {
  static constexpr int kRoom = 28;  // registers for accumulators
  static constexpr double kFlopsPerNs = 400;
};

void install_qmatmul(Kernels& row) {
  row.qmatmul = qmatmul_cell<MatmulQuads>("qmatmul_i8_14x32@" KERF_TARGET_NAME);
  row.qconv2d = qconv_cell<MatmulQuads>("qconv2d_i8_14x32@" KERF_TARGET_NAME);
  row.wmatmul = wmatmul_cell<QuadsDot, WeightBlocks>("wmatmul_7x32@" KERF_TARGET_NAME);
  row.spqmatmul[kByteFormPanels] = byte_panels_cell<QuadUnitsOfDots>("spqmatmul_panels@" KERF_TARGET_NAME);
  row.spqmatmul[kByteFormTables] = byte_tables_cell("spqmatmul_tables@" KERF_TARGET_NAME);
}

}  // namespace kerf::KERF_TARGET
