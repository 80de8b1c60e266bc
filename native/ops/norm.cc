// layerNorm, rmsNorm and their gradients.
#include "../core/contracts.h"
#include "ops.h"
#include "row_walk.h"
#include "scalar.h"

namespace kerf::ops {
namespace {

double norm_ns(const View& a) { return 0.5 * static_cast<double>(count(a)) + 200; }

// The vector as contiguous float32, copied to `to` unless it is that already.
const float* as_floats(const OptView& v, float* to) {
  if (!present(v)) return nullptr;
  if (v.dtype == DType::float32_ && (v.stride[0] == 1 || v.shape[0] == 1)) return static_cast<const float*>(v.data);
  kernels().copy[static_cast<int>(v.dtype)][static_cast<int>(DType::float32_)](v.shape[0], to, 1, v.data, v.stride[0]);
  return to;
}

Status norm(const char* op, Stream& stream, NormCell cell, const View& out, const OptView& mean, const View& rstd,
            const View& a, const OptView& weight, const OptView& bias, double eps) {
  if (!cell) return no_kernel(op, a.dtype);
  REQUIRE(same_shape(out, a) && out.dtype == a.dtype);
  REQUIRE(is_statistic(rstd, a) && (!present(mean) || is_statistic(mean, a)));
  REQUIRE(may_be_vector(weight, a) && may_be_vector(bias, a));
  double ns = norm_ns(a);
  return stream.run(ns, [op, cell, out, mean, rstd, a, weight, bias, eps, ns] {
    int64_t n = a.shape[a.rank - 1];
    float* floats = static_cast<float*>(scratch(Scratch::bias, static_cast<size_t>(n) * 2 * sizeof(float)));
    if (!floats) return Stream::fail(Code::out_of_memory, "%s: no memory for the weight", op);
    const float* w = as_floats(weight, floats);
    const float* b = as_floats(bias, floats + n);
    float* means = present(mean) ? static_cast<float*>(mean.data) : nullptr;
    float* rstds = static_cast<float*>(rstd.data);
    for_rows<2>(op, {&out, &a}, 1, ns, [&](int64_t row, char* const(&p)[2]) {
      cell(n, p[0], means ? means + row : nullptr, rstds + row, p[1], w, b, eps);
    });
  });
}

// Rows are shared among at most 16 tasks of at least 64 Ki elements, each with its own float64 sums for the weight and
// the bias, added up in order at the end. Within a task, the columns of a few rows are summed while those rows are
// still in cache from the row pass.
constexpr int64_t kMaxTasks = 16;
constexpr int64_t kTaskWork = 65536;
constexpr int64_t kCachedElements = 32768;

struct NormGrad {
  View da, grad, a;
  OptView dweight, dbias, weight;
  const float *mean, *rstd, *w;
  NormGradCell cell;
  NormColumnsCell columns;

