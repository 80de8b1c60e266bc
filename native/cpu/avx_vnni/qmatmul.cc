// int8 matmul with VNNI in 256-bit registers: a 6 x 16 tile, 12 accumulators + 2 vectors of B + 1 broadcast of A = 15 of 16
// registers. vpdpbusd adds four products of uint8 by int8 to each int32, exactly.
#include "../install.h"
#include "../avx2/qmatmul_simd.h"

namespace kerf::KERF_TARGET {

struct Blocks {
  static constexpr int kRows = 6;
  static constexpr int64_t kBlock = 512, kBlock16 = kBlock;  // quads
  static constexpr int64_t kRowPanelsInBlock = 16;
  static constexpr int64_t kPackedA = 256 << 10;
  static constexpr int64_t kPrefetch = 512;
  static constexpr double kFlopsPerNs = 380;
};

KERF_INLINE vi dot_bytes(vi acc, vi a, vi b) { return _mm256_dpbusd_avx_epi32(acc, a, b); }

}  // namespace kerf::KERF_TARGET

#include "../qconv_loops.h"
#include "../qmatmul_dot.h"

namespace kerf::KERF_TARGET {

struct WeightBlocks {
  static constexpr int kRoom = 12;  // registers for accumulators
  static constexpr double kFlopsPerNs = 190;
};

void install_qmatmul(Kernels& row) {
  row.qmatmul = qmatmul_cell<MatmulQuads>("qmatmul_i8_6x16@" KERF_TARGET_NAME);
  row.qconv2d = qconv_cell<MatmulQuads>("qconv2d_i8_6x16@" KERF_TARGET_NAME);
  row.wmatmul = wmatmul_cell<QuadsDot, WeightBlocks>("wmatmul_3x16@" KERF_TARGET_NAME);
  row.spqmatmul[kByteFormPanels] = byte_panels_cell<QuadUnitsOfDots>("spqmatmul_panels@" KERF_TARGET_NAME);
}

}  // namespace kerf::KERF_TARGET
