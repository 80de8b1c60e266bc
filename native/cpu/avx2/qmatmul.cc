// int8 matmul on AVX2 without VNNI: a 6 x 16 tile, 12 accumulators + 2 vectors of B + 1 broadcast of A + 1 product = all 16
// registers. vpmaddwd multiplies 16 pairs of int16 exactly and vpaddd adds them up: two instructions for 16 products where
// a float32 FMA is one for 8.
#include "../install.h"
#include "qmatmul_simd.h"

namespace kerf::KERF_TARGET {

struct Blocks {
  static constexpr int kRows = 6;
  static constexpr int64_t kBlock = 512, kBlock16 = kBlock;  // quads
  static constexpr int64_t kRowPanelsInBlock = 16;
  static constexpr int64_t kPackedA = 256 << 10;
  static constexpr int64_t kPrefetch = 512;
  static constexpr double kFlopsPerNs = 130;
};

}  // namespace kerf::KERF_TARGET

#include "../qconv_loops.h"
#include "../wmatmul_loops.h"

namespace kerf::KERF_TARGET {

struct WeightBlocks {
  static constexpr int kRoom = 8;  // registers for accumulators
  static constexpr double kFlopsPerNs = 110;
};

void install_qmatmul(Kernels& row) {
  row.qmatmul = qmatmul_cell<MatmulPairs>("qmatmul_i8_6x16@" KERF_TARGET_NAME);
  row.qconv2d = qconv_cell<MatmulPairs>("qconv2d_i8_6x16@" KERF_TARGET_NAME);
  row.wmatmul = wmatmul_cell<PairsDot, WeightBlocks>("wmatmul_4x16@" KERF_TARGET_NAME);
  install_quantize_cells(row);
}

}  // namespace kerf::KERF_TARGET
