// matmul. The kernels multiply rows by rows, both with K innermost and without gaps: operands that lie otherwise are copied
// there first, K padded with zeros. Weights (b's columns) are the kernels' W, the rows of a their X. Which kernel: choose()
// (matmul_config.h) says by the product and the GPU.
#include "activate.h"
#include "matmul_kernels.h"

namespace kerf {
namespace cuda {
namespace ops {
namespace {

bool aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

View matrix(void* data, DType dtype, int64_t rows, int64_t columns, int64_t row, int64_t column) {
  View v{};
  v.data = data;
  v.dtype = dtype;
  v.rank = 2;
  v.shape[0] = rows;
  v.shape[1] = columns;
  v.stride[0] = row;
  v.stride[1] = column;
  return v;
}

// Elements of a row of k that begins, like the next, at whole 16 bytes. pack() makes such rows of b's columns, zeros behind them.
int64_t padded_row(DType dtype, int64_t k) {
  const int64_t unit = 16 / element_bytes(dtype);
  return (k + unit - 1) / unit * unit;
}

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

// The rows as a kernel reads them, pitch `padded` elements: `v` itself where it lies so (packed rows do), else a copy.
Status as_rows(Gpu& gpu, const View& v, int64_t padded, bool packed, const void** rows) {
  const bool dense = (packed || v.shape[1] == padded) && v.stride[1] == 1 && (v.stride[0] == padded || v.shape[0] == 1);
  if (dense && aligned16(v.data)) return *rows = v.data, Status{};
  void* memory;
  Status status = gpu.scratch(static_cast<size_t>(v.shape[0] * padded * element_bytes(v.dtype)), &memory);
  if (!status.ok()) return status;
  *rows = memory;
  return pad_rows(gpu, v, padded, memory);
}

// One product of matrices; out's columns may have any place.
struct Problem {
  View out, w, x;  // out [n][m], w [m][k], x [n][k]
  const float* bias;
  Activation activation;
  bool packed;  // w is what pack() made: its padding is zeros
};

const MatmulKernels& kernels() {
  static const MatmulKernels all = [] {
    MatmulKernels made;
    each_dense([&](auto product) { made.add(product); });
    add_wgmma(made);
    return made;
  }();
  return all;
}

const char* short_name(DType dtype) {
  return dtype == DType::float32_ ? "f32" : dtype == DType::float16_ ? "f16" : dtype == DType::bfloat16_ ? "bf16" : "";
}

Status run_kernel(Gpu& gpu, const Problem& p, DType out_type, void* out, Activation activation, const void* w, const void* x, int k) {
  const int m = static_cast<int>(p.w.shape[0]), n = static_cast<int>(p.x.shape[0]);
  const MatmulDesc desc{m, n, k, short_name(p.w.dtype), short_name(out_type), MatmulWeights::dense, gpu.sm(), gpu.multiprocessors()};
  const MatmulChoice choice = choose(kernels().configs, desc);
  if (!choice.config) return Status::error(Code::unsupported, "matmul: CUDA kernels take fewer than 65536 tiles of rows, not %d rows", n);
  MatmulOperands o{};
  o.w = static_cast<const uint8_t*>(w);
  o.x = static_cast<const uint8_t*>(x);
  o.out = out;
  o.bias = p.bias;
  o.activation = activation;
  o.M = m, o.N = n, o.K = k;
  o.parts = choice.parts;
  o.multiprocessors = gpu.multiprocessors();
  if (choice.parts > 1) {
    const MatmulConfig& c = *choice.config;
    const int64_t tiles = (int64_t{m} + c.features - 1) / c.features * ((int64_t{n} + c.tokens - 1) / c.tokens);
    REQUIRE(tiles <= int64_t{Gpu::kCountersOf} * gpu.multiprocessors());  // plan(): what is split leaves the GPU room for two
    void* parts;
    const Status status = gpu.scratch(static_cast<size_t>(tiles * choice.parts * c.features * c.tokens) * 4, &parts);
    if (!status.ok()) return status;
    o.split = {static_cast<uint8_t*>(parts), gpu.counters()};
  }
  Launcher launcher{gpu, "matmul", {}};
  kernels().launches[static_cast<size_t>(choice.config - kernels().configs.data())](launcher, o);
  return launcher.status;
}

Status multiply(Gpu& gpu, const Problem& p) {
  const int64_t m = p.w.shape[0], n = p.x.shape[0], k = p.w.shape[1];
  const int64_t padded = padded_row(p.w.dtype, k);
  if (m >= 1 << 30 || n >= 1 << 30 || padded >= 1 << 28) return too_many("matmul", m * n);
  const void *w, *x;
  Status status = as_rows(gpu, p.w, padded, p.packed, &w);
  if (status.ok()) status = as_rows(gpu, p.x, padded, false, &x);
  if (!status.ok()) return status;
  const bool fused = is_fused(p.activation);
  const bool direct = contiguous(p.out) && aligned16(p.out.data) && (fused || p.out.dtype == DType::float32_);
  View result = p.out;
  if (!direct) {
    const DType type = fused ? p.out.dtype : DType::float32_;
    void* memory;
    status = gpu.scratch(static_cast<size_t>(n * m * element_bytes(type)), &memory);
    if (!status.ok()) return status;
    result = matrix(memory, type, n, m, m, 1);
  }
  status = run_kernel(gpu, p, result.dtype, result.data, fused ? p.activation : Activation::none, w, x, static_cast<int>(padded));
  if (status.ok() && !fused) status = activate(gpu, p.activation, result);
  return status.ok() && !direct ? copy(gpu, p.out, result) : status;
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
  const void* bias_row = data_of<float>(bias);
  if (bias_row && !aligned16(bias_row)) {
    Status status = as_rows(gpu, matrix(bias.data, DType::float32_, 1, m, m, 1), m, false, &bias_row);
    if (!status.ok()) return status;
  }
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
    p.bias = static_cast<const float*>(bias_row);
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
