// sppack, spmatmul, spqmatmul, spconv2d: weights of any sparse format as CSR, their values float32 (int8 ones stay int8, for bytes by
// bytes); 2:4 ones for the sparse tensor cores are those of pairs.cu.
#include "../sparse.cuh"

#include "../../core/sparse_contracts.h"
#include "activate.h"
#include "conv_limits.h"
#include "pairs.h"

namespace kerf {
namespace cuda {
namespace ops {
namespace {

View vector(const void* data, DType dtype, int64_t n) {
  View v{};
  v.data = const_cast<void*>(data);
  v.dtype = dtype;
  v.rank = 1;
  v.shape[0] = n;
  v.stride[0] = 1;
  return v;
}

template <class Value>
Status pack_as(Gpu& gpu, const View& packed, const View& values, const CsrMatrix& w, DType stored) {
  REQUIRE(holds_packed(packed, SparseRows<Value>::bytes(w.n, w.count)));
  const SparseRows<Value> to(packed.data, w.n, w.k, w.count);
  Status status = copy(gpu, vector(to.pointers, DType::int32_, w.n + 1), vector(w.pointers, DType::int32_, w.n + 1));
  if (status.ok()) status = copy(gpu, vector(to.columns, DType::int32_, w.count), vector(w.columns, DType::int32_, w.count));
  if (status.ok()) status = copy(gpu, vector(to.values, stored, w.count), values);
  return status;
}

// What else is read of CSR is checked here, in the background.
Status check(Gpu& gpu, const CsrMatrix& w) {
  if (!fits(w.n + 1)) return too_many("sppack", w.n);
  const int64_t threads = (w.n + 1) * 32;
  const auto n = static_cast<uint32_t>(w.n);
  const int64_t k = w.k, count = w.count;
  const int32_t *const pointers = w.pointers, *const columns = w.columns;
  const Fault fault = gpu.may_fail("sppack: pointers or columns are not those of a CSR matrix of %lld columns: row %%llu",
                                   static_cast<long long>(w.k));
  CU_LAUNCH((check_csr<int32_t>), blocks_for(threads), threads_for(threads), 0, gpu.stream(), n, k, count, pointers, columns, fault);
  return gpu.launched("sppack");
}

// Of rows of W and lanes: tokens, pixels.
uint32_t tiles_of(int64_t rows, int64_t lanes) {
  const auto tiles = [](int64_t n) { return (n + kSparseTile - 1) / kSparseTile; };
  return static_cast<uint32_t>(tiles(rows) * tiles(lanes));
}

// Calls body(x, out) with the dtypes as types: out's is x's, or float32.
template <class Body>
Status with_sums(const char* op, const View& x, const View& out, Body&& body) {
  return with_floats(op, x.dtype, [&](auto of_x) {
    using X = decltype(of_x);
    using F32 = Floats<Floating<DType::float32_>>;
    return out.dtype == DType::float32_ ? body(X{x.data}, F32{out.data}) : body(X{x.data}, X{out.data});
  });
}

// Calls body(x, out) with the dtypes as types: x is int8, out int32 or a float dtype.
template <class Body>
Status with_byte_sums(const View& x, const View& out, Body&& body) {
  if (out.dtype == DType::int32_) return body(SignedBytes{x.data}, Integers{out.data, out.dtype});
  return with_floats("spqmatmul", out.dtype, [&](auto to) { return body(SignedBytes{x.data}, decltype(to){out.data}); });
}

// x [token][k] by w. `with` is with_sums or with_byte_sums.
template <class Value, class Finisher, class With>
Status multiply(Gpu& gpu, const char* op, const View& out, const View& x, const SparseRows<Value>& w, const Finisher& finish, With&& with) {
  const auto tokens = static_cast<uint32_t>(out.shape[0]);
  const int64_t x_row = x.stride[0], out_row = out.stride[0];
  if (tokens <= kFewTokens) {
    const int64_t threads = static_cast<int64_t>(w.n) * 32;
    return with(x, out, [&](auto from, auto to) {
      using X = decltype(from);
      using Out = decltype(to);
      CU_LAUNCH((spmatmul_few<Value, Out, X, Finisher>), blocks_for(threads), threads_for(threads), 0, gpu.stream(), w, tokens, from, x_row,
                to, out_row, finish);
      return gpu.launched(op);
    });
  }
  void* memory;
  Status status = gpu.scratch(static_cast<size_t>(count(x)) * element_bytes(x.dtype) + 16, &memory);
  if (!status.ok()) return status;
  View turned = x;  // [k][tokens]
  turned.shape[0] = x.shape[1], turned.shape[1] = x.shape[0];
  View rows = turned;
  rows.stride[0] = x.stride[1], rows.stride[1] = x.stride[0];
  turned = contiguous_view(memory, x.dtype, turned);
  status = copy(gpu, turned, rows);
  if (!status.ok()) return status;
  const uint32_t tiles = tiles_of(w.n, tokens);
  return with(turned, out, [&](auto from, auto to) {
    using X = decltype(from);
    using Out = decltype(to);
    CU_LAUNCH((spmatmul_tiles<Value, Out, X, Finisher>), row_blocks(tiles), dim3(kSparseThreads), kSparseSharedBytes, gpu.stream(), tiles, w, tokens, from,
              to, out_row, finish);
    return gpu.launched(op);
  });
}

Status convolve(Gpu& gpu, const View& out, const View& x, const ConvShape& s, const SparseRows<float>& w, const Finish& finish) {
  SparseImages images;
  images.pixels = static_cast<uint32_t>(s.images * s.out_h * s.out_w);
  images.channels = static_cast<uint32_t>(s.channels);
  images.in_h = static_cast<int>(s.in_h), images.in_w = static_cast<int>(s.in_w);
  images.stride_h = static_cast<int>(s.stride_h), images.stride_w = static_cast<int>(s.stride_w);
  images.pad_h = static_cast<int>(s.pad_h), images.pad_w = static_cast<int>(s.pad_w);
  images.dilation_h = static_cast<int>(s.dilation_h), images.dilation_w = static_cast<int>(s.dilation_w);
  images.by_area = Divisor::of(s.out_h * s.out_w);
  images.by_width = Divisor::of(s.out_w);
  images.by_taps = Divisor::of(s.kernel_h * s.kernel_w);
  images.by_taps_w = Divisor::of(s.kernel_w);
  const uint32_t tiles = tiles_of(w.n, images.pixels);
  return with_sums("spconv2d", x, out, [&](auto from, auto to) {
    using X = decltype(from);
    using Out = decltype(to);
    CU_LAUNCH((spconv_tiles<Out, X>), row_blocks(tiles), dim3(kSparseThreads), 0, gpu.stream(), tiles, w, images, from, to, finish);
    return gpu.launched("spconv2d");
  });
}

}  // namespace

Status sppack(Gpu& gpu, View packed, View values, View pointers, View columns, i64 k, i64 form, i64 count) {
  CsrMatrix w;
  REQUIRE(describe_csr(values, pointers, columns, k, w) && (form == kCsrForm || is_pairs(form)) && count == w.count);
  const Status status = check(gpu, w);
  if (!status.ok()) return status;
  if (is_pairs(form)) return pack_pairs(gpu, packed, w, values.dtype, form);
  if (values.dtype == DType::int8_) return pack_as<int8_t>(gpu, packed, values, w, DType::int8_);
  return pack_as<float>(gpu, packed, values, w, DType::float32_);
}

Status spmatmul(Gpu& gpu, View out, View a, View packed, OptView bias, i64 activation, i64 weights, i64 form, i64 non_zeros) {
  SparseProblem p;
  REQUIRE(describe_sparse(out, a, bias, activation, non_zeros, p) && (form == kCsrForm || is_pairs(form)));
  REQUIRE(weights >= 0 && weights <= static_cast<i64>(DType::bfloat16_) && is_floating(static_cast<DType>(weights)));
  if (is_pairs(form)) return count(out) == 0 ? Status{} : multiply_pairs(gpu, out, a, packed, p, static_cast<DType>(weights), form);
  REQUIRE(holds_packed(packed, SparseRows<float>::bytes(p.n, non_zeros)));
  if (count(out) == 0) return Status{};
  if (!fits(count(out)) || !fits(count(a))) return too_many("spmatmul", fits(count(a)) ? count(out) : count(a));
  const SparseRows<float> w(packed.data, p.n, p.k, non_zeros);
  const auto with = [](const View& x, const View& to, auto body) { return with_sums("spmatmul", x, to, body); };
  return with_activation(gpu, out, p.activation, [&](const View& sums, Activation fused) {
    return multiply(gpu, "spmatmul", sums, a, w, FinishFloats{{p.bias, fused}}, with);
  });
}

Status spqmatmul(Gpu& gpu, View out, View a, i64 quantize, OptView a_scale, OptView a_zero, OptView a_multiplier, View packed,
                 OptView b_scale, OptView bias, i64 activation, i64 form, i64 non_zeros) {
  QMatmulProblem p;
  Status status = describe_product(p, out, a, quantize, a_scale, a_zero, a_multiplier, b_scale, bias, activation);
  if (!status.ok()) return status;
  REQUIRE((out.dtype == DType::int32_ || is_floating(out.dtype)) && p.k <= kMostIndex && p.n <= kMostIndex && is_sparse_count(non_zeros));
  REQUIRE(form == kCsrForm || is_pairs(form));
  if (count(out) == 0) return Status{};
  if (is_pairs(form)) return multiply_byte_pairs(gpu, out, packed, p, form);
  REQUIRE(holds_packed(packed, SparseRows<int8_t>::bytes(p.n, non_zeros)));
  const int64_t padded = PackedBytes(p.k, 0).padded;
  if (!fits(count(out)) || !fits(p.m * padded)) return too_many("spqmatmul", fits(count(out)) ? p.m * padded : count(out));
  const SparseRows<int8_t> w(packed.data, p.n, p.k, non_zeros);
  Tokens tokens{};
  status = lay_tokens(gpu, "spqmatmul", p, padded, false, &tokens);
  if (!status.ok()) return status;
  View x = a;
  x.data = const_cast<uint8_t*>(tokens.rows);
  x.dtype = DType::int8_;
  x.stride[0] = padded, x.stride[1] = 1;
  return with_activation(gpu, out, p.activation, [&](const View& sums, Activation fused) {
    const FinishBytes finish{p.b_scale, p.a_scale, p.bias, p.a_zero, p.b_scale_step == 0, p.a_step == 0, tokens.shift, fused};
    return multiply(gpu, "spqmatmul", sums, x, w, finish, [](const View& from, const View& to, auto body) { return with_byte_sums(from, to, body); });
  });
}

Status spconv2d(Gpu& gpu, View out, View x, View packed, OptView bias, i64 activation, i64 non_zeros, i64 kernelH, i64 kernelW, i64 strideH,
                i64 strideW, i64 padH, i64 padW, i64 dilationH, i64 dilationW) {
  SparseConvProblem p;
  i64 taps;
  const Geometry geometry{1, strideH, strideW, padH, padW, dilationH, dilationW, 1, 1};
  REQUIRE(describe_sparse_conv(out, x, bias, activation, non_zeros, kernelH, kernelW, geometry, p, taps));
  REQUIRE(holds_packed(packed, SparseRows<float>::bytes(p.shape.out_channels, non_zeros)));
  if (count(out) == 0) return Status{};
  if (!countable_conv(p.shape, x.dtype) || !fits(count(out))) return too_many("spconv2d", count(out));
  const SparseRows<float> w(packed.data, p.shape.out_channels, taps, non_zeros);
  return with_activation(gpu, out, p.activation, [&](const View& sums, Activation fused) {
    return convolve(gpu, sums, x, p.shape, w, Finish{p.bias, fused});
  });
}

}  // namespace ops
}  // namespace cuda
}  // namespace kerf
