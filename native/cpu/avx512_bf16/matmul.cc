// bfloat16 matmul with vdpbf16ps: a 14 x 32 tile, 28 accumulators + 2 vectors of pairs of B + 1 broadcast pair of A =
// 31 registers; a unit of k is a pair (k, k + 1). The instruction adds the two products of a pair to a float32 sum
// with roundings to nearest even of its own, whatever MXCSR says, and treats subnormal inputs and results as zero:
// results differ in the last bits from the avx512 row's, and subnormal bfloat16 numbers count as zero. Measured,
// 2-core Zen 5 VM: 1024^3 packed 386 GFLOP/s of about 460 on one thread (84 %), 767 on two.
#include "../install.h"
#include "../avx512/matmul_simd.h"

namespace kerf::KERF_TARGET {

struct Blocks {
  static constexpr int kRows = 14;
  static constexpr int64_t kBlock = 768;
  static constexpr int64_t kBlock16 = 2048;
  static constexpr int64_t kRowPanelsInBlock = 8;
  static constexpr int64_t kPackedA = 700 << 10;
  static constexpr int64_t kPrefetch = 512;
  static constexpr double kFlopsPerNs = 360;
  static constexpr const char* kNameF32 = nullptr;  // those cells stay the avx512 row's
  static constexpr const char* kNameF16 = nullptr;
  static constexpr const char* kNameBf16 = "matmul_bf16_14x32@" KERF_TARGET_NAME;
};

}  // namespace kerf::KERF_TARGET

#include "../conv_weight_grad.h"
#include "matmul_dot_bf16.h"

namespace kerf::KERF_TARGET {

void install_matmul(Kernels& row) {
  row.matmul[static_cast<int>(DType::bfloat16_)] = matmul_cell<MatmulDotBf16>();
  row.conv2d[static_cast<int>(DType::bfloat16_)] = conv_cell<MatmulDotBf16>("conv2d_bf16_14x32@" KERF_TARGET_NAME);
}

}  // namespace kerf::KERF_TARGET
