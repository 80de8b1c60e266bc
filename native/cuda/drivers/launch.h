// What drivers do the same way: axes of several views for a kernel, the size of a grid, the dtype of a view as a type, more shared
// memory than a kernel has unasked.
#pragma once
#include <atomic>

#include "../../core/contracts.h"
#include "../elements.cuh"
#include "ops.h"

namespace kerf {
namespace cuda {

inline Status no_kernel(const char* op, DType dtype) {
  static constexpr const char* kNames[] = {
#define DTYPE(name, shorthand, type, bytes, kind) #name,
#include "../../core/dtypes.def"
#undef DTYPE
  };
  return Status::error(Code::unsupported, "no CUDA kernel of %s for %s yet", op, kNames[static_cast<int>(dtype)]);
}

// Elements are numbered in 32 bits.
inline bool fits(int64_t n) { return n < (int64_t{1} << 32); }
inline Status too_many(const char* op, int64_t n) {
  return Status::error(Code::unsupported, "%s of %lld elements: CUDA kernels take fewer than 2^32", op, static_cast<long long>(n));
}

// The axes of `views`, all of the first one's shape; those from `first_axis` to before `end_axis`.
template <int N>
Layout<N> layout_of(const View* const (&views)[N], int first_axis, int end_axis) {
  Axes<N> axes;
  for (int i = first_axis; i < end_axis; i++) {
    int64_t step[N];
    for (int v = 0; v < N; v++) step[v] = views[v]->stride[i];
    axes.push(views[0]->shape[i], step);
  }
  Layout<N> layout{};
  layout.rank = axes.rank;
  for (int i = 0; i < axes.rank; i++) {
    layout.shape[i] = static_cast<uint32_t>(axes.shape[i]);
    for (int v = 0; v < N; v++) layout.stride[v][i] = axes.stride[v][i];
  }
  return layout;
}
template <int N>
Layout<N> layout_of(const View* const (&views)[N]) {
  return layout_of(views, 0, views[0]->rank);
}

// A grid for n independent elements: threads loop where there are more than a full GPU's worth of blocks.
constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 132 * 16;
inline dim3 threads_for(int64_t n) { return dim3(n >= kThreads ? kThreads : static_cast<unsigned>((n + 31) / 32 * 32)); }
inline dim3 blocks_for(int64_t n) {
  const int64_t blocks = (n + kThreads - 1) / kThreads;
  return dim3(static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks));
}

// A grid where a block takes a row (or a tile) at a time: short rows are left to one warp, which needs no barrier.
inline dim3 row_blocks(int64_t rows) { return dim3(static_cast<unsigned>(rows < kMostBlocks ? rows : kMostBlocks)); }
inline dim3 row_threads(int64_t columns) { return dim3(columns > 1024 ? kThreads : 32); }

// Calls body(Floats<...> type) for a float dtype; body answers a Status.
template <class Body>
Status with_floats(const char* op, DType dtype, Body&& body) {
  switch (dtype) {
    case DType::float32_: return body(Floats<Floating<DType::float32_>>{});
    case DType::float16_: return body(Floats<Floating<DType::float16_>>{});
    case DType::bfloat16_: return body(Floats<Floating<DType::bfloat16_>>{});
    default: return no_kernel(op, dtype);
  }
}

// More than 48 KiB of shared memory for a kernel, asked for once on every device.
template <auto kernel>
Status allow_shared([[maybe_unused]] const char* op, [[maybe_unused]] int bytes) {
#ifdef __CUDACC__
  static std::atomic<uint64_t> asked = 0;
  int device = 0;
  cudaError_t allowed = cudaGetDevice(&device);
  if (allowed == cudaSuccess && !(asked >> device & 1)) {
    allowed = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (allowed == cudaSuccess) asked |= uint64_t{1} << device;
  }
  if (allowed != cudaSuccess) return Status::error(Code::device, "%s: %s", op, cudaGetErrorString(allowed));
#endif
  return Status{};
}

inline View contiguous_view(void* data, DType dtype, const View& like) {
  View v = like;
  v.data = data;
  v.dtype = dtype;
  int64_t step = 1;
  for (int i = v.rank - 1; i >= 0; step *= v.shape[i--]) v.stride[i] = step;
  return v;
}

}  // namespace cuda
}  // namespace kerf
