// What the drivers of products do the same way: rows as kernels read them, the choice and launch of one, and where its result goes.
#pragma once
#include "activate.h"
#include "matmul_kernels.h"

namespace kerf {
namespace cuda {
namespace ops {

inline bool aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }
// Strides in elements.
inline View matrix(void* data, DType dtype, int64_t rows, int64_t columns, int64_t row, int64_t column) {
  View v{};
  v.data = data;
  v.dtype = dtype;
  v.rank = 2;
  v.shape[0] = rows;
  v.shape[1] = columns;
  v.stride[0] = row;
  v.stride[1] = column;
  return v;
}
// Elements of a row of k that begins, like the next, at whole 16 bytes.
inline int64_t padded_row(DType dtype, int64_t k) {
  const int64_t unit = 16 / element_bytes(dtype);
  return (k + unit - 1) / unit * unit;
}
inline bool countable_product(int64_t features, int64_t tokens, int64_t k) {
  return features < 1 << 30 && tokens < 1 << 30 && k < 1 << 28;
}

// The rows as a kernel reads them, pitch `padded` elements: `v` itself where it lies so (packed rows do: their padding is zeros),
// else a copy, zeros beyond its own elements.
Status as_rows(Gpu& gpu, const View& v, int64_t padded, bool packed, const void** rows);
// n numbers, float or int32_t, that begin at 16 bytes: `from` or, where it does not, a copy; null stays null.
template <class T>
Status as_vector(Gpu& gpu, const T* from, int64_t n, const T** vector) {
  static_assert(sizeof(T) == 4, "copied as int32");
  *vector = from;
  if (!from) return Status{};
  const void* found = nullptr;
  const View row = matrix(const_cast<T*>(from), DType::int32_, 1, n, n, 1);
  const Status status = as_rows(gpu, row, n, false, &found);
  *vector = static_cast<const T*>(found);
  return status;
}

// Launches what choose() (matmul_config.h) says for the product and the GPU. `type` and `out`: short dtypes. The operands' split,
// parts and multiprocessors are found here.
Status run_product(Gpu& gpu, const char* op, MatmulWeights weights, const char* type, const char* out, MatmulOperands& operands);

// Calls body(result, activation) with what such a kernel can store to, contiguous and from 16 bytes on: `out`, or scratch memory;
// then does what the kernel could not.
template <class Body>
Status with_result(Gpu& gpu, const View& out, Activation activation, Body&& body) {
  return with_activation(gpu, out, activation, [&](const View& sums, Activation fused) {
    if (contiguous(sums) && aligned16(sums.data)) return body(sums, fused);
    void* memory;
    Status status = gpu.scratch(static_cast<size_t>(count(sums) * element_bytes(sums.dtype)), &memory);
    if (!status.ok()) return status;
    const View result = contiguous_view(memory, sums.dtype, sums);
    status = body(result, fused);
    return status.ok() ? copy(gpu, sums, result) : status;
  });
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
