// Where a program's kernels run: on a GPU if nvcc compiles it, else in the emulator. Memory that both sides reach,
// launches, tensor maps; what fails on a GPU ends the program.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <cstring>

#ifdef __CUDACC__
#include "native/cuda/cu.h"

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

// Rows of `row_bytes`; boxes of box_rows x 128 bytes, swizzled, zeros outside.
inline cu::TensorMap tensor_map(uint8_t* base, int rows, int row_bytes, int box_rows, int element_bytes) {
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static const Encode encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    require(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result),
            "cuTensorMapEncodeTiled");
    return reinterpret_cast<Encode>(found);
  }();
  cu::TensorMap map;
  const cuuint64_t sizes[2] = {cuuint64_t(row_bytes / element_bytes), cuuint64_t(rows)};
  const cuuint64_t pitch[1] = {cuuint64_t(row_bytes)};
  const cuuint32_t box[2] = {cuuint32_t(128 / element_bytes), cuuint32_t(box_rows)}, steps[2] = {1, 1};
  const CUtensorMapDataType type = element_bytes == 1 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_UINT16;
  const CUresult result =
      encode(&map, type, 2, base, sizes, pitch, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    fprintf(stderr, "cuTensorMapEncodeTiled: %d\n", static_cast<int>(result));
    exit(1);
  }
  return map;
}

inline void report(const char* what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

}  // namespace target
#else
#include "emulator/emulator.h"

namespace target {

template <class T>
using Buffer = cu::emu::Buffer<T>;

template <class... Parameters, class... Arguments>
void enqueue(void (*kernel)(Parameters...), dim3 grid, int threads, int shared_bytes, const Arguments&... arguments) {
  cu::emu::launch(grid, dim3(static_cast<unsigned>(threads)), static_cast<size_t>(shared_bytes),
                  [=] { kernel(arguments...); });
}
inline void wait() {}

inline cu::TensorMap tensor_map(uint8_t* base, int rows, int row_bytes, int box_rows, int element_bytes) {
  return {base, rows, row_bytes, row_bytes, box_rows, element_bytes};
}

inline void report(const char* what) { cu::emu::report(what); }

}  // namespace target
#endif
