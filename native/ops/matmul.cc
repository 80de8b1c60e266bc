// The drivers matmul, matmulPacked and pack: batch axes and layouts are normalised here, once for all targets; a cell
// sees one product at a time.
#include <cstdint>
#include "../core/debug.h"
#include "../core/pool.h"
#include "../core/stream.h"
#include "ops.h"
#include "targets.h"

namespace kerf::ops {
namespace {

// out[batch][m, n] = a[batch][m, k] b[batch][k, n], with the batch axes that remain after folding.
struct Batched {
  MatmulProblem product;  // of batch 0
  int32_t axes;
  int64_t shape[kMaxRank];
  int64_t step_out[kMaxRank], step_a[kMaxRank], step_b[kMaxRank];
  int64_t bytes_out, bytes_in;

  int64_t batches() const {
    int64_t n = 1;
    for (int i = 0; i < axes; i++) n *= shape[i];
    return n;
  }

  MatmulProblem at(int64_t index) const {
    MatmulProblem p = product;
    int64_t out = 0, a = 0, b = 0;
    for (int i = axes - 1; i >= 0; i--) {
      const int64_t position = index % shape[i];
      index /= shape[i];
      out += position * step_out[i];
      a += position * step_a[i];
      b += position * step_b[i];
    }
    p.c = static_cast<char*>(p.c) + out * bytes_out;
    p.a = static_cast<const char*>(p.a) + a * bytes_in;
    if (p.b) p.b = static_cast<const char*>(p.b) + b * bytes_in;
    return p;
  }
};

// One core's time: arithmetic at a rate that every dtype reaches, and the bytes of B and C once.
double expected_ns(const Batched& x) {
  const MatmulProblem& p = x.product;
  const double m = static_cast<double>(p.m), n = static_cast<double>(p.n), k = static_cast<double>(p.k);
  const double bytes = (m * k + k * n) * static_cast<double>(x.bytes_in) + m * n * static_cast<double>(x.bytes_out);
  return static_cast<double>(x.batches()) * (100 + 2 * m * n * k / 180 + bytes / 40);
}

// Batch axes whose B is shared are more rows of A, if rows continue evenly across them: one large product, not many.
void fold_rows(Batched& x) {
  MatmulProblem& p = x.product;
  while (x.axes > 0) {
    const int last = x.axes - 1;
    const bool shared_b = x.step_b[last] == 0;
    const bool even = x.step_out[last] == p.m * p.c_row && x.step_a[last] == p.m * p.a_row;
    if (p.m == 1 && shared_b) {
      p.a_row = x.step_a[last];
      p.c_row = x.step_out[last];
    } else if (!shared_b || !even) {
      return;
    }
    p.m *= x.shape[last];
    x.axes = last;
  }
}

void run_batches(const MatmulCell& cell, const Batched& x) {
  const int64_t batches = x.batches();
  const MatmulProblem& p = x.product;
  debug_kernel(cell.name, 2.0 * static_cast<double>(batches * p.m * p.n) * static_cast<double>(p.k));
  int32_t failed = 0;
  auto one = [&](int64_t i) {
    if (!cell.run(x.at(i))) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
  };
  // Whole products per thread when there are enough of them; otherwise each product is split inside.
  constexpr double kParallelNs = 30'000;
  const int64_t threads = batches > 1 && expected_ns(x) > kParallelNs ? pool_threads() : 1;
  if (threads > 1 && batches >= 2 * threads) {
    const int64_t tasks = batches < 8 * threads ? batches : 8 * threads;
    parallel(tasks, [&](int64_t task) {
      for (int64_t i = task * batches / tasks; i < (task + 1) * batches / tasks; i++) one(i);
    });
  } else {
    for (int64_t i = 0; i < batches; i++) one(i);
  }
  if (failed) Stream::fail(Code::out_of_memory, "matmul: out of memory for scratch");
}

Status run_matmul(Stream& stream, const View& out, const View& a, const View* b, const View* packed,
                  const OptView& bias, i64 activation) {
  const int rank = out.rank;
  REQUIRE(rank >= 2 && a.rank == rank);
  REQUIRE(activation >= 0 && activation <= static_cast<i64>(Activation::tanh));
  REQUIRE(out.dtype == a.dtype || out.dtype == DType::float32_);
  const MatmulCell& cell = kernels().matmul[static_cast<int>(a.dtype)];
  if (!cell.run) return Status::error(Code::unsupported, "no kernel for this dtype on %s", kernels().target);

  Batched x;
  MatmulProblem& p = x.product;
  p.m = out.shape[rank - 2];
  p.n = out.shape[rank - 1];
  p.k = a.shape[rank - 1];
  REQUIRE(a.shape[rank - 2] == p.m && countable(p.k, p.n) && countable(p.m, p.k));
  REQUIRE(p.n <= 1 || out.stride[rank - 1] == 1);
  p.a = a.data;
  p.a_row = a.stride[rank - 2];
  p.a_col = a.stride[rank - 1];
  p.c = out.data;
  p.c_row = out.stride[rank - 2];
  p.c_type = out.dtype;
  p.activation = static_cast<Activation>(activation);
  p.b = p.packed = nullptr;
  p.b_row = p.b_col = 0;
  if (b) {
    REQUIRE(b->rank == rank && b->dtype == a.dtype);
    REQUIRE(b->shape[rank - 2] == p.k && b->shape[rank - 1] == p.n);
    p.b = b->data;
    p.b_row = b->stride[rank - 2];
    p.b_col = b->stride[rank - 1];
  } else {
    REQUIRE(holds_packed(*packed, cell.packed_bytes(p.k, p.n)));
    p.packed = packed->data;
  }
  REQUIRE(holds_bias(bias, p.n));
  p.bias = data_of<float>(bias);
  x.bytes_in = element_bytes(a.dtype);
  x.bytes_out = element_bytes(out.dtype);
  x.axes = 0;
  for (int i = 0; i < rank - 2; i++) {
    REQUIRE(a.shape[i] == out.shape[i] && (!b || b->shape[i] == out.shape[i]));
    if (out.shape[i] == 1) continue;
    x.shape[x.axes] = out.shape[i];
    x.step_out[x.axes] = out.stride[i];
    x.step_a[x.axes] = a.stride[i];
    x.step_b[x.axes] = b ? b->stride[i] : 0;
    x.axes++;
  }
  fold_rows(x);
  return stream.run(expected_ns(x), [cell, x] { run_batches(cell, x); });
}

}  // namespace

Status matmul(Stream& stream, View out, View a, View b, OptView bias, i64 activation) {
  return run_matmul(stream, out, a, &b, nullptr, bias, activation);
}

Status matmulPacked(Stream& stream, View out, View a, View packed, OptView bias, i64 activation) {
  return run_matmul(stream, out, a, nullptr, &packed, bias, activation);
}

Status pack(Stream& stream, View packed, View b) {
  const MatmulCell& cell = kernels().matmul[static_cast<int>(b.dtype)];
  if (!cell.run) return Status::error(Code::unsupported, "no kernel for this dtype on %s", kernels().target);
  REQUIRE(b.rank == 2 && countable(b.shape[0], b.shape[1]));
  const int64_t bytes = cell.packed_bytes(b.shape[0], b.shape[1]);
  REQUIRE(holds_packed(packed, bytes));
  return stream.run(static_cast<double>(bytes) / 5, [cell, packed, b] {
    cell.pack(packed.data, b.data, b.shape[0], b.shape[1], b.stride[0], b.stride[1]);
  });
}

}  // namespace kerf::ops
