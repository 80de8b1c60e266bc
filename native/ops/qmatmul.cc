// The drivers qpack and qmatmul: one product of two axes each; lib/ops/qmatmul.ts has folded batches into rows.
#include <cstdint>

#include "../core/byte_contracts.h"
#include "../core/debug.h"
#include "ops.h"
#include "targets.h"

namespace kerf::ops {
namespace {

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
  QMatmulProblem p;
  const Status described = describe_product(p, out, a, quantize, a_scale, a_zero, a_multiplier, b_scale, bias, activation);
  if (!described.ok()) return described;
  REQUIRE(holds_packed(packed, cell.packed_bytes(p.k, p.n)));
  p.packed = packed.data;
  const Status zeros = describe_zeros(p, b_zero, out_scale, out_zero);
  if (!zeros.ok()) return zeros;
  const double m = static_cast<double>(p.m), n = static_cast<double>(p.n), k = static_cast<double>(p.k);
  const double ns = 200 + 2 * m * n * k / 700 + (k * n + m * k * static_cast<double>(element_bytes(a.dtype)) + m * n * 4) / 40;
  return stream.run(ns, [cell, p] {
    debug_kernel(cell.name, 2.0 * static_cast<double>(p.m * p.n) * static_cast<double>(p.k));
    if (!cell.run(p)) Stream::fail(Code::out_of_memory, "qmatmul: out of memory for scratch");
  });
}

}  // namespace kerf::ops
