// The driver qconv2d.
#include "../core/byte_contracts.h"
#include "../core/conv_shape.h"
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
  REQUIRE(out.rank == 4 && x.rank == 4 && padH >= 0 && padW >= 0);
  const Geometry geometry{1, strideH, strideW, padH, padW, dilationH, dilationW, 1, 1};
  REQUIRE(describe_conv(out, x, {out.shape[1], x.shape[1], kernelH, kernelW}, geometry, p.shape));
  REQUIRE(quantize >= 0 && quantize <= static_cast<i64>(Quantize::per_tensor));
  REQUIRE(activation >= 0 && activation <= static_cast<i64>(Activation::tanh));
  p.quantize = static_cast<Quantize>(quantize);
  p.x = x.data;
  p.x_type = x.dtype;
  const bool bytes = x.dtype == DType::int8_ || x.dtype == DType::uint8_;
  REQUIRE(p.quantize == Quantize::none ? bytes : is_floating(x.dtype));
  const i64 k = x.shape[1] * kernelH * kernelW, n = out.shape[1];
  REQUIRE(countable(k, n) && holds_packed(packed, kernels().qmatmul.packed_bytes(k, n)));
  p.packed = packed.data;
  REQUIRE(whole(x_scale, DType::float32_, 1) && whole(x_zero, DType::int32_, 1));
  REQUIRE(whole(w_scale, DType::float32_, n) && whole(w_zero, DType::int32_, n));
  p.x_scale = data_of<float>(x_scale);
  p.x_zero = data_of<int32_t>(x_zero);
  p.w_scale = data_of<float>(w_scale);
  p.w_scale_step = present(w_scale) ? step_of(w_scale, n) : 0;
  p.w_zero = data_of<int32_t>(w_zero);
  p.w_zero_step = present(w_zero) ? step_of(w_zero, n) : 0;
  p.out = out.data;
  p.out_type = out.dtype;
  REQUIRE(holds_bias(bias, n));
  p.bias = data_of<float>(bias);
  p.activation = static_cast<Activation>(activation);
  const bool given = p.quantize == Quantize::to_uint8 || p.quantize == Quantize::to_int8;
  REQUIRE(!given || present(x_scale));
  if (out.dtype == DType::int32_) {
    REQUIRE(!present(bias) && activation == 0);
  } else {
    REQUIRE(is_floating(out.dtype) && present(w_scale));
    REQUIRE(present(x_scale) || p.quantize == Quantize::per_tensor);
  }
  const double ns = 500 + conv_operations(p.shape) / 500 + static_cast<double>(count(x) + count(out)) / 2;
  return stream.run(ns, [name = cell.name, run = cell.run, p] {
    debug_kernel(name, conv_operations(p.shape));
    if (!run(p)) Stream::fail(Code::out_of_memory, "qconv2d: out of memory for scratch");
  });
}

}  // namespace kerf::ops
