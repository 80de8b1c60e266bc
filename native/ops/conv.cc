// The drivers conv2d and conv2dWeightGrad.
#include "../core/debug.h"
#include "../core/stream.h"
#include "ops.h"
#include "targets.h"

namespace kerf::ops {
namespace {

struct Geometry {
  i64 groups, strideH, strideW, padH, padW, dilationH, dilationW, upH, upW;
};

// Whether `weight`-shaped `w` takes x to `out`; the shape, if so.
bool describe(const View& out, const View& x, const View& w, const Geometry& g, ConvShape& s) {
  if (out.rank != 4 || x.rank != 4 || w.rank != 4 || !contiguous(out) || !contiguous(x) || !contiguous(w)) return false;
  constexpr i64 kMost = 1 << 28;
  for (i64 v : {g.strideH, g.strideW, g.dilationH, g.dilationW, g.upH, g.upW})
    if (v < 1 || v > kMost) return false;
  for (i64 v : {g.padH, g.padW})
    if (v < -kMost || v > kMost) return false;
  s.images = x.shape[0];
  s.groups = g.groups;
  if (g.groups < 1 || x.shape[1] % g.groups || w.shape[0] % g.groups) return false;
  s.channels = x.shape[1] / g.groups;
  s.out_channels = w.shape[0] / g.groups;
  s.in_h = x.shape[2];
  s.in_w = x.shape[3];
  s.kernel_h = w.shape[2];
  s.kernel_w = w.shape[3];
  s.out_h = out.shape[2];
  s.out_w = out.shape[3];
  s.stride_h = g.strideH;
  s.stride_w = g.strideW;
  s.pad_h = g.padH;
  s.pad_w = g.padW;
  s.dilation_h = g.dilationH;
  s.dilation_w = g.dilationW;
  s.up_h = g.upH;
  s.up_w = g.upW;
  for (i64 v : {s.in_h, s.in_w, s.kernel_h, s.kernel_w, s.out_h, s.out_w})
    if (v > kMost) return false;
  if (s.kernel_h < 1 || s.kernel_w < 1) return false;
  // what the taps of all pixels span, of all channels, must be countable
  const double laid_h = static_cast<double>(s.out_h) * static_cast<double>(s.stride_h) + static_cast<double>(s.kernel_h) * static_cast<double>(s.dilation_h);
  const double laid_w = static_cast<double>(s.out_w) * static_cast<double>(s.stride_w) + static_cast<double>(s.kernel_w) * static_cast<double>(s.dilation_w);
  if (laid_h * laid_w * static_cast<double>(x.shape[1]) * static_cast<double>(x.shape[0]) > 1e14) return false;
  return out.shape[0] == s.images && out.shape[1] == w.shape[0] && w.shape[1] == s.channels;
}

double operations(const ConvShape& s) {
  return 2.0 * static_cast<double>(s.images * s.groups * s.out_channels * s.out_h * s.out_w) *
         static_cast<double>(s.channels * s.kernel_h * s.kernel_w);
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
  const double ns = 500 + operations(p.shape) / 150 + static_cast<double>(count(x) + count(out)) / 4;
  return stream.run(ns, [name = cell.name, run = cell.run, p] {
    debug_kernel(name, operations(p.shape));
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
  const double ns = 500 + operations(p.shape) / 150 + static_cast<double>(count(x) + count(grad)) / 4;
  return stream.run(ns, [name = cell.name, run = cell.weight_grad, p] {
    debug_kernel(name, operations(p.shape));
    if (!run(p)) Stream::fail(Code::out_of_memory, "conv2dWeightGrad: out of memory for scratch");
  });
}

}  // namespace kerf::ops
