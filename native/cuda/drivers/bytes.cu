// qpack and qmatmul: products of bytes. Packed: B's columns as rows of int8, K padded with zeros to whole chunks of 16, and behind
// them the sum of each (int32). The kernels multiply int8 by int8; zero points are put right where the sums are stored.
#include "bytes.h"

#include "../byte_rows.cuh"
#include "products.h"
#include "quantize.h"

namespace kerf {
namespace cuda {
namespace ops {
namespace {

Status lay_bytes(Gpu& gpu, const char* op, const ByteRows& rows) {
  if (rows.rows == 0) return Status{};
  CU_LAUNCH(byte_rows, row_blocks(rows.rows), row_threads(rows.padded), kFoldBytes, gpu.stream(), rows);
  return gpu.launched(op);
}

}  // namespace

Status lay_tokens(Gpu& gpu, const char* op, QMatmulProblem& p, int64_t padded, bool sums, Tokens* tokens) {
  tokens->shift = shift_of(p.quantize, p.a_type);
  ByteRows r{};
  r.from.a = {const_cast<void*>(p.a), p.a_type};
  r.row_step = p.a_row, r.k_step = p.a_col;
  r.rows = static_cast<uint32_t>(p.m), r.k = static_cast<uint32_t>(p.k), r.padded = static_cast<uint32_t>(padded);
  if (p.quantize == Quantize::per_tensor || p.quantize == Quantize::per_row) {
    const bool by_row = p.quantize == Quantize::per_row && p.k > 0;
    void* found;
    Status status = gpu.scratch(static_cast<size_t>(p.m) * 8, &found);
    if (!status.ok()) return status;
    float* const scale = static_cast<float*>(found);
    int32_t* const zero = reinterpret_cast<int32_t*>(scale + p.m);
    const View a = matrix(const_cast<void*>(p.a), p.a_type, p.m, p.k, p.a_row, p.a_col);
    const void* dense;
    status = as_rows(gpu, a, p.k, false, &dense);
    if (!status.ok()) return status;
    status = dynamic_scales(gpu, contiguous_view(const_cast<void*>(dense), p.a_type, a), p.a_multiplier, by_row, scale, zero);
    if (!status.ok()) return status;
    p.a_scale = scale, p.a_zero = zero, p.a_step = by_row;
    p.quantize = Quantize::to_uint8;
  }
  r.from.quantize = p.quantize;
  r.scale = p.a_scale, r.zero = p.a_zero, r.one_scale = p.a_step == 0;
  r.multiplier = p.a_multiplier;
  if (!sums && p.quantize == Quantize::none && p.a_type == DType::int8_ && p.a_col == 1 && p.a_row == padded &&
      p.k == padded && aligned16(p.a)) {
    tokens->rows = static_cast<const uint8_t*>(p.a);  // as they are
    return Status{};
  }
  const int64_t bytes = p.m * padded;
  void* memory;
  Status status = gpu.scratch(static_cast<size_t>(bytes + (sums ? 4 * p.m : 0)), &memory);
  if (!status.ok()) return status;
  r.out = static_cast<uint8_t*>(memory);
  r.sums = sums ? reinterpret_cast<int32_t*>(r.out + bytes) : nullptr;
  tokens->rows = r.out;
  tokens->sums = r.sums;
  return lay_bytes(gpu, op, r);
}

Status multiply_bytes(Gpu& gpu, const char* op, QMatmulProblem& p, const View& out, MatmulWeights weights, MatmulOperands& o,
                      const int32_t* weight_sum, int64_t padded) {
  const bool bytes = out.dtype == DType::int8_ || out.dtype == DType::uint8_;
  if (bytes && !is_fused(p.activation)) return Status::error(Code::unsupported, "%s: no CUDA kernel of this activation for a result of bytes", op);
  Tokens tokens{};
  Status status = lay_tokens(gpu, op, p, padded, p.b_zero != nullptr, &tokens);
  // One value needs no alignment.
  o.weight_scale = p.b_scale;
  o.bytes.weight_zero = p.b_zero;
  if (status.ok() && p.b_scale_step) status = as_vector(gpu, p.b_scale, p.n, &o.weight_scale);
  if (status.ok() && p.b_zero_step) status = as_vector(gpu, p.b_zero, p.n, &o.bytes.weight_zero);
  if (status.ok()) status = as_vector(gpu, p.bias, p.n, &o.bias);
  if (!status.ok()) return status;
  o.x = tokens.rows;
  o.token_scale = p.a_scale;
  o.M = static_cast<int>(p.n), o.N = static_cast<int>(p.m), o.K = static_cast<int>(padded);
  ByteSums& b = o.bytes;
  b.k = static_cast<int32_t>(p.k);
  b.weight_sum = p.a_zero || tokens.shift ? weight_sum : nullptr;
  b.token_zero = p.a_zero;
  b.token_sum = tokens.sums;
  b.out_scale = p.c_scale;
  b.out_zero = p.c_zero;
  b.shift = tokens.shift;
  b.one_weight_scale = p.b_scale && p.b_scale_step == 0;
  b.one_weight_zero = p.b_zero && p.b_zero_step == 0;
  b.one_token_scale = b.one_token_zero = p.a_step == 0;
  return with_result(gpu, out, p.activation, [&](const View& result, Activation activation) {
    o.out = result.data;
    o.activation = activation;
    o.bytes.type = result.dtype;
    return run_product(gpu, op, weights, "i8", "any", o);
  });
}

Status qpack(Gpu& gpu, View packed, View b) {
  REQUIRE(b.rank == 2 && (b.dtype == DType::int8_ || b.dtype == DType::uint8_) && countable(b.shape[0], b.shape[1]));
  const PackedBytes size(b.shape[0], b.shape[1]);
  REQUIRE(holds_packed(packed, size.bytes()));
  if (!countable_product(size.n, 1, size.padded)) return too_many("qpack", size.bytes());
  ByteRows r{};
  r.from = {{b.data, b.dtype}, Quantize::none};
  r.row_step = b.stride[1], r.k_step = b.stride[0];
  r.rows = static_cast<uint32_t>(size.n), r.k = static_cast<uint32_t>(b.shape[0]), r.padded = static_cast<uint32_t>(size.padded);
  r.out = static_cast<uint8_t*>(packed.data);
  r.sums = reinterpret_cast<int32_t*>(r.out + size.sums());
  return lay_bytes(gpu, "qpack", r);
}

Status qmatmul(Gpu& gpu, View out, View a, i64 quantize, OptView a_scale, OptView a_zero, OptView a_multiplier, View packed,
               OptView b_scale, OptView b_zero, OptView out_scale, OptView out_zero, OptView bias, i64 activation) {
  QMatmulProblem p;
  Status status = describe_product(p, out, a, quantize, a_scale, a_zero, a_multiplier, b_scale, bias, activation);
  if (status.ok()) status = describe_zeros(p, b_zero, out_scale, out_zero);
  if (!status.ok()) return status;
  const PackedBytes size(p.k, p.n);
  REQUIRE(holds_packed(packed, size.bytes()));
  if (count(out) == 0) return Status{};
  if (!countable_product(p.n, p.m, size.padded)) return too_many("qmatmul", count(out));
  MatmulOperands o{};
  o.w = static_cast<const uint8_t*>(packed.data);
  const auto* sums = reinterpret_cast<const int32_t*>(o.w + size.sums());
  return multiply_bytes(gpu, "qmatmul", p, out, MatmulWeights::dense, o, sums, size.padded);
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
