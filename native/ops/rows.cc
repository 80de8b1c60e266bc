// softmax, logSoftmax and their gradients: one cell call a row.
#include "ops.h"
#include "row_walk.h"
#include "scalar.h"

namespace kerf::ops {
namespace {

// One core: a maximum, an exponential and a scaling pass.
double row_ns(const View& a) { return 0.6 * static_cast<double>(count(a)) + 100; }

using RowColumn = RowCell (Kernels::*)[kDTypes];
using RowGradColumn = RowGradCell (Kernels::*)[kDTypes];

Status rowwise(const char* op, RowColumn column, Stream& stream, const View& out, const View& a) {
  REQUIRE(same_shape(out, a) && out.dtype == a.dtype);
  RowCell cell = (kernels().*column)[static_cast<int>(a.dtype)];
  if (!cell) return no_kernel(op, a.dtype);
  double ns = row_ns(a);
  return stream.run(ns, [op, cell, out, a, ns] {
    int64_t n = a.rank ? a.shape[a.rank - 1] : 1;
    for_rows<2>(op, {&out, &a}, 1, ns, [&](int64_t, char* const(&p)[2]) { cell(n, p[0], p[1]); });
  });
}

Status rowwise_grad(const char* op, RowGradColumn column, Stream& stream, const View& out, const View& grad,
                    const View& y) {
  REQUIRE(same_shape(out, grad) && same_shape(out, y));
  REQUIRE(out.dtype == y.dtype && grad.dtype == y.dtype);
  RowGradCell cell = (kernels().*column)[static_cast<int>(y.dtype)];
  if (!cell) return no_kernel(op, y.dtype);
  double ns = row_ns(y);
  return stream.run(ns, [op, cell, out, grad, y, ns] {
    int64_t n = y.rank ? y.shape[y.rank - 1] : 1;
    for_rows<3>(op, {&out, &grad, &y}, 1, ns, [&](int64_t, char* const(&p)[3]) { cell(n, p[0], p[1], p[2]); });
  });
}

}  // namespace

Status softmax(Stream& stream, View out, View a) { return rowwise("softmax", &Kernels::softmax, stream, out, a); }
Status logSoftmax(Stream& stream, View out, View a) {
  return rowwise("logSoftmax", &Kernels::log_softmax, stream, out, a);
}
Status softmaxGrad(Stream& stream, View out, View grad, View y) {
  return rowwise_grad("softmaxGrad", &Kernels::softmax_grad, stream, out, grad, y);
}
Status logSoftmaxGrad(Stream& stream, View out, View grad, View y) {
  return rowwise_grad("logSoftmaxGrad", &Kernels::log_softmax_grad, stream, out, grad, y);
}

}  // namespace kerf::ops
