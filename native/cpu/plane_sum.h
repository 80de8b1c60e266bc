// A plane of gradients that are added to before they are rounded: da itself when it is float32.
#pragma once
#include "vectors.h"

namespace kerf::KERF_TARGET {

template <class T>
struct PlaneSum {
  T* to;
  float* at;
  int64_t n;

  PlaneSum(void* da, float* spare, int64_t size) : to(static_cast<T*>(da)), at(spare), n(size) {
    if constexpr (__is_same(T, float)) at = to;
    for (int64_t i = 0; i < n; i++) at[i] = 0;
  }
  void round() const {
    if constexpr (!__is_same(T, float))
      for_vectors(n, [&](int64_t i, auto lanes) { put(to + i, get(at + i, lanes), lanes); });
  }
};

}  // namespace kerf::KERF_TARGET
