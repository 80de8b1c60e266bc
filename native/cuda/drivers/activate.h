// Activations of products: none, relu and silu are part of the kernel that stores its sums. The others follow apart, on float32: one
// rounding, as if they were fused.
#pragma once
#include "../../core/kernels.h"
#include "ops.h"

namespace kerf {
namespace cuda {
namespace ops {

inline bool is_fused(Activation activation) {
  return activation == Activation::none || activation == Activation::relu || activation == Activation::silu;
}

inline Status activate(Gpu& gpu, Activation activation, const View& v) {
  switch (activation) {
    case Activation::gelu: return gelu(gpu, v, v);
    case Activation::sigmoid: return sigmoid(gpu, v, v);
    case Activation::tanh: return tanh(gpu, v, v);
    default: return Status{};
  }
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
