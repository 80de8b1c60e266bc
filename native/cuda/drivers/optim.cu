#include "../optim.cuh"

#include "../../core/optim_steps.h"
#include "launch.h"

namespace kerf {
namespace cuda {
namespace ops {

Status sgdStep(Gpu& gpu, View param, View grad, OptView momentumBuffer, f64 lr, f64 momentum, f64 dampening, f64 weightDecay,
               i64 nesterov, i64 firstStep, f64 gradScale) {
  REQUIRE(contiguous(param) && contiguous(grad) && same_shape(param, grad) && param.dtype == grad.dtype);
  REQUIRE(!present(momentumBuffer) || is_state(momentumBuffer, param));
  const SgdStep step = sgd_numbers(lr, momentum, dampening, weightDecay, nesterov, firstStep, gradScale);
  const int64_t n = count(param);
  if (n == 0) return Status{};
  if (!fits(n)) return too_many("sgdStep", n);
  return with_floats("sgdStep", param.dtype, [&](auto type) {
    using T = decltype(type);
    const T p{param.data}, g{grad.data};
    float* const buffer = present(momentumBuffer) ? static_cast<float*>(momentumBuffer.data) : nullptr;
    const auto size = static_cast<uint32_t>(n);
    CU_LAUNCH((sgd<T>), blocks_for(n), threads_for(n), 0, gpu.stream(), size, p, g, buffer, step);
    return gpu.launched("sgdStep");
  });
}

Status adamStep(Gpu& gpu, View param, View grad, View m, View v, f64 lr, f64 beta1, f64 beta2, f64 eps, f64 weightDecay,
                i64 decoupled, f64 biasCorrection1, f64 biasCorrection2, f64 gradScale) {
  REQUIRE(contiguous(param) && contiguous(grad) && same_shape(param, grad) && param.dtype == grad.dtype);
  REQUIRE(is_state(m, param) && is_state(v, param));
  const AdamStep step = adam_numbers(lr, beta1, beta2, eps, weightDecay, decoupled, biasCorrection1, biasCorrection2, gradScale);
  const int64_t n = count(param);
  if (n == 0) return Status{};
  if (!fits(n)) return too_many("adamStep", n);
  return with_floats("adamStep", param.dtype, [&](auto type) {
    using T = decltype(type);
    const T p{param.data}, g{grad.data};
    float *const means = static_cast<float*>(m.data), *const squares = static_cast<float*>(v.data);
    const auto size = static_cast<uint32_t>(n);
    CU_LAUNCH((adam<T>), blocks_for(n), threads_for(n), 0, gpu.stream(), size, p, g, means, squares, step);
    return gpu.launched("adamStep");
  });
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
