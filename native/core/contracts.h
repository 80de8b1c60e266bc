// What drivers ask of an op's views, on the CPU and on a GPU alike.
#pragma once
#include "view.h"

namespace kerf {

// `out` is a's shape with size 1 on every axis that is reduced.
KERF_INLINE bool reduces(const View& out, const View& a) {
  if (out.rank != a.rank) return false;
  for (int i = 0; i < a.rank; i++)
    if (out.shape[i] != a.shape[i] && out.shape[i] != 1) return false;
  return true;
}

// Absent, or floats along a's last axis.
KERF_INLINE bool may_be_vector(const OptView& v, const View& a) {
  return !present(v) || (v.rank == 1 && a.rank > 0 && v.shape[0] == a.shape[a.rank - 1] && is_floating(v.dtype));
}

// One contiguous float32 a row of a.
KERF_INLINE bool is_statistic(const View& v, const View& a) {
  return v.dtype == DType::float32_ && contiguous(v) && a.rank > 0 && count(v) * a.shape[a.rank - 1] == count(a);
}

// One value a row of [n, c] logits.
KERF_INLINE bool is_batch(const View& v, DType dtype, const View& logits) {
  return v.rank == 1 && v.dtype == dtype && v.shape[0] == logits.shape[0];
}

// An optimizer's state of a parameter.
KERF_INLINE bool is_state(const View& state, const View& param) {
  return state.dtype == DType::float32_ && contiguous(state) && same_shape(state, param);
}

// The index vector of indexSelect and indexAdd as a view with v's rank: 0 steps along all other axes.
KERF_INLINE View spread(const View& index, const View& v, int64_t axis) {
  View r = index;
  r.rank = v.rank;
  for (int i = 0; i < v.rank; i++) {
    r.shape[i] = i == axis ? index.shape[0] : v.shape[i];
    r.stride[i] = i == axis ? index.stride[0] : 0;
  }
  return r;
}

}  // namespace kerf
