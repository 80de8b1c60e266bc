// libkerf_cuda.so's only symbol: the table of core/cuda_abi.h.
#include <cstdio>
#include <tuple>
#include <type_traits>

#include "drivers/ops.h"
#include "graphs.h"

namespace kerf {
namespace cuda {
namespace {

constexpr int kMostGpus = 16;

// Made on first use and never destroyed: a process may end while kernels run.
Gpu& gpu_of(int32_t device) {
  static Gpu* gpus[kMostGpus];
  static std::mutex mutex;
  std::lock_guard<std::mutex> lock(mutex);
  if (!gpus[device]) gpus[device] = new Gpu(device);
  return *gpus[device];
}

template <class Body>
Status with(int32_t device, Body&& body) {
  if (device < 0 || device >= kMostGpus) return Status::error(Code::device, "no cuda:%d", device);
  Gpu& gpu = gpu_of(device);
  std::lock_guard<std::mutex> lock(gpu.mutex);
  Status status = gpu.open();
  return status.ok() ? body(gpu) : status;
}

int32_t count(char* why, size_t size) {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  int driver = 0;
  if (error == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0)
    snprintf(why, size, "the NVIDIA driver is too old: it knows CUDA %d.%d, this library needs %d.%d", driver / 1000,
             driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
  else if (error == cudaErrorInsufficientDriver)
    snprintf(why, size, "no NVIDIA driver");
  else if (error == cudaErrorNoDevice || (error == cudaSuccess && devices == 0))
    snprintf(why, size, "the NVIDIA driver finds no GPU");
  else if (error != cudaSuccess)
    snprintf(why, size, "%s", cudaGetErrorString(error));
  if (error != cudaSuccess) devices = 0;
  return devices < kMostGpus ? devices : kMostGpus;
}

Status describe(int32_t device, CudaCard* card) {
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) return Status::error(Code::device, "no cuda:%d", device);
  snprintf(card->name, sizeof card->name, "%.127s", properties.name);
  card->bytes = static_cast<int64_t>(properties.totalGlobalMem);
  card->major = properties.major;
  card->minor = properties.minor;
  return Status{};
}

Status allocate(int32_t device, size_t bytes, void** memory) {
  return with(device, [&](Gpu& gpu) { return gpu.allocate(bytes, memory); });
}

void release(int32_t device, void* memory) {
  with(device, [&](Gpu& gpu) {
    gpu.release(memory);
    return Status{};
  });
}

Status upload(int32_t device, void* to, const void* from, size_t bytes) {
  return with(device, [&](Gpu& gpu) { return gpu.upload(to, from, bytes); });
}

Status download(int32_t device, void* to, const void* from, size_t bytes) {
  return with(device, [&](Gpu& gpu) { return gpu.download(to, from, bytes); });
}

Status wait(int32_t device) {
  return with(device, [](Gpu& gpu) { return gpu.wait(); });
}

Status watch(int32_t device, void (*done)(void*, const Status*), void* context) {
  return with(device, [&](Gpu& gpu) { return gpu.watch(done, context); });
}

// The arguments of a call, one after the other.
struct Arguments {
  const View* view;
  const double* number;
  template <class T> T next();
};
template <> View Arguments::next<View>() { return *view++; }
template <> OptView Arguments::next<OptView>() {
  OptView v;
  static_cast<View&>(v) = *view++;
  return v;
}
template <> double Arguments::next<double>() { return *number++; }
template <> i64 Arguments::next<i64>() { return static_cast<i64>(*number++); }

template <class... Parameters>
Status apply(Status (*driver)(Gpu&, Parameters...), Gpu& gpu, Graphs& graphs, const CudaCall& call) {
  constexpr int kViews = (0 + ... + static_cast<int>(std::is_base_of_v<View, Parameters>));
  return graphs.run(gpu, call, kViews, static_cast<int>(sizeof...(Parameters)) - kViews, [&] {
    Arguments arguments{call.views, call.numbers};
    std::tuple<Parameters...> parameters{arguments.next<Parameters>()...};  // braces: evaluated in order
    const Status status = std::apply([&](Parameters&... p) { return driver(gpu, p...); }, parameters);
    gpu.free_scratch();
    return status;
  });
}

Status run(int32_t device, const CudaCall* call) {
  static Graphs* const graphs = new Graphs[kMostGpus];  // each used under its Gpu's mutex, never destroyed
  return with(device, [&](Gpu& gpu) {
    switch (call->op) {
#define OP(name, parameters)                                                                   \
  case OpCode::name##_: {                                                                      \
    if (!ops::name) return Status::error(Code::unsupported, "no CUDA kernel yet"); \
    return apply(ops::name, gpu, graphs[device], *call);                                       \
  }
#include "../core/ops.def"
#undef OP
      default: return Status::error(Code::bug, "no op %d", static_cast<int>(call->op));
    }
  });
}

constexpr CudaLibrary kLibrary{kTables, count, describe, allocate, release, upload, download, run, wait, watch};

}  // namespace
}  // namespace cuda
}  // namespace kerf

extern "C" __attribute__((visibility("default"))) const kerf::CudaLibrary* kerf_cuda_library() { return &kerf::cuda::kLibrary; }
