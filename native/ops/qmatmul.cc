// The drivers qpack and qmatmul: one product of two axes each; lib/ops/qmatmul.ts has folded batches into rows.
#include <cstdint>

#include "../core/debug.h"
#include "ops.h"
#include "targets.h"

namespace kerf::ops {
namespace {

// One value or `n` of them: the step from one to the next, or -1 for neither.
int64_t step_of(const View& v, int64_t n) {
  if (v.rank == 0 || (v.rank == 1 && v.shape[0] == 1)) return 0;
  return v.rank == 1 && v.shape[0] == n && v.stride[0] == 1 ? 1 : -1;
}

bool whole(const OptView& v, DType dtype, int64_t n) {
  return !present(v) || (v.dtype == dtype && step_of(v, n) >= 0);
}

Status no_int8() { return Status::error(Code::unsupported, "no int8 kernel on %s", kernels().target); }

}  // namespace

Status qpack(Stream& stream, View packed, View b) {
  const QMatmulCell& cell = kernels().qmatmul;
  if (!cell.run) return no_int8();
  REQUIRE(b.rank == 2 && (b.dtype == DType::int8_ || b.dtype == DType::uint8_) && countable(b.shape[0], b.shape[1]));
  const int64_t bytes = cell.packed_bytes(b.shape[0], b.shape[1]);
  REQUIRE(holds_packed(packed, bytes));
  if (bytes == 0) return Status{};
  return stream.run(static_cast<double>(bytes) / 2, [cell, packed, b] {
    cell.pack(packed.data, b.data, b.dtype, b.shape[0], b.shape[1], b.stride[0], b.stride[1]);
  });
}

Status qmatmul(Stream& stream, View out, View a, i64 quantize, OptView a_scale, OptView a_zero, OptView a_multiplier,
               View packed, OptView b_scale, OptView b_zero, OptView out_scale, OptView out_zero, OptView bias,
               i64 activation) {
  const QMatmulCell& cell = kernels().qmatmul;
  if (!cell.run) return no_int8();
  REQUIRE(out.rank == 2 && a.rank == 2 && a.shape[0] == out.shape[0]);
  REQUIRE(quantize >= 0 && quantize <= static_cast<i64>(Quantize::per_row));
  REQUIRE(activation >= 0 && activation <= static_cast<i64>(Activation::tanh));
  QMatmulProblem p;
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
  REQUIRE(holds_packed(packed, cell.packed_bytes(p.k, p.n)));
  p.packed = packed.data;
  REQUIRE(whole(b_scale, DType::float32_, p.n) && whole(b_zero, DType::int32_, p.n));
  p.b_scale = data_of<float>(b_scale);
  p.b_scale_step = present(b_scale) ? step_of(b_scale, p.n) : 0;
  p.b_zero = data_of<int32_t>(b_zero);
  p.b_zero_step = present(b_zero) ? step_of(b_zero, p.n) : 0;
  REQUIRE(p.n <= 1 || out.stride[1] == 1);
  p.c = out.data;
  p.c_row = out.stride[0];
  p.c_type = out.dtype;
  if (out.dtype == DType::int32_) {
    REQUIRE(!present(bias) && activation == 0);
  } else {
    REQUIRE(is_floating(out.dtype) || out.dtype == DType::int8_ || out.dtype == DType::uint8_);
    REQUIRE(present(b_scale) && (present(a_scale) || (p.quantize != Quantize::none && !given)));
  }
  const bool requantizes = out.dtype == DType::int8_ || out.dtype == DType::uint8_;
  REQUIRE(!requantizes || present(out_scale));
  REQUIRE(whole(out_scale, DType::float32_, 1) && whole(out_zero, DType::int32_, 1));
  p.c_scale = data_of<float>(out_scale);
  p.c_zero = data_of<int32_t>(out_zero);
  REQUIRE(holds_bias(bias, p.n));
  p.bias = data_of<float>(bias);
  p.activation = static_cast<Activation>(activation);
  const double m = static_cast<double>(p.m), n = static_cast<double>(p.n), k = static_cast<double>(p.k);
  const double ns = 200 + 2 * m * n * k / 700 + (k * n + m * k * static_cast<double>(element_bytes(a.dtype)) + m * n * 4) / 40;
  return stream.run(ns, [cell, p] {
    debug_kernel(cell.name, 2.0 * static_cast<double>(p.m * p.n) * static_cast<double>(p.k));
    if (!cell.run(p)) Stream::fail(Code::out_of_memory, "qmatmul: out of memory for scratch");
  });
}

}  // namespace kerf::ops
