// The drivers conv2d and conv2dWeightGrad.
#include "../core/debug.h"
#include "../core/stream.h"
#include "conv_shape.h"
#include "ops.h"
#include "targets.h"

namespace kerf::ops {
namespace {

bool describe(const View& out, const View& x, const View& w, const Geometry& g, ConvShape& s) {
  return w.rank == 4 && contiguous(w) && describe_conv(out, x, {w.shape[0], w.shape[1], w.shape[2], w.shape[3]}, g, s);
}

}  // namespace

Status conv2d(Stream& stream, View out, View x, View weight, OptView bias, i64 activation, i64 groups, i64 strideH, i64 strideW,
              i64 padH, i64 padW, i64 dilationH, i64 dilationW, i64 upH, i64 upW) {
  const ConvCell& cell = kernels().conv2d[static_cast<int>(x.dtype)];
  if (!cell.run) return Status::error(Code::unsupported, "no kernel for this dtype on %s", kernels().target);
  REQUIRE(weight.dtype == x.dtype && (out.dtype == x.dtype || out.dtype == DType::float32_));
  REQUIRE(activation >= 0 && activation <= static_cast<i64>(Activation::tanh));
  ConvProblem p;
  REQUIRE(describe(out, x, weight, {groups, strideH, strideW, padH, padW, dilationH, dilationW, upH, upW}, p.shape));
  REQUIRE(holds_bias(bias, weight.shape[0]));
  p.x = x.data;
  p.weight = weight.data;
  p.bias = data_of<float>(bias);
  p.out = out.data;
  p.out_type = out.dtype;
  p.activation = static_cast<Activation>(activation);
  const double ns = 500 + conv_operations(p.shape) / 150 + static_cast<double>(count(x) + count(out)) / 4;
  return stream.run(ns, [name = cell.name, run = cell.run, p] {
    debug_kernel(name, conv_operations(p.shape));
    if (!run(p)) Stream::fail(Code::out_of_memory, "conv2d: out of memory for scratch");
  });
}

Status conv2dWeightGrad(Stream& stream, View dweight, View grad, View x, i64 groups, i64 strideH, i64 strideW, i64 padH, i64 padW,
                        i64 dilationH, i64 dilationW, i64 upH, i64 upW) {
  const ConvCell& cell = kernels().conv2d[static_cast<int>(x.dtype)];
  if (!cell.weight_grad) return Status::error(Code::unsupported, "no kernel for this dtype on %s", kernels().target);
  REQUIRE(grad.dtype == x.dtype && dweight.dtype == DType::float32_);
  ConvGradProblem p;
  REQUIRE(describe(grad, x, dweight, {groups, strideH, strideW, padH, padW, dilationH, dilationW, upH, upW}, p.shape));
  p.x = x.data;
  p.grad = grad.data;
  p.dweight = static_cast<float*>(dweight.data);
  const double ns = 500 + conv_operations(p.shape) / 150 + static_cast<double>(count(x) + count(grad)) / 4;
  return stream.run(ns, [name = cell.name, run = cell.weight_grad, p] {
    debug_kernel(name, conv_operations(p.shape));
    if (!run(p)) Stream::fail(Code::out_of_memory, "conv2dWeightGrad: out of memory for scratch");
  });
}

}  // namespace kerf::ops
