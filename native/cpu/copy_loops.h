// The loops behind the copy cells: every dtype to every dtype, any strides. Include the target's simd.h first.
#pragma once
#include "../core/kernels.h"
#include "convert.h"

namespace kerf::KERF_TARGET {

template <class To, class From>
KERF_INLINE To cast(From x) {
  if constexpr (__is_same(To, From))
    return x;
  else
    return convert<To>(x);
}

template <class To, class From>
void copy(int64_t n, void* out_, int64_t stride_out, const void* a_, int64_t stride_a) {
  To* out = static_cast<To*>(out_);
  const From* a = static_cast<const From*>(a_);
  constexpr bool both_vectors = kIsFloat<To> && kIsFloat<From>;  // then load and store convert
  if (stride_out == 1 && stride_a == 1) {
    if constexpr (__is_same(To, From)) {
      // memmove: views that overlap break the ops' contract, but must not be undefined behaviour
      if (out != a) __builtin_memmove(out, a, static_cast<size_t>(n) * sizeof(To));
    } else if constexpr (both_vectors) {
      int64_t i = 0;
      for (; i + W <= n; i += W) store(out + i, load(a + i));
      if (i < n) store_n(out + i, load_n(a + i, n - i), n - i);
    } else {
#pragma GCC ivdep
      for (int64_t i = 0; i < n; i++) out[i] = convert<To>(a[i]);
    }
    return;
  }
  if (stride_out == 1 && stride_a == 0) {
    To value = cast<To>(*a);
    for (int64_t i = 0; i < n; i++) out[i] = value;
    return;
  }
  for (int64_t i = 0; i < n; i++) out[i * stride_out] = cast<To>(a[i * stride_a]);
}

template <class From>
void install_copy_from(Kernels& row, DType from) {
  CopyCell* cells = row.copy[static_cast<int>(from)];
  cells[static_cast<int>(DType::float32_)] = copy<float, From>;
  cells[static_cast<int>(DType::float16_)] = copy<f16, From>;
  cells[static_cast<int>(DType::bfloat16_)] = copy<bf16, From>;
  cells[static_cast<int>(DType::int8_)] = copy<int8_t, From>;
  cells[static_cast<int>(DType::uint8_)] = copy<uint8_t, From>;
  cells[static_cast<int>(DType::int32_)] = copy<int32_t, From>;
  cells[static_cast<int>(DType::int64_)] = copy<int64_t, From>;
  cells[static_cast<int>(DType::bool_)] = copy<Bool, From>;
}

KERF_INLINE void install_copy_cells(Kernels& row) {
  install_copy_from<float>(row, DType::float32_);
  install_copy_from<f16>(row, DType::float16_);
  install_copy_from<bf16>(row, DType::bfloat16_);
  install_copy_from<int8_t>(row, DType::int8_);
  install_copy_from<uint8_t>(row, DType::uint8_);
  install_copy_from<int32_t>(row, DType::int32_);
  install_copy_from<int64_t>(row, DType::int64_);
  install_copy_from<Bool>(row, DType::bool_);
}

}  // namespace kerf::KERF_TARGET
