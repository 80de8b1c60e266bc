// The addon's side of libkerf_cuda.so (core/cuda_abi.h): loading it, memory of a GPU as a value of JavaScript, calls whose views
// lie there.
#pragma once
#include <napi.h>

#include "../core/cuda_abi.h"
#include "environment.h"

namespace kerf {

constexpr int32_t kCpu = -1;

// What an external value of cudaAllocate() holds. Its finalizer frees the memory, in stream order.
struct CudaMemory {
  void* data;
  size_t bytes;
  int32_t device;
};

// The memory, or null for any other value.
const CudaMemory* cuda_memory(napi_env env, napi_value value);

// Where the views of one call lie: all on the CPU, all on one GPU, or not together.
struct Place {
  int32_t views = 0, first = kCpu, other = kCpu;
  bool mixed = false;

  void add(int32_t device) {
    if (views++ == 0)
      first = device;
    else if (device != first && !mixed)
      mixed = true, other = device;
  }
  bool on_device() const { return mixed || (views > 0 && first != kCpu); }
};

Status cuda_dispatch(const Place& place, const CudaCall& call);

inline void put_argument(CudaCall& call, int& views, int&, const View& v) { call.views[views++] = v; }
inline void put_argument(CudaCall& call, int&, int& numbers, double number) { call.numbers[numbers++] = number; }
inline void put_argument(CudaCall& call, int&, int& numbers, i64 number) { call.numbers[numbers++] = static_cast<double>(number); }

// Runs an op on the GPU that its views lie on.
template <class... Arguments>
Status cuda_run(const Place& place, OpCode op, const Arguments&... arguments) {
  static_assert((0 + ... + std::is_base_of_v<View, Arguments>) <= CudaCall::kViews, "room for the views");
  static_assert((0 + ... + !std::is_base_of_v<View, Arguments>) <= CudaCall::kNumbers, "room for the numbers");
  CudaCall call;
  call.op = op;
  int views = 0, numbers = 0;
  (put_argument(call, views, numbers, arguments), ...);
  return cuda_dispatch(place, call);
}

void export_cuda(Napi::Env env, Napi::Object exports, Environment* environment);

}  // namespace kerf
