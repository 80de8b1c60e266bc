// Optimizer steps, in place, in chunks that stay within L1 and L2.
#include "../core/contracts.h"
#include "../core/optim_steps.h"
#include "axes.h"
#include "ops.h"
#include "scalar.h"

namespace kerf::ops {
namespace {

constexpr int64_t kChunk = 16384;

template <class Body>
void for_chunks(double ns, int64_t n, Body&& body) {
  run_tasks(ns, ceil_div(n, kChunk), [&](int64_t task) {
    int64_t start = task * kChunk;
    body(start, n - start < kChunk ? n - start : kChunk);
  });
}

}  // namespace

Status sgdStep(Stream& stream, View param, View grad, OptView momentumBuffer, f64 lr, f64 momentum, f64 dampening,
               f64 weightDecay, i64 nesterov, i64 firstStep, f64 gradScale) {
  REQUIRE(contiguous(param) && contiguous(grad) && same_shape(param, grad) && param.dtype == grad.dtype);
  REQUIRE(!present(momentumBuffer) || is_state(momentumBuffer, param));
  SgdCell cell = kernels().sgd[static_cast<int>(param.dtype)];
  if (!cell) return no_kernel("sgdStep", param.dtype);
  const SgdStep step = sgd_numbers(lr, momentum, dampening, weightDecay, nesterov, firstStep, gradScale);
  double bytes = static_cast<double>(3 * element_bytes(param.dtype) + (present(momentumBuffer) ? 8 : 0));
  double ns = static_cast<double>(count(param)) * (0.1 + bytes / 20) + 50;
  return stream.run(ns, [param, grad, momentumBuffer, step, cell, ns] {
    for_chunks(ns, count(param), [&](int64_t start, int64_t n) {
      float* buffer = present(momentumBuffer) ? static_cast<float*>(momentumBuffer.data) + start : nullptr;
      cell(n, element(param, start), element(grad, start), buffer, step);
    });
  });
}

Status adamStep(Stream& stream, View param, View grad, View m, View v, f64 lr, f64 beta1, f64 beta2, f64 eps,
                f64 weightDecay, i64 decoupled, f64 biasCorrection1, f64 biasCorrection2, f64 gradScale) {
  REQUIRE(contiguous(param) && contiguous(grad) && same_shape(param, grad) && param.dtype == grad.dtype);
  REQUIRE(is_state(m, param) && is_state(v, param));
  AdamCell cell = kernels().adam[static_cast<int>(param.dtype)];
  if (!cell) return no_kernel("adamStep", param.dtype);
  const AdamStep step =
      adam_numbers(lr, beta1, beta2, eps, weightDecay, decoupled, biasCorrection1, biasCorrection2, gradScale);
  double ns =
      static_cast<double>(count(param)) * (0.5 + static_cast<double>(3 * element_bytes(param.dtype) + 16) / 20) + 50;
  return stream.run(ns, [param, grad, m, v, step, cell, ns] {
    for_chunks(ns, count(param), [&](int64_t start, int64_t n) {
      cell(n, element(param, start), element(grad, start), static_cast<float*>(m.data) + start,
           static_cast<float*>(v.data) + start, step);
    });
  });
}

}  // namespace kerf::ops
