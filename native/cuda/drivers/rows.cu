// softmax, logSoftmax, norms, cross-entropy and their gradients.
#include "../rows.cuh"

#include "launch.h"

namespace kerf {
namespace cuda {
namespace ops {
namespace {

template <int N>
Rows<N> rows_of(const View* const (&views)[N]) {
  Rows<N> r{};
  const View& first = *views[0];
  const int last = first.rank - 1;
  r.columns = last < 0 ? 1 : static_cast<uint32_t>(first.shape[last]);
  r.rows = r.columns ? static_cast<uint32_t>(count(first) / r.columns) : 0;
  r.leading = layout_of<N>(views, 0, last < 0 ? 0 : last);
  for (int v = 0; v < N; v++) r.step[v] = last < 0 ? 0 : views[v]->stride[last];
  return r;
}

template <bool logarithm>
Status soft(Gpu& gpu, const char* op, const View& out, const View& a) {
  REQUIRE(same_shape(out, a) && out.dtype == a.dtype);
  if (count(a) == 0) return Status{};
  if (!fits(count(a))) return too_many(op, count(a));
  return with_floats(op, a.dtype, [&](auto type) {
    using T = decltype(type);
    const Rows<2> r = rows_of<2>({&out, &a});
    const T to{out.data}, from{a.data};
    CU_LAUNCH((softmax_rows<T, logarithm>), row_blocks(r.rows), row_threads(r.columns), kFoldBytes, gpu.stream(), r, to, from);
    return gpu.launched(op);
  });
}

template <bool logarithm>
Status soft_grad(Gpu& gpu, const char* op, const View& out, const View& grad, const View& y) {
  REQUIRE(same_shape(out, grad) && same_shape(out, y) && out.dtype == y.dtype && grad.dtype == y.dtype);
  if (count(y) == 0) return Status{};
  if (!fits(count(y))) return too_many(op, count(y));
  return with_floats(op, y.dtype, [&](auto type) {
    using T = decltype(type);
    const Rows<3> r = rows_of<3>({&out, &grad, &y});
    const T to{out.data}, g{grad.data}, from{y.data};
    CU_LAUNCH((softmax_grad_rows<T, logarithm>), row_blocks(r.rows), row_threads(r.columns), kFoldBytes, gpu.stream(), r, to, g,
              from);
    return gpu.launched(op);
  });
}

Vector vector_of(const OptView& v) {
  if (!present(v)) return {{nullptr, DType::float32_}, 0};
  return {{v.data, v.dtype}, v.stride[0]};
}

Status norm(Gpu& gpu, const char* op, const View& out, const View* mean, const View& rstd, const View& a,
            const OptView& weight, const OptView& bias, double eps) {
  REQUIRE(same_shape(out, a) && out.dtype == a.dtype && is_statistic(rstd, a) && (!mean || is_statistic(*mean, a)));
  REQUIRE(may_be_vector(weight, a) && may_be_vector(bias, a));
  if (count(a) == 0) return Status{};
  if (!fits(count(a))) return too_many(op, count(a));
  return with_floats(op, a.dtype, [&](auto type) {
    using T = decltype(type);
    const Rows<2> r = rows_of<2>({&out, &a});
    const T to{out.data}, from{a.data};
    float *const means = mean ? static_cast<float*>(mean->data) : nullptr, *const rstds = static_cast<float*>(rstd.data);
    const Vector w = vector_of(weight), b = vector_of(bias);
    CU_LAUNCH((norm_rows<T>), row_blocks(r.rows), row_threads(r.columns), kFoldBytes, gpu.stream(), r, to, from, means, rstds, w,
              b, eps);
    return gpu.launched(op);
  });
}

Status norm_grad(Gpu& gpu, const char* op, const View& da, const OptView& dweight, const OptView* dbias, const View& grad,
                 const View& a, const View* mean, const View& rstd, const OptView& weight) {
  REQUIRE(same_shape(da, a) && same_shape(grad, a) && da.dtype == a.dtype && grad.dtype == a.dtype);
  REQUIRE(is_statistic(rstd, a) && (!mean || is_statistic(*mean, a)));
  REQUIRE(may_be_vector(weight, a) && may_be_vector(dweight, a) && (!dbias || may_be_vector(*dbias, a)));
  if (!fits(count(a))) return too_many(op, count(a));
  return with_floats(op, a.dtype, [&](auto type) {
    using T = decltype(type);
    const Rows<3> r = rows_of<3>({&da, &grad, &a});
    const T to{da.data}, g{grad.data}, from{a.data};
    const float *const means = mean ? static_cast<float*>(mean->data) : nullptr, *const rstds = static_cast<float*>(rstd.data);
    const Vector w = vector_of(weight), dw = vector_of(dweight), db = dbias ? vector_of(*dbias) : Vector{};
    // The columns first: da may be grad's or a's own memory.
    if (r.columns && (dw.values.data || db.values.data))
      CU_LAUNCH((norm_columns<T>), blocks_for(r.columns), threads_for(r.columns), 0, gpu.stream(), r, g, from, means, rstds, dw, db);
    if (count(a))
      CU_LAUNCH((norm_grad_rows<T>), row_blocks(r.rows), row_threads(r.columns), kFoldBytes, gpu.stream(), r, to, g, from, means,
                rstds, w);
    return gpu.launched(op);
  });
}

Statistic statistic_of(const View& v) { return {static_cast<float*>(v.data), v.stride[0]}; }
Labels labels_of(Gpu& gpu, const View& labels, const View& logits, i64 ignore) {
  return {static_cast<const long long*>(labels.data), labels.stride[0], ignore,
          gpu.may_fail("crossEntropy: the label at row %%llu is outside [0, %lld)", static_cast<long long>(logits.shape[1]))};
}

}  // namespace

Status softmax(Gpu& gpu, View out, View a) { return soft<false>(gpu, "softmax", out, a); }
Status logSoftmax(Gpu& gpu, View out, View a) { return soft<true>(gpu, "logSoftmax", out, a); }
Status softmaxGrad(Gpu& gpu, View out, View grad, View y) { return soft_grad<false>(gpu, "softmaxGrad", out, grad, y); }
Status logSoftmaxGrad(Gpu& gpu, View out, View grad, View y) { return soft_grad<true>(gpu, "logSoftmaxGrad", out, grad, y); }

Status layerNorm(Gpu& gpu, View out, View mean, View rstd, View a, OptView weight, OptView bias, f64 eps) {
  return norm(gpu, "layerNorm", out, &mean, rstd, a, weight, bias, eps);
}
Status rmsNorm(Gpu& gpu, View out, View rstd, View a, OptView weight, f64 eps) {
  OptView none{};
  none.rank = -1;
  return norm(gpu, "rmsNorm", out, nullptr, rstd, a, weight, none, eps);
}
Status layerNormGrad(Gpu& gpu, View da, OptView dweight, OptView dbias, View grad, View a, View mean, View rstd, OptView weight) {
  return norm_grad(gpu, "layerNormGrad", da, dweight, &dbias, grad, a, &mean, rstd, weight);
}
Status rmsNormGrad(Gpu& gpu, View da, OptView dweight, View grad, View a, View rstd, OptView weight) {
  return norm_grad(gpu, "rmsNormGrad", da, dweight, nullptr, grad, a, nullptr, rstd, weight);
}

Status crossEntropy(Gpu& gpu, View loss, View logsum, View logits, View labels, i64 ignoreIndex, f64 smoothing) {
  REQUIRE(logits.rank == 2 && is_batch(labels, DType::int64_, logits));
  REQUIRE(is_batch(loss, DType::float32_, logits) && is_batch(logsum, DType::float32_, logits));
  if (logits.shape[0] == 0) return Status{};
  if (!fits(count(logits))) return too_many("crossEntropy", count(logits));
  return with_floats("crossEntropy", logits.dtype, [&](auto type) {
    using T = decltype(type);
    Rows<1> r = rows_of<1>({&logits});
    r.rows = static_cast<uint32_t>(logits.shape[0]);  // even without classes
    const T x{logits.data};
    const Labels label = labels_of(gpu, labels, logits, ignoreIndex);
    const Statistic to = statistic_of(loss), sums = statistic_of(logsum);
    CU_LAUNCH((cross_entropy_rows<T>), row_blocks(r.rows), row_threads(r.columns), kFoldBytes, gpu.stream(), r, x, label, to, sums,
              smoothing);
    return gpu.launched("crossEntropy");
  });
}

Status crossEntropyGrad(Gpu& gpu, View dlogits, View grad, View logits, View logsum, View labels, i64 ignoreIndex,
                        f64 smoothing) {
  REQUIRE(logits.rank == 2 && same_shape(dlogits, logits) && dlogits.dtype == logits.dtype);
  REQUIRE(is_batch(grad, DType::float32_, logits) && is_batch(logsum, DType::float32_, logits));
  REQUIRE(is_batch(labels, DType::int64_, logits));
  if (count(logits) == 0) return Status{};
  if (!fits(count(logits))) return too_many("crossEntropyGrad", count(logits));
  return with_floats("crossEntropyGrad", logits.dtype, [&](auto type) {
    using T = decltype(type);
    const Rows<2> r = rows_of<2>({&dlogits, &logits});
    const T to{dlogits.data}, x{logits.data};
    const Labels label = labels_of(gpu, labels, logits, ignoreIndex);
    const Statistic by = statistic_of(grad), sums = statistic_of(logsum);
    const float smooth = static_cast<float>(smoothing / static_cast<double>(logits.shape[1])),
                confidence = static_cast<float>(1 - smoothing);
    CU_LAUNCH((cross_entropy_grad_rows<T>), row_blocks(r.rows), row_threads(r.columns), 0, gpu.stream(), r, to, x, label, by, sums,
              smooth, confidence);
    return gpu.launched("crossEntropyGrad");
  });
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
