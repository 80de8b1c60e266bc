// Optimizer steps: one pass over parameter, gradient and state. Memory-bound from L2 outwards: Adam in float32 reads
// 16 bytes and writes 12 per element.
#pragma once
#include "vectors.h"

namespace kerf::KERF_TARGET {

// PyTorch's SGD: the decay joins the gradient, the first step fills the buffer with the gradient undampened.
template <class T>
void sgd(int64_t n, void* param, const void* grad, float* momentum_buffer, const SgdStep& step) {
  T* p = static_cast<T*>(param);
  const T* g = static_cast<const T*>(grad);
  const vf lr = set1(step.lr), momentum = set1(step.momentum), damp = set1(step.damp);
  const vf decay = set1(step.weight_decay), scale = set1(step.grad_scale);
  const bool first = step.first_step, nesterov = step.nesterov;
  for_vectors(n, [&](int64_t i, auto lanes) {
    vf w = get(p + i, lanes);
    vf d = fma(w, decay, mul(get(g + i, lanes), scale));
    if (momentum_buffer) {
      vf b = first ? d : fma(get(momentum_buffer + i, lanes), momentum, mul(d, damp));
      put(momentum_buffer + i, b, lanes);
      d = nesterov ? fma(b, momentum, d) : b;
    }
    put(p + i, fnma(d, lr, w), lanes);
  });
}

// PyTorch's Adam and AdamW: denominator sqrt(v) / sqrt(biasCorrection2) + eps.
template <class T>
void adam(int64_t n, void* param, const void* grad, float* m, float* v, const AdamStep& step) {
  T* p = static_cast<T*>(param);
  const T* g = static_cast<const T*>(grad);
  const vf step_size = set1(step.step_size), keep_param = set1(step.keep), decay = set1(step.weight_decay);
  const vf scale = set1(step.grad_scale), eps = set1(step.eps), root_correction = set1(step.root_correction);
  const vf mix1 = set1(step.mix1), beta2 = set1(step.beta2), mix2 = set1(step.mix2);
  for_vectors(n, [&](int64_t i, auto lanes) {
    vf w = get(p + i, lanes);
    vf d = fma(w, decay, mul(get(g + i, lanes), scale));
    vf mean = get(m + i, lanes);
    mean = fma(sub(d, mean), mix1, mean);
    vf square = fma(get(v + i, lanes), beta2, mul(mul(d, d), mix2));
    put(m + i, mean, lanes);
    put(v + i, square, lanes);
    vf denominator = fma(sqrt(square), root_correction, eps);
    put(p + i, fnma(step_size, div(mean, denominator), mul(w, keep_param)), lanes);
  });
}

template <class T>
void install_optim_float(Kernels& row, DType dtype) {
  int d = static_cast<int>(dtype);
  row.sgd[d] = sgd<T>;
  row.adam[d] = adam<T>;
}

}  // namespace kerf::KERF_TARGET
