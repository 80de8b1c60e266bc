// Every kernel of this target that works on the planes of images: batch norm, pooling, resizing.
#include "../install.h"
#include "simd.h"
#include "../batch_norm_loops.h"
#include "../pooling_loops.h"
#include "../resize_loops.h"

namespace kerf::KERF_TARGET {

template <class T>
static void install_float(Kernels& row, DType dtype) {
  install_batch_norm<T>(row, dtype);
  install_pooling<T>(row, dtype);
  install_resize<T>(row, dtype);
}

void install_planes(Kernels& row) {
  install_float<float>(row, DType::float32_);
  install_float<f16>(row, DType::float16_);
  install_float<bf16>(row, DType::bfloat16_);
}

}  // namespace kerf::KERF_TARGET
