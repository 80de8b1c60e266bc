// The rows of N views along their last axis, for cells that want contiguous rows: a row that is not is copied to
// scratch before the cell sees it, and from there to its place afterwards.
#pragma once
#include <atomic>

#include "../core/stream.h"
#include "axes.h"
#include "targets.h"

namespace kerf {

template <int N>
struct RowWalk {
  const View* views[N];
  int written;  // the first `written` views are outputs, the others inputs
  Axes<N> leading;
  int64_t rows = 1, n = 1;

  // All views have the same shape.
  RowWalk(const View* const (&of)[N], int outputs) : written(outputs) {
    for (int v = 0; v < N; v++) views[v] = of[v];
    const View& shape = *views[0];
    n = shape.rank ? shape.shape[shape.rank - 1] : 1;
    for (int i = 0; i < shape.rank - 1; i++) {
      int64_t step[N];
      for (int v = 0; v < N; v++) step[v] = views[v]->stride[i];
      leading.push(shape.shape[i], step);
    }
    rows = leading.count();
  }

  bool direct(int v) const { return n <= 1 || views[v]->stride[views[v]->rank - 1] == 1; }
  bool all_direct() const {
    for (int v = 0; v < N; v++)
      if (!direct(v)) return false;
    return true;
  }

  // Calls body(row, pointers) for rows [begin, end). False when there was no memory for scratch.
  template <class Body>
  bool run(int64_t begin, int64_t end, Body&& body) const {
    size_t slot = (static_cast<size_t>(n) * 4 + 63) / 64 * 64;  // floats are the widest elements that rows have
    char* spare = all_direct() ? nullptr : static_cast<char*>(scratch(Scratch::row, slot * N));
    if (!spare && !all_direct()) return false;
    Walk<N> at(leading, begin);
    for (int64_t row = begin; row < end; row++, at.next()) {
      char* p[N];
      for (int v = 0; v < N; v++) {
        p[v] = element(*views[v], at.at[v]);
        if (direct(v)) continue;
        char* copied = spare + slot * static_cast<size_t>(v);
        if (v >= written) copy(*views[v], copied, 1, p[v], views[v]->stride[views[v]->rank - 1]);
        p[v] = copied;
      }
      body(row, p);
      for (int v = 0; v < written; v++)
        if (!direct(v)) copy(*views[v], element(*views[v], at.at[v]), views[v]->stride[views[v]->rank - 1], p[v], 1);
    }
    return true;
  }

 private:
  void copy(const View& view, void* to, int64_t to_stride, const void* from, int64_t from_stride) const {
    int d = static_cast<int>(view.dtype);
    kernels().copy[d][d](n, to, to_stride, from, from_stride);
  }
};

// Runs body over all rows, in tasks of about 16 Ki elements.
template <int N, class Body>
static inline void for_rows(const char* op, const View* const (&views)[N], int outputs, double ns, Body&& body) {
  RowWalk<N> walk(views, outputs);
  int64_t per_task = ceil_div(16384, walk.n > 0 ? walk.n : 1);
  std::atomic<bool> failed = false;
  run_tasks(ns, ceil_div(walk.rows, per_task), [&](int64_t task) {
    int64_t end = (task + 1) * per_task < walk.rows ? (task + 1) * per_task : walk.rows;
    if (!walk.run(task * per_task, end, body)) failed = true;
  });
  if (failed)
    Stream::fail(Code::out_of_memory, "%s: no memory to gather rows of %lld elements", op,
                 static_cast<long long>(walk.n));
}

}  // namespace kerf
