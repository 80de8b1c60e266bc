// Every kernel that works on the planes of images: batch norm, pooling, resizing. The target's simd.h comes first.
#pragma once
#include "batch_norm_loops.h"
#include "pooling_loops.h"
#include "resize_loops.h"

namespace kerf::KERF_TARGET {

template <class T>
static void install_plane_cells_of(Kernels& row, DType dtype) {
  install_batch_norm<T>(row, dtype);
  install_pooling<T>(row, dtype);
  install_resize<T>(row, dtype);
}

KERF_INLINE void install_plane_cells(Kernels& row) {
  install_plane_cells_of<float>(row, DType::float32_);
  install_plane_cells_of<f16>(row, DType::float16_);
  install_plane_cells_of<bf16>(row, DType::bfloat16_);
}

}  // namespace kerf::KERF_TARGET
