// Matmul on AVX2 + FMA + F16C: a 6 x 16 tile, 12 accumulators + 2 vectors of B + 1 broadcast of A = 15 of 16
// registers. A unit of k costs 12 FMAs (6 cycles on two pipes) and 8 loads. Any layout, any alignment. Measured,
// 2-core Zen 5 VM, one thread: f32 1024^3 packed 96 GFLOP/s of 113 (85 %).
#include "../install.h"
#include "matmul_simd.h"

namespace kerf::KERF_TARGET {

struct Blocks {
  static constexpr int kRows = 6;
  static constexpr int64_t kBlock = 256;  // units of k: a panel of B takes 16 KiB
  static constexpr int64_t kBlock16 = kBlock;  // of 16-bit results
  static constexpr int64_t kRowPanelsInBlock = 16;
  static constexpr int64_t kPackedA = 256 << 10;  // bytes: what a task's rows of packed A may take of L2
  static constexpr int64_t kPrefetch = 512;  // elements of packed B, from L2 to L1
  static constexpr double kFlopsPerNs = 90;
  static constexpr const char* kNameF32 = "matmul_f32_6x16@" KERF_TARGET_NAME;
  static constexpr const char* kNameF16 = "matmul_f16_6x16@" KERF_TARGET_NAME;
  static constexpr const char* kNameBf16 = "matmul_bf16_6x16@" KERF_TARGET_NAME;
};

}  // namespace kerf::KERF_TARGET

#include "../conv_weight_grad.h"

namespace kerf::KERF_TARGET {

void install_matmul(Kernels& row) {
  row.matmul[static_cast<int>(DType::float32_)] = matmul_cell<MatmulF32>();
  row.conv2d[static_cast<int>(DType::float32_)] = conv_cell<MatmulF32>("conv2d_f32_6x16@" KERF_TARGET_NAME);
  row.matmul[static_cast<int>(DType::float16_)] = matmul_cell<MatmulF16>();
  row.conv2d[static_cast<int>(DType::float16_)] = conv_cell<MatmulF16>("conv2d_f16_6x16@" KERF_TARGET_NAME);
  row.matmul[static_cast<int>(DType::bfloat16_)] = matmul_cell<MatmulBf16>();
  row.conv2d[static_cast<int>(DType::bfloat16_)] = conv_cell<MatmulBf16>("conv2d_bf16_6x16@" KERF_TARGET_NAME);
}

}  // namespace kerf::KERF_TARGET
