// Every row-wise kernel: reductions, softmax and losses, norms, optimizers, recurrent steps. The target's simd.h comes first.
#pragma once
#include "reduce_loops.h"
#include "rows_loops.h"
#include "norm_loops.h"
#include "optim_loops.h"
#include "recurrent_loops.h"

namespace kerf::KERF_TARGET {

template <class T>
static void install_row_cells_of(Kernels& row, DType dtype) {
  install_rows_float<T>(row, dtype);
  install_norm_float<T>(row, dtype);
  install_optim_float<T>(row, dtype);
  install_recurrent_float<T>(row, dtype);
}

KERF_INLINE void install_row_cells(Kernels& row) {
  install_reduce(row);
  install_row_cells_of<float>(row, DType::float32_);
  install_row_cells_of<f16>(row, DType::float16_);
  install_row_cells_of<bf16>(row, DType::bfloat16_);
}

}  // namespace kerf::KERF_TARGET
