// The drivers wpack and wmatmul: float activations times 4- or 8-bit weights.
#include "../core/debug.h"
#include "ops.h"
#include "targets.h"

namespace kerf::ops {
namespace {

Status no_weights() { return Status::error(Code::unsupported, "no kernel for quantized weights on %s", kernels().target); }

bool valid(i64 bits, i64 group, i64 k) { return (bits == 4 || bits == 8) && group >= 1 && (k == 0 || group <= k); }

}  // namespace

Status wpack(Stream& stream, View packed, View codes, View scale, OptView zero, i64 k, i64 bits, i64 group, i64 is_signed) {
  const WMatmulCell& cell = kernels().wmatmul;
  if (!cell.run) return no_weights();
  REQUIRE(codes.rank == 2 && contiguous(codes) && valid(bits, group, k));
  REQUIRE(codes.dtype == DType::uint8_ || (bits == 8 && codes.dtype == DType::int8_));
  REQUIRE(codes.shape[1] == (bits == 8 ? k : (k + 1) / 2));
  REQUIRE(countable(k, codes.shape[0]));
  const int64_t n = codes.shape[0], groups = (k + group - 1) / group;
  REQUIRE(scale.dtype == DType::float32_ && scale.rank == 2 && contiguous(scale) && scale.shape[0] == n && scale.shape[1] == groups);
  REQUIRE(!present(zero) || (zero.dtype == DType::int32_ && contiguous(zero) && same_shape(zero, scale)));
  const WeightFormat format{bits, group, is_signed != 0, present(zero)};
  const int64_t bytes = cell.packed_bytes(k, n, format);
  REQUIRE(holds_packed(packed, bytes));
  if (bytes == 0) return Status{};
  const auto* zeros = present(zero) ? static_cast<const int32_t*>(zero.data) : nullptr;
  return stream.run(static_cast<double>(n * k), [cell, format, k, n, zeros, to = packed.data, from = codes.data, by = scale.data] {
    cell.pack(to, static_cast<const uint8_t*>(from), static_cast<const float*>(by), zeros, k, n, format);
  });
}

Status wmatmul(Stream& stream, View out, View a, View packed, OptView bias, i64 activation, i64 bits, i64 group,
               i64 is_signed, i64 zeros) {
  const WMatmulCell& cell = kernels().wmatmul;
  if (!cell.run) return no_weights();
  REQUIRE(out.rank == 2 && a.rank == 2 && a.shape[0] == out.shape[0] && is_floating(a.dtype));
  REQUIRE(out.dtype == a.dtype || out.dtype == DType::float32_);
  REQUIRE(activation >= 0 && activation <= static_cast<i64>(Activation::tanh));
  WMatmulProblem p;
  p.m = out.shape[0];
  p.n = out.shape[1];
  p.k = a.shape[1];
  REQUIRE(valid(bits, group, p.k) && countable(p.k, p.n) && countable(p.m, p.k));
  p.a = a.data;
  p.a_type = a.dtype;
  p.a_row = a.stride[0];
  p.a_col = a.stride[1];
  p.format = {bits, group, is_signed != 0, zeros != 0};
  REQUIRE(holds_packed(packed, cell.packed_bytes(p.k, p.n, p.format)));
  p.packed = packed.data;
  REQUIRE(p.n <= 1 || out.stride[1] == 1);
  p.c = out.data;
  p.c_row = out.stride[0];
  p.c_type = out.dtype;
  REQUIRE(holds_bias(bias, p.n));
  p.bias = data_of<float>(bias);
  p.activation = static_cast<Activation>(activation);
  const double m = static_cast<double>(p.m), n = static_cast<double>(p.n), k = static_cast<double>(p.k);
  const double ns = 200 + 2 * m * n * k / 400 + k * n * static_cast<double>(bits) / 8 / 50 + m * k / 2;
  return stream.run(ns, [cell, p] {
    debug_kernel(cell.name, 2.0 * static_cast<double>(p.m * p.n) * static_cast<double>(p.k));
    if (!cell.run(p)) Stream::fail(Code::out_of_memory, "wmatmul: out of memory for scratch");
  });
}

}  // namespace kerf::ops
