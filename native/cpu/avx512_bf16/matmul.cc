// bfloat16 matmul and convolution with vdpbf16ps.
#include "../install.h"
#include "matmul_dot_bf16.h"

#include "../conv_weight_grad.h"

namespace kerf::KERF_TARGET {

void install_matmul(Kernels& row) {
  row.matmul[static_cast<int>(DType::bfloat16_)] = matmul_cell<MatmulDotBf16>();
  row.conv2d[static_cast<int>(DType::bfloat16_)] = conv_cell<MatmulDotBf16>("conv2d_bf16_14x32@" KERF_TARGET_NAME);
}

}  // namespace kerf::KERF_TARGET
