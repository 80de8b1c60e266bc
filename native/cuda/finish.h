// What kernels that have whole sums do with them: bias and activation.
#pragma once
#include "elementwise.cuh"
#include "epilogue.h"

namespace kerf {
namespace cuda {

// none, relu or silu of sum + bias[channel], with the bits of the op of that name; a null bias is all zeros.
struct Finish {
  const float* bias;
  Activation activation;
  CU_FUNCTION float operator()(float sum, uint32_t channel) const {
    const float v = bias ? sum + cu::load_global(bias + channel) : sum;
    return activation == Activation::silu ? Silu()(v) : activated(activation, v);
  }
};

}  // namespace cuda
}  // namespace kerf
