// The drivers of CUDA: functions of ops.def's names and parameters, like those of native/ops/, that enqueue kernels on a GPU.
// They are declared weak: an op that no file defines answers "no CUDA kernel" (library.cu).
#pragma once
#include "../runtime.h"

namespace kerf {
namespace cuda {
namespace ops {

#define OP(name, parameters) OP_DECLARE(name, OP_EXPAND parameters)
#define OP_EXPAND(...) __VA_ARGS__
#define OP_DECLARE(name, ...) Status name(Gpu& gpu, __VA_ARGS__) __attribute__((weak));
#include "../../core/ops.def"
#undef OP_DECLARE
#undef OP_EXPAND
#undef OP

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
