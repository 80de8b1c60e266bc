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
    if (!all_direct()) return run_copied(begin, end, body);
    Walk<N> at(leading, begin);
    for (int64_t row = begin; row < end; row++, at.next()) {
      char* p[N];
      for (int v = 0; v < N; v++) p[v] = element(*views[v], at.at[v]);
      body(row, p);
    }
    return true;
  }

 private:
  // Up to 16 neighbouring rows at a time: where rows lie side by side in memory (a transposed view), a cache line holds
  // 16 of them.
  template <class Body>
  bool run_copied(int64_t begin, int64_t end, Body&& body) const {
    int64_t together = 65536 / n < 1 ? 1 : 65536 / n > 16 ? 16 : 65536 / n;
    // From row to row in scratch: never a power of two, or 16 rows would share one set of the L1 cache.
    int64_t length = (n + 15) / 16 * 16 + 16;
    size_t block = static_cast<size_t>(length * together) * 4;  // floats are the widest elements that rows have
    char* spare = static_cast<char*>(scratch(Scratch::row, block * N));
    if (!spare) return false;
    Walk<N> at(leading, begin);
    for (int64_t row = begin; row < end;) {
      int last = leading.rank - 1;
      int64_t rows_here = last < 0 ? 1 : leading.shape[last] - at.coordinate[last];
      if (rows_here > together) rows_here = together;
      if (rows_here > end - row) rows_here = end - row;
      char* lines[N];
      int64_t step[N];
      for (int v = 0; v < N; v++) {
        lines[v] = direct(v) ? element(*views[v], at.at[v]) : spare + block * static_cast<size_t>(v);
        step[v] = (direct(v) ? last < 0 ? 0 : leading.stride[v][last] : length) * element_bytes(views[v]->dtype);
        if (!direct(v) && v >= written) copy(v, at.at[v], lines[v], length, rows_here, true);
      }
      for (int64_t i = 0; i < rows_here; i++) {
        char* p[N];
        for (int v = 0; v < N; v++) p[v] = lines[v] + i * step[v];
        body(row + i, p);
      }
      for (int v = 0; v < written; v++)
        if (!direct(v)) copy(v, at.at[v], lines[v], length, rows_here, false);
      for (int64_t i = 0; i < rows_here; i++) at.next();
      row += rows_here;
    }
    return true;
  }

  // Between `rows_here` rows of view v and scratch, in runs along whichever direction is denser in the view.
  void copy(int v, int64_t offset, char* spare, int64_t length, int64_t rows_here, bool to_spare) const {
    const View& view = *views[v];
    int d = static_cast<int>(view.dtype);
    CopyCell cell = kernels().copy[d][d];
    int64_t bytes = element_bytes(view.dtype), along = view.stride[view.rank - 1];
    int64_t across = leading.rank ? leading.stride[v][leading.rank - 1] : 0;
    bool by_rows = (across < 0 ? -across : across) >= (along < 0 ? -along : along);
    int64_t runs = by_rows ? rows_here : n, run = by_rows ? n : rows_here;
    int64_t step = by_rows ? across : along, stride = by_rows ? along : across;
    int64_t spare_step = by_rows ? length : 1, spare_stride = by_rows ? 1 : length;
    for (int64_t i = 0; i < runs; i++) {
      char* in_view = element(view, offset + i * step);
      char* in_spare = spare + i * spare_step * bytes;
      if (to_spare)
        cell(run, in_spare, spare_stride, in_view, stride);
      else
        cell(run, in_view, stride, in_spare, spare_stride);
    }
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
