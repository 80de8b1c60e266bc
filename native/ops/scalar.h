// Single elements of a dtype known at run time, and what a driver says when a cell is empty.
#pragma once
#include "../core/status.h"
#include "../core/view.h"
#include "targets.h"

namespace kerf {

static inline const char* dtype_name(DType dtype) {
  switch (dtype) {
#define DTYPE(name, shorthand, type, bytes, kind) \
  case DType::name##_: return #name;
#include "../core/dtypes.def"
#undef DTYPE
  }
  return "unknown";
}

static inline Status no_kernel(const char* op, DType dtype) {
  return Status::error(Code::unsupported, "%s: no %s kernel on %s", op, dtype_name(dtype), kernels().target);
}

// Element `at` of a floating buffer.
static inline void put_float(DType dtype, void* data, int64_t at, double value) {
  float x = static_cast<float>(value);
  if (dtype == DType::float32_)
    static_cast<float*>(data)[at] = x;
  else if (dtype == DType::float16_)
    static_cast<f16*>(data)[at] = to_f16(x);
  else if (dtype == DType::bfloat16_)
    static_cast<bf16*>(data)[at] = to_bf16(x);
}

static inline float get_float(DType dtype, const void* data, int64_t at) {
  if (dtype == DType::float16_) return to_float(static_cast<const f16*>(data)[at]);
  if (dtype == DType::bfloat16_) return to_float(static_cast<const bf16*>(data)[at]);
  return static_cast<const float*>(data)[at];
}

}  // namespace kerf
