#include "pairs.h"

#include "../pairs.cuh"
#include "products.h"

namespace kerf {
namespace cuda {
namespace ops {
namespace {

// Where the parts of packed 2:4 weights lie. Units: values and metadata of 16 rows and a step, one after the other. Rows: values
// [n][padded K / 2], then metadata. Of int8 the sum of each row follows.
struct PairLayout {
  int64_t padded, values, metadata, sums;  // padded: K; then bytes
  PairLayout(int64_t n, int64_t k, int bytes, i64 form)
      : padded(steps_of(k, bytes) * 128 / bytes), values(0), metadata(0), sums(bytes == 1 ? 4 * n : 0) {
    const int64_t steps = steps_of(k, bytes), blocks = rounded_up(n, 16) / 16;
    values = form == kPairUnits ? blocks * steps * kept_unit_bytes(bytes) : n * steps * 64;
    metadata = form == kPairUnits ? 0 : blocks * steps * 128 * kept_metadata_words(bytes);
  }
  int64_t bytes() const { return values + metadata + sums; }
};

template <class T>
Status pack_as(Gpu& gpu, const View& packed, const CsrMatrix& w, i64 form) {
  constexpr int kBytes = sizeof(T);
  const PairLayout layout(w.n, w.k, kBytes, form);
  REQUIRE(holds_packed(packed, layout.bytes()));
  if (w.n == 0 || w.k == 0) return Status{};
  const int64_t steps = steps_of(w.k, kBytes), threads = w.n * layout.padded / 8;
  if (!fits(layout.bytes()) || !fits(threads)) return too_many("sppack", w.n * w.k);
  auto* const to = static_cast<uint8_t*>(packed.data);
  void *places, *values = to;
  Status status = gpu.scratch(static_cast<size_t>(threads), &places);
  if (status.ok() && form == kPairUnits) status = gpu.scratch(static_cast<size_t>(w.n * steps * 64), &values);
  if (!status.ok()) return status;
  const PairRows<T> rows{static_cast<uint32_t>(w.n), static_cast<uint32_t>(steps), static_cast<T*>(values), static_cast<uint8_t*>(places)};
  const CsrRows<T> from{static_cast<uint32_t>(w.k), static_cast<uint32_t>(w.count), w.pointers, w.columns, static_cast<const T*>(w.values)};
  const Fault fault = gpu.may_fail("sppack: row %%llu has more than two non-zeros in four neighbours, which 2:4 has not");
  const auto size = static_cast<uint32_t>(threads);
  CU_LAUNCH((pairs_of_rows<T>), blocks_for(size), threads_for(size), 0, gpu.stream(), size, rows, from, fault);
  status = gpu.launched("sppack");
  if (!status.ok()) return status;
  const PairMetadata<T> metadata{rows};
  auto* const words = reinterpret_cast<uint32_t*>(form == kPairUnits ? to : to + layout.values);
  const auto number = static_cast<uint32_t>((form == kPairUnits ? layout.values : layout.metadata) / 4);
  if (form == kPairUnits)
    CU_LAUNCH((pair_units<T>), blocks_for(number), threads_for(number), 0, gpu.stream(), number, metadata, words);
  else
    CU_LAUNCH((pair_metadata<T>), blocks_for(number), threads_for(number), 0, gpu.stream(), number, metadata, words);
  status = gpu.launched("sppack");
  if (!status.ok() || kBytes == 2) return status;
  const auto n = static_cast<uint32_t>(w.n), count = static_cast<uint32_t>(w.count);
  const int32_t* const pointers = w.pointers;
  const auto* const bytes = static_cast<const int8_t*>(w.values);
  auto* const sums = reinterpret_cast<int32_t*>(to + layout.values + layout.metadata);
  CU_LAUNCH(sum_rows, blocks_for(n), threads_for(n), 0, gpu.stream(), n, count, pointers, bytes, sums);
  return gpu.launched("sppack");
}

MatmulWeights weights_of(i64 form) { return form == kPairUnits ? MatmulWeights::kept_units : MatmulWeights::kept_rows; }

void set_weights(MatmulOperands& o, const View& packed, const PairLayout& layout, i64 form) {
  const auto* const data = static_cast<const uint8_t*>(packed.data);
  if (form == kPairUnits) {
    o.packed = {data, nullptr, nullptr, 0};
  } else {
    o.w = data;
    o.metadata = reinterpret_cast<const uint32_t*>(data + layout.values);
  }
}

}  // namespace

Status pack_pairs(Gpu& gpu, const View& packed, const CsrMatrix& w, DType dtype, i64 form) {
  REQUIRE(w.k % 4 == 0);
  if (dtype == DType::int8_) return pack_as<uint8_t>(gpu, packed, w, form);
  REQUIRE(dtype == DType::float16_ || dtype == DType::bfloat16_);
  return pack_as<uint16_t>(gpu, packed, w, form);
}

Status multiply_pairs(Gpu& gpu, const View& out, const View& a, const View& packed, const SparseProblem& p, DType dtype, i64 form) {
  REQUIRE(a.dtype == dtype && (dtype == DType::float16_ || dtype == DType::bfloat16_) && p.k % 4 == 0 && p.k > 0);
  const PairLayout layout(p.n, p.k, 2, form);
  REQUIRE(holds_packed(packed, layout.bytes()));
  if (!countable_product(p.n, p.m, layout.padded)) return too_many("spmatmul", count(out));
  const int64_t padded = form == kPairUnits ? padded_row(dtype, p.k) : layout.padded;
  const void* x;
  const float* bias;
  Status status = as_rows(gpu, a, padded, false, &x);
  if (status.ok()) status = as_vector(gpu, p.bias, p.n, &bias);
  if (!status.ok()) return status;
  return with_result(gpu, out, p.activation, [&](const View& result, Activation activation) {
    MatmulOperands o{};
    set_weights(o, packed, layout, form);
    o.x = static_cast<const uint8_t*>(x);
    o.bias = bias;
    o.out = result.data;
    o.activation = activation;
    o.M = static_cast<int>(p.n), o.N = static_cast<int>(p.m), o.K = static_cast<int>(padded);
    o.bytes.type = result.dtype;
    return run_product(gpu, "spmatmul", weights_of(form), dtype == DType::float16_ ? "f16" : "bf16", "any", o);
  });
}

Status multiply_byte_pairs(Gpu& gpu, const View& out, const View& packed, QMatmulProblem& p, i64 form) {
  REQUIRE(p.k % 4 == 0 && p.k > 0);
  const PairLayout layout(p.n, p.k, 1, form);
  REQUIRE(holds_packed(packed, layout.bytes()));
  if (!countable_product(p.n, p.m, layout.padded)) return too_many("spqmatmul", count(out));
  MatmulOperands o{};
  set_weights(o, packed, layout, form);
  const auto* const sums = reinterpret_cast<const int32_t*>(static_cast<const uint8_t*>(packed.data) + layout.values + layout.metadata);
  return multiply_bytes(gpu, "spqmatmul", p, out, weights_of(form), o, sums, form == kPairUnits ? PackedBytes(p.k, 0).padded : layout.padded);
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
