// Where a program's kernels run: on a GPU if nvcc compiles it, else in the emulator. Memory that both sides reach,
// launches, tensor maps; what fails on a GPU ends the program.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "native/cuda/tensor_map.h"

#ifdef __CUDACC__

namespace target {

inline void require(cudaError_t result, const char* what) {
  if (result == cudaSuccess) return;
  fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(result));
  exit(1);
}

// Filled with a byte that is NaN in every float format.
template <class T>
class Buffer {
 public:
  explicit Buffer(size_t count) : count_(count) {
    const size_t bytes = count * sizeof(T) + 1;
    require(cudaMallocManaged(&data_, bytes), "cudaMallocManaged");
    memset(static_cast<void*>(data_), 0xff, bytes);
  }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() const { return data_; }
  size_t size() const { return count_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  size_t count_;
};

template <class... Parameters, class... Arguments>
void enqueue(void (*kernel)(Parameters...), dim3 grid, int threads, int shared_bytes, const Arguments&... arguments) {
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes), "shared memory");
  kernel<<<grid, threads, shared_bytes>>>(arguments...);
  require(cudaGetLastError(), "launch");
}
inline void wait() { require(cudaDeviceSynchronize(), "kernel"); }

inline void report(const char* what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

}  // namespace target
#else

namespace target {

template <class T>
using Buffer = cu::emu::Buffer<T>;

template <class... Parameters, class... Arguments>
void enqueue(void (*kernel)(Parameters...), dim3 grid, int threads, int shared_bytes, const Arguments&... arguments) {
  cu::emu::launch(grid, dim3(static_cast<unsigned>(threads)), static_cast<size_t>(shared_bytes),
                  [=] { kernel(arguments...); });
}
inline void wait() {}

inline void report(const char* what) { cu::emu::report(what); }

}  // namespace target
#endif

namespace target {

inline cu::TensorMap tensor_map(const uint8_t* base, int rows, int row_bytes, int box_rows, int element_bytes) {
  cu::TensorMap map;
  if (const char* failed = kerf::cuda::encode_tensor_map(&map, base, rows, row_bytes, box_rows, element_bytes)) {
    fprintf(stderr, "%s\n", failed);
    exit(1);
  }
  return map;
}

}  // namespace target
