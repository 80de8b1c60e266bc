// wpack and wmatmul: float activations by weights of 8- or 4-bit codes. Packed: the units of packed_weights.h, then scales, then zero
// points where there are some (unsigned codes always have them: theirs are 0, not the middle).
#include "../codes.cuh"
#include "products.h"

namespace kerf {
namespace cuda {
namespace ops {
namespace {

struct PackedCodes {
  Groups groups;
  int64_t pitch, units, scales, zeros;  // pitch: features rounded up to 16; then bytes of each part
  PackedCodes(int64_t k, int64_t n, int64_t bits, int64_t group, bool has_zeros)
      : groups(Groups::of(k, group)), pitch(rounded_up(n, 16)), units(packed_codes_bytes(n, groups.padded(), static_cast<int>(bits))),
        scales(int64_t{groups.count} * pitch * 4), zeros(has_zeros ? int64_t{groups.count} * pitch : 0) {}
  int64_t bytes() const { return units + scales + zeros; }
};

bool valid(i64 bits, i64 group, i64 k) { return (bits == 4 || bits == 8) && group >= 1 && k >= 1 && group <= k; }

// The largest K that numbers of 32 bits reach with its padding.
bool countable_codes(int64_t k, int64_t n, int64_t group) {
  const double padded = static_cast<double>((k + group - 1) / group) * static_cast<double>(rounded_up(group, 64));
  return countable_product(n, 1, k) && padded < 1 << 28 && padded * static_cast<double>(rounded_up(n, 16)) < 4e9;
}

template <class Kernel, class... Arguments>
Status by_rows(Gpu& gpu, Kernel kernel, const ActivationRows& r, int shared, const Arguments&... rest) {
  CU_LAUNCH(kernel, row_blocks(r.rows), row_threads(r.groups.padded()), shared, gpu.stream(), r, rest...);
  return gpu.launched("wmatmul");
}

struct Problem {
  View x;  // [n][k]
  PackedCodes packed;
  MatmulWeights weights;
  MatmulOperands operands;
};

// float32: high and low parts as twice as many rows.
Status multiply_parts(Gpu& gpu, Problem& p, ActivationRows rows, const View& out, Activation activation) {
  const int64_t n = rows.rows, m = p.operands.M, padded = rows.groups.padded();
  void *laid, *found;
  Status status = gpu.scratch(static_cast<size_t>(n * padded * 4), &laid);
  if (status.ok()) status = gpu.scratch(static_cast<size_t>((2 * n * m + n) * 4), &found);
  if (!status.ok()) return status;
  float* const sums = static_cast<float*>(found);
  float* const scale = sums + 2 * n * m;
  rows.out = static_cast<uint16_t*>(laid);
  status = by_rows(gpu, split_activations, rows, kFoldBytes, scale);
  if (!status.ok()) return status;
  MatmulOperands o = p.operands;
  o.x = static_cast<const uint8_t*>(laid);
  o.out = sums;
  o.N = static_cast<int>(2 * n), o.K = static_cast<int>(padded);
  const float* const bias = o.bias;
  o.bias = nullptr;
  o.bytes.type = DType::float32_;
  status = run_product(gpu, "wmatmul", p.weights, "f16", "any", o);
  if (!status.ok()) return status;
  return with_floats("wmatmul", out.dtype, [&](auto type) {
    using T = decltype(type);
    const auto size = static_cast<uint32_t>(n * m), columns = static_cast<uint32_t>(m);
    const T to{out.data};
    const float *const all = sums, *const by = scale;
    CU_LAUNCH((join_parts<T>), blocks_for(size), threads_for(size), 0, gpu.stream(), size, columns, to, all, by, bias, activation);
    return gpu.launched("wmatmul");
  });
}

Status multiply_halves(Gpu& gpu, Problem& p, ActivationRows rows, const View& out, Activation activation) {
  MatmulOperands o = p.operands;
  const int64_t k = p.x.shape[1], padded = rows.groups.padded();
  const bool whole = (rows.groups.count == 1 || rows.groups.group == rows.groups.padded_group) && k % 8 == 0;
  const bool dense = (rows.k_step == 1 || k == 1) && (rows.row_step == k || rows.rows == 1);
  if (whole && dense && aligned16(p.x.data)) {
    o.x = static_cast<const uint8_t*>(p.x.data);
    o.K = static_cast<int>(k);
  } else {
    void* laid;
    Status status = gpu.scratch(static_cast<size_t>(int64_t{rows.rows} * padded * 2), &laid);
    if (!status.ok()) return status;
    rows.out = static_cast<uint16_t*>(laid);
    status = by_rows(gpu, lay_activations, rows, 0);
    if (!status.ok()) return status;
    o.x = static_cast<const uint8_t*>(laid);
    o.K = static_cast<int>(padded);
  }
  o.N = static_cast<int>(rows.rows);
  o.out = out.data;
  o.activation = activation;
  o.bytes.type = out.dtype;
  return run_product(gpu, "wmatmul", p.weights, p.x.dtype == DType::float16_ ? "f16" : "bf16", "any", o);
}

}  // namespace

Status wpack(Gpu& gpu, View packed, View codes, View scale, OptView zero, i64 k, i64 bits, i64 group, i64 is_signed) {
  REQUIRE(codes.rank == 2 && contiguous(codes) && valid(bits, group, k));
  REQUIRE(codes.dtype == DType::uint8_ || (bits == 8 && codes.dtype == DType::int8_));
  REQUIRE(codes.shape[1] == (bits == 8 ? k : (k + 1) / 2));
  const int64_t n = codes.shape[0], groups = (k + group - 1) / group;
  REQUIRE(scale.dtype == DType::float32_ && scale.rank == 2 && contiguous(scale) && scale.shape[0] == n && scale.shape[1] == groups);
  REQUIRE(!present(zero) || (zero.dtype == DType::int32_ && contiguous(zero) && same_shape(zero, scale)));
  if (!countable_codes(k, n, group)) return too_many("wpack", n * k);
  const PackedCodes size(k, n, bits, group, present(zero) || !is_signed);
  REQUIRE(holds_packed(packed, size.bytes()));
  if (n == 0) return Status{};
  const Codes from{static_cast<const uint8_t*>(codes.data), static_cast<uint32_t>(n), static_cast<uint32_t>(codes.shape[1]),
                   static_cast<int>(bits), is_signed != 0};
  auto* const units = static_cast<uint8_t*>(packed.data);
  auto* const words = reinterpret_cast<uint32_t*>(units);
  const auto count = static_cast<uint32_t>(size.units / 4), terms = static_cast<uint32_t>(size.scales / 4);
  const Groups of = size.groups;
  CU_LAUNCH(pack_units, blocks_for(count), threads_for(count), 0, gpu.stream(), count, from, of, words);
  const Status status = gpu.launched("wpack");
  if (!status.ok()) return status;
  auto* const scale_to = reinterpret_cast<float*>(units + size.units);
  uint8_t* const zero_to = size.zeros ? units + size.units + size.scales : nullptr;
  const float* const scale_from = static_cast<const float*>(scale.data);
  const int32_t* const zero_from = data_of<int32_t>(zero);
  const uint32_t number = of.count;
  CU_LAUNCH(pack_scales, blocks_for(terms), threads_for(terms), 0, gpu.stream(), terms, from, number, scale_to, zero_to, scale_from, zero_from);
  return gpu.launched("wpack");
}

Status wmatmul(Gpu& gpu, View out, View a, View packed, OptView bias, i64 activation, i64 bits, i64 group, i64 is_signed, i64 zeros) {
  REQUIRE(out.rank == 2 && a.rank == 2 && a.shape[0] == out.shape[0] && is_floating(a.dtype));
  REQUIRE(out.dtype == a.dtype || out.dtype == DType::float32_);
  REQUIRE(activation >= 0 && activation <= static_cast<i64>(Activation::tanh));
  const int64_t m = out.shape[1], n = out.shape[0], k = a.shape[1];
  REQUIRE(holds_bias(bias, m));
  if (count(out) == 0) return Status{};
  if (k == 0) {  // no weights: what is left of a product of floats
    const View none = matrix(nullptr, a.dtype, 0, m, 0, 0);
    return matmul(gpu, out, a, none, bias, activation);
  }
  REQUIRE(valid(bits, group, k));
  if (!countable_codes(k, m, group) || !countable_product(m, 2 * n, k) || !fits(n * m)) return too_many("wmatmul", n * m);
  Problem p{a, PackedCodes(k, m, bits, group, zeros || !is_signed), bits == 8 ? MatmulWeights::codes8 : MatmulWeights::codes4, {}};
  REQUIRE(holds_packed(packed, p.packed.bytes()));
  const auto* const units = static_cast<const uint8_t*>(packed.data);
  MatmulOperands& o = p.operands;
  o.packed = {units, reinterpret_cast<const float*>(units + p.packed.units),
              p.packed.zeros ? units + p.packed.units + p.packed.scales : nullptr, static_cast<int>(p.packed.groups.padded_group)};
  o.M = static_cast<int>(m);
  const Status aligned = as_vector(gpu, data_of<float>(bias), m, &o.bias);
  if (!aligned.ok()) return aligned;
  const ActivationRows rows{{a.data, a.dtype}, a.stride[0], a.stride[1], static_cast<uint32_t>(n), p.packed.groups, nullptr};
  return with_result(gpu, out, static_cast<Activation>(activation), [&](const View& result, Activation fused) {
    return a.dtype == DType::float32_ ? multiply_parts(gpu, p, rows, result, fused) : multiply_halves(gpu, p, rows, result, fused);
  });
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
