// int8 matmul in portable C++: a 4 x 8 tile of int32; pairs of int16 are multiplied lane by lane.
#include "../install.h"
#include "qmatmul_simd.h"

namespace kerf::KERF_TARGET {

struct Blocks {
  static constexpr int kRows = 4;
  static constexpr int64_t kBlock = 256, kBlock16 = kBlock;  // quads
  static constexpr int64_t kRowPanelsInBlock = 24;
  static constexpr int64_t kPackedA = 256 << 10;
  static constexpr int64_t kPrefetch = 512;
  static constexpr double kFlopsPerNs = 12;
};

}  // namespace kerf::KERF_TARGET

#include "../qconv_loops.h"
#include "../wmatmul_loops.h"

namespace kerf::KERF_TARGET {

struct WeightBlocks {
  static constexpr int kRoom = 8;  // registers for accumulators
  static constexpr double kFlopsPerNs = 8;
};

void install_qmatmul(Kernels& row) {
  row.qmatmul = qmatmul_cell<MatmulPairs>("qmatmul_i8_4x8@" KERF_TARGET_NAME);
  row.qconv2d = qconv_cell<MatmulPairs>("qconv2d_i8_4x8@" KERF_TARGET_NAME);
  row.wmatmul = wmatmul_cell<PairsDot, WeightBlocks>("wmatmul_4x8@" KERF_TARGET_NAME);
  install_quantize_cells(row);
}

}  // namespace kerf::KERF_TARGET
