// A View is a typed, strided window on memory that somebody else keeps alive. It was bounds-checked when it
// was made (binding/read_view.h), so drivers may trust every address that its shape and strides reach.
#pragma once
#include <cstdint>
#include "elem.h"

namespace kerf {

enum class DType : int32_t {
#define DTYPE(name, shorthand, type, bytes, kind) name##_,
#include "dtypes.def"
#undef DTYPE
};

constexpr int kDTypes = 0
#define DTYPE(name, shorthand, type, bytes, kind) +1
#include "dtypes.def"
#undef DTYPE
    ;

constexpr int kMaxRank = 8;

struct View {
  void* data;              // element [0, 0, ...]; null only for an absent OptView or an empty tensor
  DType dtype;
  int32_t rank;
  int64_t shape[kMaxRank];
  int64_t stride[kMaxRank];  // in elements, 0 = broadcast, may be negative
};

// Same thing; the type says that the driver accepts an absent one (present() == false).
struct OptView : View {};

KERF_INLINE bool present(const OptView& v) { return v.rank >= 0; }  // rank is -1 when absent

KERF_INLINE int64_t element_bytes(DType dtype) {
  switch (dtype) {
#define DTYPE(name, shorthand, type, bytes, kind) case DType::name##_: return bytes;
#include "dtypes.def"
#undef DTYPE
  }
  return 0;
}

KERF_INLINE bool is_floating(DType d) { return d == DType::float32_ || d == DType::float16_ || d == DType::bfloat16_; }

// Whether the bytes of such a matrix can be counted: a view's strides of 0 allow sizes that no memory has.
KERF_INLINE bool countable(int64_t rows, int64_t columns) {
  return static_cast<double>(rows) * static_cast<double>(columns) < 9e15;
}

KERF_INLINE int64_t count(const View& v) {
  int64_t n = 1;
  for (int i = 0; i < v.rank; i++) n *= v.shape[i];
  return n;
}

KERF_INLINE bool contiguous(const View& v) {
  int64_t expected = 1;
  for (int i = v.rank - 1; i >= 0; i--) {
    if (v.shape[i] != 1 && v.stride[i] != expected) return false;
    expected *= v.shape[i];
  }
  return true;
}

// Room for what pack() writes, in units of up to 4 bytes; tensors begin at multiples of 64.
KERF_INLINE bool holds_packed(const View& v, int64_t bytes) {
  return v.dtype == DType::uint8_ && contiguous(v) && count(v) == bytes && reinterpret_cast<uintptr_t>(v.data) % 64 == 0;
}

template <class T>
KERF_INLINE const T* data_of(const OptView& v) {
  return present(v) ? static_cast<const T*>(v.data) : nullptr;
}

// A bias as the kernels read it: n float32 one after the other, or none.
KERF_INLINE bool holds_bias(const OptView& v, int64_t n) {
  return !present(v) || (v.dtype == DType::float32_ && v.rank == 1 && v.shape[0] == n && (n <= 1 || v.stride[0] == 1));
}

KERF_INLINE bool same_shape(const View& a, const View& b) {
  if (a.rank != b.rank) return false;
  for (int i = 0; i < a.rank; i++)
    if (a.shape[i] != b.shape[i]) return false;
  return true;
}

}  // namespace kerf
