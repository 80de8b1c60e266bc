// The drivers sppack and spmatmul: float activations times sparse weights.
#include "../core/debug.h"
#include "ops.h"
#include "targets.h"

namespace kerf::ops {
namespace {

constexpr i64 kMost = 0x7fffffff;  // what an int32 index holds

Status no_sparse() { return Status::error(Code::unsupported, "no kernel for sparse weights on %s", kernels().target); }

bool vector_of(const View& v, DType dtype) { return v.dtype == dtype && v.rank == 1 && contiguous(v); }

}  // namespace

Status sppack(Stream& stream, View packed, View values, View pointers, View columns, i64 k, i64 steps) {
  const SpMatmulCell& cell = kernels().spmatmul;
  const SpMatmulFewCell& few = kernels().spmatmul_few;
  if (!cell.run || (steps >= 0 && !few.run)) return no_sparse();
  REQUIRE(vector_of(values, DType::float32_) && vector_of(pointers, DType::int32_) && vector_of(columns, DType::int32_));
  REQUIRE(pointers.shape[0] >= 1 && values.shape[0] == columns.shape[0] && values.shape[0] <= kMost && k >= 0 && k <= kMost);
  CsrMatrix w;
  w.n = pointers.shape[0] - 1;
  w.k = k;
  w.count = values.shape[0];
  w.pointers = static_cast<const int32_t*>(pointers.data);
  w.columns = static_cast<const int32_t*>(columns.data);
  w.values = static_cast<const float*>(values.data);
  REQUIRE(countable(w.n, k) && steps >= -1 && steps <= w.count);
  REQUIRE(holds_packed(packed, steps < 0 ? cell.packed_bytes(w.n, k, w.count) : few.packed_bytes(w.n, k, steps)));
  return stream.run(static_cast<double>(w.count) * 3 + static_cast<double>(w.n), [cell, few, w, steps, to = packed.data] {
    if (!(steps < 0 ? cell.pack(to, w) : few.pack(to, w, steps))) Stream::fail(Code::range, "sppack: pointers or columns are not those of a CSR matrix");
  });
}

Status spmatmul(Stream& stream, View out, View a, View packed, OptView bias, i64 activation, i64 count, i64 few) {
  const SpMatmulCell& cell = kernels().spmatmul;
  const SpMatmulFewCell& few_cell = kernels().spmatmul_few;
  if (!cell.run || (few && !few_cell.run)) return no_sparse();
  REQUIRE(out.rank == 2 && a.rank == 2 && a.shape[0] == out.shape[0] && is_floating(a.dtype));
  REQUIRE(out.dtype == a.dtype || out.dtype == DType::float32_);
  REQUIRE(activation >= 0 && activation <= static_cast<i64>(Activation::tanh));
  SparseProblem p;
  p.m = out.shape[0];
  p.n = out.shape[1];
  p.k = a.shape[1];
  p.count = count;
  REQUIRE(countable(p.k, p.n) && countable(p.m, p.k) && p.k <= kMost && p.n <= kMost && count >= 0 && count <= kMost);
  REQUIRE((p.k <= 1 || a.stride[1] == 1) && (p.n <= 1 || out.stride[1] == 1));
  p.a = a.data;
  p.a_type = a.dtype;
  p.a_row = a.stride[0];
  REQUIRE(holds_packed(packed, few ? few_cell.packed_bytes(p.n, p.k, count) : cell.packed_bytes(p.n, p.k, count)));
  p.packed = packed.data;
  p.c = out.data;
  p.c_row = out.stride[0];
  p.c_type = out.dtype;
  REQUIRE(holds_bias(bias, p.n));
  p.bias = data_of<float>(bias);
  p.activation = static_cast<Activation>(activation);
  const double m = static_cast<double>(p.m), n = static_cast<double>(p.n), k = static_cast<double>(p.k);
  const double ns = 200 + static_cast<double>(count) * (1 + m / 32) / 2 + m * (n + k) / 4;
  const char* name = few ? few_cell.name : cell.name;
  auto* run = few ? few_cell.run : cell.run;
  const double flops = 2 * m * static_cast<double>(count) * (few ? 16 : 1);
  return stream.run(ns, [name, run, flops, p] {
    debug_kernel(name, flops);
    if (!run(p)) Stream::fail(Code::out_of_memory, "spmatmul: out of memory for scratch, or packed is not what sppack wrote");
  });
}

}  // namespace kerf::ops
