// The numbers of an optimizer's step as kernels take them, computed in float64 from those of ops.def.
#pragma once
#include "kernels.h"

namespace kerf {

static inline SgdStep sgd_numbers(f64 lr, f64 momentum, f64 dampening, f64 weight_decay, i64 nesterov, i64 first_step,
                                  f64 grad_scale) {
  return {static_cast<float>(lr),
          static_cast<float>(momentum),
          static_cast<float>(1 - dampening),
          static_cast<float>(weight_decay),
          static_cast<float>(grad_scale),
          nesterov != 0,
          first_step != 0};
}

static inline AdamStep adam_numbers(f64 lr, f64 beta1, f64 beta2, f64 eps, f64 weight_decay, i64 decoupled,
                                    f64 bias_correction1, f64 bias_correction2, f64 grad_scale) {
  AdamStep step;
  step.step_size = static_cast<float>(lr / bias_correction1);
  step.mix1 = static_cast<float>(1 - beta1);
  step.mix2 = static_cast<float>(1 - beta2);
  step.beta2 = static_cast<float>(beta2);
  step.eps = static_cast<float>(eps);
  step.root_correction = static_cast<float>(1 / __builtin_sqrt(bias_correction2));
  step.weight_decay = decoupled ? 0.0f : static_cast<float>(weight_decay);
  step.keep = decoupled ? static_cast<float>(1 - lr * weight_decay) : 1.0f;
  step.grad_scale = static_cast<float>(grad_scale);
  return step;
}

}  // namespace kerf
