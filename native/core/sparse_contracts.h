// What the drivers of sparse weights check alike, on the CPU and on a GPU: that views and sizes go together. What is in the vectors of
// a CSR matrix is checked when it is packed.
#pragma once
#include "conv_shape.h"

namespace kerf {

constexpr i64 kMostIndex = 0x7fffffff;  // what an int32 index holds

KERF_INLINE bool is_vector(const View& v, DType dtype) { return v.dtype == dtype && v.rank == 1 && contiguous(v); }

KERF_INLINE bool describe_csr(const View& values, const View& pointers, const View& columns, i64 k, CsrMatrix& w) {
  const bool typed = (values.dtype == DType::int8_ || is_floating(values.dtype)) && is_vector(values, values.dtype);
  if (!typed || !is_vector(pointers, DType::int32_) || !is_vector(columns, DType::int32_)) return false;
  if (pointers.shape[0] < 1 || values.shape[0] != columns.shape[0] || values.shape[0] > kMostIndex || k < 0 || k > kMostIndex) return false;
  w.n = pointers.shape[0] - 1;
  w.k = k;
  w.count = values.shape[0];
  w.pointers = static_cast<const int32_t*>(pointers.data);
  w.columns = static_cast<const int32_t*>(columns.data);
  w.values = values.data;
  return countable(w.n, k);
}

KERF_INLINE bool is_sparse_count(i64 count) { return count >= 0 && count <= kMostIndex; }
KERF_INLINE bool is_activation(i64 activation) { return activation >= 0 && activation <= static_cast<i64>(Activation::tanh); }
// out may be of a's float dtype, or float32.
KERF_INLINE bool holds_sums(const View& out, const View& a) {
  return is_floating(a.dtype) && (out.dtype == a.dtype || out.dtype == DType::float32_);
}

// out [m, n] = activation(a [m, k] W^T + bias); all but the weights.
KERF_INLINE bool describe_sparse(const View& out, const View& a, const OptView& bias, i64 activation, i64 count, SparseProblem& p) {
  if (out.rank != 2 || a.rank != 2 || a.shape[0] != out.shape[0] || !holds_sums(out, a) || !is_activation(activation)) return false;
  p.m = out.shape[0];
  p.n = out.shape[1];
  p.k = a.shape[1];
  p.count = count;
  if (!countable(p.k, p.n) || !countable(p.m, p.k) || p.k > kMostIndex || p.n > kMostIndex || !is_sparse_count(count)) return false;
  p.a = a.data;
  p.a_type = a.dtype;
  p.a_row = a.stride[0];
  p.c = out.data;
  p.c_row = out.stride[0];
  p.c_type = out.dtype;
  p.bias = data_of<float>(bias);
  p.activation = static_cast<Activation>(activation);
  return (p.k <= 1 || a.stride[1] == 1) && (p.n <= 1 || out.stride[1] == 1) && holds_bias(bias, p.n);
}

// out [N, O, P, Q] from x [N, C, H, W] by W [O, C * R * S], whose columns are `taps`; all but the weights.
KERF_INLINE bool describe_sparse_conv(const View& out, const View& x, const OptView& bias, i64 activation, i64 count, i64 kernel_h,
                                      i64 kernel_w, const Geometry& g, SparseConvProblem& p, i64& taps) {
  if (x.rank != 4 || out.rank != 4 || !holds_sums(out, x) || !is_activation(activation) || !is_sparse_count(count)) return false;
  const i64 outputs = out.shape[1];
  if (!describe_conv(out, x, {outputs, x.shape[1], kernel_h, kernel_w}, g, p.shape)) return false;
  if (static_cast<double>(x.shape[1]) * static_cast<double>(kernel_h) * static_cast<double>(kernel_w) > static_cast<double>(kMostIndex)) return false;
  taps = x.shape[1] * kernel_h * kernel_w;
  p.x = x.data;
  p.count = count;
  p.bias = data_of<float>(bias);
  p.out = out.data;
  p.out_type = out.dtype;
  p.activation = static_cast<Activation>(activation);
  return countable(outputs, taps) && holds_bias(bias, outputs);
}

}  // namespace kerf
