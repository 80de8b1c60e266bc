// Drivers that make values: fill, arange, tri, oneHot.
#include "../core/element.h"
#include "iterate.h"
#include "ops.h"
#include "targets.h"

namespace kerf::ops {
namespace {

CopyCell copy_cell(DType from, DType to) { return kernels().copy[static_cast<int>(from)][static_cast<int>(to)]; }

// The view's rows: the same memory without the last axis.
View rows_of(const View& v) {
  View rows = v;
  rows.rank = v.rank - 1;
  return rows;
}

}  // namespace

Status fill(Stream& stream, View out, f64 value) {
  int64_t n = count(out);
  if (n == 0) return Status{};
  double ns = 0.03 + static_cast<double>(element_bytes(out.dtype)) / 20;
  Runs<1> r = make_runs<1>({&out});
  return stream.run(
      static_cast<double>(n) * ns, [r, ns, e = make_element(out.dtype, value), cell = copy_cell(out.dtype, out.dtype)] {
        walk_parallel(r, ns, [&](int64_t, int64_t m, char* const(&at)[1]) { cell(m, at[0], r.step[0], &e, 0); });
      });
}

// Element i is start + i * step, computed in float64, or in int64 where both are integers and so is the dtype.
Status arange(Stream& stream, View out, f64 start, f64 step) {
  int64_t n = count(out);
  if (n == 0) return Status{};
  constexpr double kExact = 0x1p53;
  auto whole = [](double x) { return x > -kExact && x < kExact && x == static_cast<double>(static_cast<int64_t>(x)); };
  bool integers = !is_floating(out.dtype) && whole(start) && whole(step);
  double ns = 2;
  Runs<1> r = make_runs<1>({&out}, Order::logical);
  return stream.run(static_cast<double>(n) * ns, [r, ns, start, step, integers, dtype = out.dtype] {
    CopyCell from_i64 = copy_cell(DType::int64_, dtype);
    walk_parallel(r, ns, [&](int64_t first, int64_t m, char* const(&at)[1]) {
      if (!integers) {
        for (int64_t i = 0; i < m; i++) {
          Element e = make_element(dtype, start + static_cast<double>(first + i) * step);
          memcpy(at[0] + i * r.step[0] * r.bytes[0], &e, static_cast<size_t>(r.bytes[0]));
        }
        return;
      }
      constexpr int64_t kChunk = 256;
      int64_t values[kChunk];
      auto base = static_cast<uint64_t>(static_cast<int64_t>(start)),
           by = static_cast<uint64_t>(static_cast<int64_t>(step));
      for (int64_t i = 0; i < m; i += kChunk) {
        int64_t n = m - i < kChunk ? m - i : kChunk;
        for (int64_t j = 0; j < n; j++)
          values[j] = static_cast<int64_t>(base + static_cast<uint64_t>(first + i + j) * by);
        from_i64(n, at[0] + i * r.step[0] * r.bytes[0], r.step[0], values, 1);
      }
    });
  });
}

Status tri(Stream& stream, View out, View a, i64 k, i64 upper) {
  REQUIRE(same_shape(out, a) && out.dtype == a.dtype && out.rank >= 2);
  if (count(out) == 0) return Status{};
  int64_t height = out.shape[out.rank - 2], n = out.shape[out.rank - 1];
  k = k < -height ? -height : k > n ? n : k;
  double ns = 5 + static_cast<double>(n * 2 * element_bytes(out.dtype)) / 20;  // a row
  View out_rows = rows_of(out), a_rows = rows_of(a);
  Runs<2> r = make_runs<2>({&out_rows, &a_rows}, Order::logical);
  int64_t out_step = out.stride[out.rank - 1], a_step = a.stride[a.rank - 1];
  return stream.run(static_cast<double>(r.n * r.count) * ns, [=, cell = copy_cell(out.dtype, out.dtype)] {
    const int64_t zero = 0;
    walk_parallel(r, ns, [&](int64_t first, int64_t m, char* const(&at)[2]) {
      for (int64_t i = 0; i < m; i++) {
        int64_t diagonal = (first + i) % height + k + (upper ? 0 : 1);  // columns below it are the lower part
        int64_t cut = diagonal < 0 ? 0 : diagonal > n ? n : diagonal;
        char* to = at[0] + i * r.step[0] * r.bytes[0];
        const char* from = at[1] + i * r.step[1] * r.bytes[1];
        int64_t keep = upper ? cut : 0, keep_n = upper ? n - cut : cut, zero_at = upper ? 0 : cut;
        cell(keep_n, to + keep * out_step * r.bytes[0], out_step, from + keep * a_step * r.bytes[1], a_step);
        cell(n - keep_n, to + zero_at * out_step * r.bytes[0], out_step, &zero, 0);
      }
    });
  });
}

// out [..., classes], index int64 [...].
Status oneHot(Stream& stream, View out, View index) {
  REQUIRE(out.rank == index.rank + 1 && index.dtype == DType::int64_);
  View out_rows = rows_of(out);
  REQUIRE(same_shape(out_rows, index));
  int64_t classes = out.shape[out.rank - 1];
  if (count(index) == 0) return Status{};
  double ns = 5 + static_cast<double>(classes * element_bytes(out.dtype)) / 20;
  Runs<2> r = make_runs<2>({&out_rows, &index}, Order::logical);
  int64_t step = out.stride[out.rank - 1];
  return stream.run(static_cast<double>(r.n * r.count) * ns, [=, cell = copy_cell(out.dtype, out.dtype),
                                                              one = make_element(out.dtype, 1)] {
    const int64_t zero = 0;
    int64_t bad = -1, bad_value = 0;
    walk(r, 0, r.n * r.count, [&](int64_t first, int64_t m, char* const(&at)[2]) {
      for (int64_t i = 0; i < m; i++) {
        char* to = at[0] + i * r.step[0] * r.bytes[0];
        int64_t value;
        memcpy(&value, at[1] + i * r.step[1] * 8, 8);
        cell(classes, to, step, &zero, 0);
        if (value >= 0 && value < classes)
          memcpy(to + value * step * r.bytes[0], &one, static_cast<size_t>(r.bytes[0]));
        else if (bad < 0)
          bad = first + i, bad_value = value;
      }
    });
    if (bad >= 0) {
      Stream::fail(Code::range, "oneHot: index %lld at position %lld is outside [0, %lld)",
                   static_cast<long long>(bad_value), static_cast<long long>(bad), static_cast<long long>(classes));
    }
  });
}

}  // namespace kerf::ops
