// Every row-wise kernel of this target: reductions, softmax and losses, norms, optimizers, recurrent steps.
#include "../install.h"
#include "simd.h"
#include "../reduce_loops.h"
#include "../rows_loops.h"
#include "../norm_loops.h"
#include "../optim_loops.h"
#include "../recurrent_loops.h"

namespace kerf::KERF_TARGET {

template <class T>
static void install_float(Kernels& row, DType dtype) {
  install_rows_float<T>(row, dtype);
  install_norm_float<T>(row, dtype);
  install_optim_float<T>(row, dtype);
  install_recurrent_float<T>(row, dtype);
}

void install_rows(Kernels& row) {
  install_reduce(row);
  install_float<float>(row, DType::float32_);
  install_float<f16>(row, DType::float16_);
  install_float<bf16>(row, DType::bfloat16_);
}

}  // namespace kerf::KERF_TARGET
