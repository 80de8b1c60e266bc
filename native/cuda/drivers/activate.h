// Activations of products: none, relu and silu are part of the kernel that stores its sums. The others follow apart, on float32: one
// rounding, as if they were fused.
#pragma once
#include "../../core/kernels.h"
#include "launch.h"

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

// What run(sums, fused) computes: `out` with an activation that is part of its kernel, or float32 sums that this finishes apart.
template <class Run>
Status with_activation(Gpu& gpu, const View& out, Activation activation, Run&& run) {
  if (is_fused(activation)) return run(out, activation);
  View sums = out;
  Status status;
  if (out.dtype != DType::float32_) {
    void* memory;
    status = gpu.scratch(static_cast<size_t>(count(out)) * 4, &memory);
    sums = contiguous_view(memory, DType::float32_, out);
  }
  if (status.ok()) status = run(sums, Activation::none);
  if (status.ok()) status = activate(gpu, activation, sums);
  return status.ok() && sums.dtype != out.dtype ? copy(gpu, out, sums) : status;
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
