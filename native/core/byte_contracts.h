// What products of bytes ask of their views, on the CPU and on a GPU alike, and the problem that the views describe.
#pragma once
#include "conv_shape.h"
#include "kernels.h"
#include "status.h"

namespace kerf {

// One value or `n` of them: the step from one to the next, or -1 for neither.
static inline int64_t step_of(const View& v, int64_t n) {
  if (v.rank == 0 || (v.rank == 1 && v.shape[0] == 1)) return 0;
  return v.rank == 1 && v.shape[0] == n && v.stride[0] == 1 ? 1 : -1;
}

static inline bool whole(const OptView& v, DType dtype, int64_t n) {
  return !present(v) || (v.dtype == dtype && step_of(v, n) >= 0);
}

// A, its scales, the result but for its own scale, bias and activation.
static inline Status describe_product(QMatmulProblem& p, const View& out, const View& a, i64 quantize, const OptView& a_scale,
                                      const OptView& a_zero, const OptView& a_multiplier, const OptView& b_scale,
                                      const OptView& bias, i64 activation) {
  REQUIRE(out.rank == 2 && a.rank == 2 && a.shape[0] == out.shape[0]);
  REQUIRE(quantize >= 0 && quantize <= static_cast<i64>(Quantize::per_row));
  REQUIRE(activation >= 0 && activation <= static_cast<i64>(Activation::tanh));
  p.m = out.shape[0];
  p.n = out.shape[1];
  p.k = a.shape[1];
  REQUIRE(countable(p.k, p.n) && countable(p.m, p.k));
  p.quantize = static_cast<Quantize>(quantize);
  p.a = a.data;
  p.a_type = a.dtype;
  p.a_row = a.stride[0];
  p.a_col = a.stride[1];
  const bool bytes = a.dtype == DType::int8_ || a.dtype == DType::uint8_;
  REQUIRE(p.quantize == Quantize::none ? bytes : is_floating(a.dtype));
  const bool given = p.quantize == Quantize::to_uint8 || p.quantize == Quantize::to_int8;
  REQUIRE(whole(a_scale, DType::float32_, p.m) && whole(a_zero, DType::int32_, p.m));
  REQUIRE(!given || present(a_scale));
  p.a_scale = data_of<float>(a_scale);
  p.a_zero = data_of<int32_t>(a_zero);
  const int64_t scale_step = present(a_scale) ? step_of(a_scale, p.m) : 0;
  const int64_t zero_step = present(a_zero) ? step_of(a_zero, p.m) : scale_step;
  REQUIRE(!present(a_scale) || zero_step == scale_step);
  p.a_step = zero_step;
  REQUIRE(!present(a_multiplier) || (a_multiplier.dtype == DType::float32_ && a_multiplier.rank == 1 &&
                                     a_multiplier.shape[0] == p.k && (p.k <= 1 || a_multiplier.stride[0] == 1)));
  p.a_multiplier = data_of<float>(a_multiplier);
  REQUIRE(whole(b_scale, DType::float32_, p.n));
  p.b_scale = data_of<float>(b_scale);
  p.b_scale_step = present(b_scale) ? step_of(b_scale, p.n) : 0;
  p.b_zero = nullptr;
  p.b_zero_step = 0;
  REQUIRE(p.n <= 1 || out.stride[1] == 1);
  p.c = out.data;
  p.c_row = out.stride[0];
  p.c_type = out.dtype;
  p.c_scale = nullptr;
  p.c_zero = nullptr;
  if (out.dtype == DType::int32_) {
    REQUIRE(!present(bias) && activation == 0);
  } else {
    REQUIRE(is_floating(out.dtype) || out.dtype == DType::int8_ || out.dtype == DType::uint8_);
    REQUIRE(present(b_scale) && (present(a_scale) || (p.quantize != Quantize::none && !given)));
  }
  REQUIRE(holds_bias(bias, p.n));
  p.bias = data_of<float>(bias);
  p.activation = static_cast<Activation>(activation);
  return Status{};
}

// What only qmatmul has: a zero point of B and, for bytes, the result's scale and zero point.
static inline Status describe_zeros(QMatmulProblem& p, const OptView& b_zero, const OptView& out_scale, const OptView& out_zero) {
  REQUIRE(whole(b_zero, DType::int32_, p.n));
  p.b_zero = data_of<int32_t>(b_zero);
  p.b_zero_step = present(b_zero) ? step_of(b_zero, p.n) : 0;
  const bool requantizes = p.c_type == DType::int8_ || p.c_type == DType::uint8_;
  REQUIRE(!requantizes || present(out_scale));
  REQUIRE(whole(out_scale, DType::float32_, 1) && whole(out_zero, DType::int32_, 1));
  p.c_scale = data_of<float>(out_scale);
  p.c_zero = data_of<int32_t>(out_zero);
  return Status{};
}

// All of qconv2d but what is packed.
static inline Status describe_conv_of_bytes(QConvProblem& p, const View& out, const View& x, i64 quantize, const OptView& x_scale,
                                            const OptView& x_zero, i64 kernel_h, i64 kernel_w, const OptView& w_scale,
                                            const OptView& w_zero, const OptView& bias, i64 activation, const Geometry& geometry) {
  REQUIRE(out.rank == 4 && x.rank == 4 && geometry.padH >= 0 && geometry.padW >= 0);
  REQUIRE(describe_conv(out, x, {out.shape[1], x.shape[1], kernel_h, kernel_w}, geometry, p.shape));
  REQUIRE(quantize >= 0 && quantize <= static_cast<i64>(Quantize::per_tensor));
  REQUIRE(activation >= 0 && activation <= static_cast<i64>(Activation::tanh));
  p.quantize = static_cast<Quantize>(quantize);
  p.x = x.data;
  p.x_type = x.dtype;
  const bool bytes = x.dtype == DType::int8_ || x.dtype == DType::uint8_;
  REQUIRE(p.quantize == Quantize::none ? bytes : is_floating(x.dtype));
  const i64 n = out.shape[1];
  REQUIRE(countable(x.shape[1] * kernel_h * kernel_w, n));
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
  return Status{};
}

}  // namespace kerf
