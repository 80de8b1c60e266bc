// int8 matmul on AVX-512 BW without VNNI: a 13 x 32 tile, 26 accumulators + 2 vectors of B + 1 broadcast of A + a product or
// two of 32 registers. vpmaddwd and vpaddd as on AVX2, with twice the lanes.
#include "../install.h"
#include "qmatmul_simd.h"

namespace kerf::KERF_TARGET {

struct Blocks {
  static constexpr int kRows = 13;
  static constexpr int64_t kBlock = 768, kBlock16 = kBlock;  // quads
  static constexpr int64_t kRowPanelsInBlock = 8;
  static constexpr int64_t kPackedA = 700 << 10;
  static constexpr int64_t kPrefetch = 512;
  static constexpr double kFlopsPerNs = 260;
};

}  // namespace kerf::KERF_TARGET

#include "../qconv_loops.h"
#include "../wmatmul_loops.h"

namespace kerf::KERF_TARGET {

struct WeightBlocks {
  static constexpr int kRoom = 22;  // registers for accumulators
  static constexpr double kFlopsPerNs = 220;
};

void install_qmatmul(Kernels& row) {
  row.qmatmul = qmatmul_cell<MatmulPairs>("qmatmul_i8_13x32@" KERF_TARGET_NAME);
  row.qconv2d = qconv_cell<MatmulPairs>("qconv2d_i8_13x32@" KERF_TARGET_NAME);
  row.wmatmul = wmatmul_cell<PairsDot, WeightBlocks>("wmatmul_11x32@" KERF_TARGET_NAME);
  install_quantize_cells(row);
}

}  // namespace kerf::KERF_TARGET
