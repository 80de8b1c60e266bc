#include "../install.h"
#include "matmul_simd.h"

namespace kerf::KERF_TARGET {

struct Blocks {
  static constexpr int kRows = 6;
  static constexpr int64_t kBlock = 256;             // units of k
  static constexpr int64_t kRowPanelsInBlock = 16;
  static constexpr int64_t kPrefetch = 512;         // units
  static constexpr double kFlopsPerNs = 90;
  static constexpr const char* kNameF32 = "matmul_f32_6x16";
  static constexpr const char* kNameF16 = "matmul_f16_6x16";
  static constexpr const char* kNameBf16 = "matmul_bf16_6x16";
};

}  // namespace kerf::KERF_TARGET

#include "../matmul_types.h"

namespace kerf::KERF_TARGET {

void install_matmul(Kernels& row) {
  row.matmul[static_cast<int>(DType::float32_)] = matmul_cell<MatmulF32>();
  row.matmul[static_cast<int>(DType::float16_)] = matmul_cell<MatmulF16>();
  row.matmul[static_cast<int>(DType::bfloat16_)] = matmul_cell<MatmulBf16>();
}

}  // namespace kerf::KERF_TARGET
