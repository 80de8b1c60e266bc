// Optimizer steps: one pass over contiguous parameter, gradient and state. The numbers of a step are core/kernels.h's.
#pragma once
#include "elements.cuh"
#include "../core/kernels.h"

namespace kerf {
namespace cuda {

// PyTorch's SGD: the decay joins the gradient, the first step fills the buffer with the gradient undampened.
template <class P>
__global__ void sgd(uint32_t n, P param, P grad, float* momentum_buffer, SgdStep step) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    const float w = param.own(i);
    float d = fmaf(w, step.weight_decay, grad.get(i) * step.grad_scale);
    if (momentum_buffer) {
      const float b = step.first_step ? d : fmaf(cu::load_own(momentum_buffer + i), step.momentum, d * step.damp);
      cu::store_global(momentum_buffer + i, b);
      d = step.nesterov ? fmaf(b, step.momentum, d) : b;
    }
    param.put(i, fmaf(-d, step.lr, w));
  }
}

// PyTorch's Adam and AdamW: denominator sqrt(v) / sqrt(biasCorrection2) + eps.
template <class P>
__global__ void adam(uint32_t n, P param, P grad, float* m, float* v, AdamStep step) {
  for (uint32_t i = first_element(); i < n; i += element_step()) {
    const float w = param.own(i);
    const float d = fmaf(w, step.weight_decay, grad.get(i) * step.grad_scale);
    float mean = cu::load_own(m + i);
    mean = fmaf(d - mean, step.mix1, mean);
    const float square = fmaf(cu::load_own(v + i), step.beta2, d * d * step.mix2);
    cu::store_global(m + i, mean);
    cu::store_global(v + i, square);
    const float denominator = fmaf(sqrtf(square), step.root_correction, step.eps);
    param.put(i, fmaf(-step.step_size, mean / denominator, w * step.keep));
  }
}

}  // namespace cuda
}  // namespace kerf
