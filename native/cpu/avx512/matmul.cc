// Matmul on AVX-512: a 14 x 32 tile, 28 accumulators + 2 vectors of B + 1 broadcast of A = 31 of 32 registers (no
// spills). A unit of k costs 28 FMAs (14 cycles on two pipes) and 16 loads (8 cycles). f16 widens B in the tile
// (vcvtph2ps runs on other pipes than the FMAs), bf16 takes pairs apart with a shift and a mask; both accumulate in
// float32. Any layout, any alignment; the last columns of C are written under a mask. Measured, 2-core Zen 5 VM, one
// thread: f32 112x1024x512 packed 226 GFLOP/s of 236 (96 %), 1024^3 202 of 233 (86 %).
#include "../install.h"
#include "matmul_simd.h"

namespace kerf::KERF_TARGET {

struct Blocks {
  static constexpr int kRows = 14;
  static constexpr int64_t kBlock = 768;  // units of k, to the nearest block: a panel of B takes 48 to 144 KiB of L2
  // The same for 16-bit results: their sums over several blocks of k would need float32 scratch (5 % at 2048^3).
  static constexpr int64_t kBlock16 = 2048;
  static constexpr int64_t kRowPanelsInBlock = 8;
  static constexpr int64_t kPackedA = 700 << 10;  // bytes: what a task's rows of packed A may take of L2
  static constexpr int64_t kPrefetch = 512;  // elements of packed B, from L2 to L1
  static constexpr double kFlopsPerNs = 180;
  static constexpr const char* kNameF32 = "matmul_f32_14x32@" KERF_TARGET_NAME;
  static constexpr const char* kNameF16 = "matmul_f16_14x32@" KERF_TARGET_NAME;
  static constexpr const char* kNameBf16 = "matmul_bf16_14x32@" KERF_TARGET_NAME;
};

}  // namespace kerf::KERF_TARGET

#include "../conv_weight_grad.h"

namespace kerf::KERF_TARGET {

void install_matmul(Kernels& row) {
  row.matmul[static_cast<int>(DType::float32_)] = matmul_cell<MatmulF32>();
  row.conv2d[static_cast<int>(DType::float32_)] = conv_cell<MatmulF32>("conv2d_f32_14x32@" KERF_TARGET_NAME);
  row.matmul[static_cast<int>(DType::float16_)] = matmul_cell<MatmulF16>();
  row.conv2d[static_cast<int>(DType::float16_)] = conv_cell<MatmulF16>("conv2d_f16_14x32@" KERF_TARGET_NAME);
  row.matmul[static_cast<int>(DType::bfloat16_)] = matmul_cell<MatmulBf16>();
  row.conv2d[static_cast<int>(DType::bfloat16_)] = conv_cell<MatmulBf16>("conv2d_bf16_14x32@" KERF_TARGET_NAME);
}

}  // namespace kerf::KERF_TARGET
