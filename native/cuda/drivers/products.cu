// matmul, and what products share. The kernels multiply rows by rows, both with K innermost and without gaps: operands that lie
// otherwise are copied there first, K padded with zeros. Weights (b's columns) are the kernels' W, the rows of a their X. Which
// kernel: choose() (matmul_config.h) says by the product and the GPU.
#include "products.h"

namespace kerf {
namespace cuda {
namespace ops {
namespace {

// Copies rows to a pitch of `padded` elements, zeros beyond their own.
Status pad_rows(Gpu& gpu, const View& v, int64_t padded, void* memory) {
  Status status;
  View all = matrix(memory, v.dtype, v.shape[0], padded, padded, 1), inside = all;
  inside.shape[1] = v.shape[1];
  View beyond = all;
  beyond.shape[1] = padded - v.shape[1];
  beyond.data = static_cast<char*>(memory) + v.shape[1] * element_bytes(v.dtype);
  if (beyond.shape[1] > 0) status = fill(gpu, beyond, 0);
  return status.ok() ? copy(gpu, inside, v) : status;
}

const MatmulKernels& kernels() {
  static const MatmulKernels all = [] {
    MatmulKernels made;
    each_dense([&](auto product) { made.add(product); });
    add_packed(made);
    add_wgmma(made);
    return made;
  }();
  return all;
}

}  // namespace

Status as_rows(Gpu& gpu, const View& v, int64_t padded, bool packed, const void** rows) {
  const bool dense = (packed || v.shape[1] == padded) && v.stride[1] == 1 && (v.stride[0] == padded || v.shape[0] == 1);
  if (dense && aligned16(v.data)) return *rows = v.data, Status{};
  void* memory;
  Status status = gpu.scratch(static_cast<size_t>(v.shape[0] * padded * element_bytes(v.dtype)), &memory);
  if (!status.ok()) return status;
  *rows = memory;
  return pad_rows(gpu, v, padded, memory);
}

Status run_product(Gpu& gpu, const char* op, MatmulWeights weights, const char* type, const char* out, MatmulOperands& o) {
  const MatmulDesc desc{o.M, o.N, o.K, type, out, weights, gpu.sm(), gpu.multiprocessors()};
  const MatmulChoice choice = choose(kernels().configs, desc);
  if (!choice.config) return Status::error(Code::unsupported, "%s: CUDA kernels take fewer than 65536 tiles of rows, not %d rows", op, o.N);
  o.parts = choice.parts;
  o.multiprocessors = gpu.multiprocessors();
  if (choice.parts > 1) {
    const MatmulConfig& c = *choice.config;
    const int64_t tiles = (int64_t{o.M} + c.features - 1) / c.features * ((int64_t{o.N} + c.tokens - 1) / c.tokens);
    REQUIRE(tiles <= int64_t{Gpu::kCountersOf} * gpu.multiprocessors());  // plan(): what is split leaves the GPU room for two
    void* parts;
    const Status status = gpu.scratch(static_cast<size_t>(tiles * choice.parts * c.features * c.tokens) * 4, &parts);
    if (!status.ok()) return status;
    o.split = {static_cast<uint8_t*>(parts), gpu.counters()};
  }
  Launcher launcher{gpu, op, {}};
  kernels().launches[static_cast<size_t>(choice.config - kernels().configs.data())](launcher, o);
  return launcher.status;
}

namespace {

// One product of matrices; out's columns may have any place.
struct Problem {
  View out, w, x;  // out [n][m], w [m][k], x [n][k]
  const float* bias;
  Activation activation;
  bool packed;  // w is what pack() made: its padding is zeros
};

const char* short_name(DType dtype) {
  return dtype == DType::float32_ ? "f32" : dtype == DType::float16_ ? "f16" : dtype == DType::bfloat16_ ? "bf16" : "";
}

Status multiply(Gpu& gpu, const Problem& p) {
  const int64_t m = p.w.shape[0], n = p.x.shape[0], padded = padded_row(p.w.dtype, p.w.shape[1]);
  if (!countable_product(m, n, padded)) return too_many("matmul", m * n);
  const void *w, *x;
  Status status = as_rows(gpu, p.w, padded, p.packed, &w);
  if (status.ok()) status = as_rows(gpu, p.x, padded, false, &x);
  if (!status.ok()) return status;
  return with_result(gpu, p.out, p.activation, [&](const View& result, Activation activation) {
    MatmulOperands o{};
    o.w = static_cast<const uint8_t*>(w);
    o.x = static_cast<const uint8_t*>(x);
    o.out = result.data;
    o.bias = p.bias;
    o.activation = activation;
    o.M = static_cast<int>(m), o.N = static_cast<int>(n), o.K = static_cast<int>(padded);
    return run_product(gpu, "matmul", MatmulWeights::dense, short_name(p.w.dtype), short_name(result.dtype), o);
  });
}

Status run_matmul(Gpu& gpu, const View& out, const View& a, const View& b, const OptView& bias, i64 activation, bool packed) {
  const int rank = out.rank;
  REQUIRE(rank >= 2 && a.rank == rank && b.rank == rank && a.dtype == b.dtype);
  REQUIRE(activation >= 0 && activation <= static_cast<i64>(Activation::tanh));
  REQUIRE(out.dtype == a.dtype || out.dtype == DType::float32_);
  const int64_t n = out.shape[rank - 2], m = out.shape[rank - 1], k = a.shape[rank - 1];
  REQUIRE(a.shape[rank - 2] == n && b.shape[rank - 2] == k && b.shape[rank - 1] == m && holds_bias(bias, m));
  if (!is_floating(a.dtype)) return no_kernel("matmul", a.dtype);
  int64_t batches = 1;
  for (int i = 0; i < rank - 2; i++) {
    REQUIRE(a.shape[i] == out.shape[i] && b.shape[i] == out.shape[i]);
    batches *= out.shape[i];
  }
  if (count(out) == 0) return Status{};
  const float* bias_row;
  const Status aligned = as_vector(gpu, data_of<float>(bias), m, &bias_row);
  if (!aligned.ok()) return aligned;
  for (int64_t batch = 0; batch < batches; batch++) {
    int64_t at[3] = {}, rest = batch;
    const View* views[3] = {&out, &a, &b};
    for (int i = rank - 3; i >= 0; rest /= out.shape[i--])
      for (int v = 0; v < 3; v++) at[v] += rest % out.shape[i] * views[v]->stride[i];
    auto start = [&](int v) { return static_cast<char*>(views[v]->data) + at[v] * element_bytes(views[v]->dtype); };
    Problem p;
    p.out = matrix(start(0), out.dtype, n, m, out.stride[rank - 2], out.stride[rank - 1]);
    p.x = matrix(start(1), a.dtype, n, k, a.stride[rank - 2], a.stride[rank - 1]);
    p.w = matrix(start(2), b.dtype, m, k, b.stride[rank - 1], b.stride[rank - 2]);
    p.bias = bias_row;
    p.activation = static_cast<Activation>(activation);
    p.packed = packed;
    const Status status = multiply(gpu, p);
    if (!status.ok()) return status;
  }
  return Status{};
}

}  // namespace

Status matmul(Gpu& gpu, View out, View a, View b, OptView bias, i64 activation) {
  return run_matmul(gpu, out, a, b, bias, activation, false);
}

Status matmulPacked(Gpu& gpu, View out, View a, View packed, OptView bias, i64 activation) {
  REQUIRE(out.rank >= 2 && a.rank == out.rank && is_floating(a.dtype));
  const int64_t k = a.shape[a.rank - 1], n = out.shape[out.rank - 1], row = padded_row(a.dtype, k);
  REQUIRE(holds_packed(packed, n * row * element_bytes(a.dtype)));
  View b = out;  // the same matrix for every batch
  b.data = packed.data;
  b.dtype = a.dtype;
  for (int i = 0; i < b.rank; i++) b.stride[i] = 0;
  b.shape[b.rank - 2] = k;
  b.stride[b.rank - 2] = 1;
  b.stride[b.rank - 1] = row;
  return run_matmul(gpu, out, a, b, bias, activation, true);
}

Status pack(Gpu& gpu, View packed, View b) {
  if (!is_floating(b.dtype)) return no_kernel("pack", b.dtype);
  const int64_t k = b.shape[0], n = b.shape[1], row = padded_row(b.dtype, k);
  REQUIRE(b.rank == 2 && holds_packed(packed, n * row * element_bytes(b.dtype)));
  return pad_rows(gpu, matrix(b.data, b.dtype, n, k, b.stride[1], b.stride[0]), row, packed.data);
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