  bool rows(const RowWalk<3>& walk, int64_t begin, int64_t end, double* sums) const {
    int64_t n = walk.n;
    double* dw = sums;
    double* db = present(dbias) ? sums + n : nullptr;
    if (sums) memset(sums, 0, static_cast<size_t>(n) * 2 * sizeof(double));
    bool even = walk.all_direct() && walk.leading.rank <= 1;  // rows a fixed distance apart
    int64_t block = even ? ceil_div(kCachedElements, n) : 16;
    for (int64_t start = begin; start < end; start += block) {
      int64_t stop = start + block < end ? start + block : end;
      bool fine = walk.run(start, stop, [&](int64_t row, char* const(&p)[3]) {
        // da may be grad's or a's own buffer, so the columns of this row are summed before it is written
        if (sums && !even) columns(1, n, p[1], 0, p[2], 0, mean ? mean + row : nullptr, rstd + row, dw, db);
        if (!even) cell(n, p[0], p[1], p[2], mean ? mean[row] : 0, rstd[row], w);
      });
      if (!fine) return false;
      if (!even) continue;
      Walk<3> at(walk.leading, start);
      int64_t grad_row = walk.leading.rank ? walk.leading.stride[1][0] : 0;
      int64_t a_row = walk.leading.rank ? walk.leading.stride[2][0] : 0;
      if (sums)
        columns(stop - start, n, element(grad, at.at[1]), grad_row, element(a, at.at[2]), a_row,
                mean ? mean + start : nullptr, rstd + start, dw, db);
      for (int64_t row = start; row < stop; row++, at.next())
        cell(n, element(da, at.at[0]), element(grad, at.at[1]), element(a, at.at[2]), mean ? mean[row] : 0, rstd[row],
             w);
    }
    return true;
  }
};

Status norm_grad(const char* op, Stream& stream, NormGradCell cell, const View& da, const OptView& dweight,
                 const OptView& dbias, const View& grad, const View& a, const OptView& mean, const View& rstd,
                 const OptView& weight) {
  if (!cell) return no_kernel(op, a.dtype);
  REQUIRE(same_shape(da, a) && same_shape(grad, a) && da.dtype == a.dtype && grad.dtype == a.dtype);
  REQUIRE(is_statistic(rstd, a) && (!present(mean) || is_statistic(mean, a)));
  REQUIRE(may_be_vector(weight, a) && may_be_vector(dweight, a) && may_be_vector(dbias, a));
  double ns = 2 * norm_ns(a);
  return stream.run(ns, [op, cell, da, dweight, dbias, grad, a, mean, rstd, weight, ns] {
    int64_t n = a.shape[a.rank - 1];
    RowWalk<3> walk({&da, &grad, &a}, 1);
    bool sums = present(dweight) || present(dbias);
    int64_t tasks = ceil_div(walk.rows * n, kTaskWork);
    tasks = tasks < 1 ? 1 : tasks > kMaxTasks ? kMaxTasks : tasks;
    int64_t per_task = ceil_div(walk.rows, tasks);
    float* floats = static_cast<float*>(scratch(Scratch::bias, static_cast<size_t>(n) * sizeof(float)));
    double* partial =
        static_cast<double*>(scratch(Scratch::convert, static_cast<size_t>(tasks * n * 2) * sizeof(double)));
    if (!floats || !partial) return Stream::fail(Code::out_of_memory, "%s: no memory for the weight's gradient", op);
    NormGrad work{da,
                  grad,
                  a,
                  dweight,
                  dbias,
                  weight,
                  present(mean) ? static_cast<const float*>(mean.data) : nullptr,
                  static_cast<const float*>(rstd.data),
                  as_floats(weight, floats),
                  cell,
                  kernels().norm_columns[static_cast<int>(a.dtype)]};
    std::atomic<bool> failed = false;
    run_tasks(ns, tasks, [&](int64_t task) {
      int64_t begin = task * per_task < walk.rows ? task * per_task : walk.rows;
      int64_t end = begin + per_task < walk.rows ? begin + per_task : walk.rows;
      if (!work.rows(walk, begin, end, sums ? partial + task * n * 2 : nullptr)) failed = true;
    });
    if (failed) return Stream::fail(Code::out_of_memory, "%s: no memory to gather rows", op);
    for (int64_t i = 0; i < n && sums; i++) {
      double dw = 0, db = 0;
      for (int64_t task = 0; task < tasks; task++) {
        dw += partial[task * n * 2 + i];
        db += partial[task * n * 2 + n + i];
      }
      if (present(dweight)) put_float(dweight.dtype, dweight.data, i * dweight.stride[0], dw);
      if (present(dbias)) put_float(dbias.dtype, dbias.data, i * dbias.stride[0], db);
    }
  });
}

OptView absent() {
  OptView v{};
  v.rank = -1;
  return v;
}

OptView given(const View& v) {
  OptView o;
  static_cast<View&>(o) = v;
  return o;
}

}  // namespace

Status layerNorm(Stream& stream, View out, View mean, View rstd, View a, OptView weight, OptView bias, f64 eps) {
  return norm("layerNorm", stream, kernels().layer_norm[static_cast<int>(a.dtype)], out, given(mean), rstd, a, weight,
              bias, eps);
}

Status rmsNorm(Stream& stream, View out, View rstd, View a, OptView weight, f64 eps) {
  return norm("rmsNorm", stream, kernels().rms_norm[static_cast<int>(a.dtype)], out, absent(), rstd, a, weight,
              absent(), eps);
}

Status layerNormGrad(Stream& stream, View da, OptView dweight, OptView dbias, View grad, View a, View mean, View rstd,
                     OptView weight) {
  return norm_grad("layerNormGrad", stream, kernels().layer_norm_grad[static_cast<int>(a.dtype)], da, dweight, dbias,
                   grad, a, given(mean), rstd, weight);
}

Status rmsNormGrad(Stream& stream, View da, OptView dweight, View grad, View a, View rstd, OptView weight) {
  return norm_grad("rmsNormGrad", stream, kernels().rms_norm_grad[static_cast<int>(a.dtype)], da, dweight, absent(),
                   grad, a, absent(), rstd, weight);
}

}  // namespace kerf::ops
