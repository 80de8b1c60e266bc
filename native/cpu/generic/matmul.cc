// Matmul in portable C++, the reference row: a 4 x 8 tile, 8 accumulators of 4 lanes + 2 of B + 1 of A = 11 of SSE2's
// 16 registers. Multiplies and adds are separate (no contraction), so it gives the same bits on every machine.
#include "../install.h"
#include "matmul_simd.h"

namespace kerf::KERF_TARGET {

struct Blocks {
  static constexpr int kRows = 4;
  static constexpr int64_t kBlock = 256;  // units of k: a panel of B takes 8 KiB
  static constexpr int64_t kBlock16 = kBlock;  // of 16-bit results
  static constexpr int64_t kRowPanelsInBlock = 24;
  static constexpr int64_t kPackedA = 256 << 10;  // bytes: what a task's rows of packed A may take of L2
  static constexpr int64_t kPrefetch = 512;  // elements of packed B, from L2 to L1
  static constexpr double kFlopsPerNs = 15;
  static constexpr const char* kNameF32 = "matmul_f32_4x8@" KERF_TARGET_NAME;
  static constexpr const char* kNameF16 = "matmul_f16_4x8@" KERF_TARGET_NAME;
  static constexpr const char* kNameBf16 = "matmul_bf16_4x8@" KERF_TARGET_NAME;
};

}  // namespace kerf::KERF_TARGET

#include "../conv_weight_grad.h"

namespace kerf::KERF_TARGET {

void install_matmul(Kernels& row) {
  row.matmul[static_cast<int>(DType::float32_)] = matmul_cell<MatmulF32>();
  row.conv2d[static_cast<int>(DType::float32_)] = conv_cell<MatmulF32>("conv2d_f32_4x8@" KERF_TARGET_NAME);
  row.matmul[static_cast<int>(DType::float16_)] = matmul_cell<MatmulF16>();
  row.conv2d[static_cast<int>(DType::float16_)] = conv_cell<MatmulF16>("conv2d_f16_4x8@" KERF_TARGET_NAME);
  row.matmul[static_cast<int>(DType::bfloat16_)] = matmul_cell<MatmulBf16>();
  row.conv2d[static_cast<int>(DType::bfloat16_)] = conv_cell<MatmulBf16>("conv2d_bf16_4x8@" KERF_TARGET_NAME);
}

}  // namespace kerf::KERF_TARGET
