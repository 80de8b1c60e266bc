// Reads and additions at indices. No arithmetic worth vectorising: latency of scattered addresses decides, so only the
// generic row has these.
#pragma once
#include "../core/kernels.h"
#include "../core/target.h"

namespace kerf::KERF_TARGET {

template <class Bits>  // an unsigned integer as wide as the element
int64_t gather(int64_t n, void* out, int64_t stride_out, const void* a, int64_t step, int64_t axis, int64_t size,
               const int64_t* index, int64_t stride_index) {
  const Bits* x = static_cast<const Bits*>(a);
  Bits* y = static_cast<Bits*>(out);
  for (int64_t i = 0; i < n; i++) {
    int64_t at = index[i * stride_index];
    if (at < -size || at >= size) return i;
    at += at < 0 ? size : 0;
    y[i * stride_out] = x[i * step + at * axis];
  }
  return n;
}

KERF_INLINE void accumulate(float& s, float x) { s += x; }
KERF_INLINE void accumulate(float& s, f16 x) { s += kerf::to_float(x); }
KERF_INLINE void accumulate(float& s, bf16 x) { s += kerf::to_float(x); }
template <class T>
KERF_INLINE void accumulate(T& s, T x) {  // integers wrap around
  s = static_cast<T>(static_cast<uint64_t>(s) + static_cast<uint64_t>(x));
}

template <class T, class Sum>
int64_t scatter_add(int64_t n, void* out, int64_t step, int64_t axis, int64_t size, const int64_t* index,
                    int64_t stride_index, const void* a, int64_t stride_a) {
  const T* x = static_cast<const T*>(a);
  Sum* y = static_cast<Sum*>(out);
  for (int64_t i = 0; i < n; i++) {
    int64_t at = index[i * stride_index];
    if (at < -size || at >= size) return i;
    at += at < 0 ? size : 0;
    accumulate(y[i * step + at * axis], x[i * stride_a]);
  }
  return n;
}

template <class T, class Bits, class Sum>
void install_index_type(Kernels& row, DType dtype) {
  int d = static_cast<int>(dtype);
  row.gather[d] = gather<Bits>;
  row.scatter_add[d] = scatter_add<T, Sum>;
}

KERF_INLINE void install_index(Kernels& row) {
  install_index_type<float, uint32_t, float>(row, DType::float32_);
  install_index_type<f16, uint16_t, float>(row, DType::float16_);
  install_index_type<bf16, uint16_t, float>(row, DType::bfloat16_);
  install_index_type<int8_t, uint8_t, int8_t>(row, DType::int8_);
  install_index_type<uint8_t, uint8_t, uint8_t>(row, DType::uint8_);
  install_index_type<int32_t, uint32_t, int32_t>(row, DType::int32_);
  install_index_type<int64_t, uint64_t, int64_t>(row, DType::int64_);
  row.gather[static_cast<int>(DType::bool_)] = gather<uint8_t>;  // adding booleans has no meaning
}

}  // namespace kerf::KERF_TARGET
