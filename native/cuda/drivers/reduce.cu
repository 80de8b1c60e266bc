#include "../reduce.cuh"

#include "launch.h"

namespace kerf {
namespace cuda {
namespace ops {
namespace {

template <class Fold, class Out, class A>
Status launch_fold(Gpu& gpu, const char* op, const View& out, const View& a, Out to, A from, Fold how) {
  const int64_t outputs = count(out);
  if (outputs == 0) return Status{};
  Axes<2> kept_axes;
  Axes<1> reduced_axes;
  for (int i = 0; i < a.rank; i++)
    if (out.shape[i] == a.shape[i])
      kept_axes.push(a.shape[i], {out.stride[i], a.stride[i]});
    else
      reduced_axes.push(a.shape[i], {a.stride[i]});
  Layout<2> kept{};
  Layout<1> reduced{};
  kept.rank = kept_axes.rank;
  reduced.rank = reduced_axes.rank;
  for (int i = 0; i < kept.rank; i++) {
    kept.shape[i] = static_cast<uint32_t>(kept_axes.shape[i]);
    for (int v = 0; v < 2; v++) kept.stride[v][i] = kept_axes.stride[v][i];
  }
  for (int i = 0; i < reduced.rank; i++) {
    reduced.shape[i] = static_cast<uint32_t>(reduced_axes.shape[i]);
    reduced.stride[0][i] = reduced_axes.stride[0][i];
  }
  const int64_t n = reduced_axes.count();
  if (!fits(outputs) || !fits(n)) return too_many(op, outputs > n ? outputs : n);
  const auto rows = static_cast<uint32_t>(outputs), length = static_cast<uint32_t>(n);
  const bool dense = reduced.rank > 0 && reduced.stride[0][reduced.rank - 1] == 1;
  if (n > 32 && (dense || outputs < 32)) {
    CU_LAUNCH((reduce_rows<Fold, Out, A>), row_blocks(outputs), row_threads(n), kFoldBytes, gpu.stream(), rows, length, kept,
              reduced, to, from, how);
  } else {
    CU_LAUNCH((reduce_columns<Fold, Out, A>), blocks_for(outputs), threads_for(outputs), 0, gpu.stream(), rows, length, kept,
              reduced, to, from, how);
  }
  return gpu.launched(op);
}

Status total(Gpu& gpu, const char* op, const View& out, const View& a, double divisor) {
  return with_floats(op, a.dtype, [&](auto type) {
    using T = decltype(type);
    return launch_fold(gpu, op, out, a, T{out.data}, T{a.data}, SumFloats{divisor});
  });
}

template <bool highest>
Status extreme(Gpu& gpu, const char* op, const View& out, const View& a) {
  REQUIRE(reduces(out, a) && out.dtype == a.dtype);
  if (!is_floating(a.dtype))
    return launch_fold(gpu, op, out, a, Integers{out.data, out.dtype}, Integers{a.data, a.dtype}, Extreme<int64_t, highest, false>{});
  return with_floats(op, a.dtype, [&](auto type) {
    using T = decltype(type);
    return launch_fold(gpu, op, out, a, T{out.data}, T{a.data}, Extreme<float, highest, false>{});
  });
}

template <bool highest>
Status arg(Gpu& gpu, const char* op, const View& out, const View& a, i64 axis) {
  REQUIRE(reduces(out, a) && out.dtype == DType::int64_);
  REQUIRE(axis >= 0 && axis < a.rank && a.shape[axis] > 0 && out.shape[axis] == 1);
  const Integers to{out.data, out.dtype};
  if (!is_floating(a.dtype))
    return launch_fold(gpu, op, out, a, to, Integers{a.data, a.dtype}, Extreme<int64_t, highest, true>{});
  return with_floats(op, a.dtype, [&](auto type) {
    using T = decltype(type);
    return launch_fold(gpu, op, out, a, to, T{a.data}, Extreme<float, highest, true>{});
  });
}

}  // namespace

Status sum(Gpu& gpu, View out, View a) {
  REQUIRE(reduces(out, a));
  if (is_floating(a.dtype)) return total(gpu, "sum", out, a, 1);
  REQUIRE(out.dtype == DType::int64_);
  return launch_fold(gpu, "sum", out, a, Integers{out.data, out.dtype}, Integers{a.data, a.dtype}, SumIntegers{});
}

Status mean(Gpu& gpu, View out, View a) {
  REQUIRE(reduces(out, a) && out.dtype == a.dtype);
  const int64_t outputs = count(out);
  return total(gpu, "mean", out, a, outputs ? static_cast<double>(count(a) / outputs) : 1);
}

Status variance(Gpu& gpu, View out, View a, f64 correction) {
  REQUIRE(reduces(out, a) && out.dtype == a.dtype);
  const int64_t outputs = count(out);
  const double n = outputs ? static_cast<double>(count(a) / outputs) : 0;
  return with_floats("variance", a.dtype, [&](auto type) {
    using T = decltype(type);
    return launch_fold(gpu, "variance", out, a, T{out.data}, T{a.data}, Variance{n - correction});
  });
}

// A thread a line: sums of floats in float64, each rounded once.
Status cumsum(Gpu& gpu, View out, View a, i64 axis) {
  REQUIRE(same_shape(out, a) && axis >= 0 && axis < a.rank);
  REQUIRE(out.dtype == (is_floating(a.dtype) ? a.dtype : DType::int64_));
  View lines_out = out, lines_a = a;
  lines_out.shape[axis] = lines_a.shape[axis] = 1;
  const int64_t lines = count(lines_a);
  if (count(a) == 0) return Status{};
  if (!fits(count(a))) return too_many("cumsum", count(a));
  const Layout<2> layout = layout_of<2>({&lines_out, &lines_a});
  const auto size = static_cast<uint32_t>(lines), length = static_cast<uint32_t>(a.shape[axis]);
  const int64_t step_out = out.stride[axis], step_a = a.stride[axis];
  const Anything to{out.data, out.dtype}, from{a.data, a.dtype};
  CU_LAUNCH(running_sums, blocks_for(lines), threads_for(lines), 0, gpu.stream(), size, length, layout, to, step_out, from, step_a);
  return gpu.launched("cumsum");
}

Status max(Gpu& gpu, View out, View a) { return extreme<true>(gpu, "max", out, a); }
Status min(Gpu& gpu, View out, View a) { return extreme<false>(gpu, "min", out, a); }
Status argmax(Gpu& gpu, View out, View a, i64 axis) { return arg<true>(gpu, "argmax", out, a, axis); }
Status argmin(Gpu& gpu, View out, View a, i64 axis) { return arg<false>(gpu, "argmin", out, a, axis); }

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
