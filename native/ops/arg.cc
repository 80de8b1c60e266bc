// argmax, argmin and cumsum: ops whose reduced axis has an order.
#include "fold.h"
#include "ops.h"
#include "scalar.h"

namespace kerf::ops {
namespace {

// State: the best element so far, and its position (-1 before the first).
struct ArgFold {
  int64_t bytes;
  ArgCell row_cell;
  ArgColumnsCell columns_cell;

  void start(FoldState& s, int64_t n) const {
    memset(s.first, 0, static_cast<size_t>(n) * 8);
    for (int64_t i = 0; i < n; i++) s.second_as<int64_t>()[i] = -1;
  }
  void row(FoldState& s, int64_t n, const void* a, int64_t first) const {
    row_cell(n, a, first, s.first, s.second_as<int64_t>());
  }
  void columns(FoldState& s, int64_t rows, int64_t n, const void* a, int64_t row, int64_t first) const {
    columns_cell(rows, n, a, row, first, s.first, s.second_as<int64_t>());
  }
  // The best of a later piece competes as if it were one more element, numbered 1 for the time being.
  void merge(FoldState& s, int64_t n, const char* first, const char* second) const {
    int64_t* index = s.second_as<int64_t>();
    int64_t winner[kUnit];
    for (int64_t i = 0; i < n; i++) winner[i] = index[i] < 0 ? -1 : 0;
    columns_cell(1, n, first, 0, 1, s.first, winner);
    for (int64_t i = 0; i < n; i++)
      if (winner[i] == 1) index[i] = reinterpret_cast<const int64_t*>(second)[i];
  }
  void finish(FoldState& s, int64_t n, char* to, int64_t step) const {
    for (int64_t i = 0; i < n; i++) reinterpret_cast<int64_t*>(to)[i * step] = s.second_as<int64_t>()[i];
  }
};

Status arg(const char* op, Stream& stream, const View& out, const View& a, i64 axis, bool highest) {
  REQUIRE(reduces(out, a));
  REQUIRE(out.dtype == DType::int64_);
  REQUIRE(axis >= 0 && axis < a.rank && a.shape[axis] > 0 && out.shape[axis] == 1);
  if (!kernels().argmax[static_cast<int>(a.dtype)]) return no_kernel(op, a.dtype);
  double ns = 2 * fold_ns(a);
  return stream.run(ns, [out, a, highest, ns] {
    int d = static_cast<int>(a.dtype);
    const Kernels& k = kernels();
    fold_axes(ArgFold{element_bytes(a.dtype), highest ? k.argmax[d] : k.argmin[d],
                      highest ? k.argmax_columns[d] : k.argmin_columns[d]},
              out, a, ns);
  });
}

}  // namespace

Status argmax(Stream& stream, View out, View a, i64 axis) { return arg("argmax", stream, out, a, axis, true); }
Status argmin(Stream& stream, View out, View a, i64 axis) { return arg("argmin", stream, out, a, axis, false); }

Status cumsum(Stream& stream, View out, View a, i64 axis) {
  REQUIRE(same_shape(out, a));
  REQUIRE(out.dtype == (is_floating(a.dtype) ? a.dtype : DType::int64_));
  REQUIRE(axis >= 0 && axis < a.rank);
  if (!kernels().cumsum[static_cast<int>(a.dtype)]) return no_kernel("cumsum", a.dtype);
  double ns = static_cast<double>(count(a)) * 1.5 + 100;
  return stream.run(ns, [out, a, axis, ns] {
    CumsumCell cell = kernels().cumsum[static_cast<int>(a.dtype)];
    Axes<2> lines;
    for (int i = 0; i < a.rank; i++)
      if (i != axis) lines.push(a.shape[i], {out.stride[i], a.stride[i]});
    if (count(a) == 0) return;
    int64_t column[2];
    int64_t columns = lines.pop(column);
    // Neighbouring lines advance together, a cache line's worth, which hides the additions' latency. Far ones do not:
    // rows a power of two apart alias in the store buffer, which costs more (five times in float32).
    const int64_t lines_at_once = column[1] == 1 ? 16 : 1;
    int64_t blocks = ceil_div(columns, lines_at_once), items = lines.count() * blocks;
    run_tasks(ns, items, [&](int64_t item) {
      Walk<2> at(lines, item / blocks);
      int64_t c = item % blocks * lines_at_once;
      int64_t some = columns - c < lines_at_once ? columns - c : lines_at_once;
      cell(a.shape[axis], some, element(out, at.at[0] + c * column[0]), out.stride[axis], column[0],
           element(a, at.at[1] + c * column[1]), a.stride[axis], column[1]);
    });
  });
}

}  // namespace kerf::ops
