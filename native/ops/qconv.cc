// The driver qconv2d.
#include "../core/byte_contracts.h"
#include "../core/debug.h"
#include "ops.h"
#include "targets.h"

namespace kerf::ops {

Status qconv2d(Stream& stream, View out, View x, i64 quantize, OptView x_scale, OptView x_zero, View packed, OptView w_scale,
               OptView w_zero, OptView bias, i64 activation, i64 kernelH, i64 kernelW, i64 strideH,
               i64 strideW, i64 padH, i64 padW, i64 dilationH, i64 dilationW) {
  const QConvCell& cell = kernels().qconv2d;
  if (!cell.run) return Status::error(Code::unsupported, "no int8 kernel on %s", kernels().target);
  QConvProblem p;
  const Geometry geometry{1, strideH, strideW, padH, padW, dilationH, dilationW, 1, 1};
  const Status described =
      describe_conv_of_bytes(p, out, x, quantize, x_scale, x_zero, kernelH, kernelW, w_scale, w_zero, bias, activation, geometry);
  if (!described.ok()) return described;
  REQUIRE(holds_packed(packed, kernels().qmatmul.packed_bytes(p.shape.channels * kernelH * kernelW, p.shape.out_channels)));
  p.packed = packed.data;
  const double ns = 500 + conv_operations(p.shape) / 500 + static_cast<double>(count(x) + count(out)) / 2;
  return stream.run(ns, [name = cell.name, run = cell.run, p] {
    debug_kernel(name, conv_operations(p.shape));
    if (!run(p)) Stream::fail(Code::out_of_memory, "qconv2d: out of memory for scratch");
  });
}

}  // namespace kerf::ops
