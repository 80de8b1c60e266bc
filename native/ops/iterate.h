// Walks N views of one shape together: collapses their axes into as few as their strides allow, hands out runs along
// the innermost axis, and splits the work over the pool in pieces whose size depends on the op alone, never on the
// number of threads.
#pragma once
#include "../core/pool.h"
#include "../core/view.h"
#include "targets.h"

namespace kerf::ops {

// Waking the pool costs a few microseconds; below this much work (in ns, one core) it is not worth it.
constexpr double kParallelNs = 30'000;

// Run number r starts at data[k] + the offset of r's index over `shape`, for view k, and has n elements that lie
// `step[k]` elements apart.
template <int N>
struct Runs {
  int rank;       // outer axes
  int64_t n;      // elements a run
  int64_t count;  // runs
  char* data[N];
  int64_t bytes[N];  // one element
  int64_t step[N];   // in elements
  int64_t shape[kMaxRank];
  int64_t stride[N][kMaxRank];  // of the outer axes, in bytes
};

enum class Order {
  any,      // axes may be reordered and reversed, so that the first view is walked forwards in memory
  logical,  // element number i of the walk is element number i of the views, in row-major order
};

// A view that needs no index: contiguous (1) or one value for all elements (0). -1 otherwise.
KERF_INLINE int uniform_step(const View& v) {
  int64_t expected = 1;
  bool dense = true, single = true;
  for (int i = v.rank - 1; i >= 0; i--) {
    if (v.shape[i] == 1) continue;
    dense &= v.stride[i] == expected;
    single &= v.stride[i] == 0;
    expected *= v.shape[i];
  }
  return dense ? 1 : single ? 0 : -1;
}

template <int N>
static Runs<N> make_runs(const View* const (&views)[N], Order order = Order::any) {
  Runs<N> r;
  const View& first = *views[0];
  r.rank = 0;
  r.count = 1;
  bool uniform = true;
  for (int k = 0; k < N; k++) {
    r.data[k] = static_cast<char*>(views[k]->data);
    r.bytes[k] = element_bytes(views[k]->dtype);
    int step = uniform_step(*views[k]);
    r.step[k] = step;
    uniform &= step >= 0;
  }
  r.n = count(first);
  if (uniform || r.n == 0) return r;

  int64_t shape[kMaxRank] = {}, stride[kMaxRank][N] = {};  // of the axes longer than one
  int rank = 0;
  for (int i = 0; i < first.rank; i++) {
    if (first.shape[i] == 1) continue;
    shape[rank] = first.shape[i];
    for (int k = 0; k < N; k++) stride[rank][k] = views[k]->stride[i];
    rank++;
  }
  if (order == Order::any) {
    for (int i = 0; i < rank; i++) {
      if (stride[i][0] >= 0) continue;
      for (int k = 0; k < N; k++) {
        r.data[k] += (shape[i] - 1) * stride[i][k] * r.bytes[k];
        stride[i][k] = -stride[i][k];
      }
    }
    for (int i = 1; i < rank; i++) {  // insertion sort: few axes, mostly in order already
      for (int j = i; j > 0 && stride[j][0] > stride[j - 1][0]; j--) {
        int64_t s = shape[j];
        shape[j] = shape[j - 1];
        shape[j - 1] = s;
        for (int k = 0; k < N; k++) {
          s = stride[j][k];
          stride[j][k] = stride[j - 1][k];
          stride[j - 1][k] = s;
        }
      }
    }
  }
  int last = 0;  // merge axis i into `last` where every view walks both with one stride
  for (int i = 1; i < rank; i++) {
    bool together = true;
    for (int k = 0; k < N; k++) together &= stride[last][k] == stride[i][k] * shape[i];
    if (together) {
      shape[last] *= shape[i];
    } else {
      last++;
      shape[last] = shape[i];
    }
    for (int k = 0; k < N; k++) stride[last][k] = stride[i][k];
  }
  r.n = shape[last];
  r.rank = last;
  for (int k = 0; k < N; k++) r.step[k] = stride[last][k];
  for (int i = 0; i < last; i++) {
    r.shape[i] = shape[i];
    r.count *= shape[i];
    for (int k = 0; k < N; k++) r.stride[k][i] = stride[i][k] * r.bytes[k];
  }
  return r;
}

// Calls body(first, n, pointers) for the pieces of runs that make up elements [begin, end) of the walk; `first` is the
// number of the piece's first element.
template <int N, class Body>
static void walk(const Runs<N>& r, int64_t begin, int64_t end, Body&& body) {
  if (begin >= end) return;
  int64_t run = begin / r.n, offset = begin % r.n;
  int64_t index[kMaxRank];
  char* p[N];
  for (int k = 0; k < N; k++) p[k] = r.data[k];
  for (int i = r.rank - 1; i >= 0; i--) {
    index[i] = run % r.shape[i];
    run /= r.shape[i];
    for (int k = 0; k < N; k++) p[k] += index[i] * r.stride[k][i];
  }
  while (true) {
    int64_t n = r.n - offset < end - begin ? r.n - offset : end - begin;
    char* at[N];
    for (int k = 0; k < N; k++) at[k] = p[k] + offset * r.step[k] * r.bytes[k];
    body(begin, n, at);
    begin += n;
    offset = 0;
    if (begin >= end) return;
    for (int i = r.rank - 1; i >= 0; i--) {
      if (++index[i] < r.shape[i]) {
        for (int k = 0; k < N; k++) p[k] += r.stride[k][i];
        break;
      }
      index[i] = 0;
      for (int k = 0; k < N; k++) p[k] -= (r.shape[i] - 1) * r.stride[k][i];
    }
  }
}

// walk() over all elements, in parallel when they are worth it. `ns` is the cost of one element on one core. Pieces
// take about 10 us and start at multiples of 64 elements.
template <int N, class Body>
static void walk_parallel(const Runs<N>& r, double ns, Body&& body) {
  int64_t total = r.n * r.count;
  if (static_cast<double>(total) * ns < kParallelNs) return walk(r, 0, total, body);
  int64_t piece = (static_cast<int64_t>(10'000 / ns) + 64) / 64 * 64;
  parallel((total + piece - 1) / piece, [&](int64_t task) {
    int64_t begin = task * piece;
    walk(r, begin, begin + piece < total ? begin + piece : total, body);
  });
}

constexpr int64_t kBuffer = 512;  // elements

// Runs `cell(n, out, pointers of the inputs)` over a walk whose first view is the output.
template <int N, class Cell>
static void apply(const Runs<N>& r, double ns, CopyCell copy_out, const Cell& cell) {
  walk_parallel(r, ns, [&](int64_t, int64_t n, char* const(&at)[N]) {
    if (r.step[0] == 1 || n == 1) return cell(n, at[0], at + 1);
    alignas(64) char buffer[kBuffer * 8];
    for (int64_t i = 0; i < n; i += kBuffer) {
      int64_t m = n - i < kBuffer ? n - i : kBuffer;
      char* inputs[N];
      for (int k = 1; k < N; k++) inputs[k - 1] = at[k] + i * r.step[k] * r.bytes[k];
      cell(m, buffer, inputs);
      copy_out(m, at[0] + i * r.step[0] * r.bytes[0], r.step[0], buffer, 1);
    }
  });
}

inline CopyCell copy_cell(DType dtype) { return kernels().copy[static_cast<int>(dtype)][static_cast<int>(dtype)]; }

}  // namespace kerf::ops
