// The drivers sppack, spmatmul, spqmatmul and spconv2d: activations and patches times sparse weights.
#include "../core/byte_contracts.h"
#include "../core/debug.h"
#include "../core/sparse_contracts.h"
#include "ops.h"
#include "targets.h"

namespace kerf::ops {
namespace {

Status no_sparse() { return Status::error(Code::unsupported, "no such kernel for sparse weights on %s", kernels().target); }

// The cell of a form for weights of a float dtype, or of int8; or null.
const SparseCell<SparseProblem>* cell_of(DType weights, i64 form) {
  if (form < 0 || form >= kForms || !is_floating(weights)) return nullptr;
  const auto& cell = kernels().spmatmul[form][static_cast<int>(weights)];
  return cell.run ? &cell : nullptr;
}

const SparseCell<SparseBytesProblem>* byte_cell_of(i64 form) {
  return form >= 0 && form < kByteForms && kernels().spqmatmul[form].run ? kernels().spqmatmul + form : nullptr;
}

template <class Cell>
Status pack(Stream& stream, const Cell* cell, const View& packed, const CsrMatrix& w, i64 count) {
  if (!cell) return no_sparse();
  REQUIRE(holds_packed(packed, cell->packed_bytes(w.n, w.k, count)));
  return stream.run(static_cast<double>(w.count) * 3 + static_cast<double>(w.n), [run = cell->pack, w, count, to = packed.data] {
    if (!run(to, w, count)) Stream::fail(Code::range, "sppack: pointers or columns are not those of a CSR matrix of this form");
  });
}

}  // namespace

Status sppack(Stream& stream, View packed, View values, View pointers, View columns, i64 k, i64 form, i64 count) {
  CsrMatrix w;
  REQUIRE(describe_csr(values, pointers, columns, k, w) && count >= 0 && count <= w.count);
  if (values.dtype == DType::int8_) return pack(stream, byte_cell_of(form), packed, w, count);
  return pack(stream, cell_of(values.dtype, form), packed, w, count);
}

Status spmatmul(Stream& stream, View out, View a, View packed, OptView bias, i64 activation, i64 weights, i64 form, i64 count) {
  REQUIRE(weights >= 0 && weights <= static_cast<i64>(DType::bfloat16_));
  const auto* cell = cell_of(static_cast<DType>(weights), form);
  if (!cell) return no_sparse();
  SparseProblem p;
  REQUIRE(describe_sparse(out, a, bias, activation, count, p));
  REQUIRE(holds_packed(packed, cell->packed_bytes(p.n, p.k, count)));
  p.packed = packed.data;
  const double m = static_cast<double>(p.m), n = static_cast<double>(p.n), k = static_cast<double>(p.k);
  const double ns = 200 + static_cast<double>(count) * (1 + m / 32) / 2 + m * (n + k) / 4;
  return stream.run(ns, [name = cell->name, run = cell->run, p] {
    debug_kernel(name, 2.0 * static_cast<double>(p.m) * static_cast<double>(p.count));
    if (!run(p)) Stream::fail(Code::out_of_memory, "spmatmul: out of memory for scratch, or packed is not what sppack wrote");
  });
}

Status spqmatmul(Stream& stream, View out, View a, i64 quantize, OptView a_scale, OptView a_zero, OptView a_multiplier,
                 View packed, OptView b_scale, OptView bias, i64 activation, i64 form, i64 count) {
  const auto* cell = byte_cell_of(form);
  if (!cell) return no_sparse();
  SparseBytesProblem p;
  const Status described = describe_product(p, out, a, quantize, a_scale, a_zero, a_multiplier, b_scale, bias, activation);
  if (!described.ok()) return described;
  REQUIRE(out.dtype == DType::int32_ || is_floating(out.dtype));
  REQUIRE(p.k <= kMostIndex && p.n <= kMostIndex && is_sparse_count(count));
  p.count = count;
  REQUIRE(holds_packed(packed, cell->packed_bytes(p.n, p.k, count)));
  p.packed = packed.data;
  const double m = static_cast<double>(p.m), n = static_cast<double>(p.n), k = static_cast<double>(p.k);
  const double ns = 200 + static_cast<double>(count) * (1 + m / 4) / 2 + m * (n + k) / 4;
  return stream.run(ns, [name = cell->name, run = cell->run, p] {
    debug_kernel(name, 2.0 * static_cast<double>(p.m) * static_cast<double>(p.count));
    if (!run(p)) Stream::fail(Code::out_of_memory, "spqmatmul: out of memory for scratch, or packed is not what sppack wrote");
  });
}

Status spconv2d(Stream& stream, View out, View x, View packed, OptView bias, i64 activation, i64 count, i64 kernelH, i64 kernelW,
                i64 strideH, i64 strideW, i64 padH, i64 padW, i64 dilationH, i64 dilationW) {
  if (!is_floating(x.dtype)) return no_sparse();
  const SparseConvCell& cell = kernels().spconv2d[static_cast<int>(x.dtype)];
  const auto* weights = cell_of(DType::float32_, kFormBlocks);
  if (!cell.run || !weights) return no_sparse();
  SparseConvProblem p;
  i64 taps;
  const Geometry geometry{1, strideH, strideW, padH, padW, dilationH, dilationW, 1, 1};
  REQUIRE(describe_sparse_conv(out, x, bias, activation, count, kernelH, kernelW, geometry, p, taps));
  const i64 outputs = p.shape.out_channels;
  REQUIRE(holds_packed(packed, weights->packed_bytes(outputs, taps, count)));
  p.weight = packed.data;
  const double pixels = static_cast<double>(p.shape.images) * static_cast<double>(p.shape.out_h * p.shape.out_w);
  const double ns = 500 + pixels * static_cast<double>(count + taps + outputs) / 16;
  return stream.run(ns, [name = cell.name, run = cell.run, p, pixels] {
    debug_kernel(name, 16.0 * pixels * static_cast<double>(p.count));
    if (!run(p)) Stream::fail(Code::out_of_memory, "spconv2d: out of memory for scratch, or packed is not what sppack wrote");
  });
}

}  // namespace kerf::ops
