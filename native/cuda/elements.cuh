// Elements of tensors, for the kernels that take any dtype and any strides: where element number i lies, and what it is.
#pragma once
#include <math.h>

#include "../core/axes.h"
#include "cu.h"
#include "fault.h"

namespace kerf {
namespace cuda {

// The axes that N views share, passed to kernels by value. A launch has fewer than 2^32 elements.
template <int N>
struct Layout {
  int rank;
  uint32_t shape[kMaxRank];
  int64_t stride[N][kMaxRank];  // in elements
};

// Offsets, in elements, of element number `i` in row-major order.
template <int N>
CU_FUNCTION void locate(const Layout<N>& layout, uint32_t i, int64_t (&at)[N]) {
#pragma unroll
  for (int v = 0; v < N; v++) at[v] = 0;
  for (int axis = layout.rank - 1; axis >= 0; axis--) {
    const uint32_t rest = axis ? i / layout.shape[axis] : 0;
    const int64_t coordinate = axis ? i % layout.shape[axis] : i;
    i = rest;
#pragma unroll
    for (int v = 0; v < N; v++) at[v] += coordinate * layout.stride[v][axis];
  }
}

// A dtype as kernels see it: how it is stored, and the type that it is computed in. Integers and bool are all computed in
// int64 and wrap when they are stored; which of them it is is known at run time.
template <DType D> struct Floating;
template <> struct Floating<DType::float32_> {
  using Stored = float;
  using Value = float;
  CU_FUNCTION float from(float stored) const { return stored; }
  CU_FUNCTION float to(float value) const { return value; }
};
template <> struct Floating<DType::float16_> {
  using Stored = uint16_t;
  using Value = float;
  CU_FUNCTION float from(uint16_t stored) const { return to_float(f16{stored}); }
  CU_FUNCTION uint16_t to(float value) const { return to_f16(value).bits; }
};
template <> struct Floating<DType::bfloat16_> {
  using Stored = uint16_t;
  using Value = float;
  CU_FUNCTION float from(uint16_t stored) const { return to_float(bf16{stored}); }
  CU_FUNCTION uint16_t to(float value) const { return to_bf16(value).bits; }
};

// How a view of some float dtype is read and written.
template <class F>
struct Floats {
  using Value = float;
  void* data;
  CU_FUNCTION float get(int64_t at) const {
    return F().from(cu::load_global(static_cast<const typename F::Stored*>(data) + at));
  }
  CU_FUNCTION float own(int64_t at) const {
    return F().from(cu::load_own(static_cast<const typename F::Stored*>(data) + at));
  }
  CU_FUNCTION void put(int64_t at, float value) const {
    cu::store_global(static_cast<typename F::Stored*>(data) + at, F().to(value));
  }
};

struct Integers {
  using Value = int64_t;
  void* data;
  DType dtype;
  CU_FUNCTION int64_t own(int64_t at) const {
    switch (dtype) {
      case DType::int8_: return cu::load_own(static_cast<const int8_t*>(data) + at);
      case DType::int32_: return cu::load_own(static_cast<const int32_t*>(data) + at);
      case DType::int64_: return cu::load_own(static_cast<const int64_t*>(data) + at);
      default: return cu::load_own(static_cast<const uint8_t*>(data) + at);
    }
  }
  CU_FUNCTION int64_t get(int64_t at) const { return own(at); }
  CU_FUNCTION void put(int64_t at, int64_t value) const {
    switch (dtype) {
      case DType::int32_: return cu::store_global(static_cast<int32_t*>(data) + at, static_cast<int32_t>(value));
      case DType::int64_: return cu::store_global(static_cast<int64_t*>(data) + at, value);
      case DType::bool_: return cu::store_global(static_cast<uint8_t*>(data) + at, static_cast<uint8_t>(value != 0));
      default: return cu::store_global(static_cast<uint8_t*>(data) + at, static_cast<uint8_t>(value));
    }
  }
};

// Any dtype, known at run time.
struct Anything {
  void* data;
  DType dtype;
  CU_FUNCTION bool floating() const { return is_floating(dtype); }
  CU_FUNCTION float get_float(int64_t at) const {
    if (dtype == DType::float32_) return cu::load_own(static_cast<const float*>(data) + at);
    const uint16_t bits = cu::load_own(static_cast<const uint16_t*>(data) + at);
    return dtype == DType::float16_ ? to_float(f16{bits}) : to_float(bf16{bits});
  }
  CU_FUNCTION void put_float(int64_t at, float value) const {
    if (dtype == DType::float32_)
      cu::store_global(static_cast<float*>(data) + at, value);
    else
      cu::store_global(static_cast<uint16_t*>(data) + at,
                       dtype == DType::float16_ ? to_f16(value).bits : to_bf16(value).bits);
  }
  CU_FUNCTION int64_t get_integer(int64_t at) const { return Integers{data, dtype}.own(at); }
  // PyTorch's casts made total, as in cpu/convert.h: a float is truncated and saturates, NaN is 0; an integer wraps.
  CU_FUNCTION void put(int64_t at, float value) const {
    if (floating()) return put_float(at, value);
    const Integers out{data, dtype};
    if (dtype == DType::bool_) return out.put(at, value != 0.0f);
    if (value != value) return out.put(at, 0);
    const int bits = dtype == DType::int64_ ? 63 : dtype == DType::int32_ ? 31 : dtype == DType::int8_ ? 7 : 8;
    const float end = ldexpf(1.0f, bits), low = dtype == DType::uint8_ ? 0.0f : -end;
    const int64_t top = static_cast<int64_t>((uint64_t{1} << bits) - 1);
    out.put(at, value <= low ? static_cast<int64_t>(low) : value >= end ? top : static_cast<int64_t>(value));
  }
  CU_FUNCTION void put(int64_t at, int64_t value) const {
    if (floating())
      put_float(at, static_cast<float>(value));
    else
      Integers{data, dtype}.put(at, value);
  }
};

// The first of a grid's elements for this thread, and the distance to its next one.
CU_FUNCTION uint32_t first_element() { return blockIdx.x * blockDim.x + threadIdx.x; }
CU_FUNCTION uint32_t element_step() { return gridDim.x * blockDim.x; }

}  // namespace cuda
}  // namespace kerf
